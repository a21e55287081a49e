"""What was sent on connections that nobody has accepted yet.

Only accept(2) gives access to it, and that cannot be undone. So it is read only when the tree is killed afterwards, as
the last thing; when it goes on, such a connection comes back ended, and a warning says so.
"""

from __future__ import annotations

import select
import socket

from kernel_backend.image.descriptions import TcpSocket, UnixSocket
from kernel_backend.resources import inet, live_sockets, socket_options, unix_queues
from kernel_backend.resources.descriptors import CaptureTables, Look

UNREADABLE = (
    "{who} has sent data on a connection that was not accepted yet; it cannot be read while the process goes on, so a "
    "restored process finds the connection {what}"
)


def _accept_all(door: Look, family: int, kind: int = socket.SOCK_STREAM) -> list[socket.socket]:
    """Everything that waits, in order; nobody else accepts, as all is stopped."""
    found: list[socket.socket] = []
    if door.in_flight:
        return found
    with socket_options.borrowed(door.own, family, kind) as listener:
        while select.select([listener], [], [], 0)[0]:
            found.append(listener.accept()[0])
    return found


def note_unix(door: Look, client: UnixSocket, turn: int, tables: CaptureTables) -> None:
    """Let what the client in the `turn`-th place of a listener's queue has sent be read at the end."""
    doors: dict[int, dict[int, UnixSocket]] = tables.cache.setdefault("unix clients by turn", {})
    if id(door) not in doors:
        doors[id(door)] = {}
        tables.last.append(lambda: _take_unix(door, doors[id(door)], tables))
    doors[id(door)][turn] = client


def _take_unix(door: Look, clients: dict[int, UnixSocket], tables: CaptureTables) -> None:
    kind = next((client.type for client in clients.values()), socket.SOCK_STREAM)
    for turn, server in enumerate(_accept_all(door, socket.AF_UNIX, kind)):
        with server:
            if turn in clients:
                ended = live_sockets.has_ended(server)
                clients[turn].early = unix_queues.peek(server, tables, door.holder, ended=ended)


def take_tcp(door: Look, tables: CaptureTables) -> None:
    """Read what all clients of a listener have sent; who is who is told by their addresses."""
    done: set[int] = tables.cache.setdefault("accepted tcp connections", set())
    if id(door) in done:
        return
    done.add(id(door))
    clients = {inet.local(entry): entry for entry in tables.descriptions if isinstance(entry, TcpSocket)}
    for server in _accept_all(door, live_sockets.family_of(door.own)):
        with server:
            host, port = server.getpeername()[:2]
            client = clients.get((inet.plain(host), port))
            if client is not None:
                client.early, _ = inet.peek_stream(server, door.holder)
