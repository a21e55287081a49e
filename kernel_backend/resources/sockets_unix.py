"""Unix sockets: pairs and connections with their queues, names, listeners and what waits to be accepted.

The other end comes from sock_diag(7). Both ends inside: a new pair; when the accepted end bears a listener's name, a
real connection to the rebuilt listener gives it that name again. A closed other end is made, used to fill the queue,
and closed. Datagram sockets that are not each other's peer are connected after their queues are filled, because
connecting one anew would empty it.

Pairs and connections are made by whom the old ones name (unix_credentials.py).
"""

from __future__ import annotations

import os
import select
import socket
import stat
from contextlib import ExitStack

from kernel_backend.errors import ResourceUnsupported
from kernel_backend.host import sockdiag
from kernel_backend.image.descriptions import (
    OTHER_CLOSED,
    OTHER_INSIDE,
    OTHER_OUTSIDE,
    Departed,
    Description,
    UnixSocket,
)
from kernel_backend.resources import live_sockets, socket_options, unix_credentials, unix_names, unix_queues, waiting
from kernel_backend.resources.descriptors import (
    CaptureTables,
    Kind,
    Look,
    RebuildTables,
    restore_owner,
    set_status_flags,
)
from kernel_backend.tracee.inject import Workshop

_UNIX = socket.AF_UNIX
_SHUT = {1: socket.SHUT_RD, 2: socket.SHUT_WR, 3: socket.SHUT_RDWR}


class UnixSocketKind(Kind):
    """AF_UNIX."""

    entry = UnixSocket

    def matches(self, look: Look) -> bool:
        return stat.S_ISSOCK(look.stat.st_mode) and live_sockets.family_of(look.own) == _UNIX

    def capture(self, look: Look, tables: CaptureTables) -> Description:
        socket_options.check_namespace(look, tables)
        live_sockets.forget_interruption(look)
        facts = _facts(look, tables)
        entry = UnixSocket(type=facts.type, inode=facts.inode, shutdown=facts.shutdown)
        entry.connected = facts.peer is not None
        entry.reset = facts.type != socket.SOCK_DGRAM and facts.shutdown == 3 and _has_failed(look.own)
        unix_names.note(look, facts, entry, tables)
        with socket_options.borrowed(look.own, _UNIX, facts.type) as s:
            entry.options = socket_options.capture(s, _UNIX, facts.type)
            if entry.connected:
                unix_credentials.note_peer(s, look, entry, tables)
            if facts.state == sockdiag.LISTEN:
                entry.listening, entry.backlog = True, facts.unread
            elif entry.reset and facts.type == socket.SOCK_SEQPACKET:
                _refuse_reset_packets(look, facts)
            elif facts.queued or facts.type != socket.SOCK_STREAM:
                entry.queue = unix_queues.peek(s, tables, look.holder, ended=bool(facts.shutdown & 1))
        socket_options.check_filter(look)
        return entry

    def capture_links(self, index: int, look: Look, entry: UnixSocket, tables: CaptureTables) -> None:
        facts = _facts(look, tables)
        if entry.listening:
            clients = [tables.with_inode(look.stat.st_dev, inode) for inode in facts.waiting]
            entry.pending = [found[0] for found in clients if found]
            waiting.note_departed(look, entry, facts.waiting, tables)
        elif facts.peer:
            found = tables.with_inode(look.stat.st_dev, facts.peer)
            entry.peer = found[0] if found else -1
            entry.other = OTHER_INSIDE if found else OTHER_OUTSIDE
            entry.peer_name = b"" if found else unix_names.name_of(_all(tables).get(facts.peer))
            if found and found[0] < index:
                _tell_peer(index, look, found[0], tables)
        elif entry.connected and facts.shutdown != 3:
            _note_waiting(look, facts, entry, tables)

    def validate(self, index: int, entry: UnixSocket, tables: RebuildTables) -> None:
        if entry.name and not entry.unlinked and not _accepted(entry, tables):
            unix_names.check(index, entry, tables)

    def rebuild(self, index: int, entry: UnixSocket, tables: RebuildTables) -> None:
        if _waits(index, tables) and (live_sockets.take_waiting_unix(index, entry, tables) or entry.lost):
            _rebuild_lost(index, entry, tables)
        elif entry.listening or not entry.connected or _one_way(index, entry, tables) or _waits(index, tables):
            _rebuild_single(index, entry, tables)
        elif entry.other == OTHER_INSIDE:
            _rebuild_pair(index, entry, tables)
        elif entry.other == OTHER_CLOSED or not _from_outside(index, entry, tables):
            _rebuild_lonely(index, entry, tables)

    def settle(self, index: int, entry: UnixSocket, tables: RebuildTables) -> None:
        if "unix sockets settled" not in tables.cache:
            tables.cache["unix sockets settled"] = True
            _settle_all(tables)

    def finish(
        self, index: int, entry: UnixSocket, tables: RebuildTables, workshop: Workshop, pid: int, fd: int
    ) -> None:
        if live_sockets.was_taken(index, tables):
            live_sockets.adopt(index, entry, entry.type, tables, workshop, fd)
            other = live_sockets.pair_to_refill(index, tables)
            with live_sockets.no_way_back(index, tables):
                if other >= 0:
                    _refill_pair(index, other, tables)
                elif entry.type == socket.SOCK_DGRAM and (not entry.connected or entry.peer == index):
                    _refill(index, entry, tables)
        if entry.listening:
            workshop.call("listen", fd, entry.backlog)  # who called it last is whom SO_PEERCRED names to clients
        restore_owner(entry, tables, workshop, fd)


