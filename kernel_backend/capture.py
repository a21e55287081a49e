"""From a frozen tree to the entries of an image: what the dump pipeline in engine.py does at each of its steps."""

from __future__ import annotations

import datetime
import os
import socket
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from blake3 import blake3

from kernel_backend.ahead import Ahead
from kernel_backend.errors import ResourceUnsupported, TargetUnsupported
from kernel_backend.host import proc
from kernel_backend.image import spans
from kernel_backend.image.entries import (
    FORMAT_VERSION,
    CredentialsEntry,
    FileIdentity,
    HostEntry,
    Inventory,
    MmEntry,
    PageRun,
    ProcessEntry,
    SharedMemoryEntry,
    Span,
    SysvQueueEntry,
    SysvSetEntry,
    ThreadEntry,
    TimerEntry,
    ZombieEntry,
)
from kernel_backend.image.writer import ImageWriter, resize
from kernel_backend.renumber import inner_numbers, renumber
from kernel_backend.resources import (
    descriptors,
    forked_pages,
    inherited,
    jobs,
    mapped_files,
    memory,
    numa,
    pages,
    processes,
    settings,
    shared_memory,
    sharing,
    signals,
    sysv_ipc,
    terminal_sessions,
    threads,
    timeouts,
    timers,
    unsaved,
)
from kernel_backend.tracee.chorus import Asking, Chorus
from kernel_backend.tracee.inject import Borrowed
from kernel_backend.tracee.process import Process
from kernel_backend.tracee.tree import FrozenTree
from kernel_backend.tracee.twin import Twin

# Stand in an entry until what belongs there has been read
NO_FILE = FileIdentity(path="", size=0, mtime_ns=0, device=0, inode=0)
NO_MM = MmEntry(
    start_code=0, end_code=0, start_data=0, end_data=0, start_brk=0, brk=0, start_stack=0, arg_start=0, arg_end=0,
    env_start=0, env_end=0, auxv=b"",
)  # fmt: skip
NOBODY = CredentialsEntry(
    uids=[], gids=[], groups=[], inheritable=0, permitted=0, effective=0, bounding=0, ambient=0, no_new_privs=False
)


@dataclass
class Capture:
    """An image in the making: entries of the tree, and what is still needed to write its memory."""

    writer: ImageWriter
    tree: FrozenTree
    ahead: Ahead
    tables: descriptors.CaptureTables
    layouts: dict[int, memory.Layout] = field(default_factory=dict)
    processes: dict[int, ProcessEntry] = field(default_factory=dict)
    shared: list[SharedMemoryEntry] = field(default_factory=list)
    objects: set[str] = field(default_factory=set)  # their keys
    message_queues: list[SysvQueueEntry] = field(default_factory=list)
    semaphore_sets: list[SysvSetEntry] = field(default_factory=list)
    guards: dict[int, list[tuple[int, int]]] = field(default_factory=dict)  # those that a twin may have lost, by pid
    scans: dict[int, pages.Scan] = field(default_factory=dict)  # which pages there are, by pid
    held: dict[int, list[tuple[int, bytes]]] = field(default_factory=dict)  # pid → pages read in the pause
    digests: dict[str, str] = field(default_factory=dict)
    numbers: dict[int, int] = field(default_factory=dict)  # see renumber.py
    programs: dict[int, tuple[str, int]] = field(default_factory=dict)  # path and inode of /proc/PID/exe
    outside_sessions: list[int] = field(default_factory=list)
    pause_ms: float = 0.0

    @property
    def warnings(self) -> list[str]:
        """What the user should know."""
        return self.tables.warnings


def refuse_early(tree: FrozenTree, ahead: Ahead) -> None:
    """What cannot be captured at all is named before anything is read."""
    sharing.check(tree.processes)
    for pid, process in tree.processes.items():
        sharing.check_rights(process, ahead.unlike)
        status = proc.status(process.view)
        processes.check_seccomp(pid, status)
        processes.check_trap(pid, status)
        if processes.is_exiting(proc.stat(process.view)):
            raise TargetUnsupported(f"process {pid} is ending", pid=pid)
    for process in tree.processes.values():
        root = os.readlink(f"/proc/{process.view}/root")
        if root != "/":
            raise ResourceUnsupported(
                f"process {process.pid} lives in another root folder ({root})",
                hint="run nbcr inside the same container or chroot", pid=process.pid,
            )  # fmt: skip


