"""Addresses and connections over IPv4 and IPv6, for TCP and UDP."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import ipaddress
import os
import select
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from kernel_backend.abi import linux
from kernel_backend.errors import HostUnsupported, ResourceUnsupported
from kernel_backend.host import fds, proc, sockdiag
from kernel_backend.image.descriptions import TcpSocket, UdpSocket
from kernel_backend.resources import live_sockets, socket_options
from kernel_backend.resources.descriptors import RebuildTables

Address = tuple[str, int]
CONNECT_TIMEOUT_S = 5.0
_STREAM = socket.SOCK_STREAM
_SO_OOBINLINE, _SIOCATMARK = 10, 0x8905
_PEEK_BYTES = 1 << 20
_ANY_BYTE = b"\0"
_IP_FREEBIND = 15
_IPV6_FLOWINFO_SEND, _FLOW_LABEL = 33, 0xFFFFF
_TIMESTAMP_BYTES = 12  # of TCP's own, which a segment as we set it holds, and as we read it does not
_LEAST_SEGMENT_BYTES = 88  # TCP_MIN_MSS (include/net/tcp.h): less is refused
_SMALL_SEGMENT_BYTES = 16384  # smaller than what the loopback device takes at once
_V6ONLY = (socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
_SHARING = (socket_options.SO_REUSEADDR, socket_options.SO_REUSEPORT)
_OWN = ("127.0.0.1", "0.0.0.0", "::1", "::")  # addresses that every host has


def sort_of(fd: int) -> tuple[int, int] | None:
    """(type, protocol) of an IPv4 or IPv6 socket, None of any other."""
    family = live_sockets.family_of(fd)
    if family not in (socket.AF_INET, socket.AF_INET6):
        return None
    with socket_options.borrowed(fd, family, _STREAM) as s:
        kind = s.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE)
        return kind, s.getsockopt(socket.SOL_SOCKET, socket.SO_PROTOCOL)


def note_addresses(s: socket.socket, entry: TcpSocket | UdpSocket) -> None:
    """Local and remote address of a socket."""
    local_name = s.getsockname()
    entry.host, entry.port = local_name[:2]
    entry.scope = local_name[3] if len(local_name) > 3 else 0
    entry.foreign = plain(entry.host) not in _OWN and is_foreign(entry.host)
    try:
        peer = s.getpeername()
    except OSError:
        return
    entry.peer_host, entry.peer_port = peer[:2]
    entry.peer_flow = peer[2] & _FLOW_LABEL if len(peer) > 2 else 0


def flowing(s: socket.socket, address: tuple[Any, ...], flow: int) -> tuple[Any, ...]:
    """An address to connect to, with the IPv6 flow label (0: none) that the socket is made to send along."""
    if not flow:
        return address
    s.setsockopt(socket.IPPROTO_IPV6, _IPV6_FLOWINFO_SEND, 1)
    return (*address[:2], flow, *(address[3:] or (0,)))


def plain(host: str) -> str:
    """An address without its IPv6 wrapping (::ffff:127.0.0.1) and scope."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    mapped = getattr(address, "ipv4_mapped", None)
    return str(mapped or address)


def local(entry: TcpSocket | UdpSocket) -> Address:
    """The local address, comparable."""
    return plain(entry.host), entry.port


def remote(entry: TcpSocket | UdpSocket) -> Address:
    """The remote address, comparable."""
    return plain(entry.peer_host), entry.peer_port


def is_bound(entry: TcpSocket | UdpSocket) -> bool:
    """Whether bind(2) was called: an address may have got no port yet (IP_BIND_ADDRESS_NO_PORT)."""
    return bool(entry.port) or plain(entry.host) not in ("", "0.0.0.0", "::")


def bind(s: socket.socket, entry: TcpSocket | UdpSocket) -> None:
    """Bind to the image's address, also when connections which are over still keep it."""
    free = s.getsockopt(socket.IPPROTO_IP, _IP_FREEBIND)
    s.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, free or entry.foreign)
    try:
        s.bind(sockaddr(entry))
    except OSError:
        if not isinstance(entry, TcpSocket) or not sockdiag.end_time_wait(entry.port):
            raise
        s.bind(sockaddr(entry))
    finally:
        s.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, free)


