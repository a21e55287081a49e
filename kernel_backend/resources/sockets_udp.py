"""UDP over IPv4 and IPv6, with what waits to be received.

A waiting datagram is sent again from the address it came from, by the socket inside that has it or by one of ours
bound there for the moment. What came from an address that nobody here can have is dropped with a warning, as UDP may.
"""

from __future__ import annotations

import contextlib
import fcntl
import ipaddress
import socket
import stat
import struct
import time
from collections.abc import Iterator, Sequence

from kernel_backend.abi import linux
from kernel_backend.errors import ResourceUnsupported
from kernel_backend.host import fds, sockdiag
from kernel_backend.image.descriptions import Description, Message, UdpSocket
from kernel_backend.resources import inet, live_sockets, multicast, socket_options, unix_queues
from kernel_backend.resources.descriptors import (
    CaptureTables,
    Kind,
    Look,
    RebuildTables,
    restore_owner,
    set_status_flags,
)
from kernel_backend.tracee.inject import Workshop

_DGRAM = socket.SOCK_DGRAM
_LEAVING_S = 0.02
_CORK, _SEGMENT = 1, 103  # linux/udp.h
_MOST_BYTES = 0xFFFF
_PEEK = socket.MSG_PEEK | socket.MSG_DONTWAIT
_IP, _IPV6 = socket.IPPROTO_IP, socket.IPPROTO_IPV6
_PKTINFO, _RECVTTL, _RECVTOS = 8, 12, 13  # linux/in.h
_V4_TOLD = ((_IP, _PKTINFO), (_IP, _RECVTTL), (_IP, _RECVTOS))
_V6_TOLD = (
    (_IPV6, socket.IPV6_RECVPKTINFO),
    (_IPV6, socket.IPV6_RECVHOPLIMIT),
    (_IPV6, socket.IPV6_RECVTCLASS),
)
_HOPS = {True: (_IP, socket.IP_TTL), False: (_IPV6, socket.IPV6_HOPLIMIT)}  # over IPv4, over IPv6
_CLASS = {True: (_IP, socket.IP_TOS), False: (_IPV6, socket.IPV6_TCLASS)}
_CONTROL_BYTES = 512


class UdpKind(Kind):
    """SOCK_DGRAM over IPv4 or IPv6."""

    entry = UdpSocket

    def matches(self, look: Look) -> bool:
        return stat.S_ISSOCK(look.stat.st_mode) and inet.sort_of(look.own) == (_DGRAM, socket.IPPROTO_UDP)

    def capture(self, look: Look, tables: CaptureTables) -> Description:
        socket_options.check_namespace(look, tables)
        socket_options.check_filter(look)
        live_sockets.forget_interruption(look)
        entry = UdpSocket(family=live_sockets.family_of(look.own))
        with socket_options.borrowed(look.own, entry.family, _DGRAM) as s:
            inet.note_addresses(s, entry)
            _refuse_held_back(s, look)
            socket_options.note_lost(s, look, tables)
            entry.options = socket_options.capture(s, entry.family, _DGRAM)
            if _may_peek(s, look, tables):
                entry.queue = _peek(s)
        entry.memberships = multicast.capture(look.own, entry.family)
        if entry.peer_port:  # others cannot be shut down
            entry.shutdown = _shutdowns(tables).get(look.stat.st_ino, 0)
        return entry

    def validate(self, index: int, entry: UdpSocket, tables: RebuildTables) -> None:
        if entry.port and live_sockets.find_inet(entry, _DGRAM, tables, listening=False) < 0:
            inet.check_free(index, entry, _DGRAM, tables)

    def rebuild(self, index: int, entry: UdpSocket, tables: RebuildTables) -> None:
        live = live_sockets.find_inet(entry, _DGRAM, tables, listening=False) if entry.port else -1
        if live >= 0:
            live_sockets.take(index, live, tables)
            return
        with socket.socket(entry.family, _DGRAM | socket.SOCK_CLOEXEC) as s:
            socket_options.set_before_binding(s, entry.options)
            inet.share_port(s, entry, tables)
            if entry.port:
                inet.bind_or_elsewhere(s, index, entry, tables)
            tables.own[index] = s.detach()

    def settle(self, index: int, entry: UdpSocket, tables: RebuildTables) -> None:
        if "udp settled" not in tables.cache:
            tables.cache["udp settled"] = True
            _settle_all(tables)

    def finish(
        self, index: int, entry: UdpSocket, tables: RebuildTables, workshop: Workshop, pid: int, fd: int
    ) -> None:
        if live_sockets.was_taken(index, tables):
            live_sockets.adopt(index, entry, _DGRAM, tables, workshop, fd)
            with socket_options.borrowed(tables.own[index], entry.family, _DGRAM) as s:
                _drop_held_back(s)
                _disconnect(s, entry)
                live_sockets.drain(s)
                multicast.restore(s, entry.memberships, tables, tables.who(index))
            _fill(index, entry, tables)
            _connect(index, entry, tables)
            with socket_options.borrowed(tables.own[index], entry.family, _DGRAM) as s:
                socket_options.rewind(s, entry.family, _DGRAM, entry.options, tables, tables.who(index))
                _shut_down(s, entry)
        restore_owner(entry, tables, workshop, fd)


