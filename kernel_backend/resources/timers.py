"""Interval timers and POSIX timers: captured with what remains, armed again with the same remainder."""

from __future__ import annotations

import struct

from kernel_backend.abi import linux
from kernel_backend.host import libc, proc
from kernel_backend.image.entries import ProcessEntry, TimerEntry
from kernel_backend.tracee.chorus import Asking
from kernel_backend.tracee.inject import Borrowed, Call, Workshop

ITIMERS = (0, 1, 2)  # ITIMER_REAL, ITIMER_VIRTUAL, ITIMER_PROF
ITIMERVAL_BYTES = 32
ITIMERSPEC_BYTES = 32
SIGEV_BYTES = 64


def ask_itimers(borrowed: Borrowed) -> Asking[list[bytes]]:
    """struct itimerval of each interval timer.

    One that has just expired, its signal still queued, shows no remainder and would be disarmed when set so: the OS
    kernel starts the next period as the signal is delivered. A whole period then remains.
    """
    values = []
    for which in ITIMERS:
        yield Call("getitimer", which, borrowed.data)
        interval, remaining = struct.unpack("<16s16s", borrowed.get(ITIMERVAL_BYTES))
        values.append(interval + (remaining if any(remaining) else interval))
    return values


def ask_timers(borrowed: Borrowed, pid: int) -> Asking[list[TimerEntry]]:
    """POSIX timers with their interval and remaining time."""
    entries = []
    for timer in proc.posix_timers(pid):
        yield Call("timer_gettime", timer.timer_id, borrowed.data)
        entries.append(
            TimerEntry(
                timer_id=timer.timer_id,
                clock=timer.clock,
                notify=timer.notify,
                signo=timer.signo,
                value=timer.value,
                target_tid=timer.target_tid,
                setting=borrowed.get(ITIMERSPEC_BYTES),
            )
        )
    return entries


def itimer_calls(entry: ProcessEntry, data: int) -> tuple[list[Call], bytes]:
    """Calls that arm the interval timers; the last thing before a process runs, lest they fire while we build."""
    calls = [Call("setitimer", which, data + i * ITIMERVAL_BYTES, 0) for i, which in enumerate(ITIMERS)]
    return calls, b"".join(map(_ticking, entry.itimers))


def _ticking(value: bytes) -> bytes:
    """A timer that has expired and whose signal still waits shows no remainder; its next period is a whole one."""
    interval, remaining = value[:16], value[16:]
    return interval + interval if any(interval) and not any(remaining) else value


def ids_can_be_chosen() -> bool:
    """Whether timers can be created with chosen ids (since OS kernel 6.15)."""
    try:
        libc.prctl(linux.PR_TIMER_CREATE_RESTORE_IDS, linux.PR_TIMER_CREATE_RESTORE_IDS_GET)
    except OSError:
        return False
    return True


def create_timers(workshop: Workshop, entry: ProcessEntry, tids: dict[int, int]) -> None:
    """Create the POSIX timers with their old ids."""
    if not entry.timers:
        return
    if ids_can_be_chosen():
        _switch_choosing(workshop, linux.PR_TIMER_CREATE_RESTORE_IDS_ON)
        for timer in entry.timers:
            _create(workshop, timer, tids, timer.timer_id)
        _switch_choosing(workshop, linux.PR_TIMER_CREATE_RESTORE_IDS_OFF)
    else:
        _create_one_after_the_other(workshop, entry, tids)


def _switch_choosing(workshop: Workshop, how: int) -> None:
    workshop.call("prctl", linux.PR_TIMER_CREATE_RESTORE_IDS, how, 0, 0, 0)


def _create(workshop: Workshop, timer: TimerEntry, tids: dict[int, int], wish: int) -> int:
    """Create one timer; its id."""
    tid = tids.get(timer.target_tid, timer.target_tid)
    event = struct.pack("<QiiI", timer.value, timer.signo, timer.notify, tid).ljust(SIGEV_BYTES, b"\0")
    at = workshop.put(event + struct.pack("<i", wish))
    workshop.call("timer_create", timer.clock, at, at + SIGEV_BYTES)
    return int(struct.unpack("<i", workshop.get(4, SIGEV_BYTES))[0])


def _create_one_after_the_other(workshop: Workshop, entry: ProcessEntry, tids: dict[int, int]) -> None:
    """In a fresh process the OS kernel hands out ids in order: those in between are created and deleted."""
    created: list[int] = []
    for timer in sorted(entry.timers, key=lambda t: t.timer_id):
        while not created or created[-1] < timer.timer_id:
            created.append(_create(workshop, timer, tids, 0))
    wanted = {timer.timer_id for timer in entry.timers}
    workshop.run([Call("timer_delete", number) for number in created if number not in wanted])


def timer_calls(entry: ProcessEntry, data: int) -> tuple[list[Call], bytes]:
    """Calls that arm the POSIX timers."""
    armed = [timer for timer in entry.timers if timer.setting[16:] != bytes(16)]
    calls = [Call("timer_settime", timer.timer_id, 0, data + i * ITIMERSPEC_BYTES, 0) for i, timer in enumerate(armed)]
    return calls, b"".join(timer.setting for timer in armed)
