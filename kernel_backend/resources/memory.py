"""The address space: what each mapping is, and how it is made again.

Contents are elsewhere: private pages in pages.py, objects behind MAP_SHARED mappings in shared_memory.py, files that
are mapped in mapped_files.py.
"""

from __future__ import annotations

import bisect
import functools
import os
import re
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import NamedTuple

import msgspec

from kernel_backend.abi import linux
from kernel_backend.errors import HostUnsupported, ResourceUnsupported
from kernel_backend.host import proc
from kernel_backend.image import spans
from kernel_backend.image.entries import FileIdentity, ProcessEntry, VmaEntry, filled_ranges
from kernel_backend.resources.mapped_files import file_view, identify, is_in_memory, present_path
from kernel_backend.tracee.inject import Call, Workshop

# VmFlags of /proc/PID/smaps (fs/proc/task_mmu.c) → madvise values that bring them back
_ADVICE = {
    "sr": linux.MADV_SEQUENTIAL, "rr": linux.MADV_RANDOM, "dc": linux.MADV_DONTFORK, "dd": linux.MADV_DONTDUMP,
    "wf": linux.MADV_WIPEONFORK, "hg": linux.MADV_HUGEPAGE, "nh": linux.MADV_NOHUGEPAGE, "mg": linux.MADV_MERGEABLE,
}  # fmt: skip
_HUGE_ADVICE = (linux.MADV_HUGEPAGE, linux.MADV_NOHUGEPAGE)
_REFUSED = {
    "anon_inode:[perf_event]": ("a performance counter", "end the profiler"),
    "socket:[": ("a mapped socket (a ring of frames of the network)", "close it and checkpoint again"),
    "anon_inode:bpf-map": ("a BPF map in its memory (BPF_F_MMAPABLE)", "unmap it and checkpoint again"),
    "/secretmem": ("secret memory (memfd_secret)", "wipe and unmap it, and checkpoint again"),
}
IO_URING_LINK = "anon_inode:[io_uring]"
_WHY_NOT = {"/secretmem": "its program keeps from everybody: no image may hold it"}
_SYSV = re.compile(r"^/SYSV([0-9a-f]{8}) \(deleted\)$")
# Files of checkpoints, an image's (lazy restores map them) or a snapshot's: they go when the checkpoint is removed.
PAGES_FILE = re.compile(r"/(pages-\d+\.img|[0-9a-f]{64}\.(blob|pack))( \(deleted\))?$")
KERNEL_AREAS = ("[vvar]", "[vvar_vclock]", "[vdso]")


class Layout(msgspec.Struct):
    """One process's mappings as entries, with the live facts that the capture of contents needs."""

    vmas: list[VmaEntry] = []
    files: list[FileIdentity] = []
    live: list[proc.Mapping] = []  # same index as vmas
    whole: set[int] = set()  # indices of vmas all of whose pages must be saved
    fragile: set[int] = set()  # those among them where a page may not be readable
    shared: dict[str, proc.Mapping] = {}  # shared object key → a mapping that shows it
    views: dict[int, str] = {}  # private ones of objects without a path: index → object key
    names: dict[str, str] = {}  # key of a file → its path, where its mapping does not tell

    def show_objects(self, keys: Collection[str]) -> None:
        """Private mappings of these objects, which the image holds, come back as such.

        Where such a mapping was not written to, it shows what others write to the object.
        """
        for index, key in list(self.views.items()):
            if key in keys:
                vma = self.vmas[index]
                vma.kind, vma.shared, vma.offset = "shared", key, self.live[index].offset
                self.whole.discard(index)
                self.fragile.discard(index)
                del self.views[index]