def is_foreign(host: str) -> bool:
    """Whether an address is none of this host's: then nothing can be bound to it."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as probe:
        try:
            probe.bind((host, 0))
        except OSError as error:
            return error.errno == errno.EADDRNOTAVAIL
    return False


def sockaddr(entry: TcpSocket | UdpSocket) -> tuple[str, int] | tuple[str, int, int, int]:
    """The local address as bind(2) wants it."""
    if entry.family == socket.AF_INET6:
        return entry.host.partition("%")[0], entry.port, 0, entry.scope
    return entry.host, entry.port


def peer_sockaddr(entry: TcpSocket) -> tuple[Any, ...]:
    """The remote address as connect(2) wants it; one that is local to a link is on the same as ours."""
    if entry.family == socket.AF_INET6:
        return entry.peer_host.partition("%")[0], entry.peer_port, 0, entry.scope
    return entry.peer_host, entry.peer_port


class Stream(NamedTuple):
    """A receive queue, and where in it the urgent byte stands (-1: there is none), which may have been read before."""

    data: bytes
    urgent: int = -1
    urgent_read: bool = False  # then any byte stands for it


def peek_stream(s: socket.socket, who: str) -> Stream:
    """A stream's receive queue, left in place."""
    with _no_peek_offset(s):
        return _peek_stream(s, who)


def peek_before_error(s: socket.socket) -> bytes:
    """What can still be read of a stream that was reset. A peek into nothing would take the error away."""
    with _no_peek_offset(s):
        return _peek(s, waiting(s)) if waiting(s) else b""


@contextlib.contextmanager
def _no_peek_offset(s: socket.socket) -> Iterator[None]:
    """Look at a queue from its beginning, where the program peeks from elsewhere, and let it go on from there."""
    try:
        before = s.getsockopt(socket.SOL_SOCKET, socket_options.SO_PEEK_OFF)
    except OSError:  # before OS kernel 6.9
        before = -1
    if before >= 0:
        s.setsockopt(socket.SOL_SOCKET, socket_options.SO_PEEK_OFF, -1)
    try:
        yield
    finally:
        if before >= 0:
            s.setsockopt(socket.SOL_SOCKET, socket_options.SO_PEEK_OFF, before)


def _peek_stream(s: socket.socket, who: str) -> Stream:
    """A peek ends at the urgent mark, and one that begins there leaves an urgent byte out that is not read in line."""
    in_line = s.getsockopt(socket.SOL_SOCKET, _SO_OOBINLINE)
    at_mark = bool(struct.unpack("<i", fcntl.ioctl(s.fileno(), _SIOCATMARK, bytes(4)))[0])
    urgent = b"" if in_line else _peek(s, 1, socket.MSG_OOB)
    data = _peek(s, waiting(s) + _PEEK_BYTES)
    if in_line:
        rest = b"" if at_mark else _peek_behind(s, len(data), who)
        return Stream(data + rest, len(data) if rest else 0 if at_mark and data else -1)
    before, behind = (b"", data) if at_mark else (data, _peek_behind(s, len(data), who))
    if not urgent and (behind or at_mark):  # a mark at which nothing is left to be read
        return Stream(before + _ANY_BYTE + behind, len(before), True)
    return Stream(before + urgent + behind, len(before) if urgent else -1)


def read_urgent(s: socket.socket) -> None:
    """Take the urgent byte that has just been sent; the mark where it stood stays."""
    with contextlib.suppress(OSError):
        if fds.is_ready(s.fileno(), events=select.POLLPRI, wait_ms=CONNECT_TIMEOUT_S * 1000):
            s.recv(1, socket.MSG_OOB | socket.MSG_DONTWAIT)


