"""Socket options, read and set again; and how we look at a socket through a duplicate without changing it."""

from __future__ import annotations

import socket
import struct
from collections.abc import Container, Iterator, Sequence
from contextlib import contextmanager

from kernel_backend.errors import ImageCorrupt, ResourceUnsupported
from kernel_backend.host import fds
from kernel_backend.image.descriptions import SocketOption
from kernel_backend.resources import visits
from kernel_backend.resources.descriptors import CaptureTables, Look, RebuildTables

SO_SNDBUF, SO_RCVBUF, SO_SNDBUFFORCE, SO_RCVBUFFORCE, SO_BUF_LOCK = 7, 8, 32, 33, 72
SO_DETACH_FILTER, SO_LOCK_FILTER = 27, 44
SOL_NETLINK, SOL_PACKET, IPPROTO_UDPLITE, _SOL_RAW = 270, 263, 136, 255
SO_REUSEADDR, SO_REUSEPORT, SO_PEEK_OFF, SO_PASSCRED = 2, 15, 42, 16
TCP_MAXSEG, TCP_WINDOW_CLAMP, TCP_CONGESTION, TCP_FASTOPEN_KEY = 2, 10, 13, 33
_SO_TIMESTAMPING, _COUNTED = 37, 1 << 7
_TCP_CLOSE, _TCP_LISTEN = 7, 10
_MAX_TCP_WINDOW = 32767  # net/tcp.h
_FORCED = {SO_SNDBUF: SO_SNDBUFFORCE, SO_RCVBUF: SO_RCVBUFFORCE}
_INT, _TIMEVAL, _LINGER = 4, 16, 8

# name → size of its value, by level (asm-generic/socket.h, linux/in.h, in6.h, tcp.h, udp.h)
_SOCKET = {
    1: _INT, SO_REUSEADDR: _INT, 5: _INT, 6: _INT, SO_SNDBUF: _INT, SO_RCVBUF: _INT, 9: _INT, 10: _INT, 11: _INT,
    12: _INT, 13: _LINGER, SO_REUSEPORT: _INT, SO_PASSCRED: _INT, 18: _INT, 20: _TIMEVAL, 21: _TIMEVAL, 25: 16,
    29: _INT, 34: _INT, 35: _INT, 36: _INT, 37: _INT, 40: _INT, 41: _INT, SO_PEEK_OFF: _INT, 43: _INT, 45: _INT,
    46: _INT, 47: _INT, 49: _INT, 60: _INT, 61: 8, 69: _INT, 70: _INT, 74: _INT, 75: _INT, 76: _INT, 82: _INT, 83: _INT,
    63: _INT, 64: _INT,  # the new timestamps, of which the old options tell nothing
    SO_BUF_LOCK: _INT,  # behind the sizes, which set it
    SO_LOCK_FILTER: _INT,  # behind the filter, which is read first
}  # fmt: skip
_IP = {4: 40} | dict.fromkeys(
    (1, 2, 3, 6, 7, 8, 10, 11, 12, 13, 15, 18, 19, 20, 21, 22, 23, 24, 25, 26, 32, 33, 34, 49, 50, 51), _INT
)  # fmt: skip
_IPV6 = dict.fromkeys((54, 55, 57, 59), 1024) | dict.fromkeys(
    (
        2, 3, 4, 5, 7, 8, 11, 16, 17, 18, 19, 23, 25, 26, 29, 30, 31, 33, 36, 49, 51, 53, 56, 58, 60, 62, 66, 67, 70,
        72, 73, 74, 75, 76, 77, 78,
    ),
    _INT,
)  # fmt: skip
_TCP = {TCP_CONGESTION: 16, TCP_FASTOPEN_KEY: 32} | dict.fromkeys(
    (1, TCP_MAXSEG, 3, 4, 5, 6, 7, 8, 9, TCP_WINDOW_CLAMP, 12, 16, 17, 18, 23, 25, 27, 30, 34, 36, 37, 44, 45, 46), _INT
)  # fmt: skip
_UDP = dict.fromkeys((1, 100, 101, 102, 103, 104), _INT)
_UDPLITE = {10: _INT, 11: _INT}  # how much checksums cover
_RAW = {1: _INT}  # ICMP_FILTER
_ICMPV6 = {1: 32}  # ICMPV6_FILTER
_NETLINK = dict.fromkeys((3, 4, 5, 8, 10, 11, 12), _INT)
PACKET_COPY_THRESH = 7
_PACKET = dict.fromkeys((PACKET_COPY_THRESH, 8, 9, 10, 12, 14, 15, 17, 19, 20, 23, 24), _INT)  # linux/if_packet.h
_BEFORE_BINDING = {(1, SO_REUSEADDR), (1, SO_REUSEPORT), (1, 25), (0, 15), (0, 19), (0, 24), (41, 26)}