# --- capture ----------------------------------------------------------------------------------------------------------


def _all(tables: CaptureTables) -> dict[int, sockdiag.UnixFacts]:
    known: dict[int, sockdiag.UnixFacts] | None = tables.cache.get("unix sockets")
    if known is None:
        known = tables.cache["unix sockets"] = sockdiag.unix_sockets()
    return known


def _tell_peer(index: int, look: Look, peer: int, tables: CaptureTables) -> None:
    """One that was looked at before this one came to light believes that its other end is outside."""
    other = tables.descriptions[peer]
    if isinstance(other, UnixSocket) and other.peer < 0 and _facts(tables.looks[peer], tables).peer == look.stat.st_ino:
        other.peer, other.other, other.peer_name = index, OTHER_INSIDE, b""


def _facts(look: Look, tables: CaptureTables) -> sockdiag.UnixFacts:
    facts = _all(tables).get(look.stat.st_ino)
    if facts is not None:
        return facts
    with socket_options.borrowed(look.own, _UNIX, socket.SOCK_STREAM) as s:  # newer than our list
        kind = s.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE)
    return sockdiag.UnixFacts(look.stat.st_ino, kind, 7)


def _has_failed(fd: int) -> bool:
    """Whether an error waits, which reading it would take away."""
    asked = select.poll()
    asked.register(fd, 0)
    return any(events & select.POLLERR for _, events in asked.poll(0))


def _refuse_reset_packets(look: Look, facts: sockdiag.UnixFacts) -> None:
    """Of packets, unlike of a stream, every receive takes the waiting error first, a peek too."""
    if facts.queued:
        raise ResourceUnsupported(
            f"packets wait in the Unix socket at {look.holder} behind an error (ECONNRESET) that nobody can look past",
            hint="let the program receive them, and checkpoint again", pid=look.process.pid, fd=look.fd,
        )  # fmt: skip


def _note_waiting(look: Look, facts: sockdiag.UnixFacts, entry: UnixSocket, tables: CaptureTables) -> None:
    """A connection whose other end was not accepted yet: by whom is in the listener's list."""
    for inode, listener in _all(tables).items():
        if facts.inode not in listener.waiting:
            continue
        found = tables.with_inode(look.stat.st_dev, inode)
        entry.other = OTHER_INSIDE if found else OTHER_OUTSIDE
        entry.unread = facts.unread
        if found and facts.unread and not tables.ending:
            entry.lost = True
            tables.warnings.append(waiting.UNREADABLE.format(who=look.holder, what="closed"))
        elif found and facts.unread:
            door, turn = tables.looks[found[0]], listener.waiting.index(facts.inode)
            waiting.note_unix(door, entry.type, entry, turn, tables)
        return


# --- rebuild: one by one ----------------------------------------------------------------------------------------------


def _unix(tables: RebuildTables, index: int) -> UnixSocket | None:
    found = tables.descriptions[index] if index >= 0 else None
    return found if isinstance(found, UnixSocket) else None


