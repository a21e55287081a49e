"""From a frozen tree to the entries of an image: what the dump pipeline in engine.py does at each of its steps."""

from __future__ import annotations

import datetime
import os
import socket
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

import msgspec
from blake3 import blake3

from kernel_backend import kinship
from kernel_backend.abi import linux
from kernel_backend.ahead import Ahead
from kernel_backend.errors import TargetUnsupported
from kernel_backend.host import proc
from kernel_backend.image.descriptions import MessageQueue, unpack_path
from kernel_backend.image.entries import (
    FORMAT_VERSION,
    CredentialsEntry,
    FileIdentity,
    HostEntry,
    Inventory,
    IpcEntry,
    MmEntry,
    MountEntry,
    NetEntry,
    ProcessEntry,
    SharedMemoryEntry,
    SysvQueueEntry,
    SysvSetEntry,
    ThreadEntry,
    TimeEntry,
    TimerEntry,
    UserEntry,
    UtsEntry,
    ZombieEntry,
)
from kernel_backend.image.writer import ImageWriter
from kernel_backend.renumber import inner_numbers, renumber
from kernel_backend.resources import (
    control_groups,
    descriptors,
    inherited,
    ipc_namespaces,
    jobs,
    landlock,
    mapped_files,
    memory,
    mount_namespaces,
    namespaces,
    net_namespaces,
    pages,
    processes,
    roots,
    seccomp,
    settings,
    sharing,
    signals,
    sysv,
    sysv_ipc,
    terminal_sessions,
    threads,
    time_namespaces,
    timeouts,
    timers,
    unsaved,
    user_namespaces,
    userfaults,
    visits,
)
from kernel_backend.tracee.chorus import Asking, Chorus, together
from kernel_backend.tracee.inject import Borrowed
from kernel_backend.tracee.process import Process
from kernel_backend.tracee.tree import FrozenTree

# Stand in an entry until what belongs there has been read
NO_FILE = FileIdentity(path="", size=0, mtime_ns=0, device=0, inode=0)
NO_MM = MmEntry(
    start_code=0, end_code=0, start_data=0, end_data=0, start_brk=0, brk=0, start_stack=0, arg_start=0, arg_end=0,
    env_start=0, env_end=0, auxv=b"",
)  # fmt: skip
NOBODY = CredentialsEntry(
    uids=[], gids=[], groups=[], inheritable=0, permitted=0, effective=0, bounding=0, ambient=0, no_new_privs=False
)


class Capture(msgspec.Struct):
    """An image in the making: entries of the tree, and what is still needed to write its memory."""

    writer: ImageWriter
    tree: FrozenTree
    ahead: Ahead
    tables: descriptors.CaptureTables
    layouts: dict[int, memory.Layout] = {}
    processes: dict[int, ProcessEntry] = {}
    shared: list[SharedMemoryEntry] = []
    objects: set[str] = set()  # their keys
    apart: dict[int, dict[int, int]] = {}  # by KCMP_ kind, threads with tables of their own
    message_queues: list[SysvQueueEntry] = []
    semaphore_sets: list[SysvSetEntry] = []
    uts_namespaces: list[UtsEntry] = []
    time_namespaces: list[TimeEntry] = []
    user_namespaces: list[UserEntry] = []
    mount_namespaces: list[MountEntry] = []
    mounts: dict[int, int] = {}  # which of these processes are in, by pid
    ipc_namespace: IpcEntry | None = None
    net_namespace: NetEntry | None = None
    guards: dict[int, list[tuple[int, int]]] = {}  # those that a twin may have lost, by pid
    scans: dict[int, pages.Scan] = {}  # which pages there are, by pid
    held: dict[int, list[tuple[int, bytes]]] = {}  # pid → pages read in the pause
    digests: dict[str, str] = {}
    numbers: dict[int, int] = {}  # see renumber.py
    programs: dict[int, tuple[str, int]] = {}  # path and inode of /proc/PID/exe
    outside_sessions: list[int] = []
    pause_ms: float = 0.0

    @property
    def warnings(self) -> list[str]:
        """What the user should know."""
        return self.tables.warnings


def refuse_early(capture: Capture) -> None:
    """What cannot be captured at all is named before anything is read."""
    tree, ahead = capture.tree, capture.ahead
    sharing.check(tree.processes)
    views = {pid: process.view for pid, process in tree.processes.items()}
    capture.mount_namespaces, capture.mounts = mount_namespaces.capture(views)
    capture.apart = {kind: sharing.apart(tree.processes, kind) for kind in sharing.TABLES}
    for pid, process in tree.processes.items():
        sharing.check_rights(process, ahead.unlike)
        seccomp.check(process)
        processes.check_trap(pid, process.status())
        userfaults.check(process, ahead.vma_flags.served(pid))
        if processes.is_exiting(proc.stat(process.view)):
            raise TargetUnsupported(f"process {pid} is ending", pid=pid)


