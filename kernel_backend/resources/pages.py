"""Contents of private memory: which pages hold something, writing them out, filling them in.

Two ways out. A twin writes its own memory with injected pwritev(2): one copy, at the page cache's speed. Where there
is no twin (the process stays stopped while we write, or may not fork) we read it from outside. On the way in the new
process reads its pages itself (preadv; large runs: placing.py), or maps them from the image file (lazy).
"""

from __future__ import annotations

import bisect
import errno
import mmap
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from blake3 import blake3

from kernel_backend.abi import linux
from kernel_backend.errors import EngineError, NoRoom
from kernel_backend.host import libc
from kernel_backend.image.entries import PageRun
from kernel_backend.image.writer import no_room
from kernel_backend.resources.memory import Layout
from kernel_backend.resources.placing import place_large
from kernel_backend.tracee.courier import courier
from kernel_backend.tracee.inject import Call, Workshop
from kernel_backend.tracee.twin import Twin

BATCH_BYTES = 64 << 20
IOV_MAX = 1024
IOV_BYTES = 16


def pages_name(pid: int) -> str:
    """The file in the image folder that holds a process's pages."""
    return f"pages-{pid}.img"


# --- which pages ------------------------------------------------------------------------------------------------------


class Scan(NamedTuple):
    """What the page tables of a process say: ranges [start, end) by address."""

    runs: list[tuple[int, int]]  # private pages that must be saved
    guards: list[tuple[int, int]]  # where touching is a fault (MADV_GUARD_INSTALL)


def scan(pid: int, layout: Layout, only: set[int] | None = None) -> Scan:
    """Look through the page tables of `pid`, which may be the process or its twin.

    `only`: indices of the mappings whose pages are wanted, all unless given.
    """
    fd = os.open(f"/proc/{pid}/pagemap", os.O_RDONLY | os.O_CLOEXEC)
    try:
        populated, guards = _populated(fd, layout)
    finally:
        os.close(fd)
    runs: list[tuple[int, int]] = []
    starts = [start for start, _ in populated]
    for index, vma in enumerate(layout.vmas):
        unwanted = not vma.private or vma.droppable or vma.kind in ("vdso", "vvar")
        if unwanted or (only is not None and index not in only):
            continue
        if index in layout.whole:
            runs.append((vma.start, vma.end))
            continue
        at = max(0, bisect.bisect_right(starts, vma.start) - 1)
        while at < len(populated) and populated[at][0] < vma.end:
            low, high = max(populated[at][0], vma.start), min(populated[at][1], vma.end)
            if low < high:
                runs.append((low, high))
            at += 1
    return Scan(runs, guards)


def guards(pid: int) -> list[tuple[int, int]]:
    """Where touching is a fault (MADV_GUARD_INSTALL), in all memory of a process; [start, end) by address."""
    with Path(f"/proc/{pid}/pagemap").open("rb", buffering=0) as file:
        try:
            found = libc.pagemap_scan(file.fileno(), 0, linux.TASK_SIZE, mask=linux.PAGE_IS_GUARD)
        except OSError as error:
            if error.errno not in (errno.ENOTTY, errno.EINVAL):
                raise
            return []  # before OS kernel 6.15 nobody can see them
    return [(low, high) for low, high, _ in found]


