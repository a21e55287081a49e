"""The two pipelines: a tree of processes to an image, and an image to a tree of processes. One line a step."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import msgspec

from kernel_backend import (
    ahead,
    capture_memory,
    checks,
    failures,
    fates,
    furnishing,
    launch,
    old_pids,
    originals,
    present,
)
from kernel_backend import capture as cap
from kernel_backend import rebuild as reb
from kernel_backend.host import limits, proc
from kernel_backend.image.entries import Inventory
from kernel_backend.image.reader import read_inventory
from kernel_backend.image.writer import INVENTORY, ImageWriter
from kernel_backend.resources import (
    descriptors,
    fanotify,
    file_policy,
    lazy_pages,
    locks,
    mount_namespaces,
    namespaces,
    placing_fds,
    roots,
    seccomp,
    sharing,
    signals,
    tcp_kept,
    time_namespaces,
    user_namespaces,
    visits,
)
from kernel_backend.stages import Stage, reach
from kernel_backend.tracee.process import Process
from kernel_backend.tracee.thread import Thread
from kernel_backend.tracee.tree import FrozenTree, frozen_tree
from kernel_backend.tracee.twin import Twin, clean_stale_twins

LEAVE = ("running", "stopped", "killed")


class DumpProgress(msgspec.Struct):
    """Said the moment the originals run again."""

    pause_ms: float
    resident_bytes: int
    processes: int
    threads: int
    warnings: list[str]


class DumpReport(msgspec.Struct):
    """What a dump did."""

    pid: int
    pids: list[int]
    pause_ms: float
    duration_ms: float
    size_bytes: int
    warnings: list[str] = []


def preload() -> None:
    """Import now what a dump and a restore would import when somebody waits for them."""
    descriptors.all_kinds()


def dump(
    pid: int,
    image_dir: str | Path,
    *,
    leave: str = "running",
    tree: bool = True,
    files: str = "keep",
    tcp: str = "reset",
    channel_fd: int | None = None,
    on_resume: Callable[[DumpProgress], None] | None = None,
    durable: bool = True,
) -> DumpReport:
    """Write an image of the process (and the tree below it) to `image_dir`.

    With `leave` "running" the processes go on as soon as each has a frozen twin; their memory is written from the
    twins. `files` says what a restore does about files being written (file_policy.py), `tcp` what becomes of
    connections to outside: "reset", or "keep", which takes CAP_NET_ADMIN and `leave` "killed" (tcp_kept.py).
    `channel_fd` is a descriptor of `pid` that the image does not capture (the requester's channel). `on_resume` is
    called when the pause is over. `durable` syncs the image to the disk before it appears.

    Raises EngineError subclasses; then there is no image and the processes go on unharmed. Where they were to be
    stopped or killed, the image is complete before any of that begins.
    """
    if leave not in LEAVE:
        raise ValueError(f"leave must be one of {', '.join(LEAVE)}")
    if files not in file_policy.POLICIES:
        raise ValueError(f"files must be one of {', '.join(file_policy.POLICIES)}")
    tcp_kept.check(tcp, leave)
    begun = time.perf_counter()
    try:
        reach(Stage.DUMP_PREPARE, pid)
        with ImageWriter(Path(image_dir)) as writer:
            request = _Request(pid, tree, leave, files, tcp, channel_fd, on_resume, durable)
            capture, size = _dump_to(writer, request)
    except Exception as error:
        raise failures.of_dump(error, pid) from error
    duration_ms = (time.perf_counter() - begun) * 1e3
    if leave == "stopped":
        originals.await_stopped(list(capture.processes))
    return DumpReport(pid, list(capture.processes), capture.pause_ms, duration_ms, size, capture.warnings)


class _Request(msgspec.Struct):
    """What a dump was asked for."""

    pid: int
    tree: bool
    leave: str
    files: str
    tcp: str
    channel_fd: int | None
    on_resume: Callable[[DumpProgress], None] | None
    durable: bool


def _dump_to(writer: ImageWriter, request: _Request) -> tuple[cap.Capture, int]:
    """The pipeline; the capture and how many bytes of pages there are."""
    kinds = descriptors.all_kinds()
    pid = request.pid
    reach(Stage.DUMP_LOOK, pid)
    members = ahead.tree_pids(pid, descend=request.tree)
    seccomp.check_running(members)
    fanotify.check_running(members)
    for member in members:
        clean_stale_twins(member)
    seen = ahead.look_ahead(members)
    sharing.check_filters(seen.unlike)
    with ExitStack() as stack:
        stack.enter_context(originals.no_garbage_collection())
        reach(Stage.DUMP_FREEZE, pid)
        with frozen_tree(pid, descend=request.tree) as frozen:  # the pause begins
            stopped_at = time.perf_counter()
            capture = _capture(frozen, writer, seen, kinds, request, stack)
            twins = originals.give_twins(frozen, capture, stack) if request.leave == "running" else {}
            if not twins:
                size = _write_all_stopped(frozen, capture, kinds, request, stopped_at)
            reach(Stage.DUMP_THAW, pid)
        if twins:
            capture.pause_ms = (time.perf_counter() - stopped_at) * 1e3
            reach(Stage.DUMP_RESUMED, pid)
            _tell(request, capture)
            size = _write_memory(capture, twins)
            _publish(capture, request, stopped_at)
    if not twins:
        _tell(request, capture)
    return capture, size


def _write_all_stopped(
    frozen: FrozenTree, capture: cap.Capture, kinds: list[descriptors.Kind], request: _Request, stopped_at: float
) -> int:
    """The rest of a dump without twins: all is written from the processes themselves, which stand still until then.

    So it is where they are to be stopped or killed afterwards, and where twins cannot be had. Returns how many bytes of
    pages there are.
    """
    size = _write_memory(capture, {})
    reach(Stage.DUMP_TAKE_LAST, frozen.root)
    with tcp_kept.Keeping() as keeping:
        if request.tcp == "keep":
            capture.tables.last.append(lambda: keeping.take(capture.tables))
        descriptors.read_last(capture.tables, kinds)
        _publish(capture, request, stopped_at)
        reach(Stage.DUMP_LEAVE, frozen.root)
        originals.leave_as(frozen, request.leave, keeping)
    return size


def _capture(
    frozen: FrozenTree,
    writer: ImageWriter,
    seen: ahead.Ahead,
    kinds: list[descriptors.Kind],
    request: _Request,
    stack: ExitStack,
) -> cap.Capture:
    channel = None if request.channel_fd is None else (frozen.root, request.channel_fd)
    ending = request.leave == "killed"
    tables = descriptors.CaptureTables(
        writer.folder, frozen.processes, channel=channel, ending=ending, files=request.files
    )
    stack.callback(tables.close)
    capture = cap.Capture(writer, frozen, seen, tables)
    reach(Stage.DUMP_FROZEN, frozen.root)
    cap.refuse_early(capture)
    cap.enter_namespaces(capture, stack.enter_context(visits.Visit()))
    reach(Stage.DUMP_PROCESSES, frozen.root)
    cap.capture_processes(capture)
    reach(Stage.DUMP_DESCRIPTORS, frozen.root)
    cap.capture_descriptors(capture, kinds)
    cap.capture_sysv(capture)
    reach(Stage.DUMP_SHARED_MEMORY, frozen.root)
    capture_memory.capture_shared_memory(capture)
    cap.check_ipc(capture)
    if request.leave == "running":
        reach(Stage.DUMP_NOT_FORKED, frozen.root)
        capture_memory.capture_not_forked(capture)
    return capture


def _tell(request: _Request, capture: cap.Capture) -> None:
    if request.on_resume is not None:
        threads = sum(len(entry.threads) for entry in capture.processes.values())
        resident = sum(originals.resident_bytes(pid) for pid in capture.processes)
        request.on_resume(DumpProgress(capture.pause_ms, resident, len(capture.processes), threads, capture.warnings))


def _write_memory(capture: cap.Capture, twins: dict[int, Twin]) -> int:
    capture_memory.begin_digests(capture)
    for work in capture.tables.later:
        work()
    capture_memory.capture_inherited(capture, twins)
    capture_memory.find_common_pages(capture, twins)
    size = 0
    for pid in capture.processes:
        reach(Stage.DUMP_PAGES, pid)
        twin = twins.get(pid)
        size += capture_memory.write_pages(capture, pid, twin)
        if twin:
            twin.end()
    return size


def _publish(capture: cap.Capture, request: _Request, stopped_at: float) -> None:
    capture.tables.close()
    if not capture.pause_ms:
        capture.pause_ms = (time.perf_counter() - stopped_at) * 1e3
    channel_fd = -1 if request.channel_fd is None else request.channel_fd
    root = cap.inventory(capture, channel_fd=channel_fd, durable=request.durable)
    capture.writer.publish(root, durable=request.durable)


# --- restore ----------------------------------------------------------------------------------------------------------


class Restored(msgspec.Struct):
    """A tree that runs again."""

    pid: int
    pids: dict[int, int]
    warnings: list[str] = []
    init_pid: int = 0  # of the pid namespace made for the tree, which ends as its root ends; 0: none was made

    def wait(self) -> int:
        """Wait for the root process (a child of ours); its wait status."""
        return os.waitpid(self.init_pid or self.pid, 0)[1]


def restore(
    image_dir: str | Path,
    *,
    into: int | None = None,
    pid: str = "auto",
    lazy: bool | None = False,
    trust: bool = False,
    files: str | None = None,
    parting: bool = False,
    channel: socket.socket | None = None,
    stdio: tuple[int, int, int] = (0, 1, 2),
    on_ready: Callable[[], None] | None = None,
    on_commit: Callable[[], None] | None = None,
) -> Restored:
    """Bring an image back: as a fresh tree, or `into` a living process, which keeps its pid.

    `pid` says what to do about pids: "same" insists on the old ones, "any" takes new ones, "auto" keeps them where
    the OS kernel permits. `lazy` maps large blocks of memory from the image instead of reading them (lazy_pages.py);
    None: where the image was written since the host booted, into a local file system. `channel` is put where the
    image's channel was. `stdio` are our descriptors for standard streams whose other end was outside the image (-1:
    /dev/null). `trust` takes an image that somebody else owns, or may write to, and lets root open for it what its own
    user could not. `files`: instead of what the dump said about files being written. `parting`: the caller is about to
    end and leaves a fresh tree to itself, which must not take that for its parent's death. `on_ready` is called when
    the image has been validated and the present still runs, `on_commit` when it is stopped, just before the point of
    no return.

    Raises EngineError subclasses; RestoreFailed has `past_no_return`. On failure nothing half-made stays behind.
    """
    if files not in (None, *file_policy.POLICIES):
        raise ValueError(f"files must be one of {', '.join(file_policy.POLICIES)}")
    with checks.held(Path(image_dir)) as folder:
        try:
            rebuild = _validated(folder, lazy, trust, files, channel, stdio)
            rebuild.parting = parting
            reach(Stage.RESTORE_READY)
            if on_ready is not None:
                on_ready()
            with ExitStack() as stack:
                stack.enter_context(rebuild.visit)
                stack.callback(reb.discard, rebuild)
                stack.enter_context(rebuild.tables.guardian)
                if into is None:
                    return _restore_fresh(rebuild, pid, on_commit)
                return _restore_into(rebuild, into, pid, on_commit)
        except Exception as error:
            raise failures.of_restore(error) from error


def _validated(
    folder: Path,
    lazy: bool | None,
    trust: bool,
    files: str | None,
    channel: socket.socket | None,
    stdio: tuple[int, int, int],
) -> reb.Rebuild:
    """An image that was found good, about to be rebuilt."""
    reach(Stage.RESTORE_READ)
    if not trust:
        checks.check_owner(folder, [INVENTORY])
    inventory = read_inventory(folder)
    reach(Stage.RESTORE_CHECK)
    written_here = inventory.host.boot_id == cap.boot_id()
    if lazy is None:
        lazy = written_here and lazy_pages.can_stay(folder)
    checks.check_all(folder, inventory, lazy=lazy, trust=trust)
    tables = descriptors.RebuildTables(
        folder, inventory.descriptions, root_pid=inventory.root_pid, stdio=stdio,
        files=files or inventory.files_policy, files_then=inventory.files_policy,
        boot_id_same=written_here, channel_fd=channel.fileno() if channel else -1,
    )  # fmt: skip
    file_policy.check(tables)
    _note_holders(tables, inventory)
    user = None if trust else checks.image_user(inventory)
    if user is not None:
        outside = (entry for entry in inventory.processes if entry.user == user_namespaces.OURS)
        everybody = ((thread.tid, entry) for entry in outside for thread in entry.threads)
        tables.users = {tid: entry.credentials.uids[1] for tid, entry in everybody}
    return reb.Rebuild(folder, inventory, tables, descriptors.all_kinds(), set_tids=False, lazy=lazy, user=user)


def _note_holders(tables: descriptors.RebuildTables, inventory: Inventory) -> None:
    """Who has which description open, at which number: processes, and threads with a table of their own."""
    for entry in inventory.processes:
        for holder, rows in [(entry.pid, entry.descriptors), *((t.tid, t.descriptors or []) for t in entry.threads)]:
            for row in rows:
                tables.holders.setdefault(row.description, []).append((holder, row.fd))


def _check_place(rebuild: reb.Rebuild, policy: str, replaced: Process | None, leaving: set[int]) -> None:
    """Whether the tree can live where it is to live, and with which pids; go into its namespaces.

    `replaced` is the process that it replaces, whose tree has the numbers `leaving`; None: it is forked from us.
    """
    inventory, for_a_user = rebuild.inventory, rebuild.user is not None
    pid = replaced.pid if replaced else os.getpid()
    placing_fds.check(inventory, placing_fds.limit_of(pid))
    signals.check(inventory, limits.hard(pid, limits.SIGPENDING))
    old_pids.choose(rebuild, policy, leaving, replaced)
    root = replaced.pid if replaced else 0
    roots.check(inventory, root, own_namespace=rebuild.own_namespace, for_a_user=for_a_user)
    user_namespaces.check(inventory, rebuild.user)
    mount_namespaces.check(inventory, replaced)
    namespaces.check(inventory, replaced, same_boot=rebuild.tables.boot_id_same, for_a_user=for_a_user)
    time_namespaces.check(inventory, replaced, same_boot=rebuild.tables.boot_id_same, for_a_user=for_a_user)
    seccomp.check_image(inventory, replaced, for_a_user=for_a_user)
    rebuild.enter_namespaces(replaced)


def _restore_fresh(rebuild: reb.Rebuild, policy: str, on_commit: Callable[[], None] | None) -> Restored:
    checks.check_memory(rebuild.inventory)
    _check_place(rebuild, policy, None, set())
    try:
        reb.prepare(rebuild)
        reach(Stage.RESTORE_COMMIT)
        if on_commit is not None:
            on_commit()
        reach(Stage.RESTORE_SPAWN)
        leader = reb.spawn_root(rebuild)
        checks.check_xstate(rebuild.inventory, len(leader.get_xstate()))
        _build(rebuild, leader)
    except BaseException:
        reb.abandon(rebuild)
        raise
    pids = rebuild.pids_outside()
    init_pid = rebuild.init.thread.tgid if rebuild.init else 0
    return Restored(pids[rebuild.inventory.root_pid], pids, rebuild.warnings, init_pid)


def _restore_into(rebuild: reb.Rebuild, target: int, policy: str, on_commit: Callable[[], None] | None) -> Restored:
    reach(Stage.RESTORE_FREEZE, target)
    members = ahead.tree_pids(target, descend=True)
    seccomp.check_running(members)
    fanotify.check_running(members)
    with frozen_tree(target) as frozen:
        process = frozen.processes[target]
        reach(Stage.RESTORE_JUDGE, target)
        checks.check_memory(rebuild.inventory, freed=originals.resident_bytes(target))
        checks.check_xstate(rebuild.inventory, len(process.main.get_xstate()))
        user_namespaces.check_present(rebuild.inventory, process, same_boot=rebuild.tables.boot_id_same)
        mount_namespaces.check_present(rebuild.inventory, process, same_boot=rebuild.tables.boot_id_same)
        present.check_taking_over(rebuild.inventory, frozen, process)
        if present.keeps_no_new_privs(rebuild.inventory, process):
            rebuild.tables.warn(f"process {target} may gain no privileges any more (PR_SET_NO_NEW_PRIVS)")
        _check_place(rebuild, policy, process, frozen.tids)
        rebuild.uts.stays(rebuild.root, target)
        rebuild.mounts.stays(rebuild.root, process.view)
        rebuild.users.stays(rebuild.root, process.view)
        rebuild.times.stays(rebuild.inventory, process.view)
        _take_from_present(rebuild, frozen, process)
        with locks.leases_laid_down(frozen.processes.values()), _discarded_on_failure(rebuild):
            reb.prepare(rebuild, frozen.processes.values())
            reach(Stage.RESTORE_COMMIT, target)
            if on_commit is not None:
                on_commit()
        present.tie_together(frozen, rebuild.tables.guardian)
        try:
            present.empty(frozen, process)
            rebuild.rewind_namespaces()
            _build(rebuild, process.main)
        except BaseException as error:
            present.end(frozen)
            reb.abandon(rebuild)
            if isinstance(error, Exception):
                raise failures.of_restore(error, past_no_return=True) from error
            raise
        for member in frozen.processes.values():
            member.threads.clear()  # nothing of the old life is left to let go
    return Restored(target, rebuild.pids_outside(), rebuild.warnings)


def _take_from_present(rebuild: reb.Rebuild, frozen: FrozenTree, process: Process) -> None:
    """What the present has that the image may get back as it is: its descriptors, and the sockets of its tree."""
    tables = rebuild.tables
    tables.present_pid = process.pid
    tables.live = {fd: process.take_fd(fd) for fd in proc.fd_numbers(process.pid)}
    tables.leaving_sockets |= present.sockets_of(frozen)
    tables.below = present.sockets_below(frozen, process)
    tables.same_place = tables.boot_id_same and proc.inner_id(process.pid) == rebuild.root.pid


@contextmanager
def _discarded_on_failure(rebuild: reb.Rebuild) -> Iterator[None]:
    """Nobody can have a lease for writing on a file while we have it open."""
    try:
        yield
    except BaseException:
        reb.discard(rebuild)
        raise


def _build(rebuild: reb.Rebuild, leader: Thread) -> None:
    """What both have in common: a tree of stubs becomes the image's tree and runs."""
    reach(Stage.RESTORE_TREE, leader.tgid)
    limits.lift(leader.tgid)
    reb.grow_tree(rebuild, leader)
    for building in rebuild.built.values():
        furnishing.furnish(rebuild, building)
        furnishing.close_memory(rebuild, building)
    reb.make_rings(rebuild)
    reb.move_in(rebuild)
    for building in rebuild.built.values():  # descriptors: what memory needed is closed in everybody's table by now
        reach(Stage.RESTORE_PLACE, building.pid)
        furnishing.place_descriptors(rebuild, building)
        reach(Stage.RESTORE_SETTLE, building.pid)
        furnishing.settle(rebuild, building)
        reach(Stage.RESTORE_THREADS, building.pid)
        launch.make_threads(rebuild, building)
        furnishing.leave_tables(rebuild, building)
    reb.remove_folders(rebuild)
    reb.lead_rings_on(rebuild)
    reach(Stage.RESTORE_ZOMBIES, leader.tgid)
    fates.happen_again(rebuild)
    reach(Stage.RESTORE_FINISH, leader.tgid)
    reb.finish_descriptors(rebuild)
    for building in rebuild.built.values():
        reach(Stage.RESTORE_IDENTITY, building.pid)
        launch.identity(rebuild, building)
    reach(Stage.RESTORE_REFILL, leader.tgid)
    reb.refill(rebuild)
    reb.watch_files(rebuild)
    launch.arm(rebuild)
    launch.let_go(rebuild)
