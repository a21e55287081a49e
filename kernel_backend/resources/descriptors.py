"""Descriptor tables: who shares which open file description, and which room captures and rebuilds it.

A room (files, pipes, sockets, polling, terminals …) offers a list KINDS of `Kind` objects. This module asks each in
turn whether a descriptor is its own; what nobody claims is refused by name. Two descriptors that kcmp(2) calls equal
share one description, in one process or across the tree.

Coming back, the helper itself builds every description, first each by itself (`Kind.rebuild`), then what needs others:
connections, queues with descriptors in flight, what an epoll watches (`Kind.settle`). The new processes receive them
over a Unix socket (SCM_RIGHTS: needs no permission to look into the helper) and put them at their numbers. What
belongs to a process, or must wait until the present is gone, is done afterwards, from inside (`Kind.finish`).
"""

from __future__ import annotations

import fcntl
import os
import resource
import stat
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from kernel_backend.abi import linux
from kernel_backend.errors import FileChanged
from kernel_backend.host import libc, proc
from kernel_backend.host.guardian import Guardian
from kernel_backend.image.descriptions import Channel, Description, Message
from kernel_backend.image.entries import DescriptorEntry
from kernel_backend.stages import Stage, reach
from kernel_backend.tracee.inject import Workshop
from kernel_backend.tracee.process import Process
from kernel_backend.tracee.standing_in import StandIns

O_CLOEXEC = os.O_CLOEXEC
O_ASYNC = 0o20000
# Flags of open(2) that are acted on when opening
_NOT_LASTING = linux.OPEN_ONLY_FLAGS | O_CLOEXEC
_O_TMPFILE_BIT = linux.O_TMPFILE & ~os.O_DIRECTORY


class Look(msgspec.Struct):
    """One descriptor of a frozen process, as a room sees it when it decides and captures."""

    process: Process
    fd: int
    link: str  # where /proc/PID/fd/N points
    info: proc.FdInfo
    stat: os.stat_result
    in_flight: bool = False  # on its way through a Unix socket; `process` is ourselves then
    tid: int = 0  # of the thread in whose own table it is
    _own: int = -1

    @property
    def own(self) -> int:
        """Our duplicate of the descriptor, taken on first use and closed by the table capture."""
        if self._own < 0:
            self._own = self.process.take_fd(self.fd)
        return self._own

    @property
    def flags(self) -> int:
        """Open flags without those that only opening knows and without close-on-exec."""
        return self.info.flags & ~_NOT_LASTING

    @property
    def inode(self) -> tuple[int, int]:
        """Device and inode."""
        return self.stat.st_dev, self.stat.st_ino

    @property
    def holder(self) -> str:
        """For messages: who holds it."""
        if self.in_flight:
            return "a descriptor in flight through a Unix socket"
        return f"descriptor {self.fd} of process {self.process.pid}"

    def close(self) -> None:
        """Give our duplicate back."""
        if self._own >= 0:
            os.close(self._own)
            self._own = -1


