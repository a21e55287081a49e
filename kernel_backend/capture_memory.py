"""Memory of a frozen tree into an image: mappings, shared objects, and pages, which its twins hold while it runs on."""

from __future__ import annotations

import mmap
import os
import stat
from pathlib import Path

from kernel_backend.capture import Capture
from kernel_backend.errors import ResourceUnsupported
from kernel_backend.host import proc
from kernel_backend.image import spans
from kernel_backend.image.entries import (
    FileIdentity,
    PageRun,
    Span,
)
from kernel_backend.image.writer import resize
from kernel_backend.resources import (
    aio,
    contents,
    forked_pages,
    inherited,
    io_uring,
    mapped_files,
    memory,
    numa,
    pages,
    processes,
    shared_memory,
)
from kernel_backend.tracee.chorus import Chorus
from kernel_backend.tracee.twin import Twin


def layout(capture: Capture, pid: int) -> memory.Layout:
    """A process's mappings as entries; made on first use, which need not be in the pause."""
    if pid not in capture.layouts:
        process, entry = capture.tree.processes[pid], capture.processes[pid]
        names = contents.other_names(capture.tables)
        made = memory.capture(pid, process.mappings, capture.ahead.vma_flags.of(pid), names)
        capture.layouts[pid] = made
        made.show_objects(capture.objects)
        entry.files, entry.vmas, entry.exe = made.files, made.vmas, _exe(pid, *capture.programs[pid])
    return capture.layouts[pid]


def _exe(pid: int, path: str, inode: int) -> FileIdentity:
    try:
        same = os.stat(path).st_ino == inode
    except OSError:
        same = False
    if path.startswith("/memfd:"):
        raise ResourceUnsupported(
            f"process {pid} runs a program that is no file (memfd_create): {path.removesuffix(' (deleted)')}",
            hint="run it from a file", pid=pid, path=path,
        )  # fmt: skip
    if not same:
        raise ResourceUnsupported(
            f"the program file of process {pid} is gone or was replaced while it ran: {path}",
            hint="bring the file back and checkpoint again", pid=pid, path=path,
        )  # fmt: skip
    return mapped_files.identify(path)


def capture_shared_memory(capture: Capture) -> None:
    """Objects that a fork would not copy; read while everything is stopped."""
    kept = {getattr(entry, "shared", "") for entry in capture.tables.descriptions} - {""}
    showing = [
        pid
        for pid, process in capture.tree.processes.items()
        if any(map(_in_memory, process.shared_mappings)) or (kept and process.private_views)
    ]
    layouts = {pid: layout(capture, pid) for pid in showing}
    for pid, found in layouts.items():
        capture.warnings.extend(aio.capture(capture.tree.processes[pid], capture.processes[pid], found.vmas))
        io_uring.link(pid, found, capture.tables)
    keys = {key for found in layouts.values() for key in found.shared} | kept
    in_flight = capture.tables.mapped_in_flight
    fds = in_flight | {
        mapped_files.key_of_stat(look.stat): look.own
        for look in capture.tables.looks
        if stat.S_ISREG(look.stat.st_mode) and not look.in_flight and mapped_files.key_of_stat(look.stat) in keys
    }
    try:
        capture.shared = shared_memory.capture(layouts, capture.tree.processes, fds, capture.writer, capture.warnings)
    finally:
        while in_flight:
            os.close(in_flight.popitem()[1])
    capture.objects = {entry.key for entry in capture.shared if entry.kind != "sysv"}
    for found in capture.layouts.values():
        found.show_objects(capture.objects)


def _in_memory(mapping: proc.Mapping) -> bool:
    """Whether a shared mapping shows an object whose bytes must go into the image."""
    return (
        mapping.path.startswith(("/dev/", "/memfd:", "/SYSV", "/[aio]", memory.IO_URING_LINK))
        or "(deleted)" in mapping.path
    )


def capture_not_forked(capture: Capture) -> None:
    """Memory that the twins will not have: read while everything is stopped."""
    for pid, process in capture.tree.processes.items():
        if pid in capture.ahead.guarded:
            capture.guards[pid] = pages.guards(process.view)
        if capture.ahead.vma_flags.forks_otherwise(pid):
            found = layout(capture, pid)
            capture.held[pid] = pages.read_not_forked(process.view, found)
            with process.borrow() as borrowed:
                numa.read_in_place(filter(numa.left_out, found.vmas), borrowed)


