"""What the OS kernel tells of its network, and does for it (netlink(7), rtnetlink(7)), in the namespace we are in."""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator

import msgspec

HEADER = struct.Struct("<IHHII")
_ATTRIBUTE = struct.Struct("<HH")
RECEIVE_BYTES = 1 << 18
_ERROR, _DONE = 2, 3
_REQUEST, _ACK, _DUMP = 1, 4, 0x300
_CREATE, _EXCLUSIVE = 0x400, 0x200
_NETFILTER = 12
FAMILIES = (socket.AF_INET, socket.AF_INET6)

# linux/rtnetlink.h, linux/if_link.h, linux/if_addr.h, linux/fib_rules.h
_NEW_LINK, _GET_LINK, _NEW_ADDRESS, _DEL_ADDRESS, _GET_ADDRESS, _GET_ROUTE, _GET_RULE = 16, 18, 20, 21, 22, 26, 34
_LINK = struct.Struct("<BxHiII")  # family, type, index, flags, which flags change
_LINK_NAME, _LINK_MTU, _LINK_QUEUES = 3, 4, 6
_ADDRESS = struct.Struct("<4BI")  # family, length of the prefix, flags, scope, index
_ADDRESS_THERE, _ADDRESS_LOCAL, _ADDRESS_LABEL = 1, 2, 3
_NO_DETECTION = 2  # IFA_F_NODAD: of doubles, which would take a second
_ROUTE_BYTES = 12  # struct rtmsg: byte 5 is who made it. struct fib_rule_hdr is as long
_RULE_MAKER = 21
BY_KERNEL = 2  # RTPROT_KERNEL
UP = 1  # IFF_UP
# linux/netfilter/nfnetlink.h, nf_tables.h
_NF_GET_TABLE = 10 << 8 | 1
_NF_TABLE_NAME = 1
_UNKNOWN = (errno.EINVAL, errno.ENOENT, errno.EOPNOTSUPP, errno.EPROTONOSUPPORT)  # to an OS kernel without them


class Link(msgspec.Struct, frozen=True):
    """A network device."""

    index: int
    name: str
    flags: int
    mtu: int
    queues: str  # the kind of its queueing discipline


class LinkAddress(msgspec.Struct, frozen=True):
    """An address of a network device."""

    family: int
    prefix: int  # bits
    scope: int
    address: bytes
    label: str  # of IPv4; empty: none
    index: int


def payloads(netlink: socket.socket) -> Iterator[bytes]:
    """What answers a dump that was asked for. Raises OSError where that was refused."""
    while True:
        data = netlink.recv(RECEIVE_BYTES)
        at = 0
        while at < len(data):
            length, kind, _, _, _ = HEADER.unpack_from(data, at)
            if kind == _DONE:
                return
            if kind == _ERROR:
                number = -struct.unpack_from("<i", data, at + HEADER.size)[0]
                if number:
                    raise OSError(number, f"netlink: {os.strerror(number)}")
                return
            yield data[at + HEADER.size : at + length]
            at += (length + 3) & ~3


def attributes(payload: bytes, at: int) -> Iterator[tuple[int, bytes]]:
    """Those of a message, from the end of its fixed part on."""
    while at < len(payload):
        length, attribute = _ATTRIBUTE.unpack_from(payload, at)
        yield attribute, payload[at + _ATTRIBUTE.size : at + length]
        at += (length + 3) & ~3


def _ask(kind: int, body: bytes, flags: int, protocol: int = socket.NETLINK_ROUTE) -> list[bytes]:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol) as netlink:
        netlink.send(HEADER.pack(HEADER.size + len(body), kind, _REQUEST | flags, 1, 0) + body)
        return list(payloads(netlink))


def links() -> list[Link]:
    """All network devices."""
    found = []
    for payload in _ask(_GET_LINK, _LINK.pack(0, 0, 0, 0, 0), _DUMP):
        _, _, index, flags, _ = _LINK.unpack_from(payload)
        told = dict(attributes(payload, _LINK.size))
        mtu = int.from_bytes(told[_LINK_MTU], "little")
        found.append(Link(index, _text(told[_LINK_NAME]), flags, mtu, _text(told.get(_LINK_QUEUES, b""))))
    return found


def set_up(index: int, mtu: int, *, is_up: bool = True) -> None:
    """Have a network device work, or rest; `mtu` bytes are its largest packet."""
    body = _LINK.pack(0, 0, index, UP if is_up else 0, UP) + _attribute(_LINK_MTU, mtu.to_bytes(4, "little"))
    _ask(_NEW_LINK, body, _ACK)


def addresses() -> list[LinkAddress]:
    """Those of all network devices, in their order."""
    found = []
    for family in FAMILIES:
        for payload in _ask(_GET_ADDRESS, _ADDRESS.pack(family, 0, 0, 0, 0), _DUMP):
            of, prefix, _, scope, index = _ADDRESS.unpack_from(payload)
            told = dict(attributes(payload, _ADDRESS.size))
            address = told.get(_ADDRESS_LOCAL, told.get(_ADDRESS_THERE, b""))
            found.append(LinkAddress(of, prefix, scope, address, _text(told.get(_ADDRESS_LABEL, b"")), index))
    return found


def add_address(address: LinkAddress) -> None:
    """Give a network device an address."""
    _ask(_NEW_ADDRESS, _as_message(address), _ACK | _CREATE | _EXCLUSIVE)


def remove_address(address: LinkAddress) -> None:
    """Take it away."""
    _ask(_DEL_ADDRESS, _as_message(address), _ACK)


def _as_message(address: LinkAddress) -> bytes:
    flags = _NO_DETECTION if address.family == socket.AF_INET6 else 0
    body = _ADDRESS.pack(address.family, address.prefix, flags, address.scope, address.index)
    body += _attribute(_ADDRESS_LOCAL, address.address) + _attribute(_ADDRESS_THERE, address.address)
    if address.label:
        body += _attribute(_ADDRESS_LABEL, address.label.encode() + b"\0")
    return body


def makers_of_routes() -> set[int]:
    """Who has made the routes that there are (RTPROT_…, linux/rtnetlink.h)."""
    return {
        payload[5]
        for family in FAMILIES
        for payload in _ask(_GET_ROUTE, bytes([family]).ljust(_ROUTE_BYTES, b"\0"), _DUMP)
    }


def makers_of_rules() -> set[int]:
    """The same of rules that choose among tables of routes."""
    return {
        dict(attributes(payload, _ROUTE_BYTES)).get(_RULE_MAKER, b"\0")[0]
        for family in FAMILIES
        for payload in _ask(_GET_RULE, bytes([family]).ljust(_ROUTE_BYTES, b"\0"), _DUMP)
    }


def packet_filters() -> list[str]:
    """Tables of nftables, by name; none where the OS kernel has no such filters."""
    try:
        told = _ask(_NF_GET_TABLE, bytes(4), _DUMP, _NETFILTER)
    except OSError as error:
        if error.errno not in _UNKNOWN:
            raise
        return []
    return [_text(dict(attributes(payload, 4)).get(_NF_TABLE_NAME, b"?")) for payload in told]


def _attribute(kind: int, value: bytes) -> bytes:
    whole = _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), kind) + value
    return whole.ljust((len(whole) + 3) & ~3, b"\0")


def _text(raw: bytes) -> str:
    return raw.rstrip(b"\0").decode(errors="replace")