def capture_processes(capture: Capture) -> None:
    """Everything of every process but descriptors, memory, and what can wait until it has a twin."""
    capture.numbers = inner_numbers(capture.tree)
    waits = timeouts.still_waiting(capture.tree.processes.values(), capture.ahead.asleep)  # before anything is injected
    borrowed = {pid: threads.borrow_all(process) for pid, process in capture.tree.processes.items()}
    places = {pid: proc.stat(pid) for pid in borrowed}
    with Chorus(member for members in borrowed.values() for member in members) as chorus:
        otherwise = capture.ahead.speculating
        everybody = [member for members in borrowed.values() for member in members]
        by_thread = chorus.run({b: threads.ask(b, speculates_otherwise=b.thread.tid in otherwise) for b in everybody})
        mains = {pid: members[0] for pid, members in borrowed.items()}
        if capture.ahead.keyrings:
            chorus.run({main: unsaved.ask_keyrings(pid) for pid, main in mains.items()})
        by_process = chorus.run({main: _ask(main, pid, capture.tree.processes[pid]) for pid, main in mains.items()})
        untold = _untold(capture, chorus, mains, places)
        for pid, members in borrowed.items():
            timers.find_owners(chorus, members, by_process[mains[pid]].timers)
        for pid, process in capture.tree.processes.items():
            entries = threads.capture(process, {member: by_thread[member] for member in borrowed[pid]}, waits)
            capture.processes[pid] = _process(process, places[pid], entries, by_process[mains[pid]])
            capture.processes[pid].untold = untold.get(pid, 0)
    for pid, process in capture.tree.processes.items():
        link = f"/proc/{process.view}/exe"
        capture.programs[pid] = os.readlink(link), os.stat(link).st_ino
        _ = process.maps_text  # read now, sorted out later: that may take longer than a pause should
    sessions = {e.sid for e in capture.processes.values()} | {e.sid for e in capture.tree.zombies.values()}
    strange = sessions - capture.processes.keys() - capture.tree.zombies.keys()
    capture.outside_sessions = sorted(sid for sid in strange if sid == 0 or Path(f"/proc/{sid}").exists())


@dataclass
class _Own:
    """What a process itself was asked for."""

    subreaper: bool
    futex_hash: int
    itimers: list[bytes]
    timers: list[TimerEntry]
    lock_future: int


def _ask(borrowed: Borrowed, pid: int, process: Process) -> Asking[_Own]:
    subreaper = yield from processes.ask_subreaper(borrowed)
    futex_hash = yield from settings.ask_futex_hash()
    itimers = yield from timers.ask_itimers(borrowed)
    posix_timers = yield from timers.ask_timers(borrowed, pid)
    locks = proc.status(process.view).get("VmLck", "0").split()[0] != "0"
    lock_future = (yield from processes.ask_lock_future(borrowed, borrowed.thread.tid)) if locks else 0
    return _Own(subreaper, futex_hash, itimers, posix_timers, lock_future)


def _untold(
    capture: Capture, chorus: Chorus, mains: Mapping[int, Borrowed], places: Mapping[int, proc.Stat]
) -> dict[int, jobs.Change]:
    """What parents in the tree have not heard of their children yet, by the children's pids."""
    families: dict[int, dict[int, int]] = {}  # parent → the number that a child has for it → what we call the child
    for pid, place in places.items():
        if place.ppid in mains:
            families.setdefault(place.ppid, {})[capture.numbers.get(pid, pid)] = pid
    heard = chorus.run(
        {mains[parent]: jobs.ask_untold(mains[parent], list(found)) for parent, found in families.items()}
    )
    return {found[number]: code for p, found in families.items() for number, code in heard[mains[p]].items()}


def layout(capture: Capture, pid: int) -> memory.Layout:
    """A process's mappings as entries; made on first use, which need not be in the pause."""
    if pid not in capture.layouts:
        process, entry = capture.tree.processes[pid], capture.processes[pid]
        made = memory.capture(pid, process.mappings, capture.ahead.vma_flags.of(pid))
        capture.layouts[pid] = made
        made.show_objects(capture.objects)
        entry.files, entry.vmas, entry.exe = made.files, made.vmas, _exe(pid, *capture.programs[pid])
    return capture.layouts[pid]


def _process(process: Process, place: proc.Stat, thread_entries: list[ThreadEntry], own: _Own) -> ProcessEntry:
    """The entry of a process, which `layout` and `inherited` complete."""
    pid, pending = process.pid, process.main.pending_signals(shared=True)
    if signals.has_no_room(process):
        pending += signals.of_no_record(process, process.view, pending, shared=True)
    return ProcessEntry(
        pid=pid, ppid=place.ppid, pgid=place.pgid, sid=place.sid, exe=NO_FILE, argv=[], mm=NO_MM,
        files=[], vmas=[], pagemap=[], threads=thread_entries, sigactions={},
        pending=pending, itimers=own.itimers, timers=own.timers, descriptors=[],
        cwd="", root="/", umask=0, rlimits=[], credentials=NOBODY, subreaper=own.subreaper,
        stopped_by=process.main.group_stop, exit_signal=place.exit_signal, lock_future=own.lock_future,
        futex_hash=own.futex_hash,
    )  # fmt: skip


