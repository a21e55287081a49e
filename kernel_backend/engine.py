"""The two pipelines: a tree of processes to an image, and an image to a tree of processes. One line a step."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from kernel_backend import capture as cap
from kernel_backend import checks, family, launch, old_pids, originals, present
from kernel_backend import rebuild as reb
from kernel_backend.errors import EngineError, RestoreFailed
from kernel_backend.host import proc
from kernel_backend.image.reader import read_inventory
from kernel_backend.image.writer import ImageWriter
from kernel_backend.resources import descriptors
from kernel_backend.tracee.thread import Thread
from kernel_backend.tracee.tree import FrozenTree, frozen_tree
from kernel_backend.tracee.twin import Twin

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
        originals.clean_stale_twins(pid)
        flags = cap.vma_flags_of(cap.tree_pids(pid, descend=tree))
        with ExitStack() as twins_stack:
            twins_stack.enter_context(originals.no_garbage_collection())
            with frozen_tree(pid, descend=tree) as frozen:
                stopped_at = time.perf_counter()
                capture = _capture(frozen, writer, flags, kinds, channel_fd, ending=leave == "killed")
                if leave == "running":
                    cap.capture_not_forked(capture)
                twins = originals.make_twins(frozen, capture, twins_stack) if leave == "running" else {}
                if not twins:
                    size = _write_memory(capture, {})
                    descriptors.read_last(capture.tables, kinds)
                    _publish(capture, channel_fd, stopped_at, durable)
                    originals.leave_as(frozen, leave)
            if twins:
                capture.pause_ms = (time.perf_counter() - stopped_at) * 1e3
                _tell(on_resume, capture, frozen)
                size = _write_memory(capture, twins)
                _publish(capture, channel_fd, stopped_at, durable)
        duration_ms = (time.perf_counter() - begun) * 1e3
    if leave == "stopped":
        originals.await_stopped(list(capture.processes))
    if not twins:
        _tell(on_resume, capture, frozen)
    return DumpReport(pid, list(capture.processes), capture.pause_ms, duration_ms, size, capture.warnings)


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


def _tell(on_resume: Callable[[DumpProgress], None] | None, capture: cap.Capture, frozen: FrozenTree) -> None:
    if on_resume is not None:
        threads = sum(len(entry.threads) for entry in capture.processes.values())
        resident = sum(originals.resident_bytes(pid) for pid in capture.processes if Path(f"/proc/{pid}").exists())
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
    checks.check_all(folder, inventory, lazy=lazy)
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
    checks.check_memory(rebuild.inventory)
    old_pids.choose(rebuild, policy, set(), None)
    descriptors.validate(rebuild.tables, rebuild.kinds)
    leader: Thread | None = None
    try:
        reb.prepare(rebuild)
        if on_commit is not None:
            on_commit()
        leader = reb.spawn_root(rebuild)
        checks.check_xstate(rebuild.inventory, len(leader.get_xstate()))
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
        checks.check_memory(rebuild.inventory, freed=originals.resident_bytes(target))
        checks.check_xstate(rebuild.inventory, len(process.main.get_xstate()))
        present.check_taking_over(rebuild.inventory, process)
        leaving = {tid for member in frozen.processes.values() for tid in member.threads} | set(frozen.zombies)
        old_pids.choose(rebuild, policy, leaving, process)
        rebuild.tables.live = {fd: process.take_fd(fd) for fd in proc.fd_numbers(target)}
        rebuild.tables.same_place = rebuild.tables.boot_id_same and proc.inner_id(target) == rebuild.root.pid
        descriptors.validate(rebuild.tables, rebuild.kinds)
        try:
            reb.prepare(rebuild)
        except BaseException as error:
            _raise_as_failure(error, past_no_return=False)
        if on_commit is not None:
            on_commit()
        leader = process.main
        try:
            present.empty(frozen, process)
            _build(rebuild, leader)
        except BaseException as error:
            reb.abandon(rebuild, leader)
            _raise_as_failure(error, past_no_return=True)
        for member in frozen.processes.values():
            member.threads.clear()  # nothing of the old life is left to let go
    return Restored(target, rebuild.pids_outside(), rebuild.warnings)


def _build(rebuild: reb.Rebuild, leader: Thread) -> None:
    """The common course: a tree of stubs becomes the image's tree and runs."""
    family.grow_tree(rebuild, leader)
    for building in rebuild.built.values():
        reb.become(rebuild, building)
        reb.fill(rebuild, building)
        reb.place_descriptors(building)
        reb.settle(rebuild, building)
        launch.make_threads(rebuild, building)
    family.end_zombies(rebuild)
    reb.finish_descriptors(rebuild)
    for building in rebuild.built.values():
        launch.identity(rebuild, building)
    launch.let_go(rebuild)


def _raise_as_failure(error: BaseException, *, past_no_return: bool) -> None:
    """Engine errors of before the point of no return stay what they are; the rest says where it happened."""
    if isinstance(error, EngineError) and not past_no_return:
        raise error
    if not isinstance(error, Exception):
        raise error
    hint = "the process was lost; restart the checkpoint into a fresh one" if past_no_return else ""
    raise RestoreFailed(f"the restore failed: {error}", hint=hint, past_no_return=past_no_return) from error