def capture(pid: int, mappings: list[proc.Mapping], flags: dict[int, frozenset[str]], names: dict[str, str]) -> Layout:
    """Turn the mappings of a frozen process into entries. Raises ResourceUnsupported, naming mapping and process."""
    layout = Layout(names=names)
    by_path: dict[tuple[str, int], int] = {}
    for mapping in mappings:
        if mapping.path == "[vsyscall]":
            continue
        mapping.flags = flags.get(mapping.start, frozenset())
        layout.vmas.append(_entry(pid, mapping, layout, by_path))
        layout.live.append(mapping)
    _check_own_areas(pid, layout)
    return layout


def _check_own_areas(pid: int, layout: Layout) -> None:
    try:
        _vdso_places(layout.vmas)
    except HostUnsupported as error:
        raise ResourceUnsupported(
            f"process {pid} has unmapped a part of the OS kernel's own memory ([vdso], [vvar])",
            hint="let the program unmap all of it, or nothing", pid=pid,
        ) from error  # fmt: skip


def _entry(pid: int, mapping: proc.Mapping, layout: Layout, by_path: dict[tuple[str, int], int]) -> VmaEntry:
    vma = VmaEntry(
        start=mapping.start, end=mapping.end, prot=_prot(mapping.perms), kind="anon", private=not mapping.shared,
        growsdown="gd" in mapping.flags or mapping.path == "[stack]", noreserve="nr" in mapping.flags,
        hugetlb="ht" in mapping.flags, locked="lo" in mapping.flags, lock_on_fault="lf" in mapping.flags,
        sealed="sl" in mapping.flags, droppable="dp" in mapping.flags,
        served=bool(mapping.flags & {"um", "uw"}),
        advice=[value for flag, value in _ADVICE.items() if flag in mapping.flags],
    )  # fmt: skip
    vma.pkey = next((int(flag[2:]) for flag in mapping.flags if flag.startswith("pk")), 0)
    if vma.droppable:
        vma.advice = []  # what its kind brings along by itself
    if vma.hugetlb:
        vma.huge_page_bytes = proc.page_bytes(pid, mapping.start)
    if mapping.path in KERNEL_AREAS:
        vma.kind = _own_kind(mapping.path)
    elif mapping.shared:
        vma.may_write = "mw" in mapping.flags if mapping.flags else None
        _shared_entry(pid, vma, mapping, layout, by_path)
    elif mapping.inode:
        _private_file_entry(pid, vma, mapping, layout, by_path)
    elif mapping.path.startswith("[anon:"):
        vma.name = mapping.path[6:-1]
    return vma


def _prot(perms: str) -> int:
    return (
        (linux.PROT_READ if perms[0] == "r" else 0)
        | (linux.PROT_WRITE if perms[1] == "w" else 0)
        | (linux.PROT_EXEC if perms[2] == "x" else 0)
    )


def shared_key(mapping: proc.Mapping) -> str:
    """The name under which the object behind a mapping is stored once: device and inode."""
    return f"{mapping.device}:{mapping.inode}"


def _shared_entry(
    pid: int, vma: VmaEntry, mapping: proc.Mapping, layout: Layout, by_path: dict[tuple[str, int], int]
) -> None:
    path = mapping.path
    in_memory = is_in_memory(path)
    now = path if in_memory else present_path(path, shared_key(mapping)) or layout.names.get(shared_key(mapping), "")
    for name, (what, hint) in _REFUSED.items():
        if path.startswith(name):
            raise ResourceUnsupported(
                f"process {pid} has {what} at {mapping.start:#x}, which {_WHY_NOT.get(name, 'cannot be captured')}",
                hint=hint, pid=pid, address=mapping.start, path=path,
            )  # fmt: skip
    if path.startswith("/[aio]"):
        vma.kind = "aio"  # see aio.py
        return
    if path == IO_URING_LINK:
        vma.kind, vma.offset = "io_uring", mapping.offset  # see io_uring.py
        return
    if _SYSV.match(path):
        vma.kind, vma.shared, vma.offset = "sysv", shared_key(mapping), mapping.offset
    elif in_memory or (path and not now):
        vma.kind, vma.shared, vma.offset = "shared", shared_key(mapping), mapping.offset
    elif path.startswith("/dev/") or not path.startswith("/"):
        raise ResourceUnsupported(
            f"process {pid} maps the device {path or 'without a name'} at {mapping.start:#x}",
            hint="close the device (for a GPU: end its use in this process) and checkpoint again",
            pid=pid, address=mapping.start, path=path,
        )  # fmt: skip
    else:
        vma.kind, vma.offset = "file", mapping.offset
        vma.file = _file_index(now, mapping.inode, layout, by_path)
        return
    layout.shared.setdefault(vma.shared, mapping)


