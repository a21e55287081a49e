"""What was sent on connections that nobody has accepted yet.

Only accept(2) gives access to it, and that cannot be undone. So it is read only when the tree is killed afterwards, as
the last thing; when it goes on, such a connection comes back ended, and a warning says so.
"""

from __future__ import annotations

import socket

from kernel_backend.host import fds
from kernel_backend.image.descriptions import Departed, Message, TcpSocket, UnixSocket
from kernel_backend.resources import inet, live_sockets, socket_options, unix_queues
from kernel_backend.resources.descriptors import CaptureTables, Look

UNREADABLE = (
    "{who} has sent data on a connection that was not accepted yet; it cannot be read while the process goes on, so a "
    "restored process finds the connection {what}"
)


def _accept_all(door: Look, family: int, kind: int = socket.SOCK_STREAM) -> list[socket.socket]:
    """Everything that waits, in order; nobody else accepts, as all is stopped."""
    found: list[socket.socket] = []
    with socket_options.borrowed(door.own, family, kind) as listener:
        while fds.is_ready(listener.fileno()):
            found.append(listener.accept()[0])
    return found


def note_unix(door: Look, kind: int, client: UnixSocket | Departed, turn: int, tables: CaptureTables) -> None:
    """Let what the client in the `turn`-th place of a listener's queue has sent be read at the end."""
    doors: dict[int, dict[int, UnixSocket | Departed]] = tables.cache.setdefault("unix clients by turn", {})
    if id(door) not in doors:
        doors[id(door)] = {}
        tables.last.append(lambda: _take_unix(door, kind, doors[id(door)], tables))
    doors[id(door)][turn] = client


def note_departed(door: Look, entry: UnixSocket, turns: list[int], tables: CaptureTables) -> None:
    """Connections to a listener which ended before they were accepted. `turns`: the inode of each that waits, or 0."""
    known = 0
    for turn, inode in enumerate(turns):
        if inode:
            known += tables.with_inode(door.stat.st_dev, inode) is not None
            continue
        client = Departed(before=known)
        entry.departed.append(client)
        if tables.ending:
            note_unix(door, entry.type, client, turn, tables)
    if entry.departed and not tables.ending:
        tables.warnings.append(
            f"{len(entry.departed)} connections to {door.holder} ended before they were accepted; what was sent on them"
            " cannot be read while the process goes on, and is not in the image"
        )


def _take_unix(door: Look, kind: int, clients: dict[int, UnixSocket | Departed], tables: CaptureTables) -> None:
    for turn, server in enumerate(_accept_all(door, socket.AF_UNIX, kind)):
        with server:
            if turn in clients:
                ended = live_sockets.has_ended(server)
                clients[turn].early = unix_queues.peek(server, tables, door.holder, ended=ended)


def note_tcp(index: int, door: Look, entry: TcpSocket, waits: int, tables: CaptureTables) -> None:
    """Connections to a listener: read at the end, or told where that knows fewer of them than wait.

    Of listeners that share a port (SO_REUSEPORT) nobody can tell, before accepting, at which one a connection waits.
    """
    if tables.ending:
        tables.last.append(lambda: _take_tcp(index, door, entry, tables))
        return
    ports: dict[int, dict[int, int]] = tables.cache.setdefault("who wait at ports", {})
    waiting = ports.setdefault(entry.port, {})
    if not waiting:
        tables.linked.append(lambda: _tell_others(door, entry.port, waiting, tables))
    waiting[index] = waits


def _tell_others(door: Look, port: int, waiting: dict[int, int], tables: CaptureTables) -> None:
    others = sum(waiting.values()) - sum(
        isinstance(e, TcpSocket) and e.listener >= 0 and e.peer_port == port for e in tables.descriptions
    )
    if others > 0:
        tables.warnings.append(
            f"{others} connections to {door.holder} that were not accepted yet came from outside or ended; a process "
            "that is restored afresh does not find them"
        )


def _take_tcp(index: int, door: Look, entry: TcpSocket, tables: CaptureTables) -> None:
    """In which order the clients of a listener wait and what they have sent; who is who is told by their addresses.

    Of the others those stay that have ended: nobody else can speak for them.
    """
    every = [e for e in tables.descriptions if isinstance(e, TcpSocket) and e.listener >= 0]
    clients = {(inet.local(e), inet.plain(e.peer_host)): e for e in every if e.peer_port == entry.port}
    turn = 0
    for server in _accept_all(door, live_sockets.family_of(door.own)):
        with server:
            server.setsockopt(
                socket.SOL_SOCKET, socket.SO_REUSEADDR, 1
            )  # its remains must not keep the port (TIME_WAIT)
            client = clients.get((_far_end(server), inet.plain(server.getsockname()[0])))
            if client is not None:
                client.listener = index  # of those with that address
                client.turn, turn = turn, turn + 1
                if client.sent:
                    client.early = inet.peek_stream(server, door.holder).data
            elif live_sockets.has_ended(server):
                data = inet.peek_stream(server, door.holder).data
                entry.departed.append(Departed(before=turn, early=[Message(data=data)] if data else []))


def _far_end(server: socket.socket) -> inet.Address:
    try:
        host, port = server.getpeername()[:2]
    except OSError:  # it was reset
        return "", 0
    return inet.plain(host), port