def enter_namespaces(capture: Capture, visit: visits.Visit) -> None:
    """Be in the tree's namespaces from now on, where it has some of its own."""
    root = capture.tree.processes[capture.tree.root]
    capture.ipc_namespace = ipc_namespaces.capture(root, visit)
    capture.net_namespace = net_namespaces.capture(root, visit)
    if capture.net_namespace is not None:
        capture.tables.later.append(partial(net_namespaces.add_settings, capture.net_namespace))


def capture_processes(capture: Capture) -> None:
    """Everything of every process but descriptors, memory, and what can wait until it has a twin."""
    tree = capture.tree.processes
    capture.numbers = inner_numbers(capture.tree)
    waits = timeouts.still_waiting(tree.values(), capture.ahead.asleep)  # before anything is injected
    borrowed = {pid: threads.borrow_all(process) for pid, process in tree.items()}
    places = {pid: proc.stat(pid) for pid in borrowed}
    with landlock.Outsiders() as outsiders, Chorus(b for members in borrowed.values() for b in members) as chorus:
        by_thread = _ask_threads(capture, chorus, borrowed, outsiders)
        mains = {pid: members[0] for pid, members in borrowed.items()}
        _ask_keyrings(capture, chorus, mains)
        by_process = chorus.run({main: _ask(main, pid, tree[pid]) for pid, main in mains.items()})
        views = {pid: process.view for pid, process in tree.items()}
        capture.user_namespaces, users = user_namespaces.capture(views)
        capture.uts_namespaces, uts = namespaces.capture(views, chorus, mains)
        capture.time_namespaces, times = time_namespaces.capture(views)
        untold = _untold(capture, chorus, mains, places)
        _ask_ends(capture, chorus, mains)
        for pid, members in borrowed.items():
            timers.find_owners(chorus, members, by_process[mains[pid]].timers)
        for pid, process in tree.items():
            entries = threads.capture(process, {member: by_thread[member] for member in borrowed[pid]}, waits)
            _note_folders(capture, pid, entries)
            entry = capture.processes[pid] = _process(process, places[pid], entries, by_process[mains[pid]])
            entry.untold, entry.uts = untold.get(pid, 0), uts.get(pid, namespaces.OURS)
            entry.user = users.get(pid, user_namespaces.OURS)
            entry.mount = capture.mounts.get(pid, mount_namespaces.OURS)
            entry.time, entry.time_of_children = times.get(pid, (time_namespaces.OURS, time_namespaces.OURS))
    for warn in (sharing.warn_of_groups_namespace, sharing.warn_of_labels):
        capture.warnings.extend(warn(tree.values()))
    _note_control_groups(capture)
    _note_programs(capture)
    _note_sharing(capture)
    _note_owners(capture)
    capture.outside_sessions = _outside_sessions(capture)
    _check_sharing(capture)


def _ask_threads(
    capture: Capture, chorus: Chorus, borrowed: Mapping[int, Sequence[Borrowed]], outsiders: landlock.Outsiders
) -> dict[Borrowed, threads.Told]:
    """What only a thread itself can tell, of every thread."""
    everybody = [member for members in borrowed.values() for member in members]
    otherwise, suspects = capture.ahead.speculating, capture.ahead.unlike
    unlike = set[int]().union(*(sharing.own_rights(process, suspects) for process in capture.tree.processes.values()))
    outside: dict[int, int] = {}  # tid → pid at which that thread is to try to look
    for pid, members in borrowed.items():
        tids = [member.thread.tid for member in members]
        outside.update(outsiders.of(capture.tree.processes[pid], tids, unlike))
    told = chorus.run(
        {
            b: threads.ask(
                b, speculates_otherwise=b.thread.tid in otherwise, own_rights=b.thread.tid in unlike,
                outsider=outside.get(b.thread.tid, landlock.NOBODY),
            )
            for b in everybody
        }
    )  # fmt: skip
    for b in (b for b in everybody if told[b].confined):
        outsiders.confirm(b.thread.tgid, b.thread.tid, outside[b.thread.tid])
    return told


def _note_folders(capture: Capture, pid: int, entries: Iterable[ThreadEntry]) -> None:
    """Of threads that have left the folders of their process."""
    for entry in entries:
        if entry.tid in capture.apart[linux.KCMP_FS]:
            entry.folders = inherited.folders_of_thread(pid, entry.tid)


def _note_control_groups(capture: Capture) -> None:
    """Of processes in others than the root, and of threads in others than their process."""
    views = {pid: process.view for pid, process in capture.tree.processes.items()}
    capture.warnings.extend(control_groups.capture(capture.processes, views, capture.tree.root))
    for pid in {*capture.ahead.grouped.values()} & capture.processes.keys():
        member = capture.processes[pid]
        capture.warnings.extend(control_groups.capture_threads(member, views[pid], capture.ahead.grouped))


