"""Descriptors for events: eventfd, timerfd, signalfd, epoll. (pidfds, inotify and fanotify have rooms of their own.)

An epoll item is keyed by the description it watches and by the number the descriptor had when it was added; the
number may be closed or reused since, and the item goes on. So the helper adds items from a descriptor table of its
own, in which it can put any description at any number for the moment. Items that watch a signalfd are the exception:
the OS kernel hooks those to the process that adds them, so they are added from inside; as are those that watch what is
opened again inside (a pidfd).
"""

from __future__ import annotations

import errno
import fcntl
import itertools
import os
import re
import select
import struct
import time

from kernel_backend.abi import linux
from kernel_backend.host import fds, libc, proc
from kernel_backend.image.descriptions import (
    ControllingTerminal,
    Description,
    Epoll,
    EpollItem,
    EventFd,
    IoUring,
    PidFd,
    ProcFile,
    SignalFd,
    TimerFd,
    UserFault,
)
from kernel_backend.resources import epoll_told, fanotify, inotify, pidfd, userfaults
from kernel_backend.resources.descriptors import (
    CaptureTables,
    Kind,
    Look,
    RebuildTables,
    restore_owner,
    set_status_flags,
)
from kernel_backend.resources.placing_fds import dup_beside, in_own_table
from kernel_backend.tracee.inject import Workshop

_EPOLL_ITEM = re.compile(r"tfd:\s*(\d+) events:\s*([0-9a-f]+) data:\s*([0-9a-f]+)\s+pos:\S+ ino:(\w+) sdev:(\w+)")
_TFD_ABSTIME = 1
_ALARM_CLOCKS = {8: time.CLOCK_REALTIME, 9: time.CLOCK_BOOTTIME}  # these alarm clocks show the same time
_EPOLL_PARAMS_BYTES = 8
_EPIOCSPARAMS, _EPIOCGPARAMS = 0x40088A01, 0x80088A02  # linux/eventpoll.h, since OS kernel 6.9


class EventFdKind(Kind):
    """eventfd(2)."""

    entry = EventFd

    def matches(self, look: Look) -> bool:
        return look.link == "anon_inode:[eventfd]"

    def capture(self, look: Look, tables: CaptureTables) -> Description:
        count = int(look.info.value("eventfd-count") or "0", 16)
        return EventFd(count=count, semaphore=look.info.value("eventfd-semaphore") == "1")

    def rebuild(self, index: int, entry: EventFd, tables: RebuildTables) -> None:
        flags = os.EFD_CLOEXEC | (os.EFD_SEMAPHORE if entry.semaphore else 0)
        fd = tables.own[index] = os.eventfd(0, flags)
        if entry.count:
            os.eventfd_write(fd, entry.count)
        set_status_flags(fd, entry.flags)


class SignalFdKind(Kind):
    """signalfd(2): reads the signals of whoever reads it, so there is nothing else to keep."""

    entry = SignalFd

    def matches(self, look: Look) -> bool:
        return look.link == "anon_inode:[signalfd]"

    def capture(self, look: Look, tables: CaptureTables) -> Description:
        return SignalFd(mask=int(look.info.value("sigmask") or "0", 16))

    def rebuild(self, index: int, entry: SignalFd, tables: RebuildTables) -> None:
        tables.own[index] = fds.signalfd(entry.mask, os.O_CLOEXEC)
        set_status_flags(tables.own[index], entry.flags)


def _pair_ns(text: str) -> int:
    seconds, nanoseconds = re.findall(r"\d+", text)
    return int(seconds) * 10**9 + int(nanoseconds)


