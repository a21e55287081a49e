"""Large runs of pages put into a new process by userfaultfd: half the work of a read, and on all processors.

Where that is not permitted nothing is placed, and reading (pages.py) does it all.
"""

from __future__ import annotations

import bisect
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from kernel_backend.abi import linux
from kernel_backend.host import libc, proc, userfault
from kernel_backend.image.entries import PageRun
from kernel_backend.tracee.inject import Workshop

LARGE_BYTES = 4 << 20  # from here on a run is worth the few calls that it takes
PIECE_BYTES = 16 << 20
MAX_WORKERS = 4


def place_large(shop: Workshop, runs: list[PageRun], remote: int) -> set[int]:
    """Fill what large runs say from `remote`, the process's own descriptor; start addresses of those that stand now.

    Memory that may be backed by huge pages is left to reading: pages put in one by one would all be small.
    """
    large = [run for run in runs if run.length >= LARGE_BYTES]
    if not large:
        return set()
    homes = _small_paged(shop.thread.tgid)
    starts = [start for start, _ in homes]
    chosen: list[PageRun] = []
    wanted: set[tuple[int, int]] = set()
    for run in large:
        at = bisect.bisect_right(starts, run.address) - 1
        if at >= 0 and run.address + run.length <= homes[at][1]:
            chosen.append(run)
            wanted.add(homes[at])
    if not chosen:
        return set()
    try:
        with _userfault_of(shop, remote) as (fault_fd, source):
            for start, end in wanted:
                userfault.register(fault_fd, start, end - start)
            _copy_in(fault_fd, source, chosen)
    except OSError:
        return set()  # reading overwrites whatever stands there
    return {run.address for run in chosen}


def _small_paged(pid: int) -> list[tuple[int, int]]:
    """The anonymous private mappings [start, end) that the OS kernel backs by small pages only, by address."""
    flags = proc.smaps_flags(proc.smaps(pid))  # cheap: the process has hardly a page yet
    anonymous = [m for m in proc.maps(pid) if m.inode == 0 and not m.shared and m.path in ("", "[heap]")]
    barred = {"hg", "ht"} if not _huge_by_default() else None
    return [
        (m.start, m.end)
        for m in anonymous
        if (not barred & flags.get(m.start, frozenset()) if barred else "nh" in flags.get(m.start, frozenset()))
    ]


def _huge_by_default() -> bool:
    try:
        return "[always]" in Path("/sys/kernel/mm/transparent_hugepage/enabled").read_text()
    except OSError:
        return False


@contextmanager
def _userfault_of(shop: Workshop, remote: int) -> Iterator[tuple[int, int]]:
    """Our descriptors of a userfaultfd made in the process, and of the file that it holds as `remote`."""
    made = shop.call("userfaultfd", os.O_CLOEXEC | userfault.USER_MODE_ONLY)
    with ExitStack() as stack:
        stack.callback(shop.call, "close", made)
        pidfd = libc.pidfd_open(shop.thread.tgid)
        stack.callback(os.close, pidfd)
        ours = []
        for number in (made, remote):
            ours.append(libc.pidfd_getfd(pidfd, number))
            stack.callback(os.close, ours[-1])
        userfault.open_api(ours[0])
        yield ours[0], ours[1]


def _copy_in(fault_fd: int, source: int, runs: list[PageRun]) -> None:
    """Copy `runs` from the file, in pieces, on every processor that we may use."""
    from concurrent.futures import ThreadPoolExecutor

    size = os.fstat(source).st_size
    address = libc.syscall("mmap", 0, size, linux.PROT_READ, linux.MAP_SHARED, source, 0)
    try:
        with ThreadPoolExecutor(min(MAX_WORKERS, len(os.sched_getaffinity(0)))) as pool:
            work = [
                pool.submit(userfault.copy, fault_fd, run.address + at, address + run.offset + at, length)
                for run in runs
                for at in range(0, run.length, PIECE_BYTES)
                for length in [min(PIECE_BYTES, run.length - at)]
            ]
            for done in work:
                done.result()
    finally:
        libc.syscall("munmap", address, size)
