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

The image file must stay as it is while such a process lives: it may be removed, never overwritten (which the store
never does).
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator

from kernel_backend.abi import linux
from kernel_backend.image.entries import PageRun, ProcessEntry, VmaEntry
from kernel_backend.tracee.inject import Call

LEAST_BYTES = 1 << 20
_IS_MMAPPED = 2
_FLAG_BITS = 7
_HEADER = struct.Struct("<QQ")


def split(entry: ProcessEntry, pages_fd: int) -> tuple[list[PageRun], list[PageRun]]:
    """(runs to map, runs to read) of a process; `pages_fd` is our descriptor of its pages file."""
    blocks = sorted(set(_all_blocks(entry, pages_fd)))
    mapped: list[PageRun] = []
    read: list[PageRun] = []
    for run in entry.pagemap:
        _split_run(run, blocks, mapped, read)
    return mapped, read


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
    ordinary = vma.kind == "anon" and vma.private and not (vma.growsdown or vma.hugetlb or vma.locked or vma.droppable)
    return ordinary and vma.prot == linux.PROT_READ | linux.PROT_WRITE


def _malloc_blocks(at: int, limit: int, runs: list[PageRun], pages_fd: int) -> Iterator[tuple[int, int]]:
    """[start, end) of the large blocks that follow each other from `at`, without each one's last page."""
    while at < limit:
        where = next((run for run in runs if run.address <= at < run.address + run.length), None)
        if where is None:
            return
        previous, size = _HEADER.unpack(os.pread(pages_fd, _HEADER.size, where.offset + at - where.address))
        length = size & ~_FLAG_BITS
        if previous or size & _FLAG_BITS != _IS_MMAPPED or length % linux.PAGE_SIZE or not length:
            return
        if at + length > limit:
            return
        if length >= LEAST_BYTES:
            yield at, at + length - linux.PAGE_SIZE
        at += length


def _split_run(run: PageRun, blocks: list[tuple[int, int]], mapped: list[PageRun], read: list[PageRun]) -> None:
    at, end = run.address, run.address + run.length

    def piece(low: int, high: int) -> PageRun:
        return PageRun(low, high - low, run.offset + low - run.address)

    for low, high in blocks:
        low, high = max(low, at), min(high, end)
        if high - low < linux.PAGE_SIZE:
            continue
        if at < low:
            read.append(piece(at, low))
        mapped.append(piece(low, high))
        at = high
    if at < end:
        read.append(piece(at, end))


def map_calls(runs: list[PageRun], remote: int) -> list[Call]:
    """Map the runs from descriptor `remote` of the new process, over the anonymous memory that is there."""
    prot = linux.PROT_READ | linux.PROT_WRITE
    flags = linux.MAP_PRIVATE | linux.MAP_FIXED
    return [Call("mmap", run.address, run.length, prot, flags, remote, run.offset) for run in runs]