def _disconnect(s: socket.socket, entry: UdpSocket) -> None:
    """The present's: connected, it would take nothing of what others had sent in the image.

    A port that nobody had asked for by its number is given back by that, and bound again.
    """
    if live_sockets.disconnect(s) and s.getsockname()[1] != entry.port:
        inet.bind(s, entry)


def _refuse_held_back(s: socket.socket, look: Look) -> None:
    """A datagram in the making (MSG_MORE, UDP_CORK); one that is just leaving is gone in a moment."""
    deadline = time.monotonic() + _LEAVING_S
    while struct.unpack("<i", fcntl.ioctl(s.fileno(), linux.SIOCOUTQ, bytes(4)))[0]:
        if time.monotonic() > deadline:
            raise ResourceUnsupported(
                f"{look.holder} is a UDP socket with a datagram that is held back (MSG_MORE, UDP_CORK)",
                hint="let the program send it, and try again", pid=look.process.pid, fd=look.fd,
            )  # fmt: skip
        time.sleep(_LEAVING_S / 10)


def _drop_held_back(s: socket.socket) -> None:
    """What the present had in the making goes away when more is added than a datagram can hold (net/ipv4/udp.c)."""
    if struct.unpack("<i", fcntl.ioctl(s.fileno(), linux.SIOCOUTQ, bytes(4)))[0]:
        with contextlib.suppress(OSError):
            s.send(bytes(_MOST_BYTES), socket.MSG_DONTWAIT | socket.MSG_MORE)


@contextlib.contextmanager
def _at_once(s: socket.socket) -> Iterator[None]:
    """Send whole datagrams also by a socket that holds back what it sends, or cuts it."""
    held = {name: s.getsockopt(socket.IPPROTO_UDP, name) for name in (_CORK, _SEGMENT)}
    changed = {name: value for name, value in held.items() if value}
    for name in changed:
        s.setsockopt(socket.IPPROTO_UDP, name, 0)
    try:
        yield
    finally:
        for name, value in changed.items():
            s.setsockopt(socket.IPPROTO_UDP, name, value)


def _may_peek(s: socket.socket, look: Look, tables: CaptureTables) -> bool:
    """An error that waits (nobody takes what was sent) would be told to us, once, and the program never learn of it."""
    if not inet.has_failed(s):
        return True
    tables.warnings.append(f"an error waits in the socket at {look.holder}, which a restored process is not told")
    if not tables.ending and fds.is_ready(s.fileno()):
        tables.warnings.append(f"so what waits to be received at {look.holder} is not in the image")
    if tables.ending:
        s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    return tables.ending


def _peek(s: socket.socket) -> list[Message]:
    messages: list[Message] = []
    before = s.getsockopt(socket.SOL_SOCKET, socket_options.SO_PEEK_OFF)
    try:
        with _told_all(s):
            if unix_queues.begins_with_empty(s):
                s.setsockopt(socket.SOL_SOCKET, socket_options.SO_PEEK_OFF, -1)
                messages.append(_message(*s.recvmsg(0, _CONTROL_BYTES, _PEEK)))
            s.setsockopt(socket.SOL_SOCKET, socket_options.SO_PEEK_OFF, 0)
            while True:
                messages.append(_message(*s.recvmsg(1 << 16, _CONTROL_BYTES, _PEEK)))
    except OSError:
        return messages  # no more, or an error that the program itself will be told
    finally:
        s.setsockopt(socket.SOL_SOCKET, socket_options.SO_PEEK_OFF, before)


@contextlib.contextmanager
def _told_all(s: socket.socket) -> Iterator[None]:
    """Be told of datagrams what only those are told who ask (ip(7), ipv6(7)); it is in their headers all the time."""
    asking = list(_V4_TOLD) if s.family == socket.AF_INET else [*_V4_TOLD, *_V6_TOLD]
    waits = fds.is_ready(s.fileno())
    missing = [(level, name) for level, name in asking if waits and not s.getsockopt(level, name)]
    try:
        for level, name in missing:
            s.setsockopt(level, name, 1)
        yield
    finally:
        for level, name in missing:
            s.setsockopt(level, name, 0)


def _message(data: bytes, control: Sequence[tuple[int, int, bytes]], _flags: int, address: tuple[str, int]) -> Message:
    message = Message(data=data, host=address[0], port=address[1])
    for level, name, value in control:
        if (level, name) == (_IPV6, socket.IPV6_PKTINFO):  # told before the other one, for IPv4 too
            message.to = socket.inet_ntop(socket.AF_INET6, value[:16])
        elif (level, name) == (_IP, _PKTINFO) and not message.to:
            message.to = socket.inet_ntop(socket.AF_INET, value[8:12])
        elif (level, name) in _HOPS.values():
            message.hops = value[0]
        elif (level, name) in _CLASS.values():
            message.service = value[0]
    return message