def waiting(s: socket.socket) -> int:
    """How many bytes can be read."""
    return int(struct.unpack("<i", fcntl.ioctl(s.fileno(), linux.FIONREAD, bytes(4)))[0])


def _peek(s: socket.socket, size: int, flags: int = 0) -> bytes:
    try:
        return s.recv(size, flags | socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except OSError:
        return b""  # no such data, or the connection failed


def _peek_behind(s: socket.socket, offset: int, who: str) -> bytes:
    """What comes behind `offset` bytes, where there is an urgent mark; usually nothing."""
    before = s.getsockopt(socket.SOL_SOCKET, socket_options.SO_PEEK_OFF)
    try:
        s.setsockopt(socket.SOL_SOCKET, socket_options.SO_PEEK_OFF, offset)
    except OSError as error:  # before OS kernel 6.9
        if not _peek(s, 1, socket.MSG_OOB) and waiting(s) <= offset:
            return b""
        raise ResourceUnsupported(
            f"{who}, a TCP connection, has urgent data waiting, which this OS kernel does not let us look behind",
            hint="let the program read it and checkpoint again",
        ) from error
    try:
        return _peek(s, _PEEK_BYTES)
    finally:
        s.setsockopt(socket.SOL_SOCKET, socket_options.SO_PEEK_OFF, before)


# --- connections ------------------------------------------------------------------------------------------------------


def connected_pair(one: TcpSocket, other: TcpSocket) -> tuple[int, int]:
    """Two ends of a real connection, at the image's addresses where these are free, else at any."""
    if one.peer_flow and not other.peer_flow:  # whoever connects says the label
        return connected_pair(other, one)[::-1]
    segment = _segment(one, other)
    for again in (False, True):
        freed = [sockdiag.end_time_wait(entry.port) for entry in (one, other)] if again else [True]
        if not any(freed):
            break
        for wide in dict.fromkeys(((is_wide(one), is_wide(other)), (False, False))):
            with contextlib.suppress(OSError):
                return _connect(
                    one.family, sockaddr(one), other.family, sockaddr(other), other.peer_flow, segment, wide
                )
    return loopback_pair(one.family, other.family, segment)


def is_at(s: socket.socket, host: str) -> bool:
    """Whether it has that IPv6 address by now, which the OS kernel has chosen."""
    return str(s.getsockname()[0]).partition("%")[0] == host.partition("%")[0]


def is_wide(entry: TcpSocket) -> bool:
    """Whether an end has an IPv6 address that it was not bound to by itself: it connected, or its listener had any.

    To bind a socket to an IPv6 address sets IPV6_V6ONLY, for good (__inet6_bind, net/ipv6/af_inet6.c): one of which
    that is not set is bound to its port at any address.
    """
    if entry.family != socket.AF_INET6 or not is_bound(entry) or ":" not in plain(entry.host):
        return False
    usual = socket_options.defaults(entry.family, _STREAM).get(_V6ONLY, b"")
    told = {(option.level, option.name): option.value for option in entry.options}
    return not any(told.get(_V6ONLY, usual))


def pair_at(one: TcpSocket) -> tuple[int, int]:
    """Two connected sockets, the first at the image's address where that is free, else at any."""
    other = TcpSocket(family=one.family, host=one.host, scope=one.scope)
    return connected_pair(one, other)


def bind_wide(s: socket.socket, where: tuple[Any, ...]) -> None:
    """Bind to the port of an IPv6 address only, for IPV6_V6ONLY to stay off."""
    s.setsockopt(*_V6ONLY, 0)
    s.bind(("::", where[1]))


def _segment(one: TcpSocket, other: TcpSocket) -> int:
    """How much the ends of a new connection may send at once, where the old one had a small window; 0: they find out.

    A receiver with a small buffer (SO_RCVBUF) had said so when the connection began, and was sent small pieces. Ours
    begins with a large one, for the queue to go in: what is larger than the window is then sent only when a timer
    thinks that the receiver may be gone, some kilobytes a second.
    """
    smallest = min(one.segment, other.segment)
    if not 0 < smallest < _SMALL_SEGMENT_BYTES:
        return 0
    return max(_LEAST_SEGMENT_BYTES, smallest + _TIMESTAMP_BYTES)


def loopback_pair(family: int, other_family: int = 0, segment: int = 0) -> tuple[int, int]:
    """Two connected sockets of the families wanted, at any loopback address; `segment` see `_segment`."""
    other_family = other_family or family
    mixed = family != other_family
    last: OSError | None = None
    for six in ("::ffff:127.0.0.1",) if mixed else ("::1", "::ffff:127.0.0.1"):
        hosts = {socket.AF_INET: "127.0.0.1", socket.AF_INET6: six}
        try:
            return _connect(family, (hosts[socket.AddressFamily(family)], 0), other_family,
                            (hosts[socket.AddressFamily(other_family)], 0), segment=segment)  # fmt: skip
        except OSError as error:
            last = error
    assert last is not None
    raise HostUnsupported(
        f"no connection over the loopback device: {last.strerror}", hint="bring the device lo up"
    ) from last


def _connect(
    family: int, address: tuple[object, ...], other_family: int, other_address: tuple[object, ...], flow: int = 0,
    segment: int = 0, wide: tuple[bool, bool] = (False, False),
) -> tuple[int, int]:  # fmt: skip
    """(an accepted end at `address`, the end at `other_address` that connected to it); `wide`: see `is_wide`."""
    with (
        socket.socket(family, _STREAM | socket.SOCK_CLOEXEC) as door,
        socket.socket(other_family, _STREAM | socket.SOCK_CLOEXEC) as client,
    ):
        for s, where, at_any in ((door, address, wide[0]), (client, other_address, wide[1])):
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if segment:
                s.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, segment)
            if at_any:
                bind_wide(s, where)
            else:
                s.bind(where)
        door.listen(1)
        client.settimeout(CONNECT_TIMEOUT_S)
        there = (address[0], door.getsockname()[1], *address[2:]) if wide[0] else door.getsockname()
        client.connect(flowing(client, _as_seen_by(other_family, there), flow))
        if wide[1] and not is_at(client, str(other_address[0])):
            raise OSError(errno.EADDRNOTAVAIL, "the OS kernel connects from another address")
        door.settimeout(CONNECT_TIMEOUT_S)
        server, caller = door.accept()
        while wide[0] and caller[1] != client.getsockname()[1]:  # at any address strangers may call
            server.close()
            server, caller = door.accept()
        server.setblocking(True)
        client.setblocking(True)
        return server.detach(), client.detach()


