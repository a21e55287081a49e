"""Interval timers and POSIX timers: captured with what remains, armed again with the same remainder."""

from __future__ import annotations

import struct

from kernel_backend.host import proc
from kernel_backend.image.entries import ProcessEntry, TimerEntry
from kernel_backend.tracee.inject import Borrowed, Call, Workshop

ITIMERS = (0, 1, 2)  # ITIMER_REAL, ITIMER_VIRTUAL, ITIMER_PROF
ITIMERVAL_BYTES = 32
ITIMERSPEC_BYTES = 32
SIGEV_BYTES = 64


def capture_itimers(borrowed: Borrowed) -> list[bytes]:
    """struct itimerval of each interval timer.

    One that has just expired, its signal still queued, shows no remainder and would be disarmed when set so: the OS
    kernel starts the next period as the signal is delivered. A whole period then remains.
    """
    values = []
    for which in ITIMERS:
        borrowed.call("getitimer", which, borrowed.data)
        interval, remaining = struct.unpack("<16s16s", borrowed.get(ITIMERVAL_BYTES))
        values.append(interval + (remaining if any(remaining) else interval))
    return values


def capture_timers(borrowed: Borrowed, pid: int) -> list[TimerEntry]:
    """POSIX timers with their interval and remaining time."""
    entries = []
    for timer in proc.posix_timers(pid):
        borrowed.call("timer_gettime", timer.timer_id, borrowed.data)
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
    return calls, b"".join(entry.itimers)


def create_timers(workshop: Workshop, entry: ProcessEntry, tids: dict[int, int]) -> None:
    """Create the POSIX timers with their old ids.

    The OS kernel hands out ids per process, ascending; so ids in between are created and deleted until the wanted
    one comes (posix-timers.c; since 6.15 prctl(PR_TIMER_CREATE_RESTORE_IDS) exists too, but this works everywhere).
    """
    created: list[int] = []
    next_id = 0
    for timer in sorted(entry.timers, key=lambda t: t.timer_id):
        tid = tids.get(timer.target_tid, timer.target_tid)
        event = struct.pack("<QiiI", timer.value, timer.signo, timer.notify, tid).ljust(SIGEV_BYTES, b"\0")
        at = workshop.put(event)
        while next_id <= timer.timer_id:
            workshop.call("timer_create", timer.clock, at, at + SIGEV_BYTES)
            next_id = struct.unpack("<i", workshop.get(4, SIGEV_BYTES))[0] + 1
            created.append(next_id - 1)
    wanted = {timer.timer_id for timer in entry.timers}
    workshop.run([Call("timer_delete", number) for number in created if number not in wanted])


def timer_calls(entry: ProcessEntry, data: int) -> tuple[list[Call], bytes]:
    """Calls that arm the POSIX timers."""
    armed = [timer for timer in entry.timers if timer.setting[16:] != bytes(16)]
    calls = [Call("timer_settime", timer.timer_id, 0, data + i * ITIMERSPEC_BYTES, 0) for i, timer in enumerate(armed)]
    return calls, b"".join(timer.setting for timer in armed)
