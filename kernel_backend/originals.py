"""The processes that a dump is of: held without delay, given twins, and left as was asked for."""

from __future__ import annotations

import gc
import os
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from kernel_backend.capture import Capture
from kernel_backend.host import proc, room
from kernel_backend.tracee import stub
from kernel_backend.tracee.tree import FrozenTree
from kernel_backend.tracee.twin import Twin, make_twin, reap, reap_all, stale_twins


@contextmanager
def no_garbage_collection() -> Iterator[None]:
    """A collection in the pause would lengthen it by milliseconds."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def make_twins(frozen: FrozenTree, capture: Capture, stack: ExitStack) -> dict[int, Twin]:
    """A twin of every process, or none at all when memory is too scarce for what they may rewrite meanwhile."""
    resident = sum(resident_bytes(pid) for pid in frozen.processes)
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


def resident_bytes(pid: int) -> int:
    """Resident bytes that are not shared with files."""
    fields = Path(f"/proc/{pid}/statm").read_text().split()
    return (int(fields[1]) - int(fields[2])) * os.sysconf("SC_PAGE_SIZE")


def leave_as(frozen: FrozenTree, how: str) -> None:
    """What the caller asked for, done while every thread is still stopped under us."""
    if how == "stopped":
        for pid in frozen.processes:
            os.kill(pid, signal.SIGSTOP)
    elif how == "killed":
        for pid, process in reversed(frozen.processes.items()):
            with process.borrow() as borrowed:  # its children are dead: free their pids, init may be slow to do it
                reap_all(borrowed.call)
            stub.kill_and_collect(pid, process.threads)
            process.threads.clear()


_STOPS_WITHIN_S = 1.0


def await_stopped(pids: list[int]) -> None:
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