# A stream can be asked for these, and may answer anything (an accepted socket does), but not told.
_MULTICAST = {(0, 32), (0, 33), (41, 17), (41, 18)}

_PRIORITY = (socket.SOL_SOCKET, socket.SO_PRIORITY)  # last: IP_TOS sets it
_LOCK = (socket.SOL_SOCKET, SO_BUF_LOCK)
_FILTER = (socket.SOL_SOCKET, fds.SO_GET_FILTER)

_defaults: dict[tuple[int, int, int], dict[tuple[int, int], bytes]] = {}


@contextmanager
def borrowed(fd: int, family: int, kind: int) -> Iterator[socket.socket]:
    """A socket object for a descriptor that stays open and blocking or not as it is."""
    found = socket.socket(family, kind, 0, fileno=fd)
    try:
        yield found
    finally:
        found.detach()


def _candidates(family: int, kind: int) -> Iterator[tuple[int, int, int]]:
    tables = {socket.SOL_SOCKET: _SOCKET}
    if family == socket.AF_NETLINK:
        tables[SOL_NETLINK] = _NETLINK
    if family == socket.AF_PACKET:
        tables[SOL_PACKET] = _PACKET
    if kind == socket.SOCK_RAW:
        tables[_SOL_RAW] = _RAW
    if family in (socket.AF_INET, socket.AF_INET6):
        tables[socket.IPPROTO_IP] = _IP
        tables[socket.IPPROTO_TCP if kind == socket.SOCK_STREAM else socket.IPPROTO_UDP] = (
            _TCP if kind == socket.SOCK_STREAM else _UDP
        )
        if kind == socket.SOCK_DGRAM:
            tables[IPPROTO_UDPLITE] = _UDPLITE
    if family == socket.AF_INET6:
        tables[socket.IPPROTO_IPV6] = _IPV6
        if kind == socket.SOCK_RAW:
            tables[socket.IPPROTO_ICMPV6] = _ICMPV6
    for level, names in tables.items():
        for name, size in names.items():
            if kind != socket.SOCK_STREAM or (level, name) not in _MULTICAST:
                yield level, name, size


def _read_all(s: socket.socket, family: int, kind: int) -> dict[tuple[int, int], bytes]:
    found = {}
    if program := _filter(s.fileno()):
        found[_FILTER] = program
    for level, name, size in _candidates(family, kind):
        try:
            found[level, name] = s.getsockopt(level, name, size)
        except OSError:
            continue  # not of this family, type or OS kernel
    return found


def _filter(fd: int) -> bytes:
    try:
        return fds.socket_filter(fd)
    except PermissionError:
        return b""  # `check_filter` refuses it


def defaults(family: int, kind: int, protocol: int = 0) -> dict[tuple[int, int], bytes]:
    """What a new socket of this sort has."""
    key = (family, kind, protocol)
    if key not in _defaults:
        with socket.socket(family, kind | socket.SOCK_CLOEXEC, protocol) as fresh:
            _defaults[key] = _read_all(fresh, family, kind)
    return _defaults[key]