def _note_programs(capture: Capture) -> None:
    for pid, process in capture.tree.processes.items():
        link = f"/proc/{process.view}/exe"
        capture.programs[pid] = os.readlink(link), os.stat(link).st_ino
        _ = process.maps_text  # read now, sorted out later: that may take longer than a pause should


def _outside_sessions(capture: Capture) -> list[int]:
    """Sessions that processes of the tree are in, and whose leaders live outside it."""
    sessions = {e.sid for e in capture.processes.values()} | {e.sid for e in capture.tree.zombies.values()}
    strange = sessions - capture.processes.keys() - capture.tree.zombies.keys()
    return sorted(sid for sid in strange if sid == 0 or Path(f"/proc/{sid}").exists())


class _Kin(msgspec.Struct):
    """See kinship.Kin."""

    processes: list[ProcessEntry]
    root_pid: int
    outside_sessions: list[int]


def _check_sharing(capture: Capture) -> None:
    """Refuse processes that share tables in a way in which no fork of ours could give them."""
    programs = capture.programs
    kin = _Kin(list(capture.processes.values()), capture.tree.root, capture.outside_sessions)
    for entry in kin.processes:
        shared = {linux.KCMP_FILES: entry.table_of, linux.KCMP_FS: entry.folders_of}
        kind, first = next(((kind, first) for kind, first in shared.items() if first), (0, 0))
        if first and not kinship.forker(kin, entry, lambda one, other: programs[one.pid] == programs[other.pid]):
            why = "without being parent and child, or siblings, in one session and with one program"
            raise sharing.alike(entry.pid, first, sharing.TABLES[kind], why)


def _note_sharing(capture: Capture) -> None:
    """Which processes have descriptors or folders in common, without being threads."""
    for pid, first in sharing.together(capture.tree.processes, linux.KCMP_FILES).items():
        capture.processes[pid].table_of = first
    for pid, first in sharing.together(capture.tree.processes, linux.KCMP_FS).items():
        capture.processes[pid].folders_of = first


def _note_owners(capture: Capture) -> None:
    """Of namespaces that belong to a user namespace of the tree: who is in that has to make them."""
    index = {space.inode: i for i, space in enumerate(capture.user_namespaces)}
    if index:
        user_namespaces.check_nothing_else(capture.tree.processes.values(), index)
    folders = {pid for entry in capture.processes.values() if entry.folders_of for pid in (entry.pid, entry.folders_of)}
    for pid, entry in capture.processes.items():
        view = capture.tree.processes[pid].view
        owned: list[tuple[str, UtsEntry | TimeEntry | MountEntry]] = []
        if entry.uts >= 0:
            owned.append(("uts", capture.uts_namespaces[entry.uts]))
        if entry.mount >= 0:
            owned.append(("mnt", capture.mount_namespaces[entry.mount]))
        if entry.time >= 0:
            owned.append(("time", capture.time_namespaces[entry.time]))
        if entry.time_of_children >= 0:
            owned.append(("time_for_children", capture.time_namespaces[entry.time_of_children]))
        for kind, made in owned if index else []:
            made.owner = index.get(user_namespaces.owner_of(view, kind), -1)
            user_namespaces.check_owner(entry, kind, made.owner)
        mount_namespaces.check_captured(entry, folders)
        user_namespaces.check_captured(entry, capture.user_namespaces, folders)


def _ask_keyrings(capture: Capture, chorus: Chorus, mains: dict[int, Borrowed]) -> None:
    """Keys are in no image: refuse those of processes, tell of those of their sessions."""
    about = capture.ahead.keyrings
    if about.own:
        chorus.run({main: unsaved.ask_keyrings(pid) for pid, main in mains.items()})
    if about.session:
        sessions = chorus.run({main: unsaved.ask_session_keyring() for main in mains.values()})
        losing = [pid for pid, main in mains.items() if sessions[main] in about.session]
        capture.warnings.extend(map(unsaved.session_keys_lost, losing[:1]))  # usually all are in the same session


class _Own(msgspec.Struct):
    """What a process itself was asked for."""

    subreaper: bool
    futex_hash: int
    itimers: list[bytes]
    timers: list[TimerEntry]
    lock_future: int


