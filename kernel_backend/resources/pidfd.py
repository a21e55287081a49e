"""pidfds: opened from inside, when the new pids are known."""

from __future__ import annotations

import fcntl
import os
import resource
import signal
import struct

from kernel_backend.abi import linux
from kernel_backend.errors import ResourceUnsupported
from kernel_backend.host import libc, proc
from kernel_backend.image.descriptions import Description, PidFd
from kernel_backend.resources.descriptors import CaptureTables, Kind, Look, RebuildTables, restore_owner
from kernel_backend.tracee import stub
from kernel_backend.tracee.courier import courier
from kernel_backend.tracee.inject import Call, Workshop
from kernel_backend.tracee.thread import Thread

_PIDFD_NONBLOCK, _PIDFD_THREAD = os.O_NONBLOCK, os.O_EXCL
_INFO = struct.Struct("<Q52xi")  # linux/pidfd.h, struct pidfd_info of OS kernel 6.13: what it says, …, how it ended
_GET_INFO = 3 << 30 | _INFO.size << 16 | 0xFF << 8 | 11  # _IOWR
_INFO_EXIT = 8
_STOPPING = (signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU)


class PidFdKind(Kind):
    """pidfd_open(2)."""

    entry = PidFd
    every_process = True

    def matches(self, look: Look) -> bool:
        return look.link in ("anon_inode:[pidfd]", "pidfd:[pidfd]") or look.info.value("Pid") is not None

    def capture(self, look: Look, tables: CaptureTables) -> Description:
        pid = int(look.info.value("Pid") or "-1")
        if look.in_flight and pid in tables.processes:
            raise ResourceUnsupported(
                f"{look.holder} is a pidfd of process {pid}, which can be opened again only when that runs",
                hint="let the program receive it and checkpoint again", pid=pid, link=look.link,
            )  # fmt: skip
        return PidFd(
            pid=pid, thread=bool(look.info.flags & _PIDFD_THREAD), start_ticks=_start_ticks(pid),
            inode=look.stat.st_ino, status=_how_it_ended(look.own) if pid < 0 else -1,
        )  # fmt: skip

    def rebuild(self, index: int, entry: PidFd, tables: RebuildTables) -> None:
        pid = entry.pid if entry.outside < 0 else entry.outside
        outside = tables.boot_id_same and entry.start_ticks and _start_ticks(pid) == entry.start_ticks
        tables.own[index] = os.pidfd_open(pid, _open_flags(entry)) if outside else _of_the_dead(entry, tables)

    def finish(self, index: int, entry: PidFd, tables: RebuildTables, workshop: Workshop, pid: int, fd: int) -> None:
        if passed_on(index, tables, workshop, pid):
            return
        made = -1
        if entry.pid in tables.pids:
            made = _open_inside(tables.pids[entry.pid], entry, workshop)
        elif entry.pid < 0 and proc.inner_id(workshop.thread.tgid) != workshop.thread.tgid:
            made = _ended_inside(fd, entry, tables, workshop)  # ours would be of one that it cannot name
        if made >= 0:
            replace_everywhere(index, made, tables, workshop, pid)
        restore_owner(entry, tables, workshop, fd)


def _open_flags(entry: PidFd) -> int:
    return entry.flags & _PIDFD_NONBLOCK | (_PIDFD_THREAD if entry.thread else 0)


def _open_inside(number: int, entry: PidFd, workshop: Workshop) -> int:
    """-1 when it has ended meanwhile: then what `rebuild` made stays."""
    try:
        return workshop.call("pidfd_open", number, _open_flags(entry))
    except OSError:
        return -1


def _ended_inside(fd: int, entry: PidFd, tables: RebuildTables, workshop: Workshop) -> int:
    """A pidfd, which will be `fd`, of a child of the process itself that has ended and is reaped.

    One of a dead process of which somebody has a pidfd already is a duplicate of that: what else is there to a dead
    one.
    """
    known: dict[int, tuple[Thread, int]] = tables.cache.setdefault("the dead inside", {})
    mine = workshop.thread, fd
    holder, other = known.setdefault(entry.inode, mine) if entry.inode else mine
    if (holder, other) == mine:
        return _end_a_child(workshop)
    if holder is workshop.thread:
        return workshop.call("fcntl", other, fcntl.F_DUPFD, 0)
    return _from_another(holder, other, workshop)