def _populated(fd: int, layout: Layout) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Runs of pages that are the process's own (in memory or swapped, not the zero page, not the file's); guards."""
    unwanted = linux.PAGE_IS_PFNZERO | linux.PAGE_IS_FILE
    kept = linux.PAGE_IS_PRESENT | linux.PAGE_IS_SWAPPED
    for told in (linux.PAGE_IS_GUARD, 0):  # before OS kernel 6.15 there is no such category
        try:
            found = libc.pagemap_scan(fd, 0, linux.TASK_SIZE, mask=unwanted, inverted=unwanted, any_of=kept, told=told)
        except OSError as error:
            if error.errno not in (errno.ENOTTY, errno.EINVAL):
                raise
            continue
        pages = [(low, high) for low, high, categories in found if not categories]
        return pages, [(low, high) for low, high, categories in found if categories]
    return list(_populated_by_words(fd, layout)), []


def _populated_by_words(fd: int, layout: Layout) -> Iterator[tuple[int, int]]:
    """The same by reading /proc/PID/pagemap, for OS kernels before 6.7."""
    for vma in layout.vmas:
        start = -1
        for at in range(vma.start, vma.end, BATCH_BYTES):
            for i, word in enumerate(libc.pagemap_words(fd, at, min(at + BATCH_BYTES, vma.end))):
                mine = bool(word & (linux.PM_PRESENT | linux.PM_SWAPPED)) and not word & linux.PM_FILE_OR_SHARED
                here = at + i * linux.PAGE_SIZE
                if mine and start < 0:
                    start = here
                elif not mine and start >= 0:
                    yield start, here
                    start = -1
        if start >= 0:
            yield start, vma.end


_NOT_FORKED = {linux.MADV_DONTFORK, linux.MADV_WIPEONFORK}


def not_forked(layout: Layout) -> set[int]:
    """Indices of the mappings that a twin does not have, or has empty (madvise(2))."""
    return {i for i, vma in enumerate(layout.vmas) if vma.private and not _NOT_FORKED.isdisjoint(vma.advice)}


def read_not_forked(pid: int, layout: Layout) -> list[tuple[int, bytes]]:
    """(address, content) of what only the original can show; read while it is stopped."""
    runs, _ = scan(pid, layout, not_forked(layout))
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        return [(start, os.pread(memory.fileno(), end - start, start)) for start, end in runs]


def write_held(held: list[tuple[int, bytes]], runs: list[PageRun], fd: int) -> None:
    """Write contents that were read in the pause to the places that `runs` give them."""
    for (_, content), run in zip(held, runs, strict=True):
        _write_at(fd, content, run.offset)


def _write_at(fd: int, content: bytes, at: int) -> None:
    try:
        view = memoryview(content)
        while view:
            count = os.pwrite(fd, view, at)
            view, at = view[count:], at + count
    except OSError as error:
        raise no_room(error) from error


def place(runs: list[tuple[int, int]], offset: int = 0) -> list[PageRun]:
    """Give each run its offset in the pages file, one behind the other, from `offset` on."""
    placed = []
    for start, end in runs:
        placed.append(PageRun(start, end - start, offset))
        offset += end - start
    return placed


def total_bytes(runs: list[PageRun]) -> int:
    """Bytes of the pages file."""
    return runs[-1].offset + runs[-1].length if runs else 0


# --- out --------------------------------------------------------------------------------------------------------------


def _batches(runs: list[PageRun], limit: int = BATCH_BYTES) -> Iterator[list[PageRun]]:
    """Cut into batches of at most `limit` bytes and IOV_MAX pieces, each contiguous in the file."""
    batch: list[PageRun] = []
    size = 0
    for run in runs:
        at = 0
        if batch and batch[-1].offset + batch[-1].length != run.offset:
            yield batch
            batch, size = [], 0
        while at < run.length:
            piece = min(run.length - at, limit - size)
            batch.append(PageRun(run.address + at, piece, run.offset + at))
            at, size = at + piece, size + piece
            if size == limit or len(batch) == IOV_MAX:
                yield batch
                batch, size = [], 0
    if batch:
        yield batch


class Digester:
    """Hashes a file behind the writer, through the page cache."""

    def __init__(self, fd: int, size: int) -> None:
        self._hash = blake3(max_threads=1)
        self._map = mmap.mmap(fd, size, prot=mmap.PROT_READ) if size else None
        self._done = 0

    def advance(self, upto: int) -> None:
        """Hash what lies between the last call and `upto` (bytes)."""
        if self._map is not None and upto > self._done:
            with memoryview(self._map) as view:
                self._hash.update(view[self._done : upto])
            self._done = upto

    def finish(self) -> str:
        """The digest in hex."""
        if self._map is not None:
            self._map.close()
        return self._hash.hexdigest()


def write_from_twin(twin: Twin, runs: list[PageRun], unreadable: set[int], fd: int, size: int) -> str:
    """Make the twin write `runs` into our descriptor `fd`; the digest of the file of `size` bytes. Raises NoRoom."""
    shop = twin.workshop
    digester = Digester(fd, size)
    with courier(shop) as line:
        remote = line.send([fd])[0]
        for batch in _batches([run for run in runs if run.address not in unreadable]):
            table = _start_batch(shop, remote, batch)
            if not unreadable:
                digester.advance(batch[0].offset)  # the last batch, while the twin writes this one
            _finish_batch(shop, table, batch, twin.pid, fd)
    _copy_out(twin.pid, [run for run in runs if run.address in unreadable], fd)
    digester.advance(size)
    return digester.finish()


def _start_batch(shop: Workshop, remote: int, batch: list[PageRun]) -> list[Call]:
    vector = b"".join(struct.pack("<QQ", run.address, run.length) for run in batch)
    calls = [Call("pwritev", remote, shop.put(vector), len(batch), batch[0].offset, 0)]
    shop.start(calls, shop.thread, shop.address + shop.CODE_BYTES)
    return calls


def _finish_batch(shop: Workshop, calls: list[Call], batch: list[PageRun], pid: int, fd: int) -> None:
    """Wait for the twin's write; finish a short one from outside, where the reason shows itself."""
    wanted = sum(run.length for run in batch)
    try:
        written = shop.finish(calls, shop.thread, shop.address + shop.CODE_BYTES)[0]
    except OSError as error:
        problem = no_room(error)
        if isinstance(problem, NoRoom) and error.errno != errno.EFBIG:  # that is the twin's own limit (RLIMIT_FSIZE)
            raise problem from error
        written = 0
    if written < wanted:
        _copy_out(pid, batch, fd)


