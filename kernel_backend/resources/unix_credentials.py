"""Whom a Unix socket names to its other end: who made that (SO_PEERCRED, SO_PEERGROUPS), who sent what waits
(SCM_CREDENTIALS).

The OS kernel notes it when socketpair, listen, connect or send is called, of whoever calls. So these calls are made by
a process that has the number for the moment (tracee/standing_in.py). Where nobody can stand in, we are named.
"""

from __future__ import annotations

import array
import os
import socket
import struct

from kernel_backend.image.descriptions import Message, UnixSocket
from kernel_backend.resources.descriptors import CaptureTables, Look, RebuildTables
from kernel_backend.resources.socket_options import SO_PASSCRED
from kernel_backend.tracee.standing_in import Whom

SCM_CREDENTIALS = 2
_SO_PEERGROUPS = 59
_MOST_GROUPS = 256
CREDENTIALS = struct.Struct("<iII")  # struct ucred


def note_peer(s: socket.socket, look: Look, entry: UnixSocket, tables: CaptureTables) -> None:
    """Who made the other end."""
    raw = s.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size)
    if not look.in_flight and _lives_elsewhere(look, tables):
        raw = _ask_inside(look)
    pid, uid, gid = CREDENTIALS.unpack(raw)
    if pid <= 0:
        return
    entry.peer_pid, entry.peer_uid, entry.peer_gid = pid, uid, gid
    try:
        groups = array.array("I", s.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, 4 * _MOST_GROUPS))
    except OSError:  # more than that, or an OS kernel that does not tell
        return
    entry.peer_groups = list(groups)


def _lives_elsewhere(look: Look, tables: CaptureTables) -> bool:
    """Whether its process has a pid namespace in which numbers are others than ours."""
    known: dict[int, bool] = tables.cache.setdefault("pid namespaces", {})
    pid = look.process.pid
    if pid not in known:
        known[pid] = os.readlink(f"/proc/{look.process.view}/ns/pid") != os.readlink("/proc/self/ns/pid")
    return known[pid]


def _ask_inside(look: Look) -> bytes:
    """As the process sees it: whoever made the other end may have ended, so that our number for it tells nothing."""
    with look.process.borrow() as borrowed:
        size = borrowed.data + CREDENTIALS.size
        borrowed.put(bytes(CREDENTIALS.size) + struct.pack("<i", CREDENTIALS.size))
        borrowed.call("getsockopt", look.fd, socket.SOL_SOCKET, socket.SO_PEERCRED, borrowed.data, size)
        return borrowed.get(CREDENTIALS.size)


def _named(entry: UnixSocket) -> Whom:
    return Whom(entry.peer_pid, entry.peer_uid, entry.peer_gid, tuple(entry.peer_groups))


def pair(entry: UnixSocket, tables: RebuildTables) -> tuple[int, int]:
    """Both ends of a new connection, made by whoever had made the old one if that can be."""
    kind = entry.type | socket.SOCK_CLOEXEC
    if tables.stand_ins is not None and entry.peer_pid:
        made = tables.stand_ins.socketpair(kind, _named(entry))
        if made is not None:
            return made
    one, other = socket.socketpair(socket.AF_UNIX, kind)
    return one.detach(), other.detach()


def connect(
    s: socket.socket, client: UnixSocket, accepted: UnixSocket | None, door: tuple[int, int], address: bytes,
    tables: RebuildTables,
) -> None:  # fmt: skip
    """Connect to a listener: `door`, its descriptor and backlog. Each end names whom the other had named.

    `accepted`: the listener's end, where there is one already.
    """
    listener, backlog = door
    stand_ins = tables.stand_ins
    if stand_ins is not None and client.peer_pid:
        stand_ins.listen(listener, backlog, _named(client))
    absolute = address.startswith((b"\0", b"/")) and not address.startswith(b"/proc/self/")
    named = _named(accepted) if accepted is not None and accepted.peer_pid and absolute else None
    if stand_ins is None or named is None or not stand_ins.connect(s.fileno(), address, named):
        s.connect(address)


def server_of(index: int, client: UnixSocket, tables: RebuildTables) -> UnixSocket | None:
    """What the listener's end of a connection that waits will tell: who has the client is taken for who connected it.

    Nobody can be asked before it is accepted; one user has both ends, as nearly always.
    """
    pid = next((pid for pid, _ in tables.holders.get(index, ())), 0)
    if not pid or not client.peer_pid:
        return None
    return UnixSocket(
        type=client.type, inode=0, peer_pid=pid, peer_uid=client.peer_uid, peer_gid=client.peer_gid,
        peer_groups=client.peer_groups,
    )  # fmt: skip


def of_sender(message: Message, tables: RebuildTables) -> list[tuple[int, int, bytes]]:
    """The control message that names who had sent it: root may name anybody who is there."""
    if not message.pid:
        return []
    pid = tables.pids.get(message.pid, message.pid)
    if not tables.pids and tables.stand_ins is not None:
        tables.stand_ins.be_there(Whom(pid, message.uid, message.gid, ()))
    named = 0 if tables.own_mounts else pid  # in a pid namespace that we are not in, nobody can be named by us
    return [(socket.SOL_SOCKET, SCM_CREDENTIALS, CREDENTIALS.pack(named, message.uid, message.gid))]


def tell_senders(index: int, entry: UnixSocket, tables: RebuildTables) -> None:
    """Of what waits for one who wants to know its senders, but of which we do not know them."""
    passes = {option.name: any(option.value) for option in entry.options}.get(SO_PASSCRED)
    if passes and not all(message.pid for message in entry.queue):
        tables.warn(f"what waits at {tables.who(index)} names another process as its sender (SCM_CREDENTIALS)")
