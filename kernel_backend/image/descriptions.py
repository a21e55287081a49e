"""Open file descriptions in an image: one tagged structure per kind (see FORMAT.md, "Descriptions").

A description is what dup(2) and fork(2) share: offset, flags, queues. Descriptor tables refer to it by index; one
description refers to another (the other end of a connection, what an epoll watches) by index too, -1 for none.
"""

import os
from typing import Annotated

import msgspec
from msgspec import Meta

OTHER_INSIDE = "inside"  # the other end belongs to the image
OTHER_CLOSED = "closed"  # nobody had the other end
OTHER_OUTSIDE = "outside"  # a process that is not in the image had it


def pack_path(path: str) -> str:
    """A path as text that JSON can hold: one that is not UTF-8 becomes NUL and its bytes in hex."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return "\0" + os.fsencode(path).hex()
    return path


def unpack_path(text: str) -> str:
    """What pack_path was given."""
    return os.fsdecode(bytes.fromhex(text[1:])) if text.startswith("\0") else text


class PageRun(msgspec.Struct, forbid_unknown_fields=True, array_like=True):
    """`length` bytes at `address` (of memory, or inside a file) that stand at `offset` of a file of the image."""

    address: Annotated[int, Meta(ge=0)]
    length: int
    offset: int


class _Base(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, tag_field="kind"):
    flags: int = 0  # open flags as fdinfo shows them, without close-on-exec
    owner: int = 0  # F_SETOWN_EX: a tid, pid or process group
    owner_kind: int = 1  # F_OWNER_TID, F_OWNER_PID or F_OWNER_PGRP
    owner_signal: int = 0  # F_SETSIG


class _Item(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Base of the parts of a description."""


class Channel(_Base, tag="channel"):
    """The requester's own channel to its helper: never captured, always replaced."""


# --- files --------------------------------------------------------------------------------------------------------


class RangeLock(_Item):
    """An OFD lock (fcntl(2)): belongs to the description."""

    exclusive: bool
    start: int
    length: int  # 0: to the end of the file


class RecordLock(RangeLock):
    """A POSIX record lock: belongs to a process."""

    pid: int


class RegularFile(_Base, tag="file"):
    """A regular file or directory, opened again by path; `content` names a saved copy when it has no path any more."""

    path: str  # pack_path
    pos: int = 0
    size: int = 0
    mtime_ns: int = 0
    device: int = 0
    inode: int = 0
    mode: int = 0
    deleted: bool = False
    unlinked: str = ""  # pack_path: the name it was opened by and has lost, while `path` is another one
    content: str = ""  # file name in the image folder
    content_runs: list[PageRun] = []  # where its parts belong
    shared: str = ""  # key of the SharedMemoryEntry that holds its content, where memory maps it too
    flock: int = 0  # LOCK_SH or LOCK_EX; 0: none
    ranges: list[RangeLock] = []
    record_locks: list[RecordLock] = []


class MemoryFile(_Base, tag="memfd"):
    """memfd_create(2); several descriptions of one object have the same device and inode."""

    name: str
    device: int
    inode: int
    pos: int = 0
    size: int = 0
    mode: int = 0
    seals: int = 0
    huge_page_size: int = 0  # bytes; 0: ordinary pages
    content: str = ""  # file name in the image folder
    content_runs: list[PageRun] = []  # where its parts belong
    shared: str = ""  # key of the SharedMemoryEntry that holds its content, where memory maps it too
    flock: int = 0
    ranges: list[RangeLock] = []
    record_locks: list[RecordLock] = []


class ProcFile(_Base, tag="proc"):
    """A file below /proc, opened again when the new pids are known."""

    path: str
    pos: int = 0


class DeviceFile(_Base, tag="device"):
    """A harmless character device (null, zero, full, random, urandom)."""

    path: str
    pos: int = 0


# --- pipes --------------------------------------------------------------------------------------------------------


class Pipe(_Base, tag="pipe"):
    """One end (or, O_RDWR, both) of a pipe or FIFO; the ends of one pipe have the same device and inode."""

    device: int
    inode: int
    other: str  # OTHER_…
    path: str = ""  # of a FIFO that has one (pack_path)
    size: int = 0  # F_GETPIPE_SZ
    packets: list[bytes] = []  # with the first description of the pipe; only packet mode has more than one
    packet_mode: bool = False  # the packets are bounded (O_DIRECT)


# --- events -------------------------------------------------------------------------------------------------------


class EventFd(_Base, tag="eventfd"):
    """eventfd(2)."""

    count: int
    semaphore: bool = False


class TimerFd(_Base, tag="timerfd"):
    """timerfd_create(2)."""

    clock: int
    ticks: int = 0
    setting: int = 0  # the flags of timerfd_settime(2)
    value_ns: int = 0  # remaining, when captured
    interval_ns: int = 0
    now_ns: int = 0  # the timer's clock, when captured