def _private_file_entry(
    pid: int, vma: VmaEntry, mapping: proc.Mapping, layout: Layout, by_path: dict[tuple[str, int], int]
) -> None:
    """A private file mapping: only changed pages are saved, unless the file cannot be had again."""
    try:
        found = os.stat(mapping.path)
        usable = found.st_ino == mapping.inode and not PAGES_FILE.search(mapping.path)
    except OSError:
        usable = False
    if usable:
        vma.kind, vma.offset = "file", mapping.offset
        vma.file = _file_index(mapping.path, mapping.inode, layout, by_path)
        return
    layout.whole.add(len(layout.vmas))
    if not PAGES_FILE.search(mapping.path):  # an image's own file, from a lazy restore, is there to its last page
        layout.fragile.add(len(layout.vmas))
        if not vma.hugetlb:
            layout.views[len(layout.vmas)] = shared_key(mapping)


def _file_index(path: str, inode: int, layout: Layout, by_path: dict[tuple[str, int], int]) -> int:
    key = (path, inode)
    if key not in by_path:
        by_path[key] = len(layout.files)
        layout.files.append(identify(path))
    return by_path[key]


def shared_views(entry: ProcessEntry) -> list[tuple[str, bool]]:
    """(key of a shared object, whether a mapping may write to it): a descriptor for each is what the mappings need."""
    return sorted({_shared_view(vma) for vma in entry.vmas if vma.kind == "shared"})


def _shared_view(vma: VmaEntry) -> tuple[str, bool]:
    return vma.shared, vma.may_write is not False


# --- coming back ------------------------------------------------------------------------------------------------------


def find_hole(size: int, occupied: Iterable[tuple[int, int]], floor: int = 0x10000000) -> int:
    """A page-aligned address below the usual mmap area at which `size` bytes collide with nothing."""
    at = floor
    for start, end in sorted(occupied):
        if start - at >= size + linux.PAGE_SIZE:
            break
        at = max(at, end + linux.PAGE_SIZE)
    return (at + linux.PAGE_SIZE - 1) & ~(linux.PAGE_SIZE - 1)


def clear_calls(workshop: Workshop, kept: Iterable[tuple[int, int]] = ()) -> list[Call]:
    """Unmap everything but the workshop, and what is [start, end) `kept`."""
    left = spans.joined([*kept, (workshop.address, workshop.address + workshop.size)])
    return [Call("munmap", low, high - low) for low, high in spans.without([(0, linux.TASK_SIZE)], left)]


def map_vdso_calls(entry: ProcessEntry, occupied: Iterable[tuple[int, int]]) -> list[Call]:
    """Bring the OS kernel's own code and data to the image's addresses (arch_prctl(2), ARCH_MAP_VDSO_64).

    They are mapped in a row. Where a program has moved or unmapped some of them, that is done again, from a place
    that is in none of `occupied`.
    """
    places = _vdso_places(entry.vmas)
    if not places:
        return []
    start = places[0][1].start - places[0][0].start
    if len(places) == len(_own_areas()) and all(vma.start - area.start == start for area, vma in places):
        return [Call("arch_prctl", linux.ARCH_MAP_VDSO_64, start)]
    here = find_hole(_own_areas()[-1].end, occupied)
    calls = [Call("arch_prctl", linux.ARCH_MAP_VDSO_64, here)]
    moving = linux.MREMAP_MAYMOVE | linux.MREMAP_FIXED
    for area, vma in places:
        calls.append(Call("mremap", here + area.start, area.size, area.size, moving, vma.start))
    wanted = [area for area, _ in places]
    return calls + [Call("munmap", here + a.start, a.size) for a in _own_areas() if a not in wanted]


