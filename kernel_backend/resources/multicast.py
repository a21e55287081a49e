"""Multicast groups that UDP sockets have joined.

The OS kernel tells which groups a device listens to, not who joined them. But it answers a socket's question about the
sources of one group (MCAST_MSFILTER, ip(7)), and refuses it where the socket is no member: so each is asked about all.
"""

from __future__ import annotations

import ipaddress
import socket
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path

from kernel_backend.host import fds
from kernel_backend.image.descriptions import Membership
from kernel_backend.resources.descriptors import RebuildTables

# linux/in.h
_JOIN, _BLOCK, _LEAVE, _JOIN_SOURCE, _FILTER = 42, 43, 45, 46, 48
_INCLUDE = 1
_MAX_SOURCES = 64
_ADDRESS_BYTES = 128  # struct sockaddr_storage
_HEAD = struct.Struct("<I4x")  # interface, in front of each structure
_FILTER_TAIL = struct.Struct("<II")  # mode, number of sources

_LEVELS = {socket.AF_INET: socket.IPPROTO_IP, socket.AF_INET6: socket.IPPROTO_IPV6}


def capture(fd: int, family: int) -> list[Membership]:
    """The groups that a socket has joined, by itself and not for all of the host."""
    return [found for device, group in _groups(family) if (found := _ask(fd, family, device, group))]


def _groups(family: int) -> Iterator[tuple[str, str]]:
    """(device, group) of all groups that devices of this host listen to."""
    try:
        if family == socket.AF_INET6:
            for line in Path("/proc/net/igmp6").read_text().splitlines():
                words = line.split()
                yield words[1], str(ipaddress.IPv6Address(bytes.fromhex(words[2])))
            return
        device = ""
        for line in Path("/proc/net/igmp").read_text().splitlines()[1:]:
            words = line.split()
            if line[0].isdigit():
                device = words[1].rstrip(":")
            else:
                yield device, socket.inet_ntoa(struct.pack("<I", int(words[0], 16)))
    except OSError:
        return  # without this protocol


def _ask(fd: int, family: int, device: str, group: str) -> Membership | None:
    try:
        head = _HEAD.pack(socket.if_nametoindex(device)) + _address(group)
        question = head + _FILTER_TAIL.pack(0, _MAX_SOURCES) + bytes(_MAX_SOURCES * _ADDRESS_BYTES)
        answer = fds.getsockopt_about(fd, _LEVELS[socket.AddressFamily(family)], _FILTER, question)
    except OSError:
        return None  # it is no member
    mode, count = _FILTER_TAIL.unpack_from(answer, len(head))
    start = len(head) + _FILTER_TAIL.size
    sources = [_host(answer[start + i * _ADDRESS_BYTES :]) for i in range(min(count, _MAX_SOURCES))]
    return Membership(device=device, group=group, only=mode == _INCLUDE, sources=sources)


def _address(host: str) -> bytes:
    if ":" in host:
        raw = struct.pack("<HHI", socket.AF_INET6, 0, 0) + ipaddress.IPv6Address(host).packed
    else:
        raw = struct.pack("<HH", socket.AF_INET, 0) + ipaddress.IPv4Address(host).packed
    return raw.ljust(_ADDRESS_BYTES, b"\0")


def _host(raw: bytes) -> str:
    if struct.unpack_from("<H", raw)[0] == socket.AF_INET6:
        return str(ipaddress.IPv6Address(raw[8:24]))
    return str(ipaddress.IPv4Address(raw[4:8]))


# --- coming back ------------------------------------------------------------------------------------------------------


def restore(s: socket.socket, wanted: Sequence[Membership], tables: RebuildTables, who: str) -> None:
    """Join and leave until the socket is a member of just these groups."""
    present = capture(s.fileno(), s.family)
    for membership in present:
        if membership not in wanted:
            _set(s, _LEAVE, membership)
    for membership in wanted:
        if membership in present:
            continue
        try:
            _join(s, membership)
        except OSError as error:
            tables.warn(f"the socket at {who} cannot join {membership.group} again: {error.strerror}")


def _join(s: socket.socket, membership: Membership) -> None:
    if not membership.only:
        _set(s, _JOIN, membership)
    for source in membership.sources:
        _set(s, _JOIN_SOURCE if membership.only else _BLOCK, membership, _address(source))


def _set(s: socket.socket, name: int, membership: Membership, more: bytes = b"") -> None:
    head = _HEAD.pack(socket.if_nametoindex(membership.device)) + _address(membership.group)
    s.setsockopt(_LEVELS[s.family], name, head + more)
