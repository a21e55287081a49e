"""Pages that a child has had in common with its parent since it was forked: written once, and shared again.

Whether two processes share a page is seen by the page frame, which the OS kernel shows to root only. Nobody can tell
two private pages with the same contents apart, though, so equal contents at the same address are as good: as an
ordinary user these are compared, in the twins, when the pause is over.

A restore makes such a child by forking it from its parent when that has its memory (`kept` are the mappings that stay),
and gives it what differs. Where that is not possible, because another process has to fork it, or since its mapping is
another one now, the pages are read from the file of the process that has them (`elsewhere`).
"""

from __future__ import annotations

import functools
import os
from array import array
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import msgspec

from kernel_backend.abi import linux
from kernel_backend.host import libc
from kernel_backend.image.entries import FileIdentity, Inventory, PageRun, ProcessEntry, VmaEntry, filled_ranges
from kernel_backend.image.spans import Range, joined, overlap, without
from kernel_backend.resources.memory import Layout, is_filled

_FRAME = (1 << 55) - 1 | linux.PM_PRESENT | linux.PM_SWAPPED  # of a pagemap word: what says which page it is
_THERE = linux.PM_PRESENT | linux.PM_SWAPPED
_PIECE_BYTES = 1 << 20
_WORD_BYTES = 8


class Pages(NamedTuple):
    """A process, or its twin, and which private pages it has."""

    source: int
    layout: Layout
    runs: list[Range]


# --- out --------------------------------------------------------------------------------------------------------------


def common(parent: Pages, child: Pages) -> list[Range]:
    """The pages that are the same in both, which may not change meanwhile."""
    candidates = overlap(overlap(joined(parent.runs), joined(child.runs)), _eligible(child.layout))
    if not candidates:
        return []
    compare = _by_frames if _frames_are_shown() else _by_contents
    return joined(compare(parent, child, candidates))


def _eligible(layout: Layout) -> list[Range]:
    """The mappings of which pages may be left to the parent: ordinary ones, all of whose pages are known."""
    return joined(
        (vma.start, vma.end)
        for index, vma in enumerate(layout.vmas)
        if vma.kind in ("anon", "file") and vma.private and not vma.hugetlb and index not in layout.whole
    )


@functools.cache
def _frames_are_shown() -> bool:
    """Whether we may see page frames (CAP_SYS_ADMIN, of the first user namespace)."""
    mine = array("Q", [1])
    fd = os.open("/proc/self/pagemap", os.O_RDONLY | os.O_CLOEXEC)
    try:
        page = mine.buffer_info()[0] & ~(linux.PAGE_SIZE - 1)
        return bool(libc.pagemap_words(fd, page, page + linux.PAGE_SIZE)[0] & (1 << 55) - 1)
    finally:
        os.close(fd)