def capture(s: socket.socket, family: int, kind: int, protocol: int = 0) -> list[SocketOption]:
    """The options that differ from a new socket's."""
    usual = defaults(family, kind, protocol)
    found = {key: value for key, value in _read_all(s, family, kind).items() if value != usual.get(key)}
    if family != socket.AF_UNIX and kind == socket.SOCK_STREAM:
        _drop_automatic_sizes(s, found)
        if _largest_segment(found) > _MAX_TCP_WINDOW:  # nobody can have set it: what a closed connection had found
            found.pop((socket.IPPROTO_TCP, TCP_MAXSEG))
        if s.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] not in (_TCP_CLOSE, _TCP_LISTEN):
            for name in (TCP_MAXSEG, TCP_WINDOW_CLAMP):  # a connection's own, found out by itself
                found.pop((socket.IPPROTO_TCP, name), None)
    return [SocketOption(level, name, value) for (level, name), value in found.items()]


def _largest_segment(found: dict[tuple[int, int], bytes]) -> int:
    return int.from_bytes(found.get((socket.IPPROTO_TCP, TCP_MAXSEG), b""), "little")


def _drop_automatic_sizes(s: socket.socket, found: dict[tuple[int, int], bytes]) -> None:
    """TCP tunes its buffers by itself as long as nobody sets them; setting them would end that."""
    locked = s.getsockopt(socket.SOL_SOCKET, SO_BUF_LOCK)
    for bit, name in ((1, SO_SNDBUF), (2, SO_RCVBUF)):
        if not locked & bit:
            found.pop((socket.SOL_SOCKET, name), None)


def check_filter(look: Look) -> None:
    """Refuse a socket with a packet filter in eBPF."""
    try:
        fds.socket_filter(look.own)
    except PermissionError as error:
        raise ResourceUnsupported(
            f"{look.holder}, a socket, has a packet filter in eBPF attached, which cannot be captured",
            hint="detach it (SO_DETACH_FILTER) and checkpoint again", pid=look.process.pid, fd=look.fd,
        ) from error  # fmt: skip


def note_lost(s: socket.socket, look: Look, tables: CaptureTables) -> None:
    """Tell of what nobody can read, where it is known to be there."""
    if struct.unpack("<i", s.getsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPING, _INT))[0] & _COUNTED:
        tables.warnings.append(
            f"send timestamps of {look.holder} are counted (SOF_TIMESTAMPING_OPT_ID), anew in a process that is "
            "restored afresh"
        )


def check_namespace(look: Look, tables: CaptureTables) -> None:
    """Refuse sockets of another network namespace: we could neither look at their peers nor make them."""
    if look.in_flight:
        return
    known: dict[int, bool] = tables.cache.setdefault("network namespaces", {})
    pid = look.process.view  # a main thread that has ended shows no namespace
    if pid not in known:
        known[pid] = visits.identity("net", pid) == visits.here("net")
    if not known[pid]:
        raise ResourceUnsupported(
            f"{look.holder} is a socket in another network namespace",
            hint="run nbcr inside that namespace (nsenter --net)", pid=look.process.pid, fd=look.fd,
        )  # fmt: skip


def set_before_binding(s: socket.socket, options: Sequence[SocketOption]) -> None:
    """Those that bind(2) acts on."""
    for option in options:
        if (option.level, option.name) in _BEFORE_BINDING:
            _set(s, option)


def restore(
    s: socket.socket, family: int, kind: int, options: Sequence[SocketOption], tables: RebuildTables, who: str,
    protocol: int = 0,
) -> None:  # fmt: skip
    """Set what the image says, and put back what building the socket has changed."""
    _put(s, family, kind, _wanted(family, kind, options, protocol), tables, who)


def rewind(
    s: socket.socket, family: int, kind: int, options: Sequence[SocketOption], tables: RebuildTables, who: str
) -> None:
    """The same for a socket that is the present's: what that has set since the checkpoint is undone, too."""
    sized = {(socket.SOL_SOCKET, SO_SNDBUF), (socket.SOL_SOCKET, SO_RCVBUF)} if family != socket.AF_UNIX else set()
    found_out = sized | {(socket.IPPROTO_TCP, TCP_MAXSEG), (socket.IPPROTO_TCP, TCP_WINDOW_CLAMP)}
    usual = {key: value for key, value in defaults(family, kind).items() if key not in found_out}
    wanted = _wanted(family, kind, options)
    _put(s, family, kind, usual | wanted, tables, who, told=wanted)