def _as_seen_by(family: int, address: tuple[object, ...]) -> tuple[object, ...]:
    host = str(address[0])
    if family == socket.AF_INET:
        return plain(host), address[1]
    return (host if ":" in host else f"::ffff:{host}", *address[1:])


def send_all(s: socket.socket, data: bytes, urgent: int = -1) -> None:
    """Send a queue without waiting for a reader: what does not fit into the other's buffer waits in ours.

    `urgent`: which byte is sent as urgent data.
    """
    if not data:
        return
    socket_options.enlarge_send_buffer(s, 2 * len(data) + 4096)
    try:
        if urgent >= 0:
            _send(s, data[:urgent])
            s.send(data[urgent : urgent + 1], socket.MSG_OOB | socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        _send(s, data[urgent + 1 :])
    except BlockingIOError as error:
        raise HostUnsupported(
            f"a TCP queue of {len(data)} bytes does not fit into this host's socket buffers",
            hint="raise /proc/sys/net/core/wmem_max and /proc/sys/net/ipv4/tcp_wmem",
        ) from error


def _send(s: socket.socket, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[s.send(view, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL) :]


# --- ports in use -----------------------------------------------------------------------------------------------------


def share_port(s: socket.socket, entry: TcpSocket | UdpSocket, tables: RebuildTables) -> None:
    """Let a socket be bound beside others of the image with its port, as it once was: options may be off by now.

    `socket_options.restore` switches them off again.
    """
    for other in tables.descriptions:
        if other is entry or type(other) is not type(entry) or not entry.port or other.port != entry.port:
            continue
        for option in other.options:
            if option.level == socket.SOL_SOCKET and option.name in _SHARING and any(option.value):
                s.setsockopt(option.level, option.name, 1)


def _may_move(tables: RebuildTables) -> bool:
    """In place of another process, which has addresses of its own: an address of the image may be somebody else's."""
    return bool(tables.live) and not tables.same_place


def check_free(index: int, entry: TcpSocket | UdpSocket, kind: int, tables: RebuildTables) -> None:
    """Raise HostUnsupported, naming the holder, when the address cannot be bound."""
    if _may_move(tables):
        return
    with socket.socket(entry.family, kind | socket.SOCK_CLOEXEC) as probe:
        try:
            socket_options.set_before_binding(probe, entry.options)
            if kind == _STREAM:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bind(probe, entry)
            if kind == _STREAM:
                probe.listen(1)
        except OSError as error:
            raise _not_bound(index, entry, tables, error) from error


def bind_or_elsewhere(s: socket.socket, index: int, entry: TcpSocket | UdpSocket, tables: RebuildTables) -> None:
    """Bind to the image's address, or to another port where that is allowed."""
    try:
        bind(s, entry)
    except OSError as error:
        if not _may_move(tables):
            raise _not_bound(index, entry, tables, error) from error
        s.bind((entry.host, 0))
        tables.warn(f"{_shown(entry)} is in use; {tables.who(index)} listens on port {s.getsockname()[1]} instead")


def _shown(entry: TcpSocket | UdpSocket) -> str:
    host = f"[{entry.host}]" if ":" in entry.host else entry.host
    return f"{'TCP' if isinstance(entry, TcpSocket) else 'UDP'} address {host}:{entry.port}"


def _not_bound(index: int, entry: TcpSocket | UdpSocket, tables: RebuildTables, error: OSError) -> HostUnsupported:
    holder = _holder(entry) if error.errno == errno.EADDRINUSE else ""
    why = f"in use by {holder}" if holder else (error.strerror or str(error))
    return HostUnsupported(
        f"{_shown(entry)}, where {tables.who(index)} listened, cannot be had: {why}",
        hint=_hint(holder),
        host=entry.host, port=entry.port,
    )  # fmt: skip


def _hint(holder: str) -> str:
    if holder.startswith("connections"):
        return "try again in a minute"
    return "end that process (it may be the one the checkpoint was taken of), or restore into it"


def _holder(entry: TcpSocket | UdpSocket) -> str:
    """Who has the port: a process of ours, or just somebody."""
    name = ("tcp" if isinstance(entry, TcpSocket) else "udp") + ("6" if entry.family == socket.AF_INET6 else "")
    inodes = set()
    for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]:
        words = line.split()
        bound = int(words[1].rpartition(":")[2], 16) == entry.port
        if bound and (name.startswith("udp") or words[3] == "0A"):
            inodes.add(f"socket:[{words[9]}]")
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal() and inodes & _links(folder):
            pid = int(folder.name)
            return f"process {pid} ({proc.stat(pid).comm})"
    if inodes:
        return "another user's process"
    waiting = any(tcp.state == sockdiag.TIME_WAIT and tcp.local[1] == entry.port for tcp in sockdiag.tcp_entries())
    return "connections that ended less than a minute ago" if waiting else "somebody"


def _links(folder: Path) -> set[str]:
    found = set()
    try:
        for number in os.listdir(folder / "fd"):
            found.add(os.readlink(folder / "fd" / number))
    except OSError:
        pass
    return found


def has_failed(s: socket.socket, wait_ms: int = 0) -> bool:
    """Whether an error waits to be told (poll(2) leaves it there)."""
    asked = select.poll()
    asked.register(s, 0)
    return any(events & select.POLLERR for _, events in asked.poll(wait_ms))