class CaptureTables(msgspec.Struct):
    """What a capture of the whole tree gathers; rooms look things up in it and add to it."""

    folder: Path  # where a room may save content files (through `save`)
    processes: dict[int, Process]
    apart: dict[int, Process] = {}  # by tid, as threads see them that have tables of their own
    looks: list[Look] = []  # one per description, same index
    descriptions: list[Description] = []
    tables: dict[int, list[DescriptorEntry]] = {}
    holders: dict[int, list[tuple[int, int]]] = {}  # description → (pid or tid, fd) pairs
    warnings: list[str] = []
    channel: tuple[int, int] | None = None  # (pid, fd) of the requester's channel
    later: list[Callable[[], None]] = []  # work that may be done when the tree runs again
    files: str = "keep"  # what becomes of files being written (file_policy.py)
    ending: bool = False  # the tree is killed when the image is written, without running again
    last: list[Callable[[], None]] = []  # when `ending`: reading that takes things away
    linked: list[Callable[[], None]] = []  # when it is known of all who belongs to whom
    in_flight: list[tuple[Message, int, int]] = []  # message, position in its rights, our fd
    looked_in_flight: int = 0  # how many of these have a description
    mapped_in_flight: dict[str, int] = {}  # our descriptors of objects that memory maps, by key
    cache: dict[str, Any] = {}  # what a room asked the OS kernel once for all
    _groups: dict[tuple[object, ...], list[int]] = {}  # candidates for sharing, by kcmp order
    _by_inode: dict[tuple[int, int], list[int]] = {}

    def with_inode(self, device: int, inode: int) -> list[int]:
        """Indices of the descriptions of this file: the other end of a pipe, for example."""
        return self._by_inode.get((device, inode), [])

    def find(self, look: Look) -> tuple[int, list[int], int]:
        """(index of the description that `look` shares or -1, its group, its place in the group)."""
        key = (look.inode, look.link, look.info.pos, look.flags, look.info.value("eventfd-id"))
        group = self._groups.setdefault(key, [])
        low, high = 0, len(group)
        while low < high:
            middle = (low + high) // 2
            other = self.looks[group[middle]]
            order = libc.kcmp(look.process.view, other.process.view, linux.KCMP_FILE, look.fd, other.fd)
            if order == 0:
                return group[middle], group, middle
            low, high = (low, middle) if order == 1 else (middle + 1, high)
        return -1, group, low

    def close(self, *, all_of_them: bool = True) -> None:
        """Give our duplicates back: while we hold them, no reader sees the end of a pipe.

        What is in flight we cannot have once more: `all_of_them` is for when nobody will look at it again.
        """
        for look in self.looks:
            look.close()
        if not all_of_them:
            return
        for _, _, fd in self.in_flight:
            _close_quietly(fd)
        self.in_flight.clear()
        self.looked_in_flight = 0


class RebuildTables(msgspec.Struct):
    """What a rebuild of the whole tree has and makes."""

    folder: Path
    descriptions: Sequence[Description]
    own: dict[int, int] = {}  # description → our descriptor of the rebuilt one
    pids: dict[int, int] = {}  # image pid → new pid, known before `finish` runs
    shared: dict[str, int] = {}  # shared memory key → our descriptor of the rebuilt object
    live: dict[int, int] = {}  # in place: fd number → our duplicate of the present's
    below: dict[int, int] = {}  # in place: inode → ours of a socket that only its children have
    present_pid: int = 0  # in place: the process that is replaced
    leaving_sockets: set[int] = msgspec.field(
        default_factory=lambda: {0}
    )  # inodes of the present's; 0: not accepted yet
    holders: dict[int, list[tuple[int, int]]] = {}  # description → (image pid or tid, fd)
    root_pid: int = 0  # image pid of the root process
    stdio: tuple[int, int, int] = (-1, -1, -1)  # ours, for streams whose other end was outside; -1: /dev/null
    users: dict[int, int] = {}  # image pid or tid → whose rights decide; where absent, ours
    boot_id_same: bool = False
    stand_ins: StandIns | None = None  # who make sockets as the image's processes
    own_mounts: bool = False  # the tree will have mounts of its own, in which ours are others
    same_place: bool = False  # in place: the present process is the one the image was taken of (or stands for it)
    files: str = "keep"  # what becomes of files being written (file_policy.py),
    files_then: str = "keep"  # and what the dump said about it
    warnings: list[str] = []
    channel_fd: int = -1  # our socket for the channel, or -1
    to_close: list[int] = []  # further descriptors of ours that must live until the end
    cache: dict[str, Any] = {}  # what rooms share while they build
    guardian: Guardian = msgspec.field(default_factory=Guardian)  # told of what must not stay when we are killed

    def who(self, index: int) -> str:
        """For messages: who holds a description."""
        pid, fd = next(iter(self.holders.get(index, ())), (0, -1))
        return f"descriptor {fd} of process {pid}" if pid else "a descriptor in flight"

    def warn(self, text: str) -> None:
        """Add a warning, once."""
        if text not in self.warnings:
            self.warnings.append(text)

    def stdio_number(self, index: int) -> int:
        """0, 1 or 2 when the root process has this description as a standard stream, else -1."""
        return next((fd for pid, fd in self.holders.get(index, ()) if pid == self.root_pid and fd <= 2), -1)

    def stdio_for(self, number: int) -> int:
        """A duplicate of our own standard stream (or /dev/null) for the root's."""
        ours = self.stdio[number]
        return os.dup(ours) if ours >= 0 else os.open("/dev/null", os.O_RDWR | O_CLOEXEC)

    def close(self) -> None:
        """Close all that was built."""
        for fd in {*self.own.values(), *self.to_close}:
            _close_quietly(fd)
        self.own.clear()
        self.to_close.clear()