def _header(message: Message, target: str) -> list[tuple[int, int, bytes]]:
    """What sendmsg(2) is to write into the header of a datagram, as it was in that of the one that waits."""
    four = "." in target
    wanted = [(_HOPS[four], message.hops), (_CLASS[four], message.service)] if message.hops else []
    return [(level, name, struct.pack("<i", value)) for (level, name), value in wanted]


def _shutdowns(tables: CaptureTables) -> dict[int, int]:
    """How far the UDP sockets of this host are shut down, by inode; asked once for all."""
    known: dict[int, int] | None = tables.cache.get("udp shut down")
    if known is None:
        known = tables.cache["udp shut down"] = sockdiag.udp_shutdowns()
    return known


def _shut_down(s: socket.socket, entry: UdpSocket) -> None:
    if entry.shutdown:
        s.shutdown(entry.shutdown - 1)  # SHUT_RD, SHUT_WR, SHUT_RDWR


def _settle_all(tables: RebuildTables) -> None:
    """Queues first: a connected socket takes datagrams of its peer only."""
    every = [(i, entry) for i, entry in enumerate(tables.descriptions) if isinstance(entry, UdpSocket)]
    ours = [(i, entry) for i, entry in every if not live_sockets.was_taken(i, tables)]
    for index, entry in ours:
        _fill(index, entry, tables)
    for index, entry in ours:
        _connect(index, entry, tables)
        with socket_options.borrowed(tables.own[index], entry.family, _DGRAM) as s:
            socket_options.restore(s, entry.family, _DGRAM, entry.options, tables, tables.who(index))
            multicast.restore(s, entry.memberships, tables, tables.who(index))
            _shut_down(s, entry)
        set_status_flags(tables.own[index], entry.flags)


def _connect(index: int, entry: UdpSocket, tables: RebuildTables) -> None:
    if not entry.peer_port:
        return
    with socket_options.borrowed(tables.own[index], entry.family, _DGRAM) as s:
        try:
            s.connect(inet.flowing(s, (entry.peer_host, entry.peer_port), entry.peer_flow))
        except OSError as error:
            tables.warn(f"the UDP socket at {tables.who(index)} cannot be connected again: {error.strerror}")


def _fill(index: int, entry: UdpSocket, tables: RebuildTables) -> None:
    senders = {
        inet.local(other): i
        for i, other in enumerate(tables.descriptions)
        if isinstance(other, UdpSocket) and other.port and i in tables.own
    }
    lost = sum(not _send(message, entry, index, senders, tables) for message in entry.queue)
    if lost:
        tables.warn(f"{lost} datagrams waiting at {tables.who(index)} came from elsewhere and are dropped")


def _send(
    message: Message, entry: UdpSocket, index: int, senders: dict[inet.Address, int], tables: RebuildTables
) -> bool:
    with socket_options.borrowed(tables.own[index], entry.family, _DGRAM) as s:
        host, port = s.getsockname()[:2]
    if host in ("0.0.0.0", "::") and _is_ours(message.to):
        host = message.to
    elif host in ("0.0.0.0", "::"):
        host = "127.0.0.1" if entry.family == socket.AF_INET or "." in message.host else "::1"
    if ipaddress.ip_address(host.partition("%")[0]).is_multicast:
        return False  # sending there would reach everybody else in the group
    known = _sender(message, host, senders)
    try:
        if known >= 0:
            other = tables.descriptions[known]
            assert isinstance(other, UdpSocket)
            target = _seen_from(other.family, host)
            with socket_options.borrowed(tables.own[known], other.family, _DGRAM) as s, _at_once(s):
                s.sendmsg([message.data], _header(message, target), socket.MSG_DONTWAIT, (target, port))
            return True
        with socket.socket(entry.family, _DGRAM | socket.SOCK_CLOEXEC) as stranger:
            stranger.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            stranger.bind((message.host, message.port))
            target = _seen_from(entry.family, host)
            stranger.sendmsg([message.data], _header(message, target), socket.MSG_DONTWAIT, (target, port))
    except OSError:
        return False
    return True


def _is_ours(to: str) -> bool:
    """Whether an address is one of this host, and of nobody else: what is sent there stays here."""
    host = inet.plain(to)
    if not host or ipaddress.ip_address(host).is_multicast or ipaddress.ip_address(host).is_link_local:
        return False
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, _DGRAM | socket.SOCK_CLOEXEC) as probe:
        try:
            probe.connect((host, 9))  # sends nothing; a broadcast address is forbidden
        except OSError:
            return False
    return not inet.is_foreign(host)


def _sender(message: Message, host: str, senders: dict[inet.Address, int]) -> int:
    """The socket inside that a datagram to `host` came from, or -1; one without an address of its own is given one."""
    sender = inet.plain(message.host)
    if (sender, message.port) in senders:
        return senders[sender, message.port]
    here = ipaddress.ip_address(sender.partition("%")[0])
    if not here.is_loopback and sender != inet.plain(host):
        return -1
    return next((senders[any_, message.port] for any_ in ("0.0.0.0", "::") if (any_, message.port) in senders), -1)


def _seen_from(family: int, host: str) -> str:
    if family == socket.AF_INET:
        return inet.plain(host)
    return host if ":" in host else f"::ffff:{host}"


KINDS: list[Kind] = [UdpKind()]