def lacks_more_than_known(capture: Capture, pid: int, twin: int) -> bool:
    """Whether a twin was made without memory of which nobody knew that a fork leaves it out: flags are read ahead."""
    lacking = _size_pages(pid) - _size_pages(twin)
    if lacking > 0 and capture.ahead.vma_flags.forks_otherwise(pid):
        lacking -= sum(vma.end - vma.start for vma in layout(capture, pid).vmas if numa.left_out(vma)) // mmap.PAGESIZE
    return lacking > 0


def look_again(capture: Capture, pid: int) -> None:
    """What was read ahead of its mappings is no longer so."""
    capture.ahead.vma_flags.forget(pid)
    capture.layouts.pop(pid, None)


def _size_pages(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[0])


def plan_pages(capture: Capture, pid: int, source: int, *, forked: bool) -> tuple[list[PageRun], list[PageRun]]:
    """Which pages of `pid` to save: scanned in `source` (itself or its twin), and those held since the pause."""
    entry = capture.processes[pid]
    held = capture.held.get(pid, []) if forked else []
    scanned = _scan(capture, pid, source, forked=forked)
    as_parent = [(span.address, span.address + span.length) for span in entry.as_parent]
    runs = pages.place(spans.without(scanned.runs, as_parent))
    behind = pages.place([(at, at + len(content)) for at, content in held], pages.total_bytes(runs))
    entry.pagemap = runs + behind
    entry.guards = [Span(start, end - start) for start, end in capture.guards.get(pid, scanned.guards)]
    return runs, behind


def _scan(capture: Capture, pid: int, source: int, *, forked: bool) -> pages.Scan:
    """The pages of a process, in `source`, once; without those that only the original could show."""
    if pid not in capture.scans:
        found = layout(capture, pid)
        held = forked and pid in capture.held
        only = set(range(len(found.vmas))) - pages.not_forked(found) if held else None
        capture.scans[pid] = pages.scan(source, found, only)
    return capture.scans[pid]


def find_common_pages(capture: Capture, twins: dict[int, Twin]) -> None:
    """What children have in common with their parents, found before the first twin ends."""

    def look(pid: int) -> forked_pages.Pages:
        source = twins[pid].pid if twins else capture.tree.processes[pid].view
        scanned = _scan(capture, pid, source, forked=bool(twins))
        return forked_pages.Pages(source, layout(capture, pid), scanned.runs)

    for pid, entry in capture.processes.items():
        above = entry.ppid
        if above in capture.processes and capture.programs[above] == capture.programs[pid]:
            found = forked_pages.common(look(above), look(pid))
            entry.as_parent = [Span(low, high - low) for low, high in found]


def begin_digests(capture: Capture) -> None:
    """Digests of the files that are mapped are made meanwhile."""
    for pid in capture.processes:
        layout(capture, pid)
    mapped_files.begin_contents(list(capture.processes.values()))


def capture_inherited(capture: Capture, twins: dict[int, Twin]) -> None:
    """What a fork copies besides memory, from the twins or, where there are none, from the processes themselves."""
    for pid, twin in twins.items():
        inherited.read_in_twin(capture.processes[pid], twin)
        numa.read_in_twin(layout(capture, pid).vmas, twin.workshop)
    if not twins:
        members = {pid: process.borrow() for pid, process in capture.tree.processes.items()}
        with Chorus(members.values()) as chorus:
            chorus.run({member: inherited.ask(capture.processes[pid], member) for pid, member in members.items()})
            for pid, member in members.items():
                numa.read_in_place(layout(capture, pid).vmas, member)
    for entry in capture.processes.values():
        processes.check_proc_folder(entry, capture.processes.keys() | capture.tree.zombies.keys())


def write_pages(capture: Capture, pid: int, twin: Twin | None) -> int:
    """Write private memory, from the twin or the process itself; page bytes."""
    source = twin.pid if twin else capture.tree.processes[pid].view
    runs, behind = plan_pages(capture, pid, source, forked=twin is not None)
    size = pages.total_bytes(runs + behind)
    capture.writer.check_room(size)
    name = pages.pages_name(capture.numbers.get(pid, pid))
    fd = capture.writer.create(name)
    try:
        resize(fd, size)
        pages.write_held(capture.held.pop(pid, []) if behind else [], behind, fd)
        if twin:
            unreadable = pages.unreadable_runs(layout(capture, pid), runs)
            digest = pages.write_from_twin(twin, runs, unreadable, fd, size)
        else:
            digest = pages.write_from_outside(source, runs, fd, size)
    finally:
        os.close(fd)
    capture.digests[name] = digest
    return size