def _close_quietly(fd: int) -> None:
    try:
        os.close(fd)
    except OSError:
        return


class Kind:
    """One kind of description. Subclasses live in the rooms; most methods have a harmless default."""

    entry: type[Any]
    every_process = False  # whether `finish` runs in every process that holds it, or in the first only

    def matches(self, look: Look) -> bool:
        """Whether this descriptor is of this kind."""
        raise NotImplementedError

    def capture(self, look: Look, tables: CaptureTables) -> Description:
        """Read it while everything is stopped. Must not disturb queues (peek, or read and put back)."""
        raise NotImplementedError

    def capture_links(self, index: int, look: Look, entry: Any, tables: CaptureTables) -> None:
        """Second pass, when every description is known: find the other end, in-flight descriptors, watched files.

        One that comes to light later, as the last thing before the tree is killed, has to tell those it belongs to.
        """

    def validate(self, index: int, entry: Any, tables: RebuildTables) -> None:
        """Before the point of no return: raise FileChanged, HostUnsupported … when it could not be rebuilt."""

    def rebuild(self, index: int, entry: Any, tables: RebuildTables) -> None:
        """Make it in this (the helper's) process: tables.own[index] = descriptor. Also the other end, where paired."""
        raise NotImplementedError

    def settle(self, index: int, entry: Any, tables: RebuildTables) -> None:
        """Still in the helper, when every description stands: what needs others (queues, connections, watches)."""

    def finish(self, index: int, entry: Any, tables: RebuildTables, workshop: Workshop, pid: int, fd: int) -> None:
        """Inside the first process that holds it (image pid `pid`, at `fd`), when all descriptors and memory stand."""
        restore_owner(entry, tables, workshop, fd)


def restore_owner(entry: Any, tables: RebuildTables, workshop: Workshop, fd: int) -> None:
    """Who gets SIGIO and SIGURG, and which signal instead: from inside, because the OS kernel notes who asked."""
    if entry.owner:
        try:
            address = workshop.put(struct.pack("<ii", entry.owner_kind, tables.pids[entry.owner]))
            workshop.call("fcntl", fd, linux.F_SETOWN_EX, address)
        except (KeyError, OSError):  # signals to processes outside are none of ours
            tables.warn(f"process {entry.owner}, which was to get signals about descriptor {fd}, is not of this tree")
    if entry.owner_signal:
        workshop.call("fcntl", fd, linux.F_SETSIG, entry.owner_signal)
    if entry.flags & O_ASYNC:
        workshop.call("fcntl", fd, fcntl.F_SETFL, entry.flags & ~os.O_ACCMODE)


def open_flags(flags: int) -> int:
    """The image's flags for open(2): nothing that creates, truncates or would be acted on only once."""
    return flags & ~_NOT_LASTING & ~O_ASYNC & ~_O_TMPFILE_BIT


def open_path(path: str, flags: int, sort: Callable[[os.stat_result], bool], *, keep: int = 0) -> int:
    """Open what stands at a path, with the image's flags, but never through a symbolic link put there since.

    `sort` tells whether it is what is meant to be opened there: opening something else (a FIFO, a device) may wait for
    ever or set something off. O_NOFOLLOW would stay visible in the description's flags; so we go by an O_PATH
    descriptor. `keep`: of the flags that usually are set from inside, those that belong to opening here.
    """
    flags = open_flags(flags) | (flags & keep) | os.O_CLOEXEC | os.O_NOCTTY
    place = os.open(path, linux.O_PATH | os.O_NOFOLLOW | O_CLOEXEC)
    try:
        if not flags & linux.O_PATH and not sort(os.fstat(place)):
            raise FileChanged(f"{path}, which the image had open, is a thing of another kind now", path=path)
        return _open_at(place, path if flags & os.O_NOFOLLOW else f"/proc/self/fd/{place}", flags)
    finally:
        os.close(place)