def _wanted(family: int, kind: int, options: Sequence[SocketOption], protocol: int = 0) -> dict[tuple[int, int], bytes]:
    """What must be so, whatever building the socket has made of it."""
    wanted = {(option.level, option.name): option.value for option in options}
    usual = defaults(family, kind, protocol)
    for name in (SO_REUSEADDR, SO_REUSEPORT, SO_SNDBUF, SO_PASSCRED, SO_BUF_LOCK):
        key = (socket.SOL_SOCKET, name)
        if key not in wanted and key in usual and (name != SO_SNDBUF or family == socket.AF_UNIX):
            wanted[key] = usual[key]
    return wanted


def _put(
    s: socket.socket, family: int, kind: int, values: dict[tuple[int, int], bytes], tables: RebuildTables, who: str,
    told: Container[tuple[int, int]] | None = None,
) -> None:  # fmt: skip
    """Set the options that have other values; a failure is told, of all or those in `told` (some can only be read)."""
    now = _read_all(s, family, kind)
    if _FILTER in now and _FILTER not in values:
        s.setsockopt(socket.SOL_SOCKET, SO_DETACH_FILTER, 0)
    for (level, name), value in sorted(values.items(), key=lambda one: one[0] == _PRIORITY):
        if (level, name) == _LOCK and _LOCK in now:  # a size that has just been set has changed it
            now[_LOCK] = s.getsockopt(level, name, _INT)
        if now.get((level, name)) == value:
            continue
        try:
            _set(s, SocketOption(level, name, value))
        except OSError as error:
            if told is None or (level, name) in told:
                tables.warn(f"option {level}/{name} of the socket at {who} is not permitted here: {error.strerror}")


_KNOWN = {
    (level, name)
    for level, names in (
        (socket.SOL_SOCKET, _SOCKET), (socket.IPPROTO_IP, _IP), (socket.IPPROTO_IPV6, _IPV6),
        (socket.IPPROTO_TCP, _TCP), (socket.IPPROTO_UDP, _UDP), (IPPROTO_UDPLITE, _UDPLITE), (_SOL_RAW, _RAW),
        (SOL_NETLINK, _NETLINK), (SOL_PACKET, _PACKET), (socket.IPPROTO_ICMPV6, _ICMPV6),
    )
    for name in names
} | {_FILTER}  # fmt: skip


def _set(s: socket.socket, option: SocketOption) -> None:
    if (option.level, option.name) not in _KNOWN:  # others reach beyond the socket: rules of the packet filter
        raise ImageCorrupt(f"the image names a socket option {option.level}/{option.name} that no dump reads")
    if option.level == socket.SOL_SOCKET and option.name in _FORCED:
        set_buffer(s, option.name, struct.unpack("<i", option.value)[0])
    elif (option.level, option.name) == _FILTER:
        fds.attach_socket_filter(s.fileno(), option.value)
    elif option.level == socket.IPPROTO_TCP and option.name == TCP_CONGESTION:
        s.setsockopt(option.level, option.name, option.value.rstrip(b"\0"))
    else:
        s.setsockopt(option.level, option.name, option.value)


def set_buffer(s: socket.socket, name: int, size: int) -> None:
    """SO_SNDBUF or SO_RCVBUF such that getsockopt(2) shows `size`: the OS kernel doubles what it is given."""
    try:
        s.setsockopt(socket.SOL_SOCKET, _FORCED[name], size // 2)
    except OSError:
        s.setsockopt(socket.SOL_SOCKET, name, size // 2)


def enlarge_send_buffer(s: socket.socket, size: int) -> None:
    """Room for `size` bytes and what the OS kernel adds to each message."""
    if s.getsockopt(socket.SOL_SOCKET, SO_SNDBUF) < size:
        set_buffer(s, SO_SNDBUF, min(size, 0x7FFFFFFF // 2))