class SignalFd(_Base, tag="signalfd"):
    """signalfd(2)."""

    mask: int


class PidFd(_Base, tag="pidfd"):
    """pidfd_open(2); `pid` -1 when the process was gone."""

    pid: int
    start_ticks: int = 0


class EpollItem(_Item):
    """One watched descriptor. It is keyed by number and description; the number may be closed or reused since."""

    fd: int
    description: int
    events: int
    data: int


class Epoll(_Base, tag="epoll"):
    """epoll_create(2)."""

    items: list[EpollItem] = []


class InotifyWatch(_Item):
    """One watched path."""

    wd: int
    path: str  # pack_path
    mask: int


class Inotify(_Base, tag="inotify"):
    """inotify_init(2)."""

    watches: list[InotifyWatch] = []


# --- sockets ------------------------------------------------------------------------------------------------------


class SocketOption(msgspec.Struct, forbid_unknown_fields=True, array_like=True):
    """setsockopt(2): level, name, value."""

    level: int
    name: int
    value: bytes


class Message(_Item):
    """A piece of a receive queue: a datagram, or stream bytes up to the next descriptors in flight."""

    data: bytes = b""
    address: bytes = b""  # of a Unix datagram's sender
    host: str = ""  # of a UDP datagram's sender
    port: int = 0
    rights: list[int] = []  # descriptions in flight (SCM_RIGHTS)


class UnixSocket(_Base, tag="unix"):
    """AF_UNIX."""

    type: int
    inode: int
    name: bytes = b""  # bound to; abstract ones begin with NUL
    folder: str = ""  # pack_path: where a relative name was bound
    mode: int = 0o777  # of the bound file
    unlinked: bool = False  # the bound file was gone
    peer_name: bytes = b""  # of an other end outside
    listening: bool = False
    backlog: int = 0
    pending: list[int] = []  # descriptions which connected and were not accepted yet, in order
    connected: bool = False
    peer: int = -1
    other: str = OTHER_CLOSED
    shutdown: int = 0  # 1: no more receiving, 2: no more sending
    queue: list[Message] = []
    early: list[Message] = []  # sent on a connection that was not accepted yet
    unread: int = 0  # of such a connection: what the OS kernel counts for it
    lost: bool = False  # and it could not be read
    options: list[SocketOption] = []


class TcpSocket(_Base, tag="tcp"):
    """SOCK_STREAM over IPv4 or IPv6."""

    family: int
    host: str = ""
    port: int = 0
    scope: int = 0
    peer_host: str = ""
    peer_port: int = 0
    state: int = 7  # include/net/tcp_states.h
    backlog: int = 0
    peer: int = -1  # description of the other end
    listener: int = -1  # description in whose backlog the other end still is
    other: str = OTHER_CLOSED
    queue: bytes = b""
    early: bytes = b""  # sent on a connection that was not accepted yet
    sent: int = 0  # on such a connection, bytes
    lost: bool = False  # and they could not be read
    options: list[SocketOption] = []


class UdpSocket(_Base, tag="udp"):
    """SOCK_DGRAM over IPv4 or IPv6."""

    family: int
    host: str = ""
    port: int = 0
    scope: int = 0
    peer_host: str = ""
    peer_port: int = 0
    queue: list[Message] = []
    options: list[SocketOption] = []


# --- terminals ----------------------------------------------------------------------------------------------------


class Termios(_Item):
    """struct termios2 and what goes with it."""

    raw: bytes
    rows: int = 0
    columns: int = 0
    width_pixels: int = 0
    height_pixels: int = 0


class PtyMaster(_Base, tag="ptmx"):
    """The controlling side of a pseudo-terminal."""

    index: int
    path: str = "/dev/ptmx"
    locked: bool = False
    packet: bool = False
    hung_up: bool = False  # the other side was open once and is closed
    termios: Termios | None = None
    typed: bytes = b""  # for the program to read; in line mode: finished lines
    typing: bytes = b""  # a line that is not finished
    printed: bytes = b""  # by the program, for us to read


class Terminal(_Base, tag="terminal"):
    """A terminal: the program's side of a pseudo-terminal, or a console or serial line."""

    path: str
    device: int  # st_rdev
    index: int = -1  # of a pseudo-terminal
    other: str = OTHER_OUTSIDE
    ctime_ns: int = 0
    termios: Termios | None = None
    exclusive: bool = False
    session: int = 0  # whose controlling terminal it is; 0: nobody's
    foreground: int = 0  # its foreground process group


class ControllingTerminal(_Base, tag="tty"):
    """/dev/tty."""


Description = (
    Channel
    | RegularFile
    | MemoryFile
    | ProcFile
    | DeviceFile
    | Pipe
    | EventFd
    | TimerFd
    | SignalFd
    | PidFd
    | Epoll
    | Inotify
    | UnixSocket
    | TcpSocket
    | UdpSocket
    | PtyMaster
    | Terminal
    | ControllingTerminal
)
