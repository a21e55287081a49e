"""Lazy restore: large memory blocks are mapped from the image file and read when they are first touched.

A private mapping of a file is almost anonymous memory. Two things differ, and both matter to an allocator:

- after madvise(MADV_DONTNEED) it shows the file's bytes again, where anonymous memory shows zeros. Allocators rely on
  the zeros (glibc for the heaps of its threads, jemalloc and mimalloc everywhere);
- mremap(2) grows it into whatever follows in the file, or beyond its end, where touching it is a SIGBUS.

So only blocks are mapped of which we can prove that neither happens: those that glibc's malloc took straight from mmap,
which it returns by munmap alone. They are recognised by walking their headers from the start of a mapping (malloc.c:
prev_size 0, size with the IS_MMAPPED bit only, whole pages). The last page of each block is left anonymous: an mremap
over two mappings is refused by the OS kernel, upon which realloc allocates and copies. numpy arrays, bytes and big C
allocations are such blocks; the rest is read at once.

What has a name, or advice that an image's file would not follow (madvise(2)), is read; and so are small pieces: there
may be no more mappings than the OS kernel permits (vm.max_map_count).

The image file must stay as it is while such a process lives: it may be removed, never overwritten (which the store
never does). So nobody is made to depend on a file system that can go away (`can_stay`) unless that was asked for.
"""

from __future__ import annotations

import bisect
import os
import struct
from collections.abc import Iterator
from pathlib import Path

from kernel_backend.abi import linux
from kernel_backend.host import fds
from kernel_backend.image.entries import PageRun, ProcessEntry, VmaEntry
from kernel_backend.tracee.inject import Call

LEAST_BYTES = 1 << 20
MOST_PIECES = 2048
_IS_MMAPPED = 2
_FLAG_BITS = 7
_HEADER = struct.Struct("<QQ")
_HARMLESS_ADVICE = (linux.MADV_HUGEPAGE, linux.MADV_NOHUGEPAGE)
_LOCAL = {  # linux/magic.h, and what the file systems' own sources say
    0xEF53: "ext4", 0x58465342: "xfs", 0x9123683E: "btrfs", 0xF2F52010: "f2fs", 0x2FC12FC1: "zfs",
    0xCA451A4E: "bcachefs", 0x01021994: "tmpfs", 0x794C7630: "overlayfs",
}  # fmt: skip


def can_stay(folder: Path) -> bool:
    """Whether an image lies in a local file system, which does not go away while a process lives by it."""
    return fds.filesystem_magic(folder) in _LOCAL


def split(entry: ProcessEntry, pages_fd: int) -> tuple[list[PageRun], list[PageRun]]:
    """(runs to map, runs to read) of a process; `pages_fd` is our descriptor of its pages file."""
    blocks = sorted(set(_all_blocks(entry, pages_fd)))
    pieces = [piece for run in entry.pagemap for piece in _pieces(run, blocks)]
    mapped = sorted(sorted(pieces, key=lambda piece: -piece.length)[:MOST_PIECES], key=lambda piece: piece.address)
    return mapped, list(_without(entry.pagemap, mapped))


def _all_blocks(entry: ProcessEntry, pages_fd: int) -> Iterator[tuple[int, int]]:
    """The large blocks of a process: looked for where a mapping starts, and one page before.

    numpy advises huge pages for all of a block but its first page, so the OS kernel splits the mapping behind that.
    """
    span_end: dict[int, int] = {}  # start of a mapping → end of the run of eligible mappings it belongs to
    for vma in reversed(entry.vmas):
        if _usable(vma):
            span_end[vma.start] = span_end.get(vma.end, vma.end)
    ends = {vma.end for vma in entry.vmas if _usable(vma)}
    for vma in entry.vmas:
        if not _usable(vma) or vma.end - vma.start < LEAST_BYTES:
            continue
        blocks = list(_malloc_blocks(vma.start, span_end[vma.start], entry.pagemap, pages_fd))
        if not blocks and vma.start in ends:
            blocks = list(_malloc_blocks(vma.start - linux.PAGE_SIZE, span_end[vma.start], entry.pagemap, pages_fd))
        yield from blocks


def _usable(vma: VmaEntry) -> bool:
    special = vma.growsdown or vma.hugetlb or vma.locked or vma.droppable or vma.name or vma.served
    advised = any(value not in _HARMLESS_ADVICE for value in vma.advice)
    ordinary = vma.kind == "anon" and vma.private and not special and not advised
    return ordinary and vma.prot == linux.PROT_READ | linux.PROT_WRITE


def _malloc_blocks(at: int, limit: int, runs: list[PageRun], pages_fd: int) -> Iterator[tuple[int, int]]:
    """[start, end) of the large blocks that follow each other from `at`, without each one's last page."""
    while at < limit:
        turn = bisect.bisect_right(runs, at, key=lambda run: run.address) - 1
        if turn < 0 or at >= runs[turn].address + runs[turn].length:
            return
        where = runs[turn]
        previous, size = _HEADER.unpack(os.pread(pages_fd, _HEADER.size, where.offset + at - where.address))
        length = size & ~_FLAG_BITS
        if previous or size & _FLAG_BITS != _IS_MMAPPED or length % linux.PAGE_SIZE or not length:
            return
        if at + length > limit:
            return
        if length >= LEAST_BYTES:
            yield at, at + length - linux.PAGE_SIZE
        at += length


def _pieces(run: PageRun, blocks: list[tuple[int, int]]) -> Iterator[PageRun]:
    """The parts of a run that lie in blocks, but for small ones."""
    first = max(0, bisect.bisect_right(blocks, (run.address,)) - 1)
    for low, high in blocks[first:]:
        if low >= run.address + run.length:
            return
        low, high = max(low, run.address), min(high, run.address + run.length)
        if high - low >= LEAST_BYTES:
            yield _part(run, low, high)


def _without(runs: list[PageRun], mapped: list[PageRun]) -> Iterator[PageRun]:
    """What is left of the runs; both by address, and each piece lies in one run."""
    pieces = iter(mapped)
    piece = next(pieces, None)
    for run in runs:
        at, end = run.address, run.address + run.length
        while piece is not None and piece.address < end:
            if at < piece.address:
                yield _part(run, at, piece.address)
            at = piece.address + piece.length
            piece = next(pieces, None)
        if at < end:
            yield _part(run, at, end)


def _part(run: PageRun, low: int, high: int) -> PageRun:
    return PageRun(low, high - low, run.offset + low - run.address)


def map_calls(runs: list[PageRun], remote: int) -> list[Call]:
    """Map the runs from descriptor `remote` of the new process, over the anonymous memory that is there."""
    prot = linux.PROT_READ | linux.PROT_WRITE
    flags = linux.MAP_PRIVATE | linux.MAP_FIXED
    return [Call("mmap", run.address, run.length, prot, flags, remote, run.offset) for run in runs]


def advise_calls(entry: ProcessEntry, runs: list[PageRun]) -> list[Call]:
    """The advice of what was there, for the next image: a mapping of a file itself has no use for it."""
    advised = [vma for vma in entry.vmas if vma.advice]
    ends = [vma.end for vma in advised]
    calls = []
    for run in runs:
        for vma in advised[bisect.bisect_right(ends, run.address) :]:
            low, high = max(vma.start, run.address), min(vma.end, run.address + run.length)
            if low >= high:
                break
            calls += [Call("madvise", low, high - low, value) for value in vma.advice]
    return calls