def _copy_out(pid: int, runs: list[PageRun], fd: int) -> None:
    """Read pages through /proc/PID/mem (which also reads what the process itself may not) and write them."""
    if not runs:
        return
    source = os.open(f"/proc/{pid}/mem", os.O_RDONLY | os.O_CLOEXEC)
    try:
        for batch in _batches(runs, 4 << 20):
            for run in batch:
                _copy_run(source, run, fd)
    finally:
        os.close(source)


def _copy_run(source: int, run: PageRun, fd: int) -> None:
    try:
        data = os.pread(source, run.length, run.address)
    except OSError:
        data = b"".join(_page_or_zeros(source, run.address + at) for at in range(0, run.length, linux.PAGE_SIZE))
    if len(data) < run.length:
        data += b"".join(
            _page_or_zeros(source, run.address + at) for at in range(len(data), run.length, linux.PAGE_SIZE)
        )
    _write_at(fd, data, run.offset)


def _page_or_zeros(source: int, address: int) -> bytes:
    """One page; zeros where the mapping has none to give (a file mapping beyond its end)."""
    try:
        return os.pread(source, linux.PAGE_SIZE, address).ljust(linux.PAGE_SIZE, b"\0")
    except OSError:
        return bytes(linux.PAGE_SIZE)


def write_from_outside(pid: int, runs: list[PageRun], fd: int, size: int) -> str:
    """Copy `runs` of a stopped process into `fd`; the digest of the file of `size` bytes."""
    _copy_out(pid, runs, fd)
    digester = Digester(fd, size)
    digester.advance(size)
    return digester.finish()


def unreadable_runs(layout: Layout, runs: list[PageRun]) -> set[int]:
    """Start addresses of runs that the process itself may not read (PROT_NONE with contents) or that may fault."""
    spans = iter(
        (vma.start, vma.end)
        for i, vma in enumerate(layout.vmas)  # in the order of addresses, as the runs are
        if not vma.prot & linux.PROT_READ or i in layout.fragile
    )
    low = high = 0
    found = set()
    for run in sorted(runs, key=lambda run: run.address):
        while high <= run.address and (span := next(spans, None)):
            low, high = span
        if low <= run.address < high:
            found.add(run.address)
    return found


# --- in ---------------------------------------------------------------------------------------------------------------


def fill(shop: Workshop, runs: list[PageRun], remote: int) -> None:
    """Make the new process read its pages from descriptor `remote` of its own."""
    placed = place_large(shop, runs, remote)
    runs = [run for run in runs if run.address not in placed]
    vector_room = IOV_MAX * IOV_BYTES
    calls: list[Call] = []
    expected: list[int] = []
    vectors = bytearray()
    for batch in _batches(runs, 1 << 30):
        if len(vectors) + vector_room > shop.data_bytes or len(calls) == shop.TABLE_ROWS:
            _fill_part(shop, vectors, calls, expected)
            calls, expected, vectors = [], [], bytearray()
        at = shop.data + len(vectors)
        vectors += b"".join(struct.pack("<QQ", run.address, run.length) for run in batch)
        calls.append(Call("preadv", remote, at, len(batch), batch[0].offset, 0))
        expected.append(sum(run.length for run in batch))
    _fill_part(shop, vectors, calls, expected)


def _fill_part(shop: Workshop, vectors: bytearray, calls: list[Call], expected: list[int]) -> None:
    if not calls:
        return
    shop.put(bytes(vectors))
    for got, wanted in zip(shop.run(calls), expected, strict=True):
        if got != wanted:
            raise EngineError(f"only {got} of {wanted} bytes of memory could be read from the image")