def _open_at(place: int, path: str, flags: int) -> int:
    """Open; a file of one's own whose permissions were taken away since gets them back for the moment."""
    try:
        return os.open(path, flags)
    except PermissionError:
        found = os.fstat(place)
        if not is_file_or_folder(found) or found.st_uid != libc.syscall("setfsuid", 0xFFFFFFFF):
            raise
    here = Path(f"/proc/self/fd/{place}")
    mode = stat.S_IMODE(found.st_mode)
    here.chmod(mode | 0o700)
    try:
        return os.open(path, flags)
    finally:
        here.chmod(mode)


def is_file_or_folder(found: os.stat_result) -> bool:
    """What can be opened without consequences."""
    return stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)


def set_status_flags(fd: int, flags: int) -> None:
    """Give our new descriptor the image's status flags (O_NONBLOCK and its like; not the access mode)."""
    wanted = flags & ~os.O_ACCMODE & ~O_ASYNC
    if fcntl.fcntl(fd, fcntl.F_GETFL) & ~os.O_ACCMODE & ~linux.O_LARGEFILE != wanted & ~linux.O_LARGEFILE:
        fcntl.fcntl(fd, fcntl.F_SETFL, wanted)


def all_kinds() -> list[Kind]:
    """Every room's kinds, in the order of asking; the last refuses by name what nobody claimed."""
    from kernel_backend.resources import (
        bpf_maps,
        devices,
        files,
        io_uring,
        memfd,
        mqueue,
        pipes,
        polling,
        refused,
        sockets,
        terminals,
    )

    rooms = (memfd, mqueue, files, terminals, pipes, sockets, polling, bpf_maps, io_uring, devices, refused)
    return [ChannelKind(), *(kind for room in rooms for kind in room.KINDS)]


class ChannelKind(Kind):
    """The requester's channel: known by its number alone."""

    entry = Channel

    def matches(self, look: Look) -> bool:
        return False  # assigned by number in _classify

    def rebuild(self, index: int, entry: Channel, tables: RebuildTables) -> None:
        if tables.channel_fd >= 0:
            tables.own[index] = os.dup(tables.channel_fd)
            return
        import socket

        ours, theirs = socket.socketpair()
        ours.close()  # reads end-of-file, which tells the restored life that no helper is there
        tables.own[index] = theirs.detach()


def look_at(process: Process, fd: int) -> Look:
    """Gather what /proc tells of one descriptor."""
    path = f"/proc/{process.view}/fd/{fd}"
    return Look(process, fd, os.readlink(path), proc.fdinfo(process.view, fd), os.stat(path))


def capture(tables: CaptureTables, kinds: Sequence[Kind]) -> None:
    """Fill tables, looks and descriptions for every process of the tree, while all of it is stopped.

    The caller closes the tables in the end.
    """
    raise_our_limit()
    try:
        for pid, process in tables.processes.items():
            tables.tables[pid] = []
            for fd in proc.fd_numbers(process.view):
                _capture_one(look_at(process, fd), tables, kinds)
        for tid, process in tables.apart.items():
            tables.tables[tid] = []
            for fd in proc.fd_numbers(tid):
                look = look_at(process, fd)
                look.tid = tid
                _capture_one(look, tables, kinds)
        _capture_in_flight(tables, kinds)
        _capture_links(tables, kinds)
        for work in tables.linked:
            work()
    finally:
        tables.close(all_of_them=not tables.ending)


def read_last(tables: CaptureTables, kinds: Sequence[Kind]) -> None:
    """Just before the tree is killed: what can be read only by taking it away (`CaptureTables.last`)."""
    try:
        known = len(tables.looks)
        for work in tables.last:
            work()
        _capture_in_flight(tables, kinds)
        _capture_links(tables, kinds, known)
    finally:
        tables.close()


