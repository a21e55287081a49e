"""The two pipelines: a tree of processes to an image, and an image to a tree of processes. One line a step."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from kernel_backend import capture as cap
from kernel_backend.host import room
from kernel_backend.image.writer import ImageWriter
from kernel_backend.resources import descriptors
from kernel_backend.tracee.tree import FrozenTree, frozen_tree
from kernel_backend.tracee.twin import Twin, make_twin, reap, stale_twins

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
        flags = cap.vma_flags_of(cap.tree_pids(pid, descend=tree))
        with ExitStack() as twins_stack:
            with frozen_tree(pid, descend=tree) as frozen:
                stopped_at = time.perf_counter()
                capture = _capture(frozen, writer, flags, channel_fd)
                twins = _make_twins(frozen, capture, twins_stack) if leave == "running" else {}
                if not twins:
                    size = _write_memory(capture, {})
                    _publish(capture, channel_fd, stopped_at, durable)
                    _leave(frozen, leave)
            if twins:
                capture.pause_ms = (time.perf_counter() - stopped_at) * 1e3
                _tell(on_resume, capture, frozen)
                size = _write_memory(capture, twins)
                _publish(capture, channel_fd, stopped_at, durable)
        duration_ms = (time.perf_counter() - begun) * 1e3
    if not twins:
        _tell(on_resume, capture, frozen)
    return DumpReport(pid, list(capture.processes), capture.pause_ms, duration_ms, size, capture.warnings)


def _capture(
    frozen: FrozenTree, writer: ImageWriter, flags: dict[int, dict[int, frozenset[str]]], channel_fd: int | None
) -> cap.Capture:
    channel = None if channel_fd is None else (frozen.root, channel_fd)
    tables = descriptors.CaptureTables(writer.folder, frozen.processes, channel=channel)
    capture = cap.Capture(writer, frozen, flags, tables)
    cap.refuse_early(frozen)
    cap.capture_processes(capture)
    cap.capture_descriptors(capture)
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
        size += cap.write_pages(capture, pid, twin.pid if twin else pid, twin)
        if twin:
            twin.end()
    return size


def _publish(capture: cap.Capture, channel_fd: int | None, stopped_at: float, durable: bool) -> None:
    for look in capture.tables.looks:
        look.close()
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
        for pid in reversed(frozen.processes):
            os.kill(pid, signal.SIGKILL)


def clean_stale_twins(pid: int) -> None:
    """Reap what a killed helper left in a process."""
    stale = stale_twins(pid)
    if stale:
        reap(pid, stale)