class _OwnArea(NamedTuple):
    """One of the areas of the OS kernel's own, at its distance from the first."""

    kind: str
    start: int
    size: int

    @property
    def end(self) -> int:
        return self.start + self.size


@functools.cache
def _own_areas() -> list[_OwnArea]:
    """As they are mapped in every new process, by address."""
    found = [area for area in proc.maps(os.getpid()) if area.path in KERNEL_AREAS]
    return [_OwnArea(_own_kind(area.path), area.start - found[0].start, area.size) for area in found]


def _own_kind(path: str) -> str:
    return "vdso" if path == "[vdso]" else "vvar"


def _vdso_places(vmas: Iterable[VmaEntry]) -> list[tuple[_OwnArea, VmaEntry]]:
    """Which of our areas each of a process's is. Raises HostUnsupported where it is none."""
    left, places = [*_own_areas()], []
    for vma in vmas:
        if vma.kind not in ("vdso", "vvar"):
            continue
        area = next((one for one in left if (one.kind, one.size) == (vma.kind, vma.end - vma.start)), None)
        if area is None:
            raise HostUnsupported(f"the OS kernel's own memory at {vma.start:#x} is none that a process here can have")
        left.remove(area)
        places.append((area, vma))
    return places


def check_vdso(entry: ProcessEntry) -> None:
    """Raise HostUnsupported unless the OS kernel's own code can be brought where the image has it."""
    _vdso_places(entry.vmas)


class Sources(msgspec.Struct):
    """Descriptor numbers inside the new process from which its mappings are made."""

    files: dict[tuple[int, bool], int]  # by file_views
    shared: dict[tuple[str, bool], int]  # by shared_views


_MADE_ELSEWHERE = ("vdso", "vvar", "sysv", "aio", "io_uring")
NOT_YET = ("vdso", "vvar", "io_uring")  # or never: what is not there, or not to be touched, when mappings are closed


def map_calls(entry: ProcessEntry, sources: Sources, kept: Iterable[VmaEntry] = ()) -> list[Call]:
    """One mmap per mapping (System V ones are attached, see sysv.py), writable where contents will be filled in.

    Others must not be: a terabyte that nobody may write to costs nothing, one that is writable is not granted. What is
    `kept` is there already.
    """
    runs = filled_ranges(entry)
    there = {vma.start for vma in kept}
    vmas = [vma for vma in entry.vmas if vma.kind not in _MADE_ELSEWHERE and vma.start not in there]
    return [_map_call(vma, sources, filled=is_filled(vma, runs)) for vma in vmas]


def is_filled(vma: VmaEntry, runs: list[tuple[int, int]]) -> bool:
    """Whether a private mapping has contents of its own; `runs` are [start, end) of contents, by address."""
    before = bisect.bisect_left(runs, (vma.end, 0)) - 1
    return vma.private and before >= 0 and runs[before][1] > vma.start


def _map_call(vma: VmaEntry, sources: Sources, *, filled: bool) -> Call:
    flags = linux.MAP_FIXED_NOREPLACE | (linux.MAP_PRIVATE if vma.private else linux.MAP_SHARED)
    prot, fd = vma.prot, -1
    if filled:
        prot |= linux.PROT_READ | linux.PROT_WRITE
    if vma.pkey:
        prot |= linux.PROT_READ  # memory that may only be executed would be given a key at once
    if vma.kind == "anon":
        flags |= linux.MAP_ANONYMOUS
        flags |= linux.MAP_GROWSDOWN if vma.growsdown else 0  # MAP_STACK would also forbid huge pages
    elif vma.kind == "file":
        fd = sources.files[file_view(vma)]
    else:
        fd = sources.shared[_shared_view(vma)]
    flags |= linux.MAP_NORESERVE if vma.noreserve else 0
    if vma.droppable:
        flags = linux.MAP_FIXED_NOREPLACE | linux.MAP_ANONYMOUS | linux.MAP_DROPPABLE
    if vma.hugetlb and vma.kind == "anon":
        flags |= linux.MAP_HUGETLB | linux.huge_page_flag(vma.huge_page_bytes)
    return Call("mmap", vma.start, vma.end - vma.start, prot, flags, fd, vma.offset)