def _one_way(index: int, entry: UnixSocket, tables: RebuildTables) -> bool:
    """A datagram socket connected to one that is not connected back, or to itself."""
    peer = _unix(tables, entry.peer)
    if entry.type != socket.SOCK_DGRAM or entry.other == OTHER_CLOSED:
        return False
    return peer is None or peer.peer != index or entry.peer == index


def _waits(index: int, tables: RebuildTables) -> bool:
    """Whether its other end waits to be accepted by a listener inside."""
    waiting: set[int] | None = tables.cache.get("waiting clients")
    if waiting is None:
        waiting = {i for entry in tables.descriptions if isinstance(entry, UnixSocket) for i in entry.pending}
        tables.cache["waiting clients"] = waiting
    return index in waiting


def _listener_of(entry: UnixSocket, tables: RebuildTables) -> int:
    """The listener inside whose name an accepted connection bears; -1: none."""
    for index, other in enumerate(tables.descriptions):
        if isinstance(other, UnixSocket) and other.listening and other.name == entry.name and other.type == entry.type:
            return index
    return -1


def _accepted(entry: UnixSocket, tables: RebuildTables) -> bool:
    return entry.connected and entry.type != socket.SOCK_DGRAM and _listener_of(entry, tables) >= 0


def _far_ends(tables: RebuildTables) -> dict[int, int]:
    """Our descriptors of other ends that nobody will have."""
    ends: dict[int, int] = tables.cache.setdefault("far ends of unix sockets", {})
    return ends


def _rebuild_single(index: int, entry: UnixSocket, tables: RebuildTables) -> None:
    live = live_sockets.find_unix(entry, tables) if entry.name and not entry.unlinked else -1  # nobody finds that one
    if live >= 0:
        live_sockets.take(index, live, tables)
        return
    with socket.socket(_UNIX, entry.type | socket.SOCK_CLOEXEC) as s:
        socket_options.set_before_binding(s, entry.options)
        if entry.name and not _waits(index, tables):
            unix_names.bind(s, entry, tables)
        if entry.listening:
            s.listen(entry.backlog)
        tables.own[index] = s.detach()


def _bind_again(index: int, entry: UnixSocket, tables: RebuildTables) -> None:
    """Give an end of a pair its own name where nobody else has it."""
    if not entry.name or _accepted(entry, tables):
        return
    with socket_options.borrowed(tables.own[index], _UNIX, entry.type) as s:
        try:
            unix_names.bind(s, entry, tables)
        except OSError:
            tables.warn(f"the name of the socket at {tables.who(index)} is in use; it goes on without a name")


def _rebuild_lonely(index: int, entry: UnixSocket, tables: RebuildTables) -> None:
    """An end whose other end nobody has."""
    tables.own[index], far = unix_credentials.pair(entry, tables)
    _far_ends(tables)[index] = far
    _bind_again(index, entry, tables)


def _rebuild_lost(index: int, entry: UnixSocket, tables: RebuildTables) -> None:
    """A waiting connection that cannot be made again: the present's, or one that is ended."""
    if not live_sockets.was_taken(index, tables):
        _rebuild_lonely(index, entry, tables)


def _rebuild_pair(index: int, entry: UnixSocket, tables: RebuildTables) -> None:
    peer = _unix(tables, entry.peer)
    assert peer is not None
    if live_sockets.take_unix_pair(index, entry, peer, tables):
        return
    for server, client in ((index, entry.peer), (entry.peer, index)):
        if _connect_to_listener(server, client, tables):
            return
    tables.own[index], tables.own[entry.peer] = unix_credentials.pair(entry, tables)
    _bind_again(index, entry, tables)
    _bind_again(entry.peer, peer, tables)