def _capture_links(tables: CaptureTables, kinds: Sequence[Kind], begin: int = 0) -> None:
    """The second pass, for the descriptions from `begin` on."""
    by_entry = {kind.entry: kind for kind in kinds}
    every = zip(tables.looks[begin:], tables.descriptions[begin:], strict=True)
    for index, (look, entry) in enumerate(every, begin):
        by_entry[type(entry)].capture_links(index, look, entry, tables)


def _capture_one(look: Look, tables: CaptureTables, kinds: Sequence[Kind]) -> None:
    index = _index_of(look, tables, kinds)
    pid = look.tid or look.process.pid
    tables.holders.setdefault(index, []).append((pid, look.fd))
    cloexec = bool(look.info.flags & O_CLOEXEC)
    tables.tables[pid].append(DescriptorEntry(fd=look.fd, cloexec=cloexec, description=index))
    if _is_locked(look):
        from kernel_backend.resources import locks

        locks.note_record_locks(look, tables.descriptions[index], tables.processes)


def _is_locked(look: Look) -> bool:
    return any(line.startswith("lock:") for line in look.info.lines)


def _index_of(look: Look, tables: CaptureTables, kinds: Sequence[Kind]) -> int:
    """The description behind a descriptor; a new one is captured."""
    index, group, place = tables.find(look)
    if index < 0:
        index = len(tables.looks)
        tables.looks.append(look)
        group.insert(place, index)
        tables._by_inode.setdefault(look.inode, []).append(index)
        tables.descriptions.append(_classify(look, tables, kinds))
    return index


def _capture_in_flight(tables: CaptureTables, kinds: Sequence[Kind]) -> None:
    """Descriptors found in queues; a socket among them may hold further ones, which lengthens the list."""
    ourselves = Process(os.getpid())
    while tables.looked_in_flight < len(tables.in_flight):
        message, position, fd = tables.in_flight[tables.looked_in_flight]
        tables.looked_in_flight += 1
        look = look_at(ourselves, fd)
        look.in_flight = True
        message.rights[position] = _index_of(look, tables, kinds)


def _classify(look: Look, tables: CaptureTables, kinds: Sequence[Kind]) -> Description:
    if tables.channel == (look.process.pid, look.fd) and not look.in_flight and not look.tid:
        return Channel()
    kind = next(kind for kind in kinds if kind.matches(look))
    entry = kind.capture(look, tables)
    entry.flags = look.flags
    if _is_locked(look):
        from kernel_backend.resources import locks

        locks.capture_locks(look, entry)
    if not look.flags & linux.O_PATH:
        owner = fcntl.fcntl(look.own, linux.F_GETOWN_EX, bytes(8))
        entry.owner_kind, entry.owner = struct.unpack("<ii", owner)
        entry.owner_signal = fcntl.fcntl(look.own, linux.F_GETSIG)
    return entry


def validate(tables: RebuildTables, kinds: Sequence[Kind]) -> None:
    """Before the point of no return: raise when a description could not be rebuilt."""
    by_entry = {kind.entry: kind for kind in kinds}
    for index, entry in enumerate(tables.descriptions):
        by_entry[type(entry)].validate(index, entry, tables)


def rebuild(tables: RebuildTables, kinds: Sequence[Kind]) -> None:
    """Make every description in this process (tables.own); nothing is left when it fails."""
    raise_our_limit()
    by_entry = {kind.entry: kind for kind in kinds}
    try:
        for index, entry in enumerate(tables.descriptions):
            if index not in tables.own:
                by_entry[type(entry)].rebuild(index, entry, tables)
        reach(Stage.RESTORE_QUEUES)
        for index, entry in enumerate(tables.descriptions):
            by_entry[type(entry)].settle(index, entry, tables)
            if entry.flock or entry.ranges:
                from kernel_backend.resources import locks

                locks.take_locks(index, entry, tables)
    except BaseException:
        tables.close()
        raise


def raise_our_limit() -> None:
    """We hold the descriptors of a whole tree at once."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
