"""What sock_diag(7) tells of Unix sockets: who is connected to whom, names, queues, what waits for accept(2); and of
UDP sockets how far they are shut down; and of packet sockets what they hear.

And it ends TCP connections that only wait for stray packets (TIME_WAIT), where we may (CAP_NET_ADMIN).
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import msgspec

from kernel_backend.host.netlink import HEADER, RECEIVE_BYTES, attributes, payloads

_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_SOCK_DESTROY = 21
_NLM_F_REQUEST_ACK = 5
_NO_COOKIE = 0xFFFFFFFF
_NLM_F_REQUEST_DUMP = 0x301
_SHOW_NAME, _SHOW_VFS, _SHOW_PEER, _SHOW_ICONS, _SHOW_RQLEN = 1, 2, 4, 8, 16
_ATTR_NAME, _ATTR_VFS, _ATTR_PEER, _ATTR_ICONS, _ATTR_RQLEN, _ATTR_SHUTDOWN = 0, 1, 2, 3, 4, 6
_MESSAGE = struct.Struct("<BBBBIII")

LISTEN = 10  # include/net/tcp_states.h, which Unix sockets use too


class UnixFacts(msgspec.Struct):
    """One Unix socket of this network namespace."""

    inode: int
    type: int
    state: int
    name: bytes = b""
    file_inode: int = 0  # of the path it is bound to
    peer: int | None = None  # inode; 0 when the other end is gone or not accepted yet; None: never connected
    waiting: list[int] = []  # inodes of the clients to accept; 0: client gone
    queued: int = 0  # bytes to read; of a listener: connections to accept
    unread: int = 0  # memory of what was sent and not read; of a listener: its backlog
    shutdown: int = 0


def unix_sockets() -> dict[int, UnixFacts]:
    """All of them, by inode."""
    show = _SHOW_NAME | _SHOW_VFS | _SHOW_PEER | _SHOW_ICONS | _SHOW_RQLEN
    request = struct.pack("<BBHIII2I", socket.AF_UNIX, 0, 0, 0xFFFFFFFF, 0, show, 0xFFFFFFFF, 0xFFFFFFFF)
    header = HEADER.pack(HEADER.size + len(request), _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST_DUMP, 1, 0)
    kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC
    with socket.socket(socket.AF_NETLINK, kind, _NETLINK_SOCK_DIAG) as netlink:
        netlink.send(header + request)
        return {facts.inode: facts for facts in map(_parse, payloads(netlink))}


def _parse(payload: bytes) -> UnixFacts:
    _, kind, state, _, inode, _, _ = _MESSAGE.unpack_from(payload)
    facts = UnixFacts(inode, kind, state)
    for attribute, value in attributes(payload, _MESSAGE.size):
        _add(facts, attribute, value)
    return facts


def _add(facts: UnixFacts, attribute: int, value: bytes) -> None:
    if attribute == _ATTR_NAME:
        facts.name = value
    elif attribute == _ATTR_VFS:
        facts.file_inode = struct.unpack_from("<I", value)[0]
    elif attribute == _ATTR_PEER:
        facts.peer = struct.unpack("<I", value)[0]
    elif attribute == _ATTR_ICONS:
        facts.waiting = list(struct.unpack(f"<{len(value) // 4}I", value))
    elif attribute == _ATTR_RQLEN:
        facts.queued, facts.unread = struct.unpack("<2I", value)
    elif attribute == _ATTR_SHUTDOWN:
        facts.shutdown = value[0]


_INET_SHUTDOWN = 8  # linux/inet_diag.h: INET_DIAG_SHUTDOWN
_INET_BYTES = 72  # struct inet_diag_msg, whose last word is the inode


def udp_shutdowns(protocol: int = socket.IPPROTO_UDP) -> dict[int, int]:
    """The UDP (or UDP-Lite) sockets of this network namespace that are shut down: inode → 1 to receive, 2 to send."""
    found: dict[int, int] = {}
    for family in (socket.AF_INET, socket.AF_INET6):
        request = struct.pack("<4BI48x", family, protocol, 0, 0, 0xFFFFFFFF)
        header = HEADER.pack(HEADER.size + len(request), _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST_DUMP, 1, 0)
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_SOCK_DIAG) as netlink:
            netlink.send(header + request)
            try:
                for payload in payloads(netlink):
                    if shut := dict(attributes(payload, _INET_BYTES)).get(_INET_SHUTDOWN, b"\0")[0]:
                        found[struct.unpack_from("<I", payload, _INET_BYTES - 4)[0]] = shut
            except OSError:
                continue  # an OS kernel that cannot tell (no udp_diag)
    return found


# linux/packet_diag.h
_PACKET_SHOW = 1 | 2 | 4 | 8  # information, memberships, rings, fanout
_PACKET_INFO, _PACKET_MEMBERSHIPS, _PACKET_RINGS, _PACKET_FANOUT = 0, 1, (2, 3), 4
_PACKET_MESSAGE = struct.Struct("<BBHI8x")  # family, type, protocol, inode
_PACKET_FACTS = struct.Struct("<i8xI8x")  # device, copy threshold
_PACKET_MEMBERSHIP = struct.Struct("<iIHH32s")  # device, count, sort, length of the address, address


class PacketFacts(msgspec.Struct):
    """One packet socket of this network namespace."""

    type: int
    protocol: int
    device: int = 0  # index; 0: any; -1: it was removed
    copy_threshold: int = 0
    memberships: list[tuple[int, int, bytes, int]] = []  # device, sort, address, count
    ring: bool = False
    fanout: bool = False


def packet_sockets() -> dict[int, PacketFacts]:
    """All of them, by inode. Raises OSError where the OS kernel cannot tell (no packet_diag)."""
    request = struct.pack("<BBHII2I", socket.AF_PACKET, 0, 0, 0, _PACKET_SHOW, _NO_COOKIE, _NO_COOKIE)
    header = HEADER.pack(HEADER.size + len(request), _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST_DUMP, 1, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_SOCK_DIAG) as netlink:
        netlink.send(header + request)
        return dict(map(_parse_packet, payloads(netlink)))


def _parse_packet(payload: bytes) -> tuple[int, PacketFacts]:
    _, kind, protocol, inode = _PACKET_MESSAGE.unpack_from(payload)
    facts = PacketFacts(kind, protocol)
    for attribute, value in attributes(payload, _PACKET_MESSAGE.size):
        if attribute == _PACKET_INFO:
            facts.device, facts.copy_threshold = _PACKET_FACTS.unpack_from(value)
        elif attribute == _PACKET_MEMBERSHIPS:
            for device, count, sort, length, address in _PACKET_MEMBERSHIP.iter_unpack(value):
                facts.memberships.append((device, sort, address[:length], count))
        elif attribute in _PACKET_RINGS:
            facts.ring = True
        elif attribute == _PACKET_FANOUT:
            facts.fanout = True
    return inode, facts


class TcpEntry(msgspec.Struct, frozen=True):
    """One line of /proc/net/tcp or tcp6: addresses as the file has them, and inode."""

    family: int
    local: tuple[bytes, int]
    remote: tuple[bytes, int]
    state: int
    inode: int


def tcp_entries() -> Iterator[TcpEntry]:
    """All TCP sockets of this network namespace, those without a process too."""
    for family, name in ((socket.AF_INET, "tcp"), (socket.AF_INET6, "tcp6")):
        try:
            lines = Path(f"/proc/net/{name}").read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            words = line.split()
            yield TcpEntry(family, _endpoint(words[1]), _endpoint(words[2]), int(words[3], 16), int(words[9]))


def _endpoint(text: str) -> tuple[bytes, int]:
    """(address in network order, port); the file shows the address as words of the host's byte order."""
    host, _, port = text.partition(":")
    words = struct.unpack(f">{len(host) // 8}I", bytes.fromhex(host))
    return struct.pack(f"<{len(words)}I", *words), int(port, 16)


TIME_WAIT = 6


def end_time_wait(port: int) -> bool:
    """End the connections that keep a local port busy although they are over; whether any was."""
    waiting = [entry for entry in tcp_entries() if entry.state == TIME_WAIT and entry.local[1] == port]
    return sum(map(_destroy, waiting)) > 0


def _destroy(entry: TcpEntry) -> bool:
    ports = struct.pack(">2H", entry.local[1], entry.remote[1])
    addresses = entry.local[0].ljust(16, b"\0") + entry.remote[0].ljust(16, b"\0")
    request = struct.pack("<4BI", entry.family, socket.IPPROTO_TCP, 0, 0, 0xFFFFFFFF)
    request += ports + addresses + struct.pack("<3I", 0, _NO_COOKIE, _NO_COOKIE)
    header = HEADER.pack(HEADER.size + len(request), _SOCK_DESTROY, _NLM_F_REQUEST_ACK, 1, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_SOCK_DIAG) as netlink:
        netlink.send(header + request)
        answer = netlink.recv(RECEIVE_BYTES)
    return bool(struct.unpack_from("<i", answer, HEADER.size)[0] == 0)