def _from_another(holder: Thread, fd: int, workshop: Workshop) -> int:
    """A duplicate of what another process of the tree has, or a thread with a table of its own."""
    ours = _duplicate(holder, fd)
    try:
        with courier(workshop) as line:
            return line.send([ours])[0]
    finally:
        os.close(ours)


def _end_a_child(workshop: Workshop) -> int:
    number = workshop.call("clone", linux.CLONE_PIDFD, 0, workshop.put(bytes(4)), 0, 0)
    made = int.from_bytes(workshop.get(4), "little")
    child = workshop.new_tids.pop()
    Thread(child, child).wait()
    stub.kill_and_collect(child)
    workshop.call("wait4", number, 0, linux.WALL, 0)
    return made


def _of_the_dead(entry: PidFd, tables: RebuildTables) -> int:
    """Two of the same dead process show the same inode, since OS kernel 6.9."""
    known: dict[int, int] = tables.cache.setdefault("pidfds of the dead", {})
    if entry.inode not in known:
        made = ended_process(max(0, entry.status))
        if not entry.inode:
            return made
        known[entry.inode] = made
        tables.to_close.append(made)
    try:  # a description of its own, where pidfds can be opened like files
        return os.open(f"/proc/self/fd/{known[entry.inode]}", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return os.dup(known[entry.inode])


def _start_ticks(pid: int) -> int:
    try:
        return proc.stat(pid).start_ticks if pid > 0 else 0
    except OSError:
        return 0


def _how_it_ended(fd: int) -> int:
    """The wait status of a process that has ended and is reaped; -1 where the OS kernel does not tell (before 6.15)."""
    try:
        told, status = _INFO.unpack(fcntl.ioctl(fd, _GET_INFO, _INFO.pack(_INFO_EXIT, 0)))
    except OSError:
        return -1
    return status & 0xFFFF if told & _INFO_EXIT else -1


def ended_process(status: int = 0) -> int:
    """A pidfd of a process that has ended, with that wait status (but for a core), and is reaped."""
    child = os.fork()
    if child == 0:
        try:
            _end_by(status & 0x7F)
        finally:
            os._exit(status >> 8)
    fd = os.pidfd_open(child)
    os.waitpid(child, 0)
    return fd


def _end_by(number: int) -> None:
    """End by a signal, without a core; return where none ends a process that has this number."""
    if number in _STOPPING or number not in signal.valid_signals():
        return
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if number != signal.SIGKILL:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
    os.kill(os.getpid(), number)


def replace_everywhere(index: int, made: int, tables: RebuildTables, workshop: Workshop, pid: int) -> None:
    """Put the descriptor `made`, inside process `pid`, wherever that process has the description."""
    numbers = [fd for holder, fd in tables.holders.get(index, ()) if holder == pid]
    cloexec = {fd: workshop.call("fcntl", fd, 1) & 1 for fd in numbers}  # F_GETFD: as the table was laid out
    calls = [Call("dup3", made, fd, os.O_CLOEXEC if cloexec[fd] else 0) for fd in numbers]
    workshop.run([*calls, Call("close", made)])
    made_inside: set[int] = tables.cache.setdefault("made inside", set())
    if numbers and index not in made_inside:
        made_inside.add(index)
        _take_over(tables.own[index], workshop.thread, numbers[0])


def passed_on(index: int, tables: RebuildTables, workshop: Workshop, pid: int) -> bool:
    """Whether one process has opened it from inside already: then the others get that very description."""
    if index not in tables.cache.get("made inside", ()):
        return False
    with courier(workshop) as line:
        (made,) = line.send([tables.own[index]])
    replace_everywhere(index, made, tables, workshop, pid)
    return True


def _duplicate(holder: Thread, fd: int) -> int:
    handle = libc.pidfd_open(holder.tid, thread=holder.tid != holder.tgid)  # it may have left its process's table
    try:
        return libc.pidfd_getfd(handle, fd)
    finally:
        os.close(handle)


def _take_over(ours: int, holder: Thread, fd: int) -> None:
    """Let our descriptor be the new description too: an epoll may be about to watch it."""
    found = _duplicate(holder, fd)
    os.dup2(found, ours, inheritable=False)
    os.close(found)


KINDS: list[Kind] = [PidFdKind()]
