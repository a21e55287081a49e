"""The two pipelines: a tree of processes to an image, and an image to a tree of processes. One line a step."""

from __future__ import annotations

import gc
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from kernel_backend import capture as cap
from kernel_backend import family, old_pids
from kernel_backend import rebuild as reb
from kernel_backend.errors import EngineError, HostUnsupported, RestoreFailed
from kernel_backend.host import proc, room
from kernel_backend.host.features import probe
from kernel_backend.image.reader import read_inventory
from kernel_backend.image.writer import ImageWriter
from kernel_backend.resources import descriptors
from kernel_backend.tracee import stub
from kernel_backend.tracee.process import Process
from kernel_backend.tracee.thread import ALL_BUT_SIGTRAP, Thread
from kernel_backend.tracee.tree import FrozenTree, frozen_tree
from kernel_backend.tracee.twin import Twin, make_twin, reap, reap_all, stale_twins

LEAVE = ("running", "stopped", "killed")


@dataclass
class DumpProgress:
    """Said the moment the originals run again."""

    pause_ms: float
    resident_bytes: int
    processes: int
    threads: int
    warnings: list[str]


@dataclass
class DumpReport:
    """What a dump did."""

    pid: int
    pids: list[int]
    pause_ms: float
    duration_ms: float
    size_bytes: int
    warnings: list[str] = field(default_factory=list)


