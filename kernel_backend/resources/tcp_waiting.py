"""Connections to a TCP listener inside that nobody has accepted yet: made anew, they wait again, in their order.

What is the same for Unix sockets is in `waiting`.
"""

from __future__ import annotations

import socket

from kernel_backend.errors import HostUnsupported
from kernel_backend.image.descriptions import OTHER_INSIDE, Departed, TcpSocket
from kernel_backend.resources import inet, live_sockets, socket_options, waiting
from kernel_backend.resources.descriptors import CaptureTables, Look, RebuildTables
from kernel_backend.resources.tcp_states import LISTEN, Info

_STREAM = socket.SOCK_STREAM


def listener_for(entry: TcpSocket, tables: CaptureTables) -> int:
    """The description of the listener that a connection's other end is at; -1: none inside is."""
    for index, other in enumerate(tables.descriptions):
        if not isinstance(other, TcpSocket) or other.state != LISTEN or other.port != entry.peer_port:
            continue
        if inet.plain(other.host) in (inet.plain(entry.peer_host), "0.0.0.0", "::"):
            return index
    return -1


def note(listener: int, look: Look, entry: TcpSocket, tables: CaptureTables) -> None:
    """Connected to a listener inside, not accepted yet. What was sent already cannot be read: then it is reset."""
    if inet.is_foreign(entry.host):
        return
    with socket_options.borrowed(look.own, entry.family, _STREAM) as s:
        sent = Info.of(s).sent
    entry.listener, entry.other, entry.sent = listener, OTHER_INSIDE, sent
    if sent and not tables.ending:
        entry.lost = True
        tables.warnings.append(waiting.UNREADABLE.format(who=look.holder, what="reset"))


def note_clients(index: int, look: Look, entry: TcpSocket, tables: CaptureTables) -> None:
    """Who waits at a listener, once all links are known: also those who have left and are nobody's any more."""
    with socket_options.borrowed(look.own, entry.family, _STREAM) as s:
        waits = Info.of(s).waits
    if waits:
        tables.linked.append(lambda: waiting.note_tcp(index, look, entry, waits, tables))


def connect(listener: int, entry: TcpSocket, tables: RebuildTables) -> None:
    """Those who wait to be accepted, in their order, and between them those who had left already."""
    every = [(i, e) for i, e in enumerate(tables.descriptions) if isinstance(e, TcpSocket) and e.listener == listener]
    for turn, (index, client) in enumerate([*sorted(every, key=lambda one: one[1].turn), (-1, entry)]):
        for departed in entry.departed:
            if departed.before == turn and not live_sockets.was_taken(listener, tables):
                _connect_departed(listener, entry, departed, tables)
        if index >= 0 and not client.lost and not live_sockets.was_taken(index, tables):
            _connect_waiting(index, client, tables)


def _connect_departed(listener: int, entry: TcpSocket, client: Departed, tables: RebuildTables) -> None:
    """A connection that is closed again at once."""
    with (
        socket_options.borrowed(tables.own[listener], entry.family, _STREAM) as door,
        socket.socket(entry.family, _STREAM | socket.SOCK_CLOEXEC) as s,
    ):
        host, port = door.getsockname()[:2]
        s.settimeout(inet.CONNECT_TIMEOUT_S)
        s.connect((host, port))
        for message in client.early:
            inet.send_all(s, message.data)


def _connect_waiting(index: int, entry: TcpSocket, tables: RebuildTables) -> None:
    """Connect to the rebuilt listener, wherever it is, and wait in its backlog."""
    heard = tables.descriptions[entry.listener]
    assert isinstance(heard, TcpSocket)
    with socket_options.borrowed(tables.own[entry.listener], heard.family, _STREAM) as door:
        port = door.getsockname()[1]
    if inet.is_foreign(entry.peer_host):
        raise HostUnsupported(
            f"{tables.who(index)} was connected to {entry.peer_host}, which is no address of this host",
            hint="restart it where the network has the same addresses",
        )
    with socket_options.borrowed(tables.own[index], entry.family, _STREAM) as s:
        s.settimeout(inet.CONNECT_TIMEOUT_S)
        s.connect(inet.flowing(s, (entry.peer_host, port), entry.peer_flow))
        s.setblocking(True)
        inet.send_all(s, entry.early)