class TimerFdKind(Kind):
    """timerfd_create(2). What remained, remains; only an absolute time of the wall clock stays that time."""

    entry = TimerFd

    def matches(self, look: Look) -> bool:
        return look.link == "anon_inode:[timerfd]"

    def capture(self, look: Look, tables: CaptureTables) -> Description:
        fds.timerfd_gettime(look.own)  # lets it count what was missed since it expired
        value = proc.fdinfo(look.process.view, look.fd).value
        clock = int(value("clockid") or "0")
        return TimerFd(
            clock=clock,
            ticks=int(value("ticks") or "0"),
            setting=int(value("settime flags") or "0", 8),
            value_ns=_pair_ns(value("it_value") or "(0, 0)"),
            interval_ns=_pair_ns(value("it_interval") or "(0, 0)"),
            now_ns=_now_ns(clock),
        )

    def rebuild(self, index: int, entry: TimerFd, tables: RebuildTables) -> None:
        tables.own[index] = fds.timerfd_create(entry.clock, os.O_CLOEXEC)
        set_status_flags(tables.own[index], entry.flags)

    def settle(self, index: int, entry: TimerFd, tables: RebuildTables) -> None:
        fd, value, setting = tables.own[index], entry.value_ns, 0
        if value and entry.setting & _TFD_ABSTIME and entry.clock in (time.CLOCK_REALTIME, 8):
            value, setting = entry.now_ns + value, entry.setting
        if not value and entry.ticks and entry.interval_ns:
            value = 1  # expired, and armed again only when it is read
        fds.timerfd_settime(fd, setting, value, entry.interval_ns)
        if entry.ticks:
            try:
                fds.timerfd_set_ticks(fd, entry.ticks)
            except OSError:  # not permitted
                _count_by_beginning_earlier(fd, entry)


def _now_ns(clock: int) -> int:
    """The time; an alarm clock itself can be asked for it only where there is hardware for it."""
    return time.clock_gettime_ns(_ALARM_CLOCKS.get(clock, clock))


def _count_by_beginning_earlier(fd: int, entry: TimerFd) -> None:
    """Let it have expired as often as it had: a timer that began in the past counts what it has missed."""
    if not entry.interval_ns:
        fds.timerfd_settime(fd, 0, 1, 0)
        return
    begin = _now_ns(entry.clock) + entry.value_ns - entry.ticks * entry.interval_ns
    fds.timerfd_settime(fd, _TFD_ABSTIME, max(begin, 1), entry.interval_ns)


class EpollKind(Kind):
    """epoll_create(2), nested ones too."""

    entry = Epoll

    def matches(self, look: Look) -> bool:
        return look.link == "anon_inode:[eventpoll]"

    def capture(self, look: Look, tables: CaptureTables) -> Description:
        return Epoll(busy_poll=_busy_poll(look.own))

    def capture_links(self, index: int, look: Look, entry: Epoll, tables: CaptureTables) -> None:
        seen: dict[int, int] = {}
        for line in look.info.lines:
            found = _EPOLL_ITEM.match(line)
            if not found:
                continue
            fd = int(found.group(1))
            events, data, inode, device = (int(word, 16) for word in found.groups()[1:])
            nth = seen[fd] = seen.get(fd, -1) + 1  # one number may stand for several descriptions
            target = _watched(look, fd, nth, _device(device), inode, tables)
            if target < 0:
                tables.warnings.append(
                    f"{look.holder}, an epoll, watches a file that no process of the image has open; it is left out"
                )
                continue
            entry.items.append(EpollItem(fd=fd, description=target, events=events, data=data))
        epoll_told.capture(look, entry, tables)

    def rebuild(self, index: int, entry: Epoll, tables: RebuildTables) -> None:
        with select.epoll() as made:
            tables.own[index] = fcntl.fcntl(made.fileno(), fcntl.F_DUPFD_CLOEXEC, 3)
        if entry.busy_poll:
            _set_busy_poll(index, entry, tables)
        set_status_flags(tables.own[index], entry.flags)

    def settle(self, index: int, entry: Epoll, tables: RebuildTables) -> None:
        outside = [item for item in entry.items if not _comes_late(item, tables)]
        if outside:
            in_own_table(lambda: _add_items(tables, index, outside))

    def finish(self, index: int, entry: Epoll, tables: RebuildTables, workshop: Workshop, pid: int, fd: int) -> None:
        restore_owner(entry, tables, workshop, fd)
        for item in entry.items:
            if not _comes_late(item, tables):
                continue
            here = any(holder == pid for holder, _ in tables.holders.get(item.description, ()))
            if here or _needs_inside(item, tables):
                _add_inside(item, tables, workshop, pid, fd)
            else:
                in_own_table(lambda item=item: _add_items(tables, index, [item]))  # type: ignore[misc]