def advise_calls(entry: ProcessEntry) -> list[Call]:
    """madvise values that must stand before contents are filled in (huge pages) and harm nothing there."""
    return [
        Call("madvise", vma.start, vma.end - vma.start, value)
        for vma in entry.vmas
        for value in vma.advice
        if value in _HUGE_ADVICE and vma.private
    ]


def missing_calls(entry: ProcessEntry) -> list[Call]:
    """Pages that a program is to be asked for when they are touched: not even a huge page around others holds them."""
    served = [(vma.start, vma.end) for vma in entry.vmas if vma.served]
    filled = spans.joined(filled_ranges(entry)) if served else []
    return [Call("madvise", low, high - low, linux.MADV_DONTNEED) for low, high in spans.without(served, filled)]


def protect_calls(entry: ProcessEntry) -> list[Call]:
    """Final protections and late advice."""
    calls = []
    for vma in entry.vmas:
        size = vma.end - vma.start
        if vma.kind in NOT_YET:
            continue
        if vma.private and vma.prot & 3 != 3 and not vma.pkey:  # see pkeys.py
            calls.append(Call("mprotect", vma.start, size, vma.prot))
        late = [v for v in vma.advice if not (vma.private and v in _HUGE_ADVICE)]
        calls += [Call("madvise", vma.start, size, value) for value in late]
    return calls


def lock_calls(entry: ProcessEntry) -> list[Call]:
    """Locks (mlock(2)), which a limit may forbid."""
    return [
        Call("mlock2", vma.start, vma.end - vma.start, linux.MLOCK_ONFAULT if vma.lock_on_fault else 0)
        for vma in entry.vmas
        if vma.locked and vma.kind not in NOT_YET
    ]


def closing_calls(entry: ProcessEntry) -> list[Call]:
    """What forbids further work on a mapping: guard regions, then seals."""
    guards = [Call("madvise", span.address, span.length, linux.MADV_GUARD_INSTALL) for span in entry.guards]
    return guards + [
        Call("mseal", vma.start, vma.end - vma.start, 0) for vma in entry.vmas if vma.sealed and vma.kind not in NOT_YET
    ]


def name_calls(entry: ProcessEntry, data: int) -> tuple[list[Call], bytes]:
    """Names of anonymous mappings (needs CONFIG_ANON_VMA_NAME; their loss is harmless)."""
    calls, arguments, offsets = [], bytearray(), dict[str, int]()
    for vma in entry.vmas:
        if vma.name:
            if vma.name not in offsets:
                offsets[vma.name] = len(arguments)
                arguments += vma.name.encode(errors="surrogateescape")[:79] + b"\0"
            at = data + offsets[vma.name]
            calls.append(
                Call("prctl", linux.PR_SET_VMA, linux.PR_SET_VMA_ANON_NAME, vma.start, vma.end - vma.start, at)
            )
    return calls, bytes(arguments)


def vdso_bytes(pid: int) -> bytes:
    """The code of the vdso as it is mapped in a process (the same in all processes of one OS kernel)."""
    for mapping in proc.maps(pid):
        if mapping.path == "[vdso]":
            with Path(f"/proc/{pid}/mem").open("rb") as memory:
                memory.seek(mapping.start)
                return memory.read(mapping.size)
    return b""
