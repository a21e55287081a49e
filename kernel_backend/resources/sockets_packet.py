"""Packet sockets: frames of network devices.

They come back with what they hear: protocol, device, filter, memberships. Frames that wait are left out, with a
warning: nothing puts one back, and the network may lose them, too. It takes CAP_NET_RAW to have one, here as there.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import struct

from kernel_backend.errors import ResourceUnsupported
from kernel_backend.host import fds, sockdiag
from kernel_backend.image.descriptions import Description, PacketMembership, PacketSocket, SocketOption
from kernel_backend.resources import live_sockets, socket_options
from kernel_backend.resources.descriptors import CaptureTables, Kind, Look, RebuildTables, set_status_flags
from kernel_backend.resources.socket_options import PACKET_COPY_THRESH, SOL_PACKET

_FAMILY = socket.AF_PACKET
_SOCK_PACKET = 10
_ADD_MEMBERSHIP, _STATISTICS = 1, 6  # linux/if_packet.h
_GONE = -1
_MEMBERSHIP = struct.Struct("<iHH32s")  # struct packet_mreq, with room for the longest address
_ADDRESS = struct.Struct("<H2si12x")  # struct sockaddr_ll
_OLD_ADDRESS = struct.Struct("<H14s")  # struct sockaddr_pkt, as far as bind(2) takes it
_DROP_ALL = struct.pack("<HBBI", 6, 0, 0, 0)  # a filter: BPF_RET 0


class PacketKind(Kind):
    """AF_PACKET: SOCK_RAW, SOCK_DGRAM and the old SOCK_PACKET."""

    entry = PacketSocket

    def matches(self, look: Look) -> bool:
        return stat.S_ISSOCK(look.stat.st_mode) and live_sockets.family_of(look.own) == _FAMILY

    def capture(self, look: Look, tables: CaptureTables) -> Description:
        socket_options.check_namespace(look, tables)
        socket_options.check_filter(look)
        live_sockets.forget_interruption(look)
        facts = _facts(look, tables)
        entry = PacketSocket(type=facts.type, protocol=facts.protocol, device_gone=facts.device == _GONE)
        if facts.device > 0:
            entry.bound_device = socket.if_indextoname(facts.device)
        for index, sort, address, count in facts.memberships:
            device = socket.if_indextoname(index)
            entry.memberships.append(PacketMembership(device=device, sort=sort, address=address, count=count))
        with socket_options.borrowed(look.own, _FAMILY, entry.type) as s:
            entry.options = _options(s, facts, look)
            socket_options.note_lost(s, look, tables)
        live_sockets.note_left_out(look, tables, "packet")
        return entry

    def rebuild(self, index: int, entry: PacketSocket, tables: RebuildTables) -> None:
        device = _device(index, entry, tables)
        protocol = 0 if device == _GONE else entry.protocol
        who, number = tables.who(index), socket.htons(protocol)
        with live_sockets.privileged(_FAMILY, entry.type, number, who, "packet socket") as s:
            fds.attach_socket_filter(s.fileno(), _DROP_ALL)  # until it has its own, and is bound
            if device > 0:
                fds.socket_call(s.fileno(), "bind", _address(entry, device))
            _empty(s)
            tables.own[index] = s.detach()

    def settle(self, index: int, entry: PacketSocket, tables: RebuildTables) -> None:
        who = tables.who(index)
        with socket_options.borrowed(tables.own[index], _FAMILY, entry.type) as s:
            for membership in entry.memberships:
                _join(s, membership, tables, who)
            socket_options.restore(s, _FAMILY, entry.type, entry.options, tables, who)
        set_status_flags(tables.own[index], entry.flags)


def _facts(look: Look, tables: CaptureTables) -> sockdiag.PacketFacts:
    """What the OS kernel tells of it; refused where that is not all of it."""
    if "packet sockets" not in tables.cache:
        try:
            tables.cache["packet sockets"] = sockdiag.packet_sockets()
        except OSError as error:
            raise _refusal(look, "of which this OS kernel tells nothing (packet_diag)") from error
    facts: sockdiag.PacketFacts | None = tables.cache["packet sockets"].get(look.stat.st_ino)
    if facts is None:
        raise _refusal(look, "in another network namespace")
    if facts.ring:
        raise _refusal(look, "with a ring (PACKET_RX_RING, PACKET_TX_RING), which cannot be captured")
    if facts.fanout:
        raise _refusal(look, "in a fanout group (PACKET_FANOUT), which cannot be captured")
    return facts


def _refusal(look: Look, why: str, hint: str = "close it and checkpoint again") -> ResourceUnsupported:
    return ResourceUnsupported(
        f"{look.holder} is a packet socket {why}", hint=hint, pid=look.process.pid, fd=look.fd
    )  # fmt: skip


def _options(s: socket.socket, facts: sockdiag.PacketFacts, look: Look) -> list[SocketOption]:
    try:
        found = socket_options.capture(s, _FAMILY, facts.type)
    except PermissionError as error:  # to make one for comparison
        raise _refusal(look, "which only root can bring back", "take the checkpoint as root (CAP_NET_RAW)") from error
    known = {(option.level, option.name) for option in found}
    if facts.copy_threshold and (SOL_PACKET, PACKET_COPY_THRESH) not in known:  # older OS kernels tell it here only
        found.append(SocketOption(SOL_PACKET, PACKET_COPY_THRESH, struct.pack("<I", facts.copy_threshold)))
    return found


# --- coming back ------------------------------------------------------------------------------------------------------


def _device(index: int, entry: PacketSocket, tables: RebuildTables) -> int:
    """Its number here; 0: it is bound to none. Unbound instead it would hear those of all."""
    if not entry.device_gone and not entry.bound_device:
        return 0
    with contextlib.suppress(OSError):
        return socket.if_nametoindex(entry.bound_device)
    what = f"network device {entry.bound_device}" if entry.bound_device else "network device"
    tables.warn(f"the {what} of the packet socket at {tables.who(index)} is not there: it hears nothing")
    return _GONE


def _address(entry: PacketSocket, device: int) -> bytes:
    if entry.type == _SOCK_PACKET:
        return _OLD_ADDRESS.pack(_FAMILY, os.fsencode(entry.bound_device))
    return _ADDRESS.pack(_FAMILY, struct.pack(">H", entry.protocol), device)


def _empty(s: socket.socket) -> None:
    """Take away what was there before the filter, and what binding to a device that is down leaves; uncounted."""
    while fds.is_ready(s.fileno()):
        with contextlib.suppress(OSError):
            s.recv(1, socket.MSG_DONTWAIT)
    with contextlib.suppress(OSError):  # the old ones do not count
        s.getsockopt(SOL_PACKET, _STATISTICS, 8)


def _join(s: socket.socket, membership: PacketMembership, tables: RebuildTables, who: str) -> None:
    try:
        device = socket.if_nametoindex(membership.device)
        length = len(membership.address)
        for _ in range(membership.count):
            s.setsockopt(
                SOL_PACKET, _ADD_MEMBERSHIP, _MEMBERSHIP.pack(device, membership.sort, length, membership.address)
            )
    except OSError as error:
        why = error.strerror or "it is not there"
        tables.warn(f"the packet socket at {who} cannot be a member at {membership.device} again: {why}")


KINDS: list[Kind] = [PacketKind()]