def dump(
    pid: int,
    image_dir: str | Path,
    *,
    leave: str = "running",
    tree: bool = True,
    channel_fd: int | None = None,
    on_resume: Callable[[DumpProgress], None] | None = None,
    durable: bool = True,
) -> DumpReport:
    """Write an image of the process (and the tree below it) to `image_dir`.

    With `leave` "running" the processes go on as soon as each has a frozen twin; their memory is written from the
    twins. `channel_fd` is a descriptor of `pid` that the image does not capture (the requester's channel).
    `on_resume` is called when the pause is over. `durable` syncs the image to the disk before it appears.

    Raises EngineError subclasses; then there is no image and the processes go on unharmed.
    """
    if leave not in LEAVE:
        raise ValueError(f"leave must be one of {', '.join(LEAVE)}")
    begun = time.perf_counter()
    with ImageWriter(Path(image_dir)) as writer:
        kinds = descriptors.all_kinds()
        clean_stale_twins(pid)
        flags = cap.vma_flags_of(cap.tree_pids(pid, descend=tree))
        with ExitStack() as twins_stack:
            twins_stack.enter_context(_no_garbage_collection())
            with frozen_tree(pid, descend=tree) as frozen:
                stopped_at = time.perf_counter()
                capture = _capture(frozen, writer, flags, kinds, channel_fd, ending=leave == "killed")
                if leave == "running":
                    cap.capture_not_forked(capture)
                twins = _make_twins(frozen, capture, twins_stack) if leave == "running" else {}
                if not twins:
                    size = _write_memory(capture, {})
                    descriptors.read_last(capture.tables, kinds)
                    _publish(capture, channel_fd, stopped_at, durable)
                    _leave(frozen, leave)
            if twins:
                capture.pause_ms = (time.perf_counter() - stopped_at) * 1e3
                _tell(on_resume, capture, frozen)
                size = _write_memory(capture, twins)
                _publish(capture, channel_fd, stopped_at, durable)
        duration_ms = (time.perf_counter() - begun) * 1e3
    if leave == "stopped":
        _await_stopped(list(capture.processes))
    if not twins:
        _tell(on_resume, capture, frozen)
    return DumpReport(pid, list(capture.processes), capture.pause_ms, duration_ms, size, capture.warnings)


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """A collection in the pause would lengthen it by milliseconds."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _capture(
    frozen: FrozenTree,
    writer: ImageWriter,
    flags: dict[int, dict[int, frozenset[str]]],
    kinds: list[descriptors.Kind],
    channel_fd: int | None,
    *,
    ending: bool,
) -> cap.Capture:
    channel = None if channel_fd is None else (frozen.root, channel_fd)
    tables = descriptors.CaptureTables(writer.folder, frozen.processes, channel=channel, ending=ending)
    capture = cap.Capture(writer, frozen, flags, tables)
    cap.refuse_early(frozen)
    cap.capture_processes(capture)
    cap.capture_descriptors(capture, kinds)
    cap.capture_shared_memory(capture)
    return capture


def _make_twins(frozen: FrozenTree, capture: cap.Capture, stack: ExitStack) -> dict[int, Twin]:
    """A twin of every process, or none at all when memory is too scarce for what they may rewrite meanwhile."""
    resident = sum(_resident_bytes(pid) for pid in frozen.processes)
    if room.available_bytes() < resident:
        capture.warnings.append("memory is scarce: the image was written while the session stood still")
        return {}
    twins: dict[int, Twin] = {}
    try:
        for pid, process in frozen.processes.items():
            twins[pid] = make_twin(process)
            stack.callback(twins[pid].end)
        for twin in twins.values():
            twin.settle()
    except OSError as error:
        capture.warnings.append(f"the image was written while the session stood still: fork failed ({error.strerror})")
        stack.close()
        return {}
    return twins


def _resident_bytes(pid: int) -> int:
    """Resident bytes that are not shared with files."""
    fields = Path(f"/proc/{pid}/statm").read_text().split()
    return (int(fields[1]) - int(fields[2])) * os.sysconf("SC_PAGE_SIZE")


def _tell(on_resume: Callable[[DumpProgress], None] | None, capture: cap.Capture, frozen: FrozenTree) -> None:
    if on_resume is not None:
        threads = sum(len(entry.threads) for entry in capture.processes.values())
        resident = sum(_resident_bytes(pid) for pid in capture.processes if Path(f"/proc/{pid}").exists())
        on_resume(DumpProgress(capture.pause_ms, resident, len(capture.processes), threads, capture.warnings))


def _write_memory(capture: cap.Capture, twins: dict[int, Twin]) -> int:
    for work in capture.tables.later:
        work()
    size = 0
    for pid in capture.processes:
        twin = twins.get(pid)
        size += cap.write_pages(capture, pid, twin)
        if twin:
            twin.end()
    return size


def _publish(capture: cap.Capture, channel_fd: int | None, stopped_at: float, durable: bool) -> None:
    capture.tables.close()
    if not capture.pause_ms:
        capture.pause_ms = (time.perf_counter() - stopped_at) * 1e3
    root = cap.inventory(capture, channel_fd=-1 if channel_fd is None else channel_fd, durable=durable)
    capture.writer.publish(root, durable=durable)


def _leave(frozen: FrozenTree, leave: str) -> None:
    """What `leave` asks for, done while every thread is still stopped under us."""
    if leave == "stopped":
        for pid in frozen.processes:
            os.kill(pid, signal.SIGSTOP)
    elif leave == "killed":
        for pid, process in reversed(frozen.processes.items()):
            with process.borrow() as borrowed:  # its children are dead: free their pids, init may be slow to do it
                reap_all(borrowed.call)
            stub.kill_and_collect(pid, process.threads)
            process.threads.clear()


_STOPS_WITHIN_S = 1.0


def _await_stopped(pids: list[int]) -> None:
    """A stop signal takes effect a moment after a thread was let go; whoever asked for it may look at once."""
    deadline = time.monotonic() + _STOPS_WITHIN_S
    for pid in pids:
        try:
            while proc.stat(pid).state not in "TZX" and time.monotonic() < deadline:
                time.sleep(0.001)  # nothing announces it to one who is not the parent
        except OSError:
            continue


def clean_stale_twins(pid: int) -> None:
    """Reap what a killed helper left in a process."""
    try:
        stale = stale_twins(pid)
    except OSError:
        return  # no such process: the freeze will say so
    if stale:
        reap(pid, stale)


# --- restore ----------------------------------------------------------------------------------------------------------


@dataclass
class Restored:
    """A tree that runs again."""

    pid: int
    pids: dict[int, int]
    warnings: list[str] = field(default_factory=list)
    init_pid: int = 0  # of the pid namespace made for the tree, which ends as its root ends; 0: none was made

    def wait(self) -> int:
        """Wait for the root process (a child of ours); its wait status."""
        return os.waitpid(self.init_pid or self.pid, 0)[1]


def restore(
    image_dir: str | Path,
    *,
    into: int | None = None,
    pid: str = "auto",
    lazy: bool = False,
    channel: socket.socket | None = None,
    stdio: tuple[int, int, int] = (0, 1, 2),
    on_ready: Callable[[], None] | None = None,
    on_commit: Callable[[], None] | None = None,
) -> Restored:
    """Bring an image back: as a fresh tree, or `into` a living process, which keeps its pid.

    `pid` says what to do about pids: "same" insists on the old ones, "any" takes new ones, "auto" keeps them where
    the OS kernel permits. `channel` is put where the image's channel was. `stdio` are our descriptors for standard
    streams whose other end was outside the image (-1: /dev/null). `on_ready` is called when the image has been
    validated and the present still runs, `on_commit` when it is stopped, just before the point of no return.

    Raises EngineError subclasses; RestoreFailed has `past_no_return`. On failure nothing half-made stays behind.
    """
    folder = Path(image_dir)
    inventory = read_inventory(folder)
    reb.check_all(folder, inventory, lazy=lazy)
    if on_ready is not None:
        on_ready()
    tables = descriptors.RebuildTables(
        folder, inventory.descriptions, root_pid=inventory.root_pid, stdio=stdio,
        boot_id_same=inventory.host.boot_id == cap.boot_id(), channel_fd=channel.fileno() if channel else -1,
    )  # fmt: skip
    for entry in inventory.processes:
        for row in entry.descriptors:
            tables.holders.setdefault(row.description, []).append((entry.pid, row.fd))
    rebuild = reb.Rebuild(folder, inventory, tables, descriptors.all_kinds(), set_tids=False, lazy=lazy)
    with ExitStack() as stack:
        stack.callback(reb.discard, rebuild)
        if into is None:
            return _restore_fresh(rebuild, pid, on_commit)
        return _restore_into(rebuild, into, pid, on_commit, stack)


def _restore_fresh(rebuild: reb.Rebuild, policy: str, on_commit: Callable[[], None] | None) -> Restored:
    reb.check_memory(rebuild.inventory)
    _choose_tids(rebuild, policy, set(), None)
    _validate_descriptors(rebuild)
    leader: Thread | None = None
    try:
        reb.prepare(rebuild)
        if on_commit is not None:
            on_commit()
        leader = reb.spawn_root(rebuild)
        reb.check_xstate(rebuild.inventory, len(leader.get_xstate()))
        _build(rebuild, leader)
    except BaseException as error:
        reb.abandon(rebuild, leader)
        _raise_as_failure(error, past_no_return=False)
    pids = rebuild.pids_outside()
    init_pid = rebuild.init.thread.tgid if rebuild.init else 0
    return Restored(pids[rebuild.inventory.root_pid], pids, rebuild.warnings, init_pid)


def _restore_into(
    rebuild: reb.Rebuild, target: int, policy: str, on_commit: Callable[[], None] | None, stack: ExitStack
) -> Restored:
    with frozen_tree(target) as frozen:
        process = frozen.processes[target]
        reb.check_memory(rebuild.inventory, freed=_resident_bytes(target))
        reb.check_xstate(rebuild.inventory, len(process.main.get_xstate()))
        reb.check_taking_over(rebuild.inventory, process)
        leaving = {tid for member in frozen.processes.values() for tid in member.threads} | set(frozen.zombies)
        _choose_tids(rebuild, policy, leaving, process)
        rebuild.tables.live = {fd: process.take_fd(fd) for fd in proc.fd_numbers(target)}
        rebuild.tables.same_place = rebuild.tables.boot_id_same and proc.inner_id(target) == rebuild.root.pid
        _validate_descriptors(rebuild)
        try:
            reb.prepare(rebuild)
        except BaseException as error:
            _raise_as_failure(error, past_no_return=False)
        if on_commit is not None:
            on_commit()
        leader = process.main
        try:
            _empty(frozen, process)
            _build(rebuild, leader)
        except BaseException as error:
            reb.abandon(rebuild, leader)
            _raise_as_failure(error, past_no_return=True)
        for member in frozen.processes.values():
            member.threads.clear()  # nothing of the old life is left to let go
    return Restored(target, rebuild.pids_outside(), rebuild.warnings)


def _choose_tids(rebuild: reb.Rebuild, policy: str, leaving: set[int], present: Process | None) -> None:
    """Decide how the tree gets its pids: the old ones, the old ones inside a namespace of its own, or new ones.

    `present` is the process that is taken over, if one is; its numbers and those below it are `leaving`.

    Raises HostUnsupported when the old ones are insisted on and cannot be had.
    """
    if policy == "any":
        return
    fresh = present is None
    permitted = old_pids.we_may_choose() if present is None else old_pids.it_may_choose(present)
    inside = os.getpid() if present is None else present.pid
    taken = old_pids.await_free(rebuild.inventory, leaving, inside, threads=fresh) if permitted else []
    if permitted and not taken:
        rebuild.set_tids = True
        return
    why = f"pid {taken[0]} is in use" if taken else "this user may not choose pids (CAP_CHECKPOINT_RESTORE)"
    if policy == "same":
        raise HostUnsupported(f"the old pids cannot be had: {why}", hint="use --pid auto, or free the pid")
    if fresh and probe()["user_namespaces"].available:
        rebuild.set_tids = rebuild.own_namespace = True
        rebuild.warnings.append(f"the processes keep their pids only inside a pid namespace of their own: {why}")
        return
    if fresh:
        rebuild.warnings.append(f"the processes have new pids: {why}")
    elif len(rebuild.inventory.processes) > 1:  # the root has the target's; thread ids are known to libc alone
        rebuild.warnings.append(f"child processes have new pids: {why}")


def _validate_descriptors(rebuild: reb.Rebuild) -> None:
    descriptors.validate(rebuild.tables, rebuild.kinds)


def _empty(frozen: FrozenTree, process: Process) -> None:
    """End the present: its children, its threads but one."""
    leader = process.main
    gadget = process.gadgets.syscall
    leader.set_options(stub.STUB_OPTIONS)
    for pid, member in reversed(frozen.processes.items()):
        if pid != process.pid:
            _reap_in(member)  # its children are dead: free their pids, init may be slow to do it
            stub.kill_and_collect(pid, member.threads)
            member.threads.clear()
    stub.end_threads([t for t in process.threads.values() if t is not leader], gadget)
    leader.set_sigmask(ALL_BUT_SIGTRAP)
    reap_all(lambda name, *args: stub.step_call(leader, gadget, name, *args))
    stub.step_call(leader, gadget, "close_range", 0, 0xFFFFFFFF, 0)


def _reap_in(member: Process) -> None:
    """Have a process that is about to be killed take the remains of its children."""
    try:
        with member.borrow() as borrowed:
            reap_all(borrowed.call)
    except (EngineError, OSError):
        return  # somebody else will


def _build(rebuild: reb.Rebuild, leader: Thread) -> None:
    """The common course: a tree of stubs becomes the image's tree and runs."""
    family.grow_tree(rebuild, leader)
    for building in rebuild.built.values():
        reb.become(rebuild, building)
        reb.fill(rebuild, building)
        reb.place_descriptors(building)
        reb.settle(rebuild, building)
        reb.make_threads(rebuild, building)
    family.end_zombies(rebuild)
    reb.finish_descriptors(rebuild)
    for building in rebuild.built.values():
        reb.identity(rebuild, building)
    reb.launch(rebuild)


def _raise_as_failure(error: BaseException, *, past_no_return: bool) -> None:
    """Engine errors of before the point of no return stay what they are; the rest says where it happened."""
    if isinstance(error, EngineError) and not past_no_return:
        raise error
    if not isinstance(error, Exception):
        raise error
    hint = "the process was lost; restart the checkpoint into a fresh one" if past_no_return else ""
    raise RestoreFailed(f"the restore failed: {error}", hint=hint, past_no_return=past_no_return) from error
