"""The processes that a dump is of: held without delay, given twins, and left as was asked for."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from kernel_backend import capture_memory, failures
from kernel_backend.abi.x86_64 import UserRegs
from kernel_backend.capture import Capture
from kernel_backend.errors import EngineError
from kernel_backend.host import proc, room, sockdiag
from kernel_backend.host.guardian import Guardian
from kernel_backend.resources.tcp_kept import Keeping
from kernel_backend.stages import Stage, reach
from kernel_backend.tracee import stub
from kernel_backend.tracee.process import Process
from kernel_backend.tracee.tree import FrozenTree
from kernel_backend.tracee.twin import Twin, make_twins, reap_all, would_be_taken

_TOLD_AT_ONCE = 1000


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


def give_twins(frozen: FrozenTree, capture: Capture, stack: ExitStack) -> dict[int, Twin]:
    """A twin of every process, or none at all when memory is too scarce for what they may rewrite meanwhile."""
    reach(Stage.DUMP_TWINS, frozen.root)
    resident = sum(resident_bytes(pid) for pid in frozen.processes)
    if room.available_bytes() < resident:
        return _without_twins({}, frozen, capture, "memory is scarce")
    for pid, entry in capture.processes.items():
        if any(would_be_taken(UserRegs.from_buffer_copy(thread.regs)) for thread in entry.threads if not thread.exited):
            why = f"process {pid} waits for children of every sort (__WALL), and would take its copy for one"
            return _without_twins({}, frozen, capture, why)
    twins: dict[int, Twin] = {}
    try:
        made, refused = make_twins(frozen.processes.values())
        for twin in made:
            twins[twin.original_pid] = twin
            stack.callback(twin.end)
            reach(Stage.DUMP_TWIN, twin.original_pid)
        if refused is not None:
            raise refused
        for twin in made:
            twin.settle()
        short = [pid for pid, twin in twins.items() if capture_memory.lacks_more_than_known(capture, pid, twin.pid)]
    except (OSError, MemoryError) as error:
        return _without_twins(twins, frozen, capture, f"fork failed ({failures.reason(error)})")
    if short:
        for pid in short:
            capture_memory.look_again(capture, pid)
        why = f"process {short[0]} had just kept memory out of forks (MADV_DONTFORK)"
        return _without_twins(twins, frozen, capture, why)
    return twins


def _without_twins(twins: dict[int, Twin], frozen: FrozenTree, capture: Capture, why: str) -> dict[int, Twin]:
    capture.warnings.append(f"the image was written while the session stood still: {why}")
    for pid, twin in twins.items():
        twin.end(frozen.processes[pid])
    return {}


def resident_bytes(pid: int) -> int:
    """Resident bytes that are not shared with files; 0 of a process that has ended."""
    try:
        fields = Path(f"/proc/{pid}/statm").read_text().split()
    except OSError:
        return 0
    return (int(fields[1]) - int(fields[2])) * os.sysconf("SC_PAGE_SIZE")


def leave_as(frozen: FrozenTree, how: str, keeping: Keeping) -> None:
    """What the caller asked for, done while every thread is still stopped under us."""
    if how == "stopped":
        _stop(frozen)
    elif how == "killed":
        with Guardian() as guardian:
            if len(frozen.processes) > 1 or keeping:
                guardian.processes([process.pidfd for process in frozen.processes.values()])
            keeping.silence()
            connections = {tcp.inode for tcp in sockdiag.tcp_entries() if tcp.remote[1]}
            for process in reversed(frozen.processes.values()):
                _let_ports_be_bound(process, connections)
                _end(process)


def _stop(frozen: FrozenTree) -> None:
    """Stop all; should we be killed half-way, all go on."""
    running = [pid for pid, process in frozen.processes.items() if not process.main.group_stop]
    with Guardian({"stopped": _go_on}) as guardian:
        for first in range(0, len(running) if len(running) > 1 else 0, _TOLD_AT_ONCE):
            guardian.tell("stopped", [_who(pid) for pid in running[first : first + _TOLD_AT_ONCE]])
        for pid in frozen.processes:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)


def _who(pid: int) -> list[int]:
    """A process for certain: its number, and when it began (-1: it is gone)."""
    try:
        return [pid, proc.stat(pid).start_ticks]
    except OSError:
        return [pid, -1]


def _go_on(stopped: list[list[int]]) -> None:
    for who in stopped:
        with contextlib.suppress(OSError):
            if _who(who[0]) == who:
                os.kill(who[0], signal.SIGCONT)


def _let_ports_be_bound(process: Process, connections: set[int]) -> None:
    """Let what remains of its connections for a minute (TIME_WAIT) keep nobody from listening at their ports again.

    A restore without privileges cannot end that, and the program may not have asked for SO_REUSEADDR.
    """
    if not connections:
        return
    with contextlib.suppress(OSError):
        for inode, number in process.sockets().items():
            if inode in connections:
                with contextlib.suppress(OSError), socket.socket(fileno=process.take_fd(number)) as s:
                    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)


def _end(process: Process) -> None:
    """Kill one; its children are dead already."""
    with contextlib.suppress(EngineError, OSError), process.borrow() as borrowed:
        reap_all(borrowed.call)  # frees their pids: init may be slow to do it
    stub.kill_and_collect(process.pid)
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
