"""Pipes and FIFOs, with their contents.

Contents are read with tee(2), which copies a pipe's buffers to another pipe and disturbs nothing; packets stay packets.
All descriptions of one pipe have the same inode; coming back, the pipe is made once and each further description
opens it through /proc/self/fd. An end which nobody had is closed again when everything is filled, so that a reader
sees the end of file, a writer EPIPE.

When the other end belonged to a process outside the image: in place, the present's own descriptor of that pipe is
taken; a fresh restore takes our own standard streams for the root's, or the same pipe from whoever still has it;
else the other end is as if closed, and a warning says so.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
import stat
import struct
import tempfile
from pathlib import Path

from kernel_backend.abi import linux
from kernel_backend.errors import FileChanged, HostUnsupported, ResourceUnsupported
from kernel_backend.host import fds
from kernel_backend.image.descriptions import (
    OTHER_CLOSED,
    OTHER_INSIDE,
    OTHER_OUTSIDE,
    Description,
    Pipe,
    pack_path,
    unpack_path,
)
from kernel_backend.resources.descriptors import (
    CaptureTables,
    Kind,
    Look,
    RebuildTables,
    open_flags,
    open_path,
    restore_owner,
    set_status_flags,
)
from kernel_backend.tracee.inject import Workshop

_NEW = os.O_CLOEXEC | os.O_NONBLOCK
_READERS = (os.O_RDONLY, os.O_RDWR)
_WRITERS = (os.O_WRONLY, os.O_RDWR)


def _mode(flags: int) -> int:
    return flags & os.O_ACCMODE


class PipeKind(Kind):
    """A description of a pipe or FIFO."""

    entry = Pipe

    def matches(self, look: Look) -> bool:
        return stat.S_ISFIFO(look.stat.st_mode)

    def capture(self, look: Look, tables: CaptureTables) -> Description:
        entry = Pipe(device=look.stat.st_dev, inode=look.stat.st_ino, other=OTHER_INSIDE)
        if look.link.startswith("/") and _still_at(look.link, look):
            entry.path = pack_path(look.link)
        elif look.link.startswith("/"):
            entry.unlinked = pack_path(look.link.removesuffix(" (deleted)"))
            entry.mode = stat.S_IMODE(look.stat.st_mode)
        else:
            entry.mode, entry.uid, entry.gid = stat.S_IMODE(look.stat.st_mode), look.stat.st_uid, look.stat.st_gid
        entry.size = fcntl.fcntl(look.own, linux.F_GETPIPE_SZ)
        return entry

    def capture_links(self, index: int, look: Look, entry: Pipe, tables: CaptureTables) -> None:
        same = tables.with_inode(*look.inode)
        modes = {_mode(tables.looks[i].flags) for i in same}
        readable, writable = modes & set(_READERS), modes & set(_WRITERS)
        group = [other for i in same if isinstance(other := tables.descriptions[i], Pipe)]
        first = group[0]
        if not readable or not writable:
            entry.other = OTHER_OUTSIDE if _other_end_open(look.own, reads=bool(readable)) else OTHER_CLOSED
        elif first.other != OTHER_INSIDE:  # the end that it lacked has come to light
            for other in group:
                other.other = OTHER_INSIDE
        if readable and not first.packets:
            reader = next(tables.looks[i] for i in same if _mode(tables.looks[i].flags) in _READERS)
            first.packet_mode = any(tables.looks[i].flags & os.O_DIRECT for i in same)
            first.packets = _contents(reader, first, tables)

    def validate(self, index: int, entry: Pipe, tables: RebuildTables) -> None:
        path = unpack_path(entry.path)
        if path and not _is_fifo(path):
            raise FileChanged(f"the FIFO {path}, which {tables.who(index)} had open, is gone", path=path)

    def rebuild(self, index: int, entry: Pipe, tables: RebuildTables) -> None:
        if entry.path:
            tables.own[index] = _open_fifo(entry)
            return
        if entry.other == OTHER_OUTSIDE and _reconnect(index, entry, tables):
            return
        ends = _ends(index, entry, tables)
        fd = ends.take(entry)
        tables.own[index] = fd
        set_status_flags(fd, entry.flags)

    def settle(self, index: int, entry: Pipe, tables: RebuildTables) -> None:
        ends: dict[tuple[int, int], _Ends] = tables.cache.get("pipes", {})
        found = ends.get((entry.device, entry.inode))
        if found and entry.packets and not entry.path:
            found.fill(entry)
        if found and index == _last_of_each(tables)[entry.device, entry.inode]:
            found.close()

    def finish(self, index: int, entry: Pipe, tables: RebuildTables, workshop: Workshop, pid: int, fd: int) -> None:
        if entry.path and entry.packets:
            _refill_fifo(entry)
        if tables.present_pid and (why := _grow(entry, tables.own[index], tables)):
            tables.warn(f"the pipe at {tables.who(index)} has not its size of {entry.size} bytes: {why}")
        restore_owner(entry, tables, workshop, fd)


def _last_of_each(tables: RebuildTables) -> dict[tuple[int, int], int]:
    """The last description of every pipe: when it is settled, so is the pipe."""
    known: dict[tuple[int, int], int] | None = tables.cache.get("last of each pipe")
    if known is None:
        every = enumerate(tables.descriptions)
        known = tables.cache["last of each pipe"] = {(p.device, p.inode): i for i, p in every if isinstance(p, Pipe)}
    return known


# --- capture ----------------------------------------------------------------------------------------------------------


def _still_at(path: str, look: Look) -> bool:
    try:
        found = os.lstat(path)
    except OSError:
        return False
    return (found.st_dev, found.st_ino) == look.inode


def _other_end_open(fd: int, *, reads: bool) -> bool:
    """Whether somebody has the other end: a reader sees POLLHUP without writers, a writer POLLERR without readers."""
    poll = select.poll()
    poll.register(fd, 0)
    events = poll.poll(0)
    lonely = select.POLLHUP if reads else select.POLLERR
    return not any(event & lonely for _, event in events)


def _contents(look: Look, entry: Pipe, tables: CaptureTables) -> list[bytes]:
    """What is in the pipe, packet by packet in packet mode, copied without taking it out."""
    size = struct.unpack("<i", fcntl.ioctl(look.own, linux.FIONREAD, bytes(4)))[0]
    if not size:
        return []
    into, out = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if fcntl.fcntl(out, linux.F_GETPIPE_SZ) < entry.size:
            fcntl.fcntl(out, linux.F_SETPIPE_SZ, entry.size)
        copied = fds.tee(look.own, out, entry.size)
        packets = _drain(into)
    except OSError as error:
        raise _not_read(look, error) from error
    finally:
        os.close(into)
        os.close(out)
    if copied != size:
        raise _not_read(look, OSError(5, f"{copied} of {size} bytes came"))
    return packets if entry.packet_mode else [b"".join(packets)]


def _not_read(look: Look, error: OSError) -> ResourceUnsupported:
    return ResourceUnsupported(
        f"the content of the pipe at {look.holder} cannot be copied: {error.strerror}",
        hint="let its reader read it, or raise /proc/sys/fs/pipe-user-pages-soft",
        pid=look.process.pid, fd=look.fd, link=look.link,
    )  # fmt: skip


def _drain(fd: int) -> list[bytes]:
    packets: list[bytes] = []
    while True:
        try:
            data = os.read(fd, 1 << 21)
        except BlockingIOError:
            return packets
        if not data:
            return packets
        packets.append(data)


# --- rebuild ----------------------------------------------------------------------------------------------------------


class _Ends:
    """Both ends of a new pipe; the first description of an end gets it, others open it again."""

    def __init__(self, entry: Pipe, who: str, *, grows_later: bool) -> None:
        self.reader, self.writer = _nameless_fifo(entry) if entry.unlinked else os.pipe2(_NEW)
        self._taken: set[int] = set()
        _give(self.reader, entry)
        if entry.size and entry.size != fcntl.fcntl(self.reader, linux.F_GETPIPE_SZ):
            try:
                fcntl.fcntl(self.reader, linux.F_SETPIPE_SZ, entry.size)
            except OSError as error:
                if grows_later and error.errno == errno.EPERM and _fits(entry, self.reader):
                    return
                self.close()
                raise HostUnsupported(
                    f"the pipe of {entry.size} bytes at {who} cannot be made: {error.strerror}",
                    hint="raise /proc/sys/fs/pipe-max-size and pipe-user-pages-soft",
                ) from error

    def take(self, entry: Pipe) -> int:
        """A descriptor for one description."""
        mode = _mode(entry.flags)
        end = self.writer if mode == os.O_WRONLY else self.reader
        if mode == os.O_RDWR or mode in self._taken:
            return os.open(f"/proc/self/fd/{end}", mode | os.O_NONBLOCK | os.O_CLOEXEC)
        self._taken.add(mode)
        return os.dup(end)

    def fill(self, entry: Pipe) -> None:
        """Write the contents, through a description of our own: the flags of others stay."""
        writer = os.open(f"/proc/self/fd/{self.writer}", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            write_packets(writer, entry)
        finally:
            os.close(writer)

    def close(self) -> None:
        for fd in (self.reader, self.writer):
            os.close(fd)


def _give(fd: int, entry: Pipe) -> None:
    """A new pipe belongs to us; its own processes, which may be another user's, open it by /proc/self/fd, too."""
    found = os.fstat(fd)
    if entry.uid >= 0 and (found.st_uid, found.st_gid) != (entry.uid, entry.gid):
        with contextlib.suppress(PermissionError):  # whoever may not give it away is that user, as a rule
            os.fchown(fd, entry.uid, entry.gid)
    if entry.uid >= 0 and stat.S_IMODE(found.st_mode) != entry.mode:
        os.fchmod(fd, entry.mode)


