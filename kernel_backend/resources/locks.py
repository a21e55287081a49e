"""File locks, as /proc/PID/fdinfo lists them; not only regular files can be locked, but all that can be open.

flock(2) and OFD locks belong to the open file description: they are taken again on our rebuilt one. Where the present
process still holds the same lock (a restore in place), that is put off until the present is gone. POSIX record locks
belong to a process and are taken from inside. So are leases, which make the OS kernel tell their holder when somebody
opens the file. One whose holder has been told and has not answered yet is asked for again, by us, while there is
nobody to be told: its holder has all of /proc/sys/fs/lease-break-time to answer. The same goes for us: a restore in
place that opens a file on which the frozen present holds a lease would wait until the OS kernel breaks that, as long.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
from collections.abc import Container, Iterable, Iterator
from pathlib import Path

import msgspec

from kernel_backend.abi import linux
from kernel_backend.errors import EngineError, ResourceUnsupported
from kernel_backend.host import libc, proc
from kernel_backend.host.identity import as_ourselves
from kernel_backend.image.descriptions import Description, RangeLock, RecordLock
from kernel_backend.resources.descriptors import Look, RebuildTables, restore_owner
from kernel_backend.tracee.inject import Workshop
from kernel_backend.tracee.process import Process

_F_OFD_SETLK = 37
_FLOCK = struct.Struct("<hh4xqqi4x")  # struct flock: type, whence, start, length, pid


def _lock_lines(look: Look) -> list[list[str]]:
    return [line.split() for line in look.info.lines if line.startswith("lock:")]


def _range(words: list[str]) -> tuple[bool, int, int]:
    """(exclusive, start, length) of a line: lock: N: KIND ADVISORY WRITE PID DEV START END."""
    start = int(words[-2])
    length = 0 if words[-1] == "EOF" else int(words[-1]) - start + 1
    return words[4] == "WRITE", start, length


def note_record_locks(look: Look, entry: Description, tree: Container[int]) -> None:
    """POSIX locks that this descriptor's process took, or one of the tree with the same descriptor table.

    A lock is kept once, however often the descriptor is dup'ed.
    """
    for words in _lock_lines(look):
        if words[2] != "POSIX":
            continue
        exclusive, start, length = _range(words)
        taker = int(words[5])
        pid = look.tid or (taker if taker in tree and _shares_table(look, taker) else look.process.pid)
        found = RecordLock(pid=pid, exclusive=exclusive, start=start, length=length)
        if found not in entry.record_locks:
            entry.record_locks = [*entry.record_locks, found]


def _shares_table(look: Look, pid: int) -> bool:
    """Whether a process that has taken a lock still has the table to which that belongs."""
    if pid == look.process.pid:
        return True
    try:
        return libc.kcmp(look.process.view, proc.view(pid), linux.KCMP_FILES, 0, 0) == 0
    except OSError:
        return False


def capture_locks(look: Look, entry: Description) -> None:
    """The locks of a description."""
    for words in _lock_lines(look):
        if words[2] == "FLOCK":
            entry.flock = fcntl.LOCK_EX if words[4] == "WRITE" else fcntl.LOCK_SH
            entry.flock_pid = max(0, int(words[5]))
        elif words[2] == "OFDLCK":
            exclusive, start, length = _range(words)
            entry.ranges = [*entry.ranges, RangeLock(exclusive=exclusive, start=start, length=length)]
        elif words[2] == "LEASE":
            entry.lease, entry.lease_asked = _lease(words, look.flags, look.own)
        elif words[2] == "DELEG":
            raise ResourceUnsupported(
                f"{look.holder} holds a delegation of {look.link}, which cannot be captured",
                hint="let the program give it up, and checkpoint again", pid=look.process.pid, fd=look.fd,
                link=look.link,
            )  # fmt: skip


def _lease(words: list[str], flags: int, fd: int) -> tuple[int, int]:
    """(kind of a lease, what is asked for instead or -1): of one that is to be lowered, its line tells only to what."""
    shown = {"WRITE": fcntl.F_WRLCK, "READ": fcntl.F_RDLCK}.get(words[4], fcntl.F_UNLCK)
    if words[3] == "ACTIVE":
        return shown, -1
    if shown == fcntl.F_RDLCK or flags & os.O_ACCMODE != os.O_RDONLY:  # one for reading is had by those who only read
        return fcntl.F_WRLCK, shown
    return (fcntl.F_WRLCK if _is_asked_for(fd, os.O_RDONLY) else fcntl.F_RDLCK), shown


def _is_asked_for(fd: int, how: int) -> bool:
    """Open a file that we have open once more: whether that is to wait for a lease, whose holder is told once."""
    try:
        os.close(os.open(f"/proc/self/fd/{fd}", how | os.O_NONBLOCK | os.O_CLOEXEC))
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _take(index: int, entry: Description, tables: RebuildTables) -> None:
    fd = tables.own[index]
    if entry.flock and not tables.holders.get(index):  # one in flight
        fcntl.flock(fd, entry.flock | fcntl.LOCK_NB)
    for lock in entry.ranges:
        kind = fcntl.F_WRLCK if lock.exclusive else fcntl.F_RDLCK
        fcntl.fcntl(fd, _F_OFD_SETLK, _FLOCK.pack(kind, os.SEEK_SET, lock.start, lock.length, 0))


def take_locks(index: int, entry: Description, tables: RebuildTables) -> None:
    """Lock our new description, or put that off until the present is gone (`take_late`)."""
    if not (entry.flock or entry.ranges):
        return
    try:
        _take(index, entry, tables)
    except OSError:
        tables.cache.setdefault("late locks", set()).add(index)


def take_late(index: int, entry: Description, tables: RebuildTables) -> None:
    """Second try: the present is gone but for our own duplicates, which may hold its locks."""
    if index not in tables.cache.get("late locks", ()):
        return
    for fd in _same_file(index, tables):
        fcntl.flock(tables.live[fd], fcntl.LOCK_UN)
        fcntl.fcntl(tables.live[fd], _F_OFD_SETLK, _FLOCK.pack(fcntl.F_UNLCK, os.SEEK_SET, 0, 0, 0))
    try:
        _take(index, entry, tables)
    except OSError as error:
        tables.warn(f"the lock that {tables.who(index)} held is somebody else's now: {error.strerror}")


def take_flock(index: int, entry: Description, tables: RebuildTables, workshop: Workshop, fd: int) -> None:
    """A lock of the description, taken inside a process that has it, if it can be the one that had done so.

    Others see its pid.
    """
    for number in _same_file(index, tables):  # in place
        fcntl.flock(tables.live[number], fcntl.LOCK_UN)
    try:
        workshop.call("flock", fd, entry.flock | fcntl.LOCK_NB)
    except OSError as error:
        tables.warn(f"the lock that {tables.who(index)} held is somebody else's now: {error.strerror}")


def _same_file(index: int, tables: RebuildTables) -> list[int]:
    """Which of the present's descriptors, by its numbers, are open on the same file."""
    ours = os.fstat(tables.own[index])
    return [fd for fd, live in tables.live.items() if os.path.samestat(os.fstat(live), ours)]


