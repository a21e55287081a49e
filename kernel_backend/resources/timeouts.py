"""Calls that wait with a limit: how much of it was left at the freeze, and how they go on with just that.

An interrupted nanosleep, clock_nanosleep, poll or futex has its deadline inside the OS kernel (restart_syscall(2)),
where nobody can read it. A sleep that was asked to tell what remains has told it. For the others we know the limit from
the arguments, and since when the thread slept from /proc/PID/task/TID/sched: it says when the thread ran last. That is
read before the freeze, which wakes every thread. Where it is not to be had, or something else woke the thread since,
the whole limit counts as left: such a call may end late, never early.

Coming back, the thread makes the same call on our order, with what was left, and is interrupted at once. From then on
the OS kernel has a deadline for it again; let go, the thread resumes its wait with its own registers.
"""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Iterable

import msgspec

from kernel_backend.abi import arch, linux
from kernel_backend.abi.x86_64 import UserRegs
from kernel_backend.host import libc, proc
from kernel_backend.image.entries import ThreadEntry
from kernel_backend.tracee.inject import WORD, Workshop, restart_number
from kernel_backend.tracee.process import Process
from kernel_backend.tracee.thread import Thread

NO_LIMIT = -1
_NANOSLEEP, _CLOCK_NANOSLEEP, _POLL, _FUTEX = (arch.SYS[n] for n in ("nanosleep", "clock_nanosleep", "poll", "futex"))
_RESTART = arch.SYS["restart_syscall"]
_CALLS = frozenset((_NANOSLEEP, _CLOCK_NANOSLEEP, _POLL, _FUTEX, _RESTART))
_INTERRUPTED = WORD + 1 - linux.ERESTART_RESTARTBLOCK
_WALL_CLOCKS = (time.CLOCK_REALTIME, time.CLOCK_MONOTONIC, time.CLOCK_BOOTTIME)
_CLOCK_IDS = 16
_TIMER_ABSTIME = 1
_FUTEX_COMMANDS = 0x7F
_TIMESPEC = struct.Struct("<qq")
_A_MOMENT_S = 0.00002


class Asleep(msgspec.Struct, frozen=True):
    """A thread in a call that may have a limit."""

    call: tuple[int, ...]  # number and arguments
    place: str  # the OS kernel's function that it waits in
    since_ns: int  # of CLOCK_MONOTONIC
    switches: int  # how often it had been taken off its processor


class Wait(msgspec.Struct, frozen=True):
    """The same at the freeze, of one that nothing but the freeze has woken."""

    call: tuple[int, ...]
    place: str
    waited_ns: int


# --- before the freeze ------------------------------------------------------------------------------------------------


def look(pids: Iterable[int]) -> dict[int, Asleep]:
    """The threads of these processes that wait in such a call, by tid."""
    found: dict[int, Asleep] = {}
    ahead: dict[int, int] = {}
    for pid in pids:
        for tid in _tasks(pid):
            try:
                call = proc.blocked_call(pid, tid)
                if call and _may_be_limited(call):
                    ran = proc.ran_last(pid, tid)
                    if ran.processor not in ahead:
                        ahead[ran.processor] = _monotonic_ahead(ran.processor)
                    place = proc.waits_in(pid, tid)
                    found[tid] = Asleep(call, place, ran.at_ns + ahead[ran.processor], ran.switches)
            except (OSError, ValueError):
                continue  # it ended, or the OS kernel does not tell
    return found


def _may_be_limited(call: tuple[int, ...]) -> bool:
    """Most waits are not, and need no further looks."""
    return call[0] in _CALLS and (call[0] != _FUTEX or call[4] != 0)


def _tasks(pid: int) -> list[int]:
    try:
        return proc.task_ids(pid)
    except OSError:
        return []


def _monotonic_ahead(processor: int) -> int:
    """CLOCK_MONOTONIC minus the scheduler's clock of one processor, which leaves interrupts and stolen time out."""
    allowed = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {processor})
    except OSError:
        pass  # not one of ours: any other is near enough
    try:
        time.sleep(_A_MOMENT_S)  # as we wake up the scheduler notes the time
        return time.monotonic_ns() - proc.ran_last(os.getpid(), libc.gettid()).at_ns
    finally:
        os.sched_setaffinity(0, allowed)


# --- while it is frozen -----------------------------------------------------------------------------------------------