def _ask(borrowed: Borrowed, pid: int, process: Process) -> Asking[_Own]:
    at = borrowed.data
    plain = [*timers.itimer_questions(at), processes.subreaper_question(at + timers.ITIMERS_BYTES)]
    of_futexes, of_locks = settings.futex_hash_question(), processes.lock_questions(process)
    results = yield from together(borrowed, *plain, *of_futexes, unsure=of_locks)
    answers, about_locks = results[len(plain) :][: len(of_futexes)], results[len(plain) + len(of_futexes) :]
    raw = borrowed.get(timers.ITIMERS_BYTES + processes.SUBREAPER_BYTES)
    subreaper, itimers = processes.is_subreaper(raw[timers.ITIMERS_BYTES :]), timers.itimers_of(raw)
    posix_timers = yield from timers.ask_timers(borrowed, pid)
    lock_future = (yield from processes.ask_lock_future(borrowed)) if processes.may_lock(about_locks) else 0
    return _Own(subreaper, settings.futex_hash_of(answers), itimers, posix_timers, lock_future)


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


def _ask_ends(capture: Capture, chorus: Chorus, mains: Mapping[int, Borrowed]) -> None:
    """Ask parents how those have ended of whom /proc says 0 to us: of another user, or not dumpable (proc(5))."""
    families: dict[int, dict[int, proc.Stat]] = {}  # as in `_untold`
    for pid, stat in capture.tree.zombies.items():
        if stat.exit_code == 0 and stat.ppid in mains and not proc.may_see(pid):
            families.setdefault(stat.ppid, {})[capture.numbers.get(pid, pid)] = stat
    told = chorus.run({mains[parent]: jobs.ask_ends(mains[parent], list(found)) for parent, found in families.items()})
    for parent, found in families.items():
        for number, code in told[mains[parent]].items():
            found[number].exit_code = code


def _process(process: Process, place: proc.Stat, thread_entries: list[ThreadEntry], own: _Own) -> ProcessEntry:
    """The entry of a process, which `layout` and `inherited` complete."""
    pid, pending = process.pid, process.main.pending_signals(shared=True)
    if signals.has_no_room(process):
        pending += signals.of_no_record(process, process.view, pending, shared=True)
    entry = ProcessEntry(
        pid=pid, ppid=place.ppid, pgid=place.pgid, sid=place.sid, exe=NO_FILE, argv=[], mm=NO_MM,
        files=[], vmas=[], pagemap=[], threads=thread_entries, sigactions={},
        pending=pending, itimers=own.itimers, timers=own.timers, descriptors=[],
        cwd="", root=roots.capture(pid, process.view), umask=0, rlimits=[], credentials=NOBODY, subreaper=own.subreaper,
        stopped_by=process.main.group_stop, exit_signal=place.exit_signal, lock_future=own.lock_future,
        futex_hash=own.futex_hash, seccomp=seccomp.capture(process),
    )  # fmt: skip
    if place.sid == pid:
        entry.settings.autogroup_nice = settings.autogroup_nice(process.view)
    return entry


def capture_descriptors(capture: Capture, kinds: Sequence[descriptors.Kind]) -> None:
    """Descriptor tables and open file descriptions of the whole tree."""
    apart = capture.apart[linux.KCMP_FILES]
    capture.tables.apart = {tid: capture.tree.processes[pid].as_seen_by(tid) for tid, pid in apart.items()}
    descriptors.capture(capture.tables, kinds)
    terminal_sessions.warn_unreachable(capture.tables)
    for pid, entry in capture.processes.items():
        entry.descriptors = capture.tables.tables[pid]
        for thread in entry.threads:
            thread.descriptors = capture.tables.tables.get(thread.tid) if thread.tid in apart else None


def capture_sysv(capture: Capture) -> None:
    """System V message queues and semaphores that the tree uses; what it promised to undo, just before it is killed."""
    pids = [*capture.processes, *capture.tree.zombies]
    tables = capture.tables
    every = capture.ipc_namespace is not None
    capture.message_queues = sysv_ipc.capture_queues(pids, tables.warnings, every=every)
    sets = sysv_ipc.capture_sets(pids, tables.warnings, ending=tables.ending, every=every)
    capture.semaphore_sets = sets
    tables.last.append(lambda: sysv_ipc.take_undo(sets, capture.tree.processes))


def check_ipc(capture: Capture) -> None:
    """Of an IPC namespace of the tree's own everything is in the image."""
    if capture.ipc_namespace is not None:
        attached = {entry.sysv_id for entry in capture.shared if entry.kind == "sysv"}
        unattached = sorted(sysv.segments().keys() - attached)
        found = [entry for entry in capture.tables.descriptions if isinstance(entry, MessageQueue)]
        names = {unpack_path(entry.name) for entry in found if not entry.nameless}
        in_use = [queue.id for queue in capture.message_queues if not queue.complete]
        in_use += [present.id for present in capture.semaphore_sets if not present.complete]
        ipc_namespaces.check_whole(capture.tree.root, unattached, names, in_use)


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
        uts_namespaces=capture.uts_namespaces,
        user_namespaces=capture.user_namespaces,
        mount_namespaces=capture.mount_namespaces,
        time_namespaces=capture.time_namespaces,
        ipc_namespace=capture.ipc_namespace,
        net_namespace=capture.net_namespace,
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