def take_lease(index: int, entry: Description, tables: RebuildTables, workshop: Workshop, fd: int) -> None:
    """Taken inside its process, when nobody has the file open but the image's processes."""
    if entry.lease < 0:
        return
    for number in _same_file(index, tables):
        os.close(tables.live.pop(number))
    try:
        workshop.call("fcntl", fd, fcntl.F_SETLEASE, entry.lease)
        if entry.lease_asked >= 0:
            if not _ask_again(tables.own[index], entry.lease_asked):
                tables.warn(f"the lease of {tables.who(index)}, which was asked for, is not asked for any more")
            restore_owner(entry, tables, workshop, fd)
    except OSError as error:
        tables.warn(f"the lease that {tables.who(index)} held cannot be had: {error.strerror}")


def _ask_again(fd: int, asked: int) -> bool:
    """Have the OS kernel ask for a lease and tell nobody, so that the description has no owner afterwards."""
    fcntl.fcntl(fd, fcntl.F_SETOWN, 0)
    how = os.O_WRONLY if asked == fcntl.F_UNLCK else os.O_RDONLY
    if _is_asked_for(fd, how):
        return True
    with as_ourselves():
        return _is_asked_for(fd, how)


class _LaidDown(msgspec.Struct):
    """A lease of a frozen process, and what the OS kernel forgets with it."""

    process: Process
    number: int
    own: int  # our duplicate
    kind: int
    asked: int  # for instead, -1: it is not
    signo: int
    owner: bytes  # struct f_owner_ex

    def take_up(self) -> None:
        """From inside, whose lease it is; whom to tell how, and nothing else, is the description's."""
        with self.process.borrow() as borrowed:
            borrowed.call("fcntl", self.number, fcntl.F_SETLEASE, self.kind)
        if self.asked >= 0:
            _ask_again(self.own, self.asked)
        fcntl.fcntl(self.own, linux.F_SETSIG, self.signo)
        fcntl.fcntl(self.own, linux.F_SETOWN_EX, self.owner)


@contextlib.contextmanager
def leases_laid_down(present: Iterable[Process]) -> Iterator[None]:
    """Files can be opened meanwhile on which frozen processes hold leases; these come back where the block fails."""
    if "LEASE" not in Path("/proc/locks").read_text():  # of all there are: most trees have none, and many descriptors
        yield
        return
    with contextlib.ExitStack() as stack:
        leases = [lease for process in present for lease in _lay_down(process, stack)]
        try:
            yield
        except BaseException:
            for lease in leases:
                with contextlib.suppress(EngineError, OSError):
                    lease.take_up()
            raise


def _lay_down(process: Process, stack: contextlib.ExitStack) -> Iterator[_LaidDown]:
    for number in proc.fd_numbers(process.view):
        lines = [line.split() for line in proc.fdinfo(process.view, number).lines]
        leases = [words for words in lines if words[0] == "lock:" and words[2] == "LEASE"]
        if leases:
            own = process.take_fd(number)  # a lease belongs to the description, so it is ours as well
            stack.callback(os.close, own)
            kind, asked = _lease(leases[0], fcntl.fcntl(own, fcntl.F_GETFL), own)
            signo, owner = fcntl.fcntl(own, linux.F_GETSIG), fcntl.fcntl(own, linux.F_GETOWN_EX, bytes(8))
            fcntl.fcntl(own, fcntl.F_SETLEASE, fcntl.F_UNLCK)
            yield _LaidDown(process, number, own, kind, asked, signo, owner)


def take_record_locks(entry: Description, tables: RebuildTables, workshop: Workshop, pid: int, fd: int) -> None:
    """POSIX locks, taken inside their process."""
    for lock in entry.record_locks:
        if lock.pid != pid:
            continue
        kind = fcntl.F_WRLCK if lock.exclusive else fcntl.F_RDLCK
        address = workshop.put(_FLOCK.pack(kind, os.SEEK_SET, lock.start, lock.length, 0))
        try:
            workshop.call("fcntl", fd, fcntl.F_SETLK, address)
        except OSError as error:
            tables.warn(f"a record lock of process {pid} at descriptor {fd} is somebody else's now: {error.strerror}")
