"""pidfds: opened from inside, when the new pids are known."""

from __future__ import annotations

import os

from kernel_backend.host import proc
from kernel_backend.image.descriptions import Description, PidFd
from kernel_backend.resources.descriptors import CaptureTables, Kind, Look, RebuildTables, restore_owner
from kernel_backend.tracee.inject import Call, Workshop

_OPEN_FLAGS = os.O_NONBLOCK | os.O_EXCL  # PIDFD_NONBLOCK, PIDFD_THREAD


class PidFdKind(Kind):
    """pidfd_open(2)."""

    entry = PidFd
    every_process = True

    def matches(self, look: Look) -> bool:
        return look.link in ("anon_inode:[pidfd]", "pidfd:[pidfd]") or look.info.value("Pid") is not None

    def capture(self, look: Look, tables: CaptureTables) -> Description:
        pid = int(look.info.value("Pid") or "-1")
        return PidFd(pid=pid, start_ticks=_start_ticks(pid))

    def rebuild(self, index: int, entry: PidFd, tables: RebuildTables) -> None:
        outside = tables.boot_id_same and entry.start_ticks and _start_ticks(entry.pid) == entry.start_ticks
        tables.own[index] = os.pidfd_open(entry.pid, entry.flags & _OPEN_FLAGS) if outside else ended_process()

    def finish(self, index: int, entry: PidFd, tables: RebuildTables, workshop: Workshop, pid: int, fd: int) -> None:
        if entry.pid in tables.pids:
            flags = entry.flags & _OPEN_FLAGS
            try:
                made = workshop.call("pidfd_open", tables.pids[entry.pid], flags)
            except OSError:
                return  # a thread, or one that has ended meanwhile: what rebuild made stays
            replace_everywhere(index, made, tables, workshop, pid)
        restore_owner(entry, tables, workshop, fd)


def _start_ticks(pid: int) -> int:
    try:
        return proc.stat(pid).start_ticks if pid > 0 else 0
    except OSError:
        return 0


def ended_process() -> int:
    """A pidfd of a process that has ended and is reaped."""
    child = os.fork()
    if child == 0:
        os._exit(0)
    fd = os.pidfd_open(child)
    os.waitpid(child, 0)
    return fd


def replace_everywhere(index: int, made: int, tables: RebuildTables, workshop: Workshop, pid: int) -> None:
    """Put the descriptor `made`, inside process `pid`, wherever that process has the description."""
    numbers = [fd for holder, fd in tables.holders.get(index, ()) if holder == pid]
    cloexec = {fd: workshop.call("fcntl", fd, 1) & 1 for fd in numbers}  # F_GETFD: as the table was laid out
    calls = [Call("dup3", made, fd, os.O_CLOEXEC if cloexec[fd] else 0) for fd in numbers]
    workshop.run([*calls, Call("close", made)])


KINDS: list[Kind] = [PidFdKind()]