def _busy_poll(fd: int) -> bytes:
    """How it asks network devices for news instead of waiting to be told; empty where it does not, as nearly always."""
    try:
        found = fcntl.ioctl(fd, _EPIOCGPARAMS, bytes(_EPOLL_PARAMS_BYTES))
    except OSError:
        return b""  # an OS kernel without it
    return found if any(found) else b""


def _set_busy_poll(index: int, entry: Epoll, tables: RebuildTables) -> None:
    try:
        fcntl.ioctl(tables.own[index], _EPIOCSPARAMS, entry.busy_poll.ljust(_EPOLL_PARAMS_BYTES, b"\0"))
    except OSError as error:
        tables.warn(f"the epoll at {tables.who(index)} polls network devices no more: {error.strerror}")


def _device(sdev: int) -> int:
    """A device number as fdinfo shows it (major << 20 | minor), as stat(2) does."""
    return os.makedev(sdev >> 20, sdev & 0xFFFFF)


def _watched(look: Look, fd: int, nth: int, device: int, inode: int, tables: CaptureTables) -> int:
    """The description behind an epoll item: kcmp compares it with each that has the same inode.

    Of eventfds, which all share one, those are thousands. It is nearly always what has the number now.
    """
    slot = struct.pack("<III", look.fd, fd, nth)  # struct kcmp_epoll_slot
    same_number = _by_number(look.tid or look.process.pid, tables).get(fd, -1)
    first = [same_number] if same_number >= 0 and tables.looks[same_number].inode == (device, inode) else []
    for index in itertools.chain(first, tables.with_inode(device, inode)):
        target = tables.looks[index]
        try:
            if _is_watched(target, look, slot):
                return index
        except OSError as error:
            if error.errno == errno.ENOENT:
                break
            raise
    return -1


def _by_number(pid: int, tables: CaptureTables) -> dict[int, int]:
    """Descriptor → description, of one process, or of a thread with a table of its own."""
    known: dict[int, dict[int, int]] = tables.cache.setdefault("descriptions by number", {})
    if pid not in known:
        known[pid] = {row.fd: row.description for row in tables.tables.get(pid, ())}
    return known[pid]


def _is_watched(target: Look, look: Look, slot: bytes) -> bool:
    return libc.syscall(
        "kcmp", target.process.view, look.process.view, linux.KCMP_EPOLL_TFD, target.fd, slot
    ) == 0  # fmt: skip


def _comes_late(item: EpollItem, tables: RebuildTables) -> bool:
    """What is watched is opened again from inside (`finish`): before, it is another description."""
    late = (SignalFd, PidFd, ControllingTerminal, ProcFile, UserFault, IoUring)
    return isinstance(tables.descriptions[item.description], late) or inotify.is_late(item.description, tables)


def _needs_inside(item: EpollItem, tables: RebuildTables) -> bool:
    return isinstance(tables.descriptions[item.description], SignalFd)


def _add_items(tables: RebuildTables, index: int, items: list[EpollItem]) -> None:
    """Put each watched description at its number, add it, and take it away: the item stays with the description."""
    numbers = {item.fd for item in items}
    ours = {i: dup_beside(tables.own[i], numbers) for i in {item.description for item in items}}
    epoll = dup_beside(tables.own[index], numbers)
    for item in items:
        os.dup2(ours[item.description], item.fd, inheritable=False)
        fds.epoll_add(epoll, item.fd, item.events, item.data)


def _add_inside(item: EpollItem, tables: RebuildTables, workshop: Workshop, pid: int, epoll: int) -> None:
    here = [fd for holder, fd in tables.holders.get(item.description, ()) if holder == pid]
    if not here or (item.fd not in here and any((pid, item.fd) in rows for rows in tables.holders.values())):
        tables.warn(f"the epoll at descriptor {epoll} of process {pid} lost its watch of descriptor {item.fd}")
        return
    if item.fd not in here:
        workshop.call("dup2", here[0], item.fd)
    event = workshop.put(fds.epoll_event(item.events, item.data))
    workshop.call("epoll_ctl", epoll, linux.EPOLL_CTL_ADD, item.fd, event)
    if item.fd not in here:
        workshop.call("close", item.fd)


KINDS: list[Kind] = [
    EventFdKind(),
    TimerFdKind(),
    SignalFdKind(),
    EpollKind(),
    *pidfd.KINDS,
    *inotify.KINDS,
    *fanotify.KINDS,
    *userfaults.KINDS,
]