def _connect_to_listener(server: int, client: int, tables: RebuildTables) -> bool:
    """Make the pair through the rebuilt listener whose name the accepted end bears."""
    accepted, connecting = _unix(tables, server), _unix(tables, client)
    assert accepted is not None
    assert connecting is not None
    listener = _listener_of(accepted, tables) if accepted.name and accepted.type != socket.SOCK_DGRAM else -1
    if listener < 0:
        return False
    heard = tables.descriptions[listener]
    assert isinstance(heard, UnixSocket)
    if listener not in tables.own:
        _rebuild_single(listener, heard, tables)
    if live_sockets.was_taken(listener, tables):
        return False  # strangers may be waiting there
    with socket.socket(_UNIX, accepted.type | socket.SOCK_CLOEXEC) as s, unix_names.inside_folder(heard):
        if connecting.name:
            unix_names.bind(s, connecting, tables)
        door, address = (tables.own[listener], heard.backlog), unix_names.address_of(heard, tables)
        unix_credentials.connect(s, connecting, accepted, door, address, tables)
        with socket_options.borrowed(tables.own[listener], _UNIX, accepted.type) as heard_at:
            tables.own[server] = heard_at.accept()[0].detach()
        tables.own[client] = s.detach()
    return True


def _from_outside(index: int, entry: UnixSocket, tables: RebuildTables) -> bool:
    """Streams of the root whose other end was outside; False: it is as if closed."""
    fd = live_sockets.find_inode(entry.inode, tables)
    number = tables.stdio_number(index)
    if fd >= 0:
        tables.own[index] = os.dup(fd)
    elif number >= 0:
        tables.own[index] = os.dup(tables.live[number]) if number in tables.live else tables.stdio_for(number)
    else:
        tables.warn(f"the other end of the socket at {tables.who(index)} was outside; it is as if closed")
        return False
    tables.cache.setdefault("outside unix sockets", set()).add(index)
    return True


# --- rebuild: what needs others ---------------------------------------------------------------------------------------


def _settle_all(tables: RebuildTables) -> None:
    """All Unix sockets, stage by stage: queues, then connections, then shutdowns, then options."""
    every = [(i, entry) for i, entry in enumerate(tables.descriptions) if isinstance(entry, UnixSocket)]
    kept = tables.cache.get("outside unix sockets", set())
    ours = [(i, e) for i, e in every if not live_sockets.was_taken(i, tables) and i not in kept]
    for index, entry in ours:
        _pass_credentials(index, entry, tables)
    for index, entry in ours:
        if entry.queue:
            _fill(index, entry, tables)
    for index, entry in ours:
        _connect(index, entry, tables)
    for index, fd in _far_ends(tables).items():
        if _unix(tables, index).reset:  # type: ignore[union-attr]
            os.write(tables.own[index], b"\0")  # which it never reads
        os.close(fd)
    _far_ends(tables).clear()
    for index, entry in ours:
        _finish_one(index, entry, tables)
    for index, entry in every:
        _connect_waiting(index, entry, tables)


def _pass_credentials(index: int, entry: UnixSocket, tables: RebuildTables) -> None:
    for option in entry.options:
        if option.name == socket_options.SO_PASSCRED:
            with socket_options.borrowed(tables.own[index], _UNIX, entry.type) as s:
                s.setsockopt(option.level, option.name, option.value)


def _fill(index: int, entry: UnixSocket, tables: RebuildTables) -> None:
    unix_credentials.tell_senders(index, entry, tables)
    sender = _far_ends(tables).get(index, -1)
    peer = _unix(tables, entry.peer)
    if peer is not None and not _one_way(index, entry, tables):
        sender = tables.own[entry.peer]
    who = tables.who(index)
    if sender >= 0:
        with socket_options.borrowed(sender, _UNIX, entry.type) as s:
            unix_queues.fill(s, entry.queue, tables, who)
        return
    if entry.name:
        _fill_by_name(index, entry, tables)
    else:
        tables.warn(f"{len(entry.queue)} datagrams waiting at {who} could not be put back: nobody can reach it")


def _fill_by_name(index: int, entry: UnixSocket, tables: RebuildTables) -> None:
    """Datagrams to a bound socket: from whoever had sent them, if it is inside."""
    senders = {
        other.name: i
        for i, other in enumerate(tables.descriptions)
        if isinstance(other, UnixSocket)
        and other.type == socket.SOCK_DGRAM
        and other.name
        and (i != index or i == entry.peer)
    }
    with ExitStack() as strangers, unix_names.inside_folder(entry):
        for message in entry.queue:
            own = tables.own.get(senders.get(message.address, -1), -1)
            if own < 0:
                own = strangers.enter_context(unix_names.stranger(message.address)).fileno()
            with socket_options.borrowed(own, _UNIX, socket.SOCK_DGRAM) as s:
                unix_queues.fill(s, [message], tables, tables.who(index), to=unix_names.address_of(entry, tables))


