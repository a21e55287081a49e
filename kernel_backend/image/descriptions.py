"""Open file descriptions in an image: one tagged structure per kind (see FORMAT.md, "Descriptions").

A description is what dup(2) and fork(2) share: offset, flags, queues. Descriptor tables refer to it by index; one
description refers to another (the other end of a connection, what an epoll watches) by index too, -1 for none.
"""

import os
from typing import Annotated

import msgspec
from msgspec import Meta

from kernel_backend.image.limits import (
    FEW,
    MANY,
    RUNS,
    Address,
    Bits,
    Content,
    FdNumber,
    Flow,
    Id,
    Index,
    Int,
    Key,
    MapName,
    MarkedObject,
    Name,
    Nanoseconds,
    Natural,
    OptionalFileName,
    OptionalId,
    OptionValue,
    Other,
    PathText,
    Pid,
    Port,
    Scale,
    SegmentSize,
    Signal,
    Size,
    Small,
    SocketName,
    Word,
)

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

    address: Size
    length: Size
    offset: Size


class _Item(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Base of the parts of a description."""


class RangeLock(_Item):
    """An OFD lock (fcntl(2)): belongs to the description."""

    exclusive: bool
    start: Size
    length: Size  # 0: to the end of the file


class RecordLock(RangeLock):
    """A POSIX record lock: belongs to a process."""

    pid: Pid


class _Base(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, tag_field="kind"):
    flags: Bits = 0  # open flags as fdinfo shows them, without close-on-exec
    owner: Int = 0  # F_SETOWN_EX: a tid, pid or process group
    owner_kind: Annotated[int, Meta(ge=0, le=2)] = 1  # F_OWNER_TID, F_OWNER_PID or F_OWNER_PGRP
    owner_signal: Signal = 0  # F_SETSIG
    flock: Annotated[int, Meta(ge=0, le=2)] = 0  # LOCK_SH or LOCK_EX; 0: none
    ranges: Annotated[list[RangeLock], MANY] = []
    record_locks: Annotated[list[RecordLock], MANY] = []
    flock_pid: Natural = 0  # who took it, as /proc/locks tells; 0: not noted
    lease: Annotated[int, Meta(ge=-1, le=1)] = -1  # F_RDLCK or F_WRLCK; -1: none
    lease_asked: Annotated[
        int, Meta(ge=-1, le=2)
    ] = -1  # what somebody has asked for instead: F_RDLCK, F_UNLCK; -1: nobody


class Channel(_Base, tag="channel"):
    """The requester's own channel to its helper: never captured, always replaced."""


# --- files --------------------------------------------------------------------------------------------------------


class RegularFile(_Base, tag="file"):
    """A regular file or directory, opened again by path; `content` names a saved copy when it has no path any more."""

    path: PathText  # pack_path
    pos: Size = 0
    size: Size = 0
    mtime_ns: Nanoseconds = 0
    device: Word = 0
    inode: Word = 0
    mode: Bits = 0
    deleted: bool = False
    unlinked: PathText = ""  # pack_path: the name it was opened by and has lost, while `path` is another one
    saved: bool = False  # `content` is that of a file that has a path (file_policy.py)
    content: OptionalFileName = ""  # file name in the image folder
    content_runs: Annotated[list[PageRun], RUNS] = []  # where its parts belong
    target: PathText = ""  # pack_path: of a symbolic link that has no path any more
    write_hint: Natural = 0  # RWH_WRITE_LIFE_ (F_SET_RW_HINT) of one that has no path any more,
    uid: OptionalId = -1  # owner and group
    gid: OptionalId = -1
    atime_ns: Nanoseconds = 0  # when it was read; 0: not noted
    xattrs: Annotated[dict[Name, Annotated[bytes, Meta(max_length=1 << 16)]], MANY] = {}  # and xattr(7)
    shared: Key = ""  # key of the SharedMemoryEntry that holds its content, where memory maps it too


class MemoryFile(_Base, tag="memfd"):
    """memfd_create(2); several descriptions of one object have the same device and inode."""

    name: PathText
    device: Word
    inode: Word
    pos: Size = 0
    size: Size = 0
    mode: Bits = 0
    mtime_ns: Nanoseconds = 0  # 0: not noted
    atime_ns: Nanoseconds = 0  # as well
    xattrs: Annotated[dict[Name, Annotated[bytes, Meta(max_length=1 << 16)]], MANY] = {}  # xattr(7)
    seals: Bits = 0
    huge_page_size: Size = 0  # bytes; 0: ordinary pages
    write_hint: Natural = 0  # RWH_WRITE_LIFE_ (F_SET_RW_HINT)
    uid: OptionalId = -1
    gid: OptionalId = -1
    content: OptionalFileName = ""  # file name in the image folder
    content_runs: Annotated[list[PageRun], RUNS] = []  # where its parts belong
    shared: Key = ""  # key of the SharedMemoryEntry that holds its content, where memory maps it too


class QueuedMessage(_Item):
    """A message of a POSIX message queue."""

    priority: Bits
    data: Content


class Notification(_Item):
    """Who is to be told of a message that comes into an empty queue (mq_notify(3))."""

    pid: Pid
    how: Natural  # SIGEV_
    signo: Signal = 0
    socket: FdNumber = 0  # SIGEV_THREAD: the netlink socket to which the OS kernel sends
    cookie: Small = b""  # this


class MessageQueue(_Base, tag="mqueue"):
    """mq_open(3); several descriptions of one queue have the same device and inode."""

    name: PathText  # pack_path, without the slash
    device: Word
    inode: Word
    nameless: bool = False  # the name was gone
    mode: Bits = 0
    most_messages: Size = 0
    most_bytes: Size = 0  # of one message
    complete: bool = False  # `messages` are all there were; with the first description
    messages: Annotated[list[QueuedMessage], MANY] = []
    notification: Notification | None = None


class BpfMap(_Base, tag="bpf_map"):
    """A BPF map (bpf(2)); several descriptions of one map have the same id."""

    id: Bits
    type: Natural  # BPF_MAP_TYPE_
    key_size: Bits
    value_size: Bits
    max_entries: Bits
    map_flags: Bits = 0  # BPF_F_, those that last
    name: MapName = ""
    frozen: bool = False  # nobody may write to it by system calls any more
    processors: Natural = 1  # how many values a key has, in a map per processor
    keys: Content = b""  # one behind the other; with the first description of the map
    values: Content = b""  # in the same order


class ThreadNumber(_Item):
    """A number under which a thread alone has an io_uring instance (IORING_REGISTER_RING_FDS)."""

    tid: Pid
    number: Annotated[int, Meta(ge=0, le=15)]


class RegisteredBuffer(_Item):
    """Memory that is registered with an io_uring instance; of no size: an empty place in the table."""

    address: Size
    size: Size


class IoUring(_Base, tag="io_uring"):
    """An io_uring instance (io_uring_setup(2)) at rest: all that it has taken it has completed."""

    sq_entries: Natural
    cq_entries: Natural
    layout: Annotated[
        list[Natural], FEW
    ]  # at which bytes of its rings: head, tail, mask, size, flags, dropped and array of indices; then head, tail,
    # mask, size, overflow, completions and flags
    rings: Content = b""  # without the zeros at the end
    requests: Content = b""  # [struct io_uring_sqe], without the zeros at the end
    issuer: Pid = 0  # tid of the only thread that may use it; 0: any may
    numbers: Annotated[list[ThreadNumber], MANY] = []
    files: Annotated[list[Index], MANY] = []  # registered: indices of descriptions; -1: an empty place
    buffers: Annotated[list[RegisteredBuffer], MANY] = []  # registered, of its only holder's memory
    deferred: bool = False  # it completes nothing until it is asked (IORING_SETUP_DEFER_TASKRUN)
    napi_us: Annotated[int, Meta(ge=-1, lt=1 << 32)] = -1  # how long it polls devices of a network
    napi_prefers: bool = False  # (IORING_REGISTER_NAPI; -1: never), and whether rather than being interrupted


class ProcFile(_Base, tag="proc"):
    """A file below /proc, opened again when the new pids are known; `gone`: of a process that had ended."""

    path: PathText
    pos: Size = 0
    gone: bool = False


class DeviceFile(_Base, tag="device"):
    """A harmless character device (null, zero, full, random, urandom)."""

    path: PathText
    pos: Size = 0
    removed: bool = False  # its node was gone: `path` is the usual one of that device
    mode: Bits = 0  # of a node that was gone; with its owner
    uid: Id = 0
    gid: Id = 0


# --- pipes --------------------------------------------------------------------------------------------------------


class Pipe(_Base, tag="pipe"):
    """One end (or, O_RDWR, both) of a pipe or FIFO; the ends of one pipe have the same device and inode."""

    device: Word
    inode: Word
    other: Other  # OTHER_…
    path: PathText = ""  # of a FIFO that has one (pack_path)
    unlinked: PathText = ""  # pack_path: of a FIFO that has lost it
    mode: Bits = 0  # of such a FIFO, or of a pipe
    uid: OptionalId = -1  # whose a pipe is, which matters to who opens it by /proc; -1: not noted
    gid: OptionalId = -1
    size: Natural = 0  # F_GETPIPE_SZ
    packets: Annotated[
        list[Content], MANY
    ] = []  # with the first description of the pipe; only packet mode has more than one
    packet_mode: bool = False  # the packets are bounded (O_DIRECT)


# --- events -------------------------------------------------------------------------------------------------------


class EventFd(_Base, tag="eventfd"):
    """eventfd(2)."""

    count: Word
    semaphore: bool = False


class TimerFd(_Base, tag="timerfd"):
    """timerfd_create(2)."""

    clock: Int
    ticks: Size = 0
    setting: Bits = 0  # the flags of timerfd_settime(2)
    value_ns: Size = 0  # remaining, when captured
    interval_ns: Size = 0
    now_ns: Nanoseconds = 0  # the timer's clock, when captured


class SignalFd(_Base, tag="signalfd"):
    """signalfd(2)."""

    mask: Word


class PidFd(_Base, tag="pidfd"):
    """pidfd_open(2); `pid` (of a thread: its tid) -1 when it was gone.

    `outside`: its number where the dump was made, of one that the tree, in a pid namespace of its own, has none for.
    """

    pid: Index
    outside: Index = -1
    thread: bool = False  # of a single thread (PIDFD_THREAD)
    start_ticks: Size = 0
    inode: Word = 0  # two of one process show the same; 0: not noted
    status: Annotated[int, Meta(ge=-1, le=0xFFFF)] = -1  # how one that is gone has ended (wait(2)); -1: not known


class EpollItem(_Item):
    """One watched descriptor. It is keyed by number and description; the number may be closed or reused since."""

    fd: FdNumber
    description: Annotated[int, Meta(ge=0)]
    events: Bits
    data: Word
    told: Bits = 0  # of an edge-triggered one: what was ready and had been told, where the epoll was quiet


class Epoll(_Base, tag="epoll"):
    """epoll_create(2)."""

    items: Annotated[list[EpollItem], MANY] = []
    busy_poll: Annotated[bytes, Meta(max_length=8)] = b""  # struct epoll_params, where it was ever set
    quiet: bool = False  # nothing waited to be told


class InotifyWatch(_Item):
    """One watched path."""

    wd: Natural
    path: PathText  # pack_path
    mask: Bits


class Inotify(_Base, tag="inotify"):
    """inotify_init(2)."""

    watches: Annotated[list[InotifyWatch], MANY] = []


class FanotifyMark(_Item):
    """One marked object."""

    object: MarkedObject
    path: PathText  # pack_path
    flags: Bits = 0  # FAN_MARK_EVICTABLE, FAN_MARK_IGNORE, FAN_MARK_IGNORED_SURV_MODIFY
    mask: Bits = 0  # of events that are told
    ignored: Bits = 0  # of events that are not


class Fanotify(_Base, tag="fanotify"):
    """fanotify_init(2)."""

    init_flags: Bits = 0
    event_flags: Bits = 0  # of the descriptors that come with events
    privileged: bool = False  # who made it had CAP_SYS_ADMIN
    marks: Annotated[list[FanotifyMark], MANY] = []


class PageRange(msgspec.Struct, forbid_unknown_fields=True, array_like=True):
    """`size` bytes at `start`; both page-aligned."""

    start: Address
    size: Size


class ServedRange(msgspec.Struct, forbid_unknown_fields=True, array_like=True):
    """Memory whose page faults are served: where pages are missing, where protected ones are written to."""

    start: Address
    size: Size
    missing: bool
    protected: bool


class UserFault(_Base, tag="userfaultfd"):
    """userfaultfd(2) of a process about its own memory."""

    features: Bits = 0  # UFFDIO_API
    user_only: bool = True  # UFFD_USER_MODE_ONLY
    areas: Annotated[list[ServedRange], MANY] = []
    zeros: Annotated[list[PageRange], MANY] = []  # where the zero page is
    protected: Annotated[list[PageRange], MANY] = []  # pages that may not be written to now


# --- sockets ------------------------------------------------------------------------------------------------------


class SocketOption(msgspec.Struct, forbid_unknown_fields=True, array_like=True):
    """setsockopt(2): level, name, value."""

    level: Natural
    name: Natural
    value: OptionValue


class Message(_Item):
    """A piece of a receive queue: a datagram, or stream bytes up to the next descriptors in flight."""

    data: Content = b""
    address: SocketName = b""  # of a Unix datagram's sender
    host: Name = ""  # of a UDP datagram's sender
    port: Port = 0
    to: Name = ""  # the address it was sent to; empty: not known, nor are the next two
    hops: Annotated[int, Meta(ge=0, le=255)] = 0  # time to live, or hop limit
    service: Annotated[int, Meta(ge=0, le=255)] = 0  # type of service, or traffic class
    rights: Annotated[list[Natural], Meta(max_length=253)] = []  # descriptions in flight (SCM_RIGHTS)
    pid: Pid = 0  # who sent it, where the receiver is told (SCM_CREDENTIALS); 0: not known
    uid: OptionalId = -1
    gid: OptionalId = -1


class Departed(_Item):
    """A connection to a listener whose other end was closed before it was accepted."""

    before: Natural = 0  # how many that were not closed came before it
    early: Annotated[list[Message], MANY] = []  # what it had sent


class UnixSocket(_Base, tag="unix"):
    """AF_UNIX."""

    type: Natural
    inode: Word
    name: SocketName = b""  # bound to; abstract ones begin with NUL
    folder: PathText = ""  # pack_path: where a relative name was bound
    mode: Bits = 0o777  # of the bound file
    folder_mode: Bits = 0o700  # of the folder that it is in
    uid: OptionalId = -1  # whose the bound file is; -1: not noted
    gid: OptionalId = -1
    unlinked: bool = False  # the bound file was gone
    moved: PathText = ""  # pack_path: where the bound file had been renamed to
    reset: bool = False  # its other end was closed without having read all: the next call says so (ECONNRESET)
    peer_name: SocketName = b""  # of an other end outside
    peer_pid: Pid = 0  # who made the other end (SO_PEERCRED); 0: not known
    peer_uid: OptionalId = -1
    peer_gid: OptionalId = -1
    peer_groups: Annotated[list[Id], MANY] = []  # SO_PEERGROUPS
    listening: bool = False
    backlog: Natural = 0
    pending: Annotated[list[Natural], MANY] = []  # descriptions which connected and were not accepted yet, in order
    departed: Annotated[list[Departed], MANY] = []  # between those in `pending`
    connected: bool = False
    peer: Index = -1
    other: Other = OTHER_CLOSED
    shutdown: Annotated[int, Meta(ge=0, le=3)] = 0  # 1: no more receiving, 2: no more sending
    queue: Annotated[list[Message], MANY] = []
    early: Annotated[list[Message], MANY] = []  # sent on a connection that was not accepted yet
    unread: Size = 0  # of such a connection: what the OS kernel counts for it
    lost: bool = False  # and it could not be read
    options: Annotated[list[SocketOption], MANY] = []

    def messages(self) -> list[Message]:
        """All that waits in it."""
        return [*self.queue, *self.early, *(message for client in self.departed for message in client.early)]


class TcpRepair(_Item):
    """What a connection to outside needs to go on in the restored life (tcp(7), TCP_REPAIR)."""

    sent: Bits  # sequence number of the first byte that was not acknowledged
    received: Bits  # … of the first in the receive queue
    mss: SegmentSize
    window: Annotated[list[Bits], Meta(min_length=5, max_length=5)]  # struct tcp_repair_window
    waiting: Content = b""  # not acknowledged
    unsent: Natural = 0  # how many bytes of that, at its end, were not even sent
    send_scale: Scale = -1  # of the windows; -1: they are not scaled
    receive_scale: Scale = -1
    sack: bool = False
    timestamps: bool = False
    clock: Bits = 0  # of the timestamps; the lowest bit: in microseconds
    taken_ns: Nanoseconds = 0  # when that was, since 1970


class TcpSocket(_Base, tag="tcp"):
    """SOCK_STREAM over IPv4 or IPv6."""

    family: Natural
    host: Name = ""
    port: Port = 0
    scope: Bits = 0
    foreign: bool = False  # bound to an address that the host did not have (IP_FREEBIND)
    peer_host: Name = ""
    peer_port: Port = 0
    peer_flow: Flow = 0
    state: Annotated[int, Meta(ge=0, le=12)] = 7  # include/net/tcp_states.h
    deaf: bool = False  # shut down for receiving, while the other end may still send
    finished: bool = False  # both sides had sent all and said so
    refused: bool = False  # a connection that nobody took, which the next call says
    backlog: Natural = 0
    peer: Index = -1  # description of the other end
    listener: Index = -1  # description in whose backlog the other end still is
    other: Other = OTHER_CLOSED
    queue: Content = b""
    urgent: Index = -1  # which byte of the queue is urgent data; -1: none
    urgent_read: bool = False  # it had been read: only its place counts
    segment: Natural = 0  # how many bytes it sends at most at once (TCP_MAXSEG), when connected
    early: Content = b""  # sent on a connection that was not accepted yet
    sent: Size = 0  # on such a connection, bytes
    lost: bool = False  # and they could not be read
    turn: Natural = 0  # its place among those that wait, where known
    departed: Annotated[list[Departed], MANY] = []  # of a listener: between those clients
    repair: TcpRepair | None = None  # the connection goes on, instead of being reset
    options: Annotated[list[SocketOption], MANY] = []


class Membership(_Item):
    """A multicast group that a socket has joined."""

    device: Name  # of the network device
    group: Name
    only: bool = False  # only what `sources` send, instead of all but that
    sources: Annotated[list[Name], FEW] = []


class UdpSocket(_Base, tag="udp"):
    """SOCK_DGRAM over IPv4 or IPv6."""

    family: Natural
    host: Name = ""
    port: Port = 0
    scope: Bits = 0
    foreign: bool = False  # bound to an address that the host did not have (IP_FREEBIND)
    peer_host: Name = ""
    peer_port: Port = 0
    peer_flow: Flow = 0
    queue: Annotated[list[Message], MANY] = []
    memberships: Annotated[list[Membership], MANY] = []
    shutdown: Annotated[int, Meta(ge=0, le=3)] = 0  # 1: no more receiving, 2: no more sending
    options: Annotated[list[SocketOption], MANY] = []


# --- terminals ----------------------------------------------------------------------------------------------------


class Termios(_Item):
    """struct termios2 and what goes with it."""

    raw: Small
    rows: Port = 0
    columns: Port = 0
    width_pixels: Port = 0
    height_pixels: Port = 0
    locked: Small = b""  # struct termios: what of it nobody may change; empty: all may be


class PlainSocket(_Base, tag="plain"):
    """A socket with an address and options, but no connection: netlink, raw, ping, UDP-Lite; unused ones of MPTCP."""

    family: Natural
    type: Natural
    protocol: Natural = 0
    address: Annotated[bytes, Meta(max_length=128)] = b""  # as getsockname(2) tells it
    peer: Annotated[bytes, Meta(max_length=128)] = b""  # getpeername(2); empty: none
    groups: Annotated[list[Natural], MANY] = []  # of netlink
    shutdown: Annotated[int, Meta(ge=0, le=3)] = 0  # of UDP-Lite, 1: no more receiving, 2: no more sending
    options: Annotated[list[SocketOption], MANY] = []


class PacketMembership(_Item):
    """What a packet socket has asked a network device to let through, and how many times (PACKET_ADD_MEMBERSHIP)."""

    device: Name
    sort: Annotated[int, Meta(ge=0, le=3)]  # PACKET_MR_
    address: Annotated[bytes, Meta(max_length=32)] = b""
    count: Port = 1


class PacketSocket(_Base, tag="packet"):
    """AF_PACKET: frames of network devices."""

    type: Natural
    protocol: Port = 0  # of the frames that it hears, as a number of the host's byte order; 0: it hears none
    bound_device: Name = ""  # the network device that it is bound to; empty: none
    device_gone: bool = False  # … and that was removed
    memberships: Annotated[list[PacketMembership], MANY] = []
    options: Annotated[list[SocketOption], MANY] = []


class PtyMaster(_Base, tag="ptmx"):
    """The controlling side of a pseudo-terminal."""

    index: Natural
    path: PathText = "/dev/ptmx"
    locked: bool = False
    packet: bool = False
    hung_up: bool = False  # the other side was open once and is closed
    session: Pid = 0  # whose controlling terminal it is; 0: nobody's
    foreground: Pid = 0  # its process group in the foreground
    termios: Termios | None = None
    typed: Content = b""  # for the program to read; in line mode: finished lines
    ends: Annotated[list[Size], MANY] = []  # where in `typed` an end of file was typed (control-D)
    typing: Content = b""  # a line that is not finished
    printed: Content = b""  # by the program, for us to read


class Terminal(_Base, tag="terminal"):
    """A terminal: the program's side of a pseudo-terminal, or a console or serial line."""

    path: PathText
    device: Word  # st_rdev
    index: Index = -1  # of a pseudo-terminal
    other: Other = OTHER_OUTSIDE
    ctime_ns: Nanoseconds = 0
    termios: Termios | None = None
    exclusive: bool = False
    session: Pid = 0  # whose controlling terminal it is; 0: nobody's
    foreground: Int = 0  # its foreground process group
    hung_up: bool = False  # the controlling side was closed
    stopped: bool = False  # its output was suspended (tcflow(3))
    stopped_by_key: bool = False  # … by a control-S
    uid: OptionalId = -1  # of its file, and the next two; -1: not known
    gid: OptionalId = -1
    mode: Bits = 0


class ControllingTerminal(_Base, tag="tty"):
    """/dev/tty."""


Description = (
    Channel
    | RegularFile
    | MemoryFile
    | MessageQueue
    | BpfMap
    | IoUring
    | ProcFile
    | DeviceFile
    | Pipe
    | EventFd
    | TimerFd
    | SignalFd
    | PidFd
    | Epoll
    | Inotify
    | Fanotify
    | UserFault
    | UnixSocket
    | TcpSocket
    | UdpSocket
    | PlainSocket
    | PacketSocket
    | PtyMaster
    | Terminal
    | ControllingTerminal
)