def _exe(pid: int, path: str, inode: int) -> FileIdentity:
    try:
        same = os.stat(path).st_ino == inode
    except OSError:
        same = False
    if not same:
        raise ResourceUnsupported(
            f"the program file of process {pid} is gone or was replaced while it ran: {path}",
            hint="bring the file back and checkpoint again", pid=pid, path=path,
        )  # fmt: skip
    return mapped_files.identify(path)


def capture_descriptors(capture: Capture, kinds: Sequence[descriptors.Kind]) -> None:
    """Descriptor tables and open file descriptions of the whole tree."""
    descriptors.capture(capture.tables, kinds)
    terminal_sessions.warn_unreachable(capture.tables)
    for pid, entry in capture.processes.items():
        entry.descriptors = capture.tables.tables[pid]


def capture_sysv(capture: Capture) -> None:
    """System V message queues and semaphores that the tree uses; what it promised to undo, just before it is killed."""
    pids = [*capture.processes, *capture.tree.zombies]
    tables = capture.tables
    capture.message_queues = sysv_ipc.capture_queues(pids, tables.warnings)
    sets = capture.semaphore_sets = sysv_ipc.capture_sets(pids, tables.warnings, ending=tables.ending)
    tables.last.append(lambda: sysv_ipc.take_undo(sets, capture.tree.processes))


def capture_shared_memory(capture: Capture) -> None:
    """Objects that a fork would not copy; read while everything is stopped."""
    kept = {getattr(entry, "shared", "") for entry in capture.tables.descriptions} - {""}
    showing = [
        pid
        for pid, process in capture.tree.processes.items()
        if any(map(_in_memory, process.shared_mappings)) or (kept and process.private_views)
    ]
    layouts = {pid: layout(capture, pid) for pid in showing}
    keys = {key for found in layouts.values() for key in found.shared} | kept
    in_flight = capture.tables.mapped_in_flight
    fds = in_flight | {
        shared_memory.key_of_stat(look.stat): look.own
        for look in capture.tables.looks
        if stat.S_ISREG(look.stat.st_mode) and not look.in_flight and shared_memory.key_of_stat(look.stat) in keys
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
    return mapping.path.startswith(("/dev/", "/memfd:", "/SYSV")) or "(deleted)" in mapping.path


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


def inventory(capture: Capture, *, channel_fd: int, durable: bool) -> Inventory:
    """The root record."""
    root = capture.processes[capture.tree.root]
    mapped_files.add_contents(list(capture.processes.values()))  # what a thread has not done yet, or could not
    made = Inventory(
        format=FORMAT_VERSION,
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds"),
        host=host_entry(len(next(t for t in root.threads if not t.exited).xstate)),
        root_pid=capture.tree.root,
        channel_fd=channel_fd,
        processes=list(capture.processes.values()),
        zombies=[
            ZombieEntry(
                pid=s.pid, ppid=s.ppid, pgid=s.pgid, sid=s.sid, exit_code=s.exit_code, name=s.comm,
                exit_signal=s.exit_signal, uid=_user_of(s.pid),
            )
            for s in capture.tree.zombies.values()
        ],
        descriptions=capture.tables.descriptions,
        shared_memory=capture.shared,
        files=capture.writer.record(capture.digests, durable=durable),
        warnings=capture.warnings,
        pause_ms=capture.pause_ms,
        outside_sessions=capture.outside_sessions,
        files_policy=capture.tables.files,  # type: ignore[arg-type]
        message_queues=capture.message_queues,
        semaphore_sets=capture.semaphore_sets,
    )  # fmt: skip
    renumber(made, capture.numbers)
    return made


def _user_of(pid: int) -> int:
    """Whose a dead process was; -1 when it is gone by now."""
    try:
        return int(proc.status(pid)["Uid"].split()[0])
    except (OSError, KeyError):
        return -1


def boot_id() -> str:
    """Changes with every boot of the host."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def host_entry(xstate_bytes: int) -> HostEntry:
    """This host, as far as an image depends on it."""
    system = os.uname()
    return HostEntry(
        hostname=socket.gethostname(), os_kernel=system.release, machine=system.machine, boot_id=boot_id(),
        page_size=os.sysconf("SC_PAGE_SIZE"), xstate_bytes=xstate_bytes,
        vdso_blake3=blake3(memory.vdso_bytes(os.getpid())).hexdigest(),
    )  # fmt: skip