def _connect(index: int, entry: UnixSocket, tables: RebuildTables) -> None:
    """Datagram sockets that are connected one way, to an inside or an outside one (a system log)."""
    if not entry.connected or not _one_way(index, entry, tables):
        return
    peer = _unix(tables, entry.peer)
    name = unix_names.address_of(peer, tables) if peer is not None else entry.peer_name
    with socket_options.borrowed(tables.own[index], _UNIX, entry.type) as s, unix_names.inside_folder(peer or entry):
        try:
            s.connect(name)
        except OSError as error:
            tables.warn(f"the socket at {tables.who(index)} cannot be connected again: {error.strerror}")


def _finish_one(index: int, entry: UnixSocket, tables: RebuildTables) -> None:
    fd = tables.own[index]
    with socket_options.borrowed(fd, _UNIX, entry.type) as s:
        socket_options.restore(s, _UNIX, entry.type, entry.options, tables, tables.who(index))
        if entry.shutdown and (entry.lost or not _waits(index, tables)):  # the others have yet to send
            s.shutdown(_SHUT[entry.shutdown])
    set_status_flags(fd, entry.flags)


def _connect_waiting(listener: int, entry: UnixSocket, tables: RebuildTables) -> None:
    """Connections that wait to be accepted, in their order."""
    for turn, index in enumerate([*entry.pending, -1]):
        for departed in entry.departed:
            if departed.before == turn and not live_sockets.was_taken(listener, tables):
                _connect_departed(listener, entry, departed, tables)
        client = _unix(tables, index)
        if client is None or client.lost or live_sockets.was_taken(index, tables):
            continue
        with socket_options.borrowed(tables.own[index], _UNIX, client.type) as s, unix_names.inside_folder(entry):
            if client.name:
                unix_names.bind(s, client, tables)
            door = tables.own[listener], entry.backlog
            server = unix_credentials.server_of(index, client, tables)
            unix_credentials.connect(s, client, server, door, unix_names.address_of(entry, tables), tables)
            unix_queues.fill(s, client.early, tables, tables.who(index))
            if client.shutdown:
                s.shutdown(_SHUT[client.shutdown])


def _connect_departed(listener: int, entry: UnixSocket, client: Departed, tables: RebuildTables) -> None:
    """A connection that is closed again at once."""
    with socket.socket(_UNIX, entry.type | socket.SOCK_CLOEXEC) as s, unix_names.inside_folder(entry):
        s.connect(unix_names.address_of(entry, tables))
        unix_queues.fill(s, client.early, tables, tables.who(listener))


def _refill(index: int, entry: UnixSocket, tables: RebuildTables) -> None:
    """A datagram socket taken from the present, which is gone now: its queue becomes the image's."""
    with socket_options.borrowed(tables.own[index], _UNIX, entry.type) as s:
        if not entry.connected:
            live_sockets.disconnect(s)  # connected, it would take nothing of what others had sent
        live_sockets.drain(s)
    if entry.queue:
        _fill_by_name(index, entry, tables)
    with socket_options.borrowed(tables.own[index], _UNIX, entry.type) as s:
        socket_options.rewind(s, _UNIX, entry.type, entry.options, tables, tables.who(index))  # receiving moves one


def _refill_pair(index: int, other: int, tables: RebuildTables) -> None:
    """A pair taken from the present, which is gone now: both queues become the image's."""
    for at, far in ((index, other), (other, index)):
        entry = _unix(tables, at)
        assert entry is not None
        with (
            socket_options.borrowed(tables.own[at], _UNIX, entry.type) as near,
            socket_options.borrowed(tables.own[far], _UNIX, entry.type) as sender,
        ):
            live_sockets.drain(near)
            unix_credentials.tell_senders(at, entry, tables)
            unix_queues.fill(sender, entry.queue, tables, tables.who(at))
    for at in (index, other):
        entry = _unix(tables, at)
        assert entry is not None
        with socket_options.borrowed(tables.own[at], _UNIX, entry.type) as s:
            socket_options.rewind(s, _UNIX, entry.type, entry.options, tables, tables.who(at))
            if entry.shutdown:
                s.shutdown(_SHUT[entry.shutdown])


KINDS: list[Kind] = [UnixSocketKind()]
