"""Interval timers and POSIX timers: captured with what remains, armed again with the same remainder."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Iterable, Mapping, Sequence

import msgspec

from kernel_backend.abi import linux
from kernel_backend.host import libc, proc
from kernel_backend.image.entries import ProcessEntry, TimerEntry
from kernel_backend.tracee.chorus import Asking, Chorus
from kernel_backend.tracee.inject import Borrowed, Call, Workshop
from kernel_backend.tracee.thread import Thread

ITIMERS = (0, 1, 2)  # ITIMER_REAL, ITIMER_VIRTUAL, ITIMER_PROF
ITIMERVAL_BYTES = 32
ITIMERS_BYTES = ITIMERVAL_BYTES * len(ITIMERS)
ITIMERSPEC_BYTES = 32
SIGEV_BYTES = 64
_SI_TIMER, _SIGEV_NONE, _SIGEV_THREAD_ID, _TIMER_ABSTIME = -2, 1, 4, 1
_CALLERS_TIME, _FAR_S = -2, 10**8  # the first as /proc tells that clock
_WALL_CLOCKS = (time.CLOCK_REALTIME, time.CLOCK_MONOTONIC, time.CLOCK_BOOTTIME, time.CLOCK_TAI)


def itimer_questions(at: int) -> list[Call]:
    """The calls that tell, at `at`, of each interval timer, for `itimers_of`."""
    return [Call("getitimer", which, at + which * ITIMERVAL_BYTES) for which in ITIMERS]


def itimers_of(raw: bytes) -> list[bytes]:
    """struct itimerval of each interval timer.

    One that has just expired, its signal still queued, shows no remainder and would be disarmed when set so: the OS
    kernel starts the next period as the signal is delivered. A whole period then remains.
    """
    values = []
    for interval, remaining in struct.iter_unpack("<16s16s", raw[:ITIMERS_BYTES]):
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


# A timer of its maker's processor time does not say whose that is (timer_create(2), CLOCK_THREAD_CPUTIME_ID). But what
# remains of it shrinks as that thread, and no other, makes a system call for us.


def find_owners(chorus: Chorus, members: Sequence[Borrowed], found: Iterable[TimerEntry]) -> None:
    """Complete such timers of one process by the thread that each measures; its threads are `members`."""
    for timer in found:
        if timer.clock == _CALLERS_TIME and len(members) > 1:
            timer.owner_tid = _owner(chorus, members, timer)


def _owner(chorus: Chorus, members: Sequence[Borrowed], timer: TimerEntry) -> int:
    main, idle = members[0], not any(timer.setting[16:])

    def left() -> int:
        return chorus.run({main: _ask_left(main, timer.timer_id)})[main]

    if idle:
        chorus.run({main: _ask_set(main, timer.timer_id, _FAR_S)})
    try:
        before, now = left(), left()
        if now < before:
            return main.thread.tid
        for member in members[1:]:
            chorus.run({member: _ask_nothing()})
            before, now = now, left()
            if now < before:
                return member.thread.tid
        return 0
    finally:
        if idle:
            chorus.run({main: _ask_set(main, timer.timer_id, 0)})


def _ask_left(borrowed: Borrowed, timer_id: int) -> Asking[int]:
    yield Call("timer_gettime", timer_id, borrowed.data)
    seconds, nanoseconds = struct.unpack("<16xqq", borrowed.get(ITIMERSPEC_BYTES))
    return int(seconds) * 10**9 + int(nanoseconds)


def _ask_set(borrowed: Borrowed, timer_id: int, seconds: int) -> Asking[bool]:
    at = borrowed.put(struct.pack("<4q", 0, 0, seconds, 0))
    yield Call("timer_settime", timer_id, 0, at, 0)
    return True


def _ask_nothing() -> Asking[bool]:
    yield Call("getpid")
    return True


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


class _Maker(msgspec.Struct, frozen=True):
    """What it takes to create timers in a process that is being made."""

    workshop: Workshop
    threads: Mapping[int, Thread]  # by image tid
    tids: Mapping[int, int]


def create_timers(
    workshop: Workshop, entry: ProcessEntry, threads: Mapping[int, Thread], tids: Mapping[int, int]
) -> None:
    """Create the POSIX timers with their old ids, each in the thread whose time it measures."""
    maker = _Maker(workshop, threads, tids)
    if not entry.timers:
        return
    if ids_can_be_chosen():
        _switch_choosing(workshop, linux.PR_TIMER_CREATE_RESTORE_IDS_ON)
        for timer in entry.timers:
            _create(maker, timer, timer.timer_id)
        _switch_choosing(workshop, linux.PR_TIMER_CREATE_RESTORE_IDS_OFF)
    else:
        _create_one_after_the_other(maker, entry)


def _switch_choosing(workshop: Workshop, how: int) -> None:
    workshop.call("prctl", linux.PR_TIMER_CREATE_RESTORE_IDS, how, 0, 0, 0)


def _create(maker: _Maker, timer: TimerEntry, wish: int) -> int:
    """Create one timer; its id.

    One whose signal was for a thread that has ended reaches nobody, but runs: as one that tells nobody does.
    """
    workshop, tid = maker.workshop, maker.tids.get(timer.target_tid, timer.target_tid)
    dead = timer.notify & _SIGEV_THREAD_ID and timer.target_tid not in maker.threads
    notify = _SIGEV_NONE if dead else timer.notify
    event = struct.pack("<QiiI", timer.value, timer.signo, notify, tid).ljust(SIGEV_BYTES, b"\0")
    at = workshop.put(event + struct.pack("<i", wish))
    call = Call("timer_create", _renumbered(timer.clock, maker.tids), at, at + SIGEV_BYTES)
    workshop.run([call], thread=maker.threads.get(timer.owner_tid))
    return int(struct.unpack("<i", workshop.get(4, SIGEV_BYTES))[0])


def _renumbered(clock: int, tids: Mapping[int, int]) -> int:
    """A clock of another thread's or process's processor time has its number inside (linux/posix-timers_types.h)."""
    number = ~(clock >> 3)
    return ~tids.get(number, number) << 3 | clock & 7 if clock < 0 else clock


def _create_one_after_the_other(maker: _Maker, entry: ProcessEntry) -> None:
    """In a fresh process the OS kernel hands out ids in order: those in between are created and deleted."""
    created: list[int] = []
    for timer in sorted(entry.timers, key=lambda t: t.timer_id):
        while not created or created[-1] < timer.timer_id:
            created.append(_create(maker, timer, 0))
    wanted = {timer.timer_id for timer in entry.timers}
    maker.workshop.run([Call("timer_delete", number) for number in created if number not in wanted])


def timer_calls(entry: ProcessEntry, data: int, ahead_ns: Callable[[int], int]) -> tuple[list[Call], bytes]:
    """Calls that arm the POSIX timers; `ahead_ns` says how far a clock of the process's is ahead of ours."""
    armed = [timer for timer in entry.timers if timer.setting[16:] != bytes(16)]
    ringing = {_rings_of(info) for infos in (entry.pending, *(t.pending for t in entry.threads)) for info in infos}
    calls, arguments = [], b""
    for i, timer in enumerate(armed):
        again = (timer.timer_id, timer.signo) in ringing and _can_ring_again(timer)
        flags = _TIMER_ABSTIME if again else 0
        calls.append(Call("timer_settime", timer.timer_id, flags, data + i * ITIMERSPEC_BYTES, 0))
        arguments += _since_its_ring(timer, ahead_ns(timer.clock)) if again else timer.setting
    return calls, arguments