def _by_frames(parent: Pages, child: Pages, candidates: list[Range]) -> Iterable[Range]:
    with (
        Path(f"/proc/{parent.source}/pagemap").open("rb", 0) as one,
        Path(f"/proc/{child.source}/pagemap").open("rb", 0) as other,
    ):
        for low, high in _pieces(candidates, _PIECE_BYTES * linux.PAGE_SIZE // _WORD_BYTES):
            theirs = libc.pagemap_words(one.fileno(), low, high)
            mine = libc.pagemap_words(other.fileno(), low, high)
            again = libc.pagemap_words(one.fileno(), low, high)  # a page may be moved between two looks
            if theirs == mine == again and all(word & _THERE for word in theirs):
                yield low, high
                continue
            for index, (a, b, c) in enumerate(zip(theirs, mine, again, strict=True)):
                if a & _THERE and a & _FRAME == b & _FRAME == c & _FRAME:
                    at = low + index * linux.PAGE_SIZE
                    yield at, at + linux.PAGE_SIZE


def _by_contents(parent: Pages, child: Pages, candidates: list[Range]) -> Iterable[Range]:
    with (
        Path(f"/proc/{parent.source}/mem").open("rb", 0) as one,
        Path(f"/proc/{child.source}/mem").open("rb", 0) as other,
    ):
        for low, high in _pieces(candidates, _PIECE_BYTES):
            try:
                theirs, mine = (os.pread(file.fileno(), high - low, low) for file in (one, other))
            except OSError:
                continue  # whoever writes them will say what is wrong
            if len(theirs) != high - low or len(mine) != high - low:
                continue
            if theirs == mine:
                yield low, high
                continue
            for at in range(0, high - low, linux.PAGE_SIZE):
                if theirs[at : at + linux.PAGE_SIZE] == mine[at : at + linux.PAGE_SIZE]:
                    yield low + at, low + at + linux.PAGE_SIZE


def _pieces(ranges: list[Range], size: int) -> Iterable[Range]:
    for low, high in ranges:
        for at in range(low, high, size):
            yield at, min(at + size, high)


# --- in ---------------------------------------------------------------------------------------------------------------


class Heritage(msgspec.Struct):
    """What a child keeps of the memory of the parent that forks it."""

    kept: list[VmaEntry]  # its mappings that are there already
    dropped: list[Range]  # pages in them that it does not have


def heirs(inventory: Inventory) -> dict[int, Heritage]:
    """By pid, the children that are forked from a parent that has its memory."""
    by_pid = {entry.pid: entry for entry in inventory.processes}
    found: dict[int, Heritage] = {}
    for child in inventory.processes:
        parent = by_pid.get(child.ppid)
        if child.as_parent and parent is not None and _file(parent.exe) == _file(child.exe):
            kept = _kept(parent, child)
            inherited = overlap(_there(parent), joined((vma.start, vma.end) for vma in kept))
            found[child.pid] = Heritage(kept, without(inherited, _there(child)))
    return found


def _kept(parent: ProcessEntry, child: ProcessEntry) -> list[VmaEntry]:
    """The mappings of the child that lie in one of the parent's which, as long as it is built, is the same."""
    theirs, mine = filled_ranges(parent), filled_ranges(child)
    above = iter(parent.vmas)
    around = next(above, None)
    kept = []
    for vma in child.vmas:
        while around is not None and around.end <= vma.start:
            around = next(above, None)
        if around is None:
            break
        inside = around.start <= vma.start and vma.end <= around.end
        writable = is_filled(around, theirs) or not is_filled(vma, mine)
        if inside and writable and _is_same(parent, around, child, vma):
            kept.append(vma)
    return kept


_PLAIN_ADVICE = (linux.MADV_HUGEPAGE, linux.MADV_NOHUGEPAGE)


def _is_same(parent: ProcessEntry, theirs: VmaEntry, child: ProcessEntry, mine: VmaEntry) -> bool:
    if theirs.kind != mine.kind or mine.kind not in ("anon", "file"):
        return False
    if mine.kind == "file":
        same_file = _file(parent.files[theirs.file]) == _file(child.files[mine.file])
        if not same_file or theirs.offset + mine.start - theirs.start != mine.offset:
            return False
    special = mine.growsdown or mine.hugetlb or mine.droppable or mine.pkey or not mine.private
    advice = [[value for value in vma.advice if value in _PLAIN_ADVICE] for vma in (theirs, mine)]
    return not special and advice[0] == advice[1] and _kind(theirs) == _kind(mine)


def _kind(vma: VmaEntry) -> tuple[object, ...]:
    return vma.private, vma.prot, vma.noreserve, vma.growsdown, vma.hugetlb, vma.droppable, vma.pkey, vma.numa


def _file(identity: FileIdentity) -> tuple[str, int, int]:
    return identity.path, identity.device, identity.inode


def _there(entry: ProcessEntry) -> list[Range]:
    """The private pages of a process."""
    return joined(filled_ranges(entry))


def elsewhere(
    entry: ProcessEntry, by_pid: Mapping[int, ProcessEntry], heritage: Heritage | None
) -> dict[int, list[PageRun]]:
    """By pid, the runs that have to be read from the pages of other processes."""
    needed = joined((span.address, span.address + span.length) for span in entry.as_parent)
    if heritage is not None:
        needed = without(needed, joined((vma.start, vma.end) for vma in heritage.kept))
    found: dict[int, list[PageRun]] = {}
    while needed:
        entry = by_pid[entry.ppid]
        own = joined((run.address, run.address + run.length) for run in entry.pagemap)
        if here := overlap(needed, own):
            found[entry.pid] = list(_runs_within(entry.pagemap, here))
        needed = without(needed, own)
    return found


def _runs_within(runs: list[PageRun], ranges: list[Range]) -> Iterable[PageRun]:
    for run in runs:
        for low, high in overlap([(run.address, run.address + run.length)], ranges):
            yield PageRun(low, high - low, run.offset + low - run.address)