def still_waiting(tree: Iterable[Process], asleep: dict[int, Asleep]) -> dict[int, Wait]:
    """Those that are in the very same wait, by tid; asked right after the freeze, as each stop counts as a switch."""
    found: dict[int, Wait] = {}
    for process in tree:
        for tid in asleep.keys() & process.threads.keys():
            before = asleep[tid]
            try:
                undisturbed = proc.switches(process.pid, tid) == before.switches + 1  # our stop
            except (OSError, ValueError):
                continue
            if undisturbed:
                found[tid] = Wait(before.call, before.place, max(0, time.monotonic_ns() - before.since_ns))
    return found


def _is_of(wait: Wait | None, regs: UserRegs) -> bool:
    return wait is not None and wait.call[:3] == (regs.call, *regs.args[:2])


def interrupted(thread: Thread, regs: UserRegs, wait: Wait | None) -> int:
    """The number of the call that the thread waits in; once resumed it is called restart_syscall(2) only."""
    number = restart_number(thread, regs)
    if number != _RESTART or wait is None or not _is_of(wait, regs):
        return number
    if "nanosleep" in wait.place:
        return _CLOCK_NANOSLEEP if regs.args[0] < _CLOCK_IDS else _NANOSLEEP  # no address is that low
    return _POLL if "poll" in wait.place else _FUTEX if "futex" in wait.place else number


def left_ns(thread: Thread, regs: UserRegs, wait: Wait | None) -> int:
    """What is left of the limit of the call that the freeze interrupted; NO_LIMIT where none goes on."""
    if regs.call == arch.NO_CALL or regs.result != _INTERRUPTED:
        return NO_LIMIT
    number, arguments = interrupted(thread, regs, wait), regs.args
    try:
        limit = _limit_ns(thread, number, arguments)
        told = _told_ns(thread, number, arguments)
    except OSError:
        return NO_LIMIT
    if limit < 0 or told >= 0:
        return min(limit, told) if limit >= 0 else NO_LIMIT
    return max(0, limit - wait.waited_ns) if wait is not None and _is_of(wait, regs) else limit


def _limit_ns(thread: Thread, number: int, arguments: tuple[int, ...]) -> int:
    if number == _POLL:
        milliseconds = arguments[2] & 0xFFFFFFFF
        return milliseconds * 10**6 if milliseconds < 1 << 31 else NO_LIMIT
    address = 0
    if number == _NANOSLEEP:
        address = arguments[0]
    elif number == _CLOCK_NANOSLEEP and not arguments[1] & _TIMER_ABSTIME and arguments[0] in _WALL_CLOCKS:
        address = arguments[2]
    elif number == _FUTEX and not arguments[1] & _FUTEX_COMMANDS:  # FUTEX_WAIT; the others name a moment
        address = arguments[3]
    return _read_ns(thread, address) if address else NO_LIMIT


def _told_ns(thread: Thread, number: int, arguments: tuple[int, ...]) -> int:
    address = {_NANOSLEEP: arguments[1], _CLOCK_NANOSLEEP: arguments[3]}.get(number, 0)
    return _read_ns(thread, address) if address else -1


def _read_ns(thread: Thread, address: int) -> int:
    seconds, nanoseconds = _TIMESPEC.unpack(libc.vm_read(thread.tid, address, _TIMESPEC.size))
    return int(seconds) * 10**9 + int(nanoseconds)


# --- coming back ------------------------------------------------------------------------------------------------------


def wait_again(shop: Workshop, thread: Thread, entry: ThreadEntry) -> bool:
    """Begin the call anew in `thread`, for as long as was left, and interrupt it; whether it waits to be resumed."""
    wanted = UserRegs.from_buffer_copy(entry.regs)
    limit = shop.put(_TIMESPEC.pack(*divmod(entry.wait_left_ns, 10**9)))
    number, args = wanted.call, list(wanted.args)
    if number == _POLL:
        args[2] = -(-entry.wait_left_ns // 10**6)
    elif number == _NANOSLEEP:
        args[0] = limit
    elif number == _CLOCK_NANOSLEEP:
        args[2] = limit
    elif number == _FUTEX:
        args[3] = limit
    else:
        return False
    wanted.make_call(shop.address + arch.RUN_TABLE.index(arch.SYSCALL_INSTRUCTION), number, args)
    thread.set_regs(wanted)
    thread.resume(linux.PTRACE_SYSCALL)
    thread.wait()  # at its entry
    thread.interrupt()
    thread.resume(linux.PTRACE_CONT)
    while thread.wait().event != linux.PTRACE_EVENT_STOP:
        thread.resume(linux.PTRACE_CONT)
    return thread.get_regs().result == _INTERRUPTED


def resumed(regs: UserRegs) -> UserRegs:
    """The registers with which the OS kernel resumes the wait that `wait_again` began."""
    regs.result = _INTERRUPTED
    return regs
