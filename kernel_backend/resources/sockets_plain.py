"""Sockets that have an address and options, but no connection: netlink, raw and ping, UDP-Lite.

They come back with both. What waits to be received is left out, with a warning: what the OS kernel, the network or
others have told is told no more. A raw socket takes CAP_NET_RAW to have, here as there.
"""

from __future__ import annotations

import array
import contextlib
import errno
import os
import socket
import stat

from kernel_backend.abi import linux
from kernel_backend.errors import ResourceUnsupported
from kernel_backend.host import fds, sockdiag
from kernel_backend.image.descriptions import Description, PlainSocket
from kernel_backend.resources import live_sockets, socket_options
from kernel_backend.resources.descriptors import (
    CaptureTables,
    Kind,
    Look,
    RebuildTables,
    restore_owner,
    set_status_flags,
)
from kernel_backend.tracee.inject import Workshop

_INET = (socket.AF_INET, socket.AF_INET6)
_NETLINK = 16
_STREAM, _MPTCP = socket.SOCK_STREAM, 262
_UDPLITE, _PING = 136, (socket.IPPROTO_ICMP, socket.IPPROTO_ICMPV6)
_NETLINK_LIST_MEMBERSHIPS, _NETLINK_ADD_MEMBERSHIP = 9, 1


class PlainSocketKind(Kind):
    """AF_NETLINK; SOCK_RAW, ping and UDP-Lite sockets over IPv4 and IPv6; of Multipath TCP, unused ones."""

    entry = PlainSocket

    def matches(self, look: Look) -> bool:
        if not stat.S_ISSOCK(look.stat.st_mode):
            return False
        sort = _sort(look.own)
        return _is_plain(*sort) and (sort[2] != _MPTCP or _is_unused(look.own))

    def capture(self, look: Look, tables: CaptureTables) -> Description:
        socket_options.check_namespace(look, tables)
        socket_options.check_filter(look)
        family, kind, protocol = _sort(look.own)
        entry = PlainSocket(family=family, type=kind, protocol=protocol)
        with socket_options.borrowed(look.own, family, kind) as s:
            entry.address, entry.peer = _address(s.fileno(), "getsockname"), _address(s.fileno(), "getpeername")
            entry.options = socket_options.capture(s, family, kind, protocol)
            socket_options.note_lost(s, look, tables)
            if family == _NETLINK:
                entry.groups = _memberships(s.fileno())
        if protocol == _UDPLITE and entry.peer:  # others cannot be shut down
            entry.shutdown = _shutdowns(tables).get(look.stat.st_ino, 0)
        live_sockets.note_left_out(look, tables, _what(entry))
        return entry

    def validate(self, index: int, entry: PlainSocket, tables: RebuildTables) -> None:
        if not _is_plain(entry.family, entry.type, entry.protocol):
            raise ResourceUnsupported(f"{tables.who(index)} is a socket of a sort that no dump captures")
        if entry.protocol == _MPTCP and (_is_bound(entry) or _is_connected(entry)):
            raise ResourceUnsupported(
                f"{tables.who(index)} is a socket of Multipath TCP in use, which no dump captures"
            )

    def rebuild(self, index: int, entry: PlainSocket, tables: RebuildTables) -> None:
        who, what = tables.who(index), f"socket ({_what(entry)})"
        with live_sockets.privileged(entry.family, entry.type, entry.protocol, who, what) as s:
            socket_options.set_before_binding(s, entry.options)
            _bind(s, index, entry, tables)
            tables.own[index] = s.detach()

    def settle(self, index: int, entry: PlainSocket, tables: RebuildTables) -> None:
        fd = tables.own[index]
        with socket_options.borrowed(fd, entry.family, entry.type) as s:
            for group in entry.groups:
                with contextlib.suppress(OSError):  # those of the address it has already
                    s.setsockopt(socket_options.SOL_NETLINK, _NETLINK_ADD_MEMBERSHIP, group)
            socket_options.restore(
                s, entry.family, entry.type, entry.options, tables, tables.who(index), entry.protocol
            )
            if index not in _late(tables):
                _shut_down(s, entry)
        set_status_flags(fd, entry.flags)

    def finish(
        self, index: int, entry: PlainSocket, tables: RebuildTables, workshop: Workshop, pid: int, fd: int
    ) -> None:
        if index in _late(tables):
            for held, number in _of_present(entry, tables):
                os.close(held.pop(number))
            with socket_options.borrowed(tables.own[index], entry.family, entry.type) as s:
                _bind(s, index, entry, tables)
                _shut_down(s, entry)
        restore_owner(entry, tables, workshop, fd)