# A periodic timer whose signal waits to be taken is at rest inside the OS kernel, and counts the periods that pass when
# somebody takes it. Such a signal is not queued again as an ordinary one: the timer would send a second. Instead the
# timer is told to have rung at the last of its moments, which makes it send the signal at once.


def _rings_of(info: bytes) -> tuple[int, int]:
    """(timer, signal) of a queued siginfo that a timer sent; no timer has the number -1."""
    signo, _, code, _, timer_id = struct.unpack_from("<5i", info)
    return (timer_id, signo) if code == _SI_TIMER else (-1, 0)


def _can_ring_again(timer: TimerEntry) -> bool:
    return timer.clock in _WALL_CLOCKS and any(timer.setting[:16]) and timer.notify != _SIGEV_NONE


def _since_its_ring(timer: TimerEntry, ahead_ns: int) -> bytes:
    seconds, nanoseconds, left_s, left_ns = struct.unpack("<4q", timer.setting)
    interval_ns, left_ns = seconds * 10**9 + nanoseconds, left_s * 10**9 + left_ns
    rang_ns = max(1, time.clock_gettime_ns(timer.clock) + ahead_ns + left_ns - interval_ns)
    return timer.setting[:16] + struct.pack("<qq", *divmod(rang_ns, 10**9))


def of_no_timer(infos: list[bytes], entry: ProcessEntry) -> list[bytes]:
    """Queued signals without those that timers will send by themselves."""
    again = {(t.timer_id, t.signo) for t in entry.timers if any(t.setting[16:]) and _can_ring_again(t)}
    return [info for info in infos if _rings_of(info) not in again]