def _fits(entry: Pipe, fd: int) -> bool:
    """Whether a pipe has room for the contents as it is; a packet takes a page."""
    room = fcntl.fcntl(fd, linux.F_GETPIPE_SZ)
    return max(sum(map(len, entry.packets)), linux.PAGE_SIZE * len(entry.packets)) <= room


def _grow(entry: Pipe, fd: int, tables: RebuildTables) -> str:
    """The present is gone, and with our duplicates of its pipes its user's room for them; why it failed."""
    ours = (entry.device, entry.inode) in tables.cache.get("pipes", {})
    if not ours or entry.size in (0, fcntl.fcntl(fd, linux.F_GETPIPE_SZ)):
        return ""
    for number in [number for number, live in tables.live.items() if stat.S_ISFIFO(os.fstat(live).st_mode)]:
        os.close(tables.live.pop(number))
    try:
        fcntl.fcntl(fd, linux.F_SETPIPE_SZ, entry.size)
    except OSError as error:
        return str(error.strerror)
    return ""


def write_packets(fd: int, entry: Pipe) -> None:
    """Put contents into a pipe that has room for them."""
    for packet in entry.packets:
        if entry.packet_mode:
            fcntl.fcntl(fd, fcntl.F_SETFL, os.O_NONBLOCK | os.O_DIRECT)
        written = os.write(fd, packet)
        if written != len(packet):
            raise OSError(11, f"a pipe of {entry.size} bytes took {written} of {len(packet)}")