def _shutdowns(tables: CaptureTables) -> dict[int, int]:
    """How far the UDP-Lite sockets of this host are shut down, by inode; asked once for all."""
    known: dict[int, int] | None = tables.cache.get("udplite shut down")
    if known is None:
        known = tables.cache["udplite shut down"] = sockdiag.udp_shutdowns(_UDPLITE)
    return known


def _sort(fd: int) -> tuple[int, int, int]:
    family = live_sockets.family_of(fd)
    with socket_options.borrowed(fd, family, socket.SOCK_RAW) as s:
        kind = s.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE)
        return family, kind, s.getsockopt(socket.SOL_SOCKET, socket.SO_PROTOCOL)


def _is_plain(family: int, kind: int, protocol: int) -> bool:
    if family == _NETLINK:
        return True
    datagrams = kind == socket.SOCK_DGRAM and protocol in (_UDPLITE, *_PING)
    return family in _INET and (kind == socket.SOCK_RAW or datagrams or (kind, protocol) == (_STREAM, _MPTCP))


def _is_unused(fd: int) -> bool:
    """Whether a socket of Multipath TCP has no address yet, and no connection: all else of it no image could hold."""
    with socket_options.borrowed(fd, live_sockets.family_of(fd), _STREAM) as s:
        listens = s.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    return not listens and not any(_address(fd, "getsockname")[2:]) and not _address(fd, "getpeername")


def _what(entry: PlainSocket) -> str:
    if entry.family == _NETLINK:
        return "netlink"
    if entry.protocol == _MPTCP:
        return "Multipath TCP"
    return "raw" if entry.type == socket.SOCK_RAW else "UDP-Lite" if entry.protocol == _UDPLITE else "ping"


def _address(fd: int, which: str) -> bytes:
    """As the OS kernel writes it; empty where there is none."""
    try:
        return fds.socket_address(fd, which)
    except OSError as error:
        if error.errno == errno.ENOTCONN:
            return b""
        raise


def _memberships(fd: int) -> list[int]:
    """Multicast groups; those beyond 32 have no place in the address."""
    raw = fds.getsockopt_about(fd, socket_options.SOL_NETLINK, _NETLINK_LIST_MEMBERSHIPS, bytes(512))
    words = array.array("I", raw)
    return [32 * at + bit + 1 for at, word in enumerate(words) for bit in range(32) if word >> bit & 1]


def _bind(s: socket.socket, index: int, entry: PlainSocket, tables: RebuildTables) -> None:
    """To its addresses; one that the present has still is had when that is gone (`finish`)."""
    try:
        if _is_bound(entry):
            fds.socket_call(s.fileno(), "bind", entry.address)
        if _is_connected(entry):
            fds.socket_call(s.fileno(), "connect", entry.peer)
    except OSError as error:
        if error.errno == errno.EADDRINUSE and index not in _late(tables) and _of_present(entry, tables):
            _late(tables).add(index)
            return
        tables.warn(
            f"the address of the socket at {tables.who(index)} ({_what(entry)}) cannot be had: {error.strerror}"
        )


def _shut_down(s: socket.socket, entry: PlainSocket) -> None:
    if entry.shutdown:
        with contextlib.suppress(OSError):  # where its address could not be had, which was told
            s.shutdown(entry.shutdown - 1)  # SHUT_RD, SHUT_WR, SHUT_RDWR


def _late(tables: RebuildTables) -> set[int]:
    late: set[int] = tables.cache.setdefault("plain sockets bound late", set())
    return late


def _of_present(entry: PlainSocket, tables: RebuildTables) -> list[tuple[dict[int, int], int]]:
    """The sockets of that sort and address which the present or its children have: where we keep each, and its key."""
    return [
        (held, number) for held in (tables.live, tables.below) for number, fd in held.items() if _is_the_one(fd, entry)
    ]


def _is_the_one(fd: int, entry: PlainSocket) -> bool:
    if not stat.S_ISSOCK(os.fstat(fd).st_mode) or fds.status_flags(fd) & linux.O_PATH:
        return False
    return (
        _sort(fd) == (entry.family, entry.type, entry.protocol) and _address(fd, "getsockname")[:8] == entry.address[:8]
    )


def _is_bound(entry: PlainSocket) -> bool:
    if entry.family == _NETLINK:
        return any(entry.address[4:8])  # its port, which it has from bind or from the first call
    return any(entry.address[4:])


def _is_connected(entry: PlainSocket) -> bool:
    return any(entry.peer[4:12]) if entry.family == _NETLINK else any(entry.peer[4:])


KINDS: list[Kind] = [PlainSocketKind()]