def _ends(index: int, entry: Pipe, tables: RebuildTables) -> _Ends:
    known: dict[tuple[int, int], _Ends] = tables.cache.setdefault("pipes", {})
    key = (entry.device, entry.inode)
    if key not in known:
        known[key] = _Ends(entry, tables.who(index), grows_later=bool(tables.present_pid))
    return known[key]


def _reconnect(index: int, entry: Pipe, tables: RebuildTables) -> bool:
    """Find the pipe's other end outside; False when the end must be as if closed."""
    number = tables.stdio_number(index)
    fd = _from_live(index, entry, tables)
    if fd < 0 and number >= 0 and not tables.live:
        fd = tables.stdio_for(number)
    if fd < 0 and tables.boot_id_same:
        fd = _from_holder(entry)
    if fd < 0:
        tables.warn(f"the other end of the pipe at {tables.who(index)} was outside and is gone; it is as if closed")
        return False
    tables.own[index] = fd
    return True


def _from_live(index: int, entry: Pipe, tables: RebuildTables) -> int:
    """In place: the present's descriptor of the very pipe, or whatever it has as the same standard stream."""
    for fd in tables.live.values():
        found = os.fstat(fd)
        same = stat.S_ISFIFO(found.st_mode) and (found.st_dev, found.st_ino) == (entry.device, entry.inode)
        if same and tables.boot_id_same and _mode(fds.status_flags(fd)) == _mode(entry.flags):
            return os.dup(fd)
    number = tables.stdio_number(index)
    return os.dup(tables.live[number]) if number in tables.live else -1


def _from_holder(entry: Pipe) -> int:
    """A new description of the same pipe through a process that has its other end; -1 when there is none."""
    wanted = f"pipe:[{entry.inode}]"
    modes = _WRITERS if _mode(entry.flags) == os.O_RDONLY else _READERS
    for process in Path("/proc").iterdir():
        if not process.name.isdecimal() or process.name == str(os.getpid()):
            continue
        try:
            numbers = os.listdir(process / "fd")
        except OSError:
            continue
        for number in numbers:
            path = process / "fd" / number
            try:
                if os.readlink(path) == wanted and _listed_mode(process, number) in modes:
                    return os.open(path, open_flags(entry.flags) | os.O_CLOEXEC | os.O_NONBLOCK)
            except OSError:
                continue
    return -1


def _listed_mode(process: Path, number: str) -> int:
    for line in (process / "fdinfo" / number).read_text().splitlines():
        if line.startswith("flags:"):
            return _mode(int(line.split()[1], 8))
    return -1


# --- FIFOs ------------------------------------------------------------------------------------------------------------


def _nameless_fifo(entry: Pipe) -> tuple[int, int]:
    """Both ends of a new FIFO whose name is gone again, where the old one was if that folder can be written to."""
    for folder in (Path(unpack_path(entry.unlinked)).parent, Path(tempfile.gettempdir())):
        path = folder / f".nbcr-{os.urandom(6).hex()}"
        try:
            os.mkfifo(path, entry.mode | 0o600)
        except OSError:
            continue
        try:
            reader = os.open(path, os.O_RDONLY | _NEW)
            writer = os.open(path, os.O_WRONLY | _NEW)
            path.chmod(entry.mode)
            return reader, writer
        finally:
            path.unlink()
    return os.pipe2(_NEW)


def _is_fifo(path: str) -> bool:
    try:
        return _is_pipe(os.lstat(path))
    except OSError:
        return False


def _is_pipe(found: os.stat_result) -> bool:
    return stat.S_ISFIFO(found.st_mode)


def _open_fifo(entry: Pipe) -> int:
    """Open our end without waiting for the other: with both ends open for the moment nobody has to wait."""
    path = unpack_path(entry.path)
    both = open_path(path, os.O_RDWR | os.O_NONBLOCK, _is_pipe)
    try:
        fd = open_path(path, entry.flags | os.O_NONBLOCK, _is_pipe)
    finally:
        os.close(both)
    set_status_flags(fd, entry.flags)
    return fd


def _refill_fifo(entry: Pipe) -> None:
    """Bring the FIFO's contents to what they were; the present, which may have put others there, is gone by now."""
    fd = open_path(unpack_path(entry.path), os.O_RDWR | os.O_NONBLOCK, _is_pipe)
    try:
        _drain(fd)
        if fcntl.fcntl(fd, linux.F_GETPIPE_SZ) < entry.size:
            fcntl.fcntl(fd, linux.F_SETPIPE_SZ, entry.size)
        write_packets(fd, entry)
    finally:
        os.close(fd)


KINDS: list[Kind] = [PipeKind()]
