"""TCP over IPv4 and IPv6: listeners, connections whose both ends are inside, and what became of those to outside.

Two descriptions are the ends of one connection when each one's local address is the other's remote one. They come
back as a real connection over the loopback device, with the same addresses where these are free, and what had arrived
at one end is sent again by the other. A connection whose other end waits in an inside listener's backlog is made anew
and waits again.

Unless it is kept (`tcp_kept`), a connection to outside comes back as one whose other end has just sent a reset: reads
and writes fail at once, poll reports an error, so that programs reconnect. One whose other end had finished sending
still gives what had arrived.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import stat
import struct

from kernel_backend.abi import linux
from kernel_backend.errors import ResourceUnsupported
from kernel_backend.image.descriptions import (
    OTHER_INSIDE,
    OTHER_OUTSIDE,
    Description,
    TcpSocket,
)
from kernel_backend.resources import (
    inet,
    live_sockets,
    socket_options,
    tcp_connecting,
    tcp_kept,
    tcp_repair,
    tcp_states,
    tcp_waiting,
)
from kernel_backend.resources.descriptors import (
    CaptureTables,
    Kind,
    Look,
    RebuildTables,
    restore_owner,
    set_status_flags,
)
from kernel_backend.resources.tcp_states import (
    CLOSE,
    CLOSE_WAIT,
    FIN_RECEIVED,
    FIN_SENT,
    LAST_ACK,
    LISTEN,
    OPEN,
    SYN_SENT,
    Info,
)
from kernel_backend.tracee.inject import Workshop

_STREAM = socket.SOCK_STREAM
_TCP_ULP, _ULP_NAME_BYTES = 31, 16

_REFUSED_WITHIN_MS = 200


class TcpKind(Kind):
    """SOCK_STREAM over IPv4 or IPv6."""

    entry = TcpSocket

    def matches(self, look: Look) -> bool:
        return stat.S_ISSOCK(look.stat.st_mode) and inet.sort_of(look.own) == (_STREAM, socket.IPPROTO_TCP)

    def capture(self, look: Look, tables: CaptureTables) -> Description:
        socket_options.check_namespace(look, tables)
        socket_options.check_filter(look)
        entry = TcpSocket(family=live_sockets.family_of(look.own))
        with socket_options.borrowed(look.own, entry.family, _STREAM) as s:
            _refuse_repaired(s, look)
            _refuse_layered(s, look)
            socket_options.note_lost(s, look, tables)
            inet.note_addresses(s, entry)
            entry.options = socket_options.capture(s, entry.family, _STREAM)
            if Info.of(s).state in OPEN and inet.has_failed(s):
                tables.warnings.append(
                    f"the error queue of {look.holder} (MSG_ERRQUEUE: timestamps, zero-copy completions) is not in the "
                    "image"
                )
            tcp_states.note(s, look.holder, entry)
            if entry.state == SYN_SENT:
                tcp_connecting.note_address(look, entry)
        return entry

    def capture_links(self, index: int, look: Look, entry: TcpSocket, tables: CaptureTables) -> None:
        if entry.state == LISTEN:
            tcp_waiting.note_clients(index, look, entry, tables)
        if entry.state in (LISTEN, CLOSE, SYN_SENT):
            return
        entry.peer = _by_address(tables).get((inet.remote(entry), inet.local(entry)), -1)
        if entry.peer >= 0:
            if index not in tables.cache.get("unreadable tcp", ()):
                entry.other = OTHER_INSIDE
                _add_unseen(index, look, entry, tables)
            return
        listener = tcp_waiting.listener_for(entry, tables)
        if listener >= 0 and entry.state in OPEN:
            tcp_waiting.note(listener, look, entry, tables)

    def validate(self, index: int, entry: TcpSocket, tables: RebuildTables) -> None:
        if entry.state == LISTEN and live_sockets.find_inet(entry, _STREAM, tables, listening=True) < 0:
            inet.check_free(index, entry, _STREAM, tables)

    def rebuild(self, index: int, entry: TcpSocket, tables: RebuildTables) -> None:
        """All at once: connections first, while the ports of the listeners which they had too are free."""
        every = [(i, other) for i, other in enumerate(tables.descriptions) if isinstance(other, TcpSocket)]
        for i, other in every:
            if other.state != LISTEN and i not in tables.own:
                _rebuild_one(i, other, tables)
        for i, other in every:
            if other.state == LISTEN and i not in tables.own:
                _listening(i, other, tables)

    def settle(self, index: int, entry: TcpSocket, tables: RebuildTables) -> None:
        if "tcp settled" not in tables.cache:
            tables.cache["tcp settled"] = True
            _settle_all(tables)

    def finish(
        self, index: int, entry: TcpSocket, tables: RebuildTables, workshop: Workshop, pid: int, fd: int
    ) -> None:
        if live_sockets.was_taken(index, tables):
            live_sockets.adopt(index, entry, _STREAM, tables, workshop, fd)
            if entry.state == LISTEN:
                workshop.call("listen", fd, entry.backlog)
            other = live_sockets.pair_to_refill(index, tables)
            if other >= 0:
                with live_sockets.no_way_back(index, tables):
                    _refill_pair(index, other, tables)
        restore_owner(entry, tables, workshop, fd)


# --- capture ----------------------------------------------------------------------------------------------------------


def _refuse_repaired(s: socket.socket, look: Look) -> None:
    """The program itself looks behind the protocol, as checkpointers do."""
    if tcp_repair.is_repaired(s):
        raise ResourceUnsupported(
            f"{look.holder} is a TCP socket that is being repaired (TCP_REPAIR), which cannot be captured",
            hint="let the program end that, and try again", pid=look.process.pid, fd=look.fd,
        )  # fmt: skip


def _refuse_layered(s: socket.socket, look: Look) -> None:
    """A protocol of the OS kernel's on top, such as TLS, whose keys nobody can read."""
    with contextlib.suppress(OSError):  # before OS kernel 4.13
        if name := s.getsockopt(socket.IPPROTO_TCP, _TCP_ULP, _ULP_NAME_BYTES).rstrip(b"\0").decode(errors="replace"):
            raise ResourceUnsupported(
                f"{look.holder} is a TCP socket with the protocol {name} on top (TCP_ULP), which cannot be captured",
                hint="let the program do without (TLS in its own library)", pid=look.process.pid, fd=look.fd,
            )  # fmt: skip


def _by_address(tables: CaptureTables) -> dict[tuple[inet.Address, inet.Address], int]:
    known: dict[tuple[inet.Address, inet.Address], int] | None = tables.cache.get("tcp by address")
    if known is None:
        known = tables.cache["tcp by address"] = {
            (inet.local(entry), inet.remote(entry)): index
            for index, entry in enumerate(tables.descriptions)
            if isinstance(entry, TcpSocket) and entry.peer_port and entry.state != SYN_SENT
        }
    return known


def _unseen_bytes(look: Look, entry: TcpSocket, peer: Look, peer_entry: TcpSocket) -> int:
    """Bytes that the other end has sent and that have not arrived here, because our receive buffer is full."""
    unsent = int(struct.unpack("<i", fcntl.ioctl(peer.own, linux.SIOCOUTQNSD, bytes(4)))[0])
    with socket_options.borrowed(peer.own, peer_entry.family, _STREAM) as s:
        sent = Info.of(s).sent
    with socket_options.borrowed(look.own, entry.family, _STREAM) as s:
        received = Info.of(s).received
    fin_here = entry.state in FIN_RECEIVED
    if unsent and peer_entry.state in FIN_SENT and not fin_here:
        unsent -= 1
    return max(0, sent + unsent - received + int(fin_here))


def _add_unseen(index: int, look: Look, entry: TcpSocket, tables: CaptureTables) -> None:
    peer, peer_entry = tables.looks[entry.peer], tables.descriptions[entry.peer]
    assert isinstance(peer_entry, TcpSocket)
    unseen = _unseen_bytes(look, entry, peer, peer_entry)
    if not unseen:
        return
    try:
        entry.queue += _send_queue(peer, peer_entry)[-unseen:]
    except OSError:
        tables.warnings.append(
            f"{unseen} bytes on their way to {look.holder} can be read by root only; a restored process finds that "
            f"connection reset"
        )
        entry.other = peer_entry.other = OTHER_OUTSIDE
        tables.cache.setdefault("unreadable tcp", set()).update((index, entry.peer))


def _send_queue(look: Look, entry: TcpSocket) -> bytes:
    """What waits to be sent or acknowledged: readable in repair mode, which needs CAP_NET_ADMIN."""
    with socket_options.borrowed(look.own, entry.family, _STREAM) as s, tcp_repair.repaired(s):
        return tcp_repair.send_queue(s)


# --- rebuild ----------------------------------------------------------------------------------------------------------


def _rebuild_one(index: int, entry: TcpSocket, tables: RebuildTables) -> None:
    if entry.other == OTHER_INSIDE and entry.listener < 0:
        peer = tables.descriptions[entry.peer]
        assert isinstance(peer, TcpSocket)
        if live_sockets.take_tcp_pair(index, entry, peer, tables):
            return
        if peer is entry:
            tables.own[index] = _to_itself(index, entry, tables)
        else:
            tables.own[index], tables.own[entry.peer] = inet.connected_pair(entry, peer)
    elif entry.listener >= 0 and _take_waiting(index, entry, tables):
        return
    elif entry.refused:
        tables.own[index] = _refused(entry)
    elif tcp_connecting.is_known(entry):
        tables.own[index] = tcp_connecting.bound(entry)
    elif entry.other == OTHER_OUTSIDE or entry.lost:
        if not tcp_kept.rebuild(index, entry, tables) and not _take_finished(index, entry, tables):
            tables.own[index] = _ended(entry)
            _tell_of_port(index, entry, tables)
    else:
        tables.own[index] = _unconnected(index, entry, tables)


def _to_itself(index: int, entry: TcpSocket, tables: RebuildTables) -> int:
    """A connection whose both ends are one socket: connected to the address that it is bound to."""
    with socket.socket(entry.family, _STREAM | socket.SOCK_CLOEXEC) as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            inet.bind(s, entry)
        except OSError as error:
            s.bind((entry.host, 0))
            tables.warn(f"port {entry.port} of {tables.who(index)} cannot be bound again: {error.strerror}")
        s.settimeout(inet.CONNECT_TIMEOUT_S)
        s.connect(s.getsockname())
        s.setblocking(True)
        return s.detach()


def _take_waiting(index: int, entry: TcpSocket, tables: RebuildTables) -> bool:
    """In place: the present's connection, when it waits still and nothing was sent on it since."""
    fd = live_sockets.find_connection(entry, tables)
    if fd < 0 or _sent(fd, entry.family) != entry.sent:
        return False
    live_sockets.take(index, fd, tables)
    return True


def _take_finished(index: int, entry: TcpSocket, tables: RebuildTables) -> bool:
    """In place: the present's end of a connection that is over, with nothing left in it."""
    if entry.state != CLOSE or not entry.finished or entry.queue:
        return False
    fd = live_sockets.find_inet(entry, _STREAM, tables, listening=False)
    if fd < 0 or _state(fd, entry.family) != CLOSE:
        return False
    with socket_options.borrowed(fd, entry.family, _STREAM) as s:
        if inet.has_failed(s) or inet.waiting(s) or not live_sockets.has_ended(s):
            return False
    live_sockets.take(index, fd, tables)
    return True


def _sent(fd: int, family: int) -> int:
    with socket_options.borrowed(fd, family, _STREAM) as s:
        return Info.of(s).sent


def _ended(entry: TcpSocket) -> int:
    """A connection whose other end is gone: finished (what had arrived can be read) or reset."""
    near, far = inet.pair_at(entry) if entry.state == CLOSE else inet.loopback_pair(entry.family)
    with socket.socket(entry.family, _STREAM, 0, fileno=far) as other:
        if entry.finished or entry.state in (CLOSE_WAIT, LAST_ACK):
            inet.send_all(other, entry.queue, entry.urgent)
        else:
            if entry.state == CLOSE:  # what had come before the reset can still be read
                inet.send_all(other, entry.queue)
            other.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("<ii", 1, 0))
    if entry.urgent_read:
        with socket_options.borrowed(near, entry.family, _STREAM) as s:
            inet.read_urgent(s)
    if entry.finished or entry.state == LAST_ACK:
        with socket_options.borrowed(near, entry.family, _STREAM) as s:
            s.shutdown(socket.SHUT_WR)
    return near


def _tell_of_port(index: int, entry: TcpSocket, tables: RebuildTables) -> None:
    """A connection that was over had its address still: for a minute nobody but root may have that again."""
    with socket_options.borrowed(tables.own[index], entry.family, _STREAM) as s:
        if entry.state == CLOSE and s.getsockname()[1] != entry.port:
            tables.warn(f"port {entry.port} of {tables.who(index)} cannot be bound again")


def _refused(entry: TcpSocket) -> int:
    """A socket whose connection nobody took: with an address that is bound, but where nobody listens."""
    with (
        socket.socket(entry.family, _STREAM | socket.SOCK_CLOEXEC) as near,
        socket.socket(entry.family, _STREAM | socket.SOCK_CLOEXEC) as nobody,
    ):
        nobody.bind(("::1" if entry.family == socket.AF_INET6 else "127.0.0.1", 0))
        near.setblocking(False)
        near.connect_ex(nobody.getsockname())
        inet.has_failed(near, wait_ms=_REFUSED_WITHIN_MS)
        near.setblocking(True)
        return near.detach()


def _unconnected(index: int, entry: TcpSocket, tables: RebuildTables) -> int:
    live = live_sockets.find_inet(entry, _STREAM, tables, listening=False) if entry.port else -1
    if live >= 0 and entry.state == CLOSE and _state(live, entry.family) == CLOSE:
        return _taken(index, live, tables)
    with socket.socket(entry.family, _STREAM | socket.SOCK_CLOEXEC) as s:
        socket_options.set_before_binding(s, entry.options)
        inet.share_port(s, entry, tables)
        if inet.is_bound(entry):
            try:
                inet.bind(s, entry)
            except OSError as error:
                tables.warn(f"port {entry.port} of {tables.who(index)} cannot be bound again: {error.strerror}")
        return s.detach()


def _state(fd: int, family: int) -> int:
    with socket_options.borrowed(fd, family, _STREAM) as s:
        return Info.of(s).state


def _taken(index: int, fd: int, tables: RebuildTables) -> int:
    live_sockets.take(index, fd, tables)
    return tables.own[index]


def _listening(index: int, entry: TcpSocket, tables: RebuildTables) -> None:
    live = live_sockets.find_inet(entry, _STREAM, tables, listening=True)
    if live >= 0:
        live_sockets.take(index, live, tables)
        return
    with socket.socket(entry.family, _STREAM | socket.SOCK_CLOEXEC) as s:
        socket_options.set_before_binding(s, entry.options)
        inet.share_port(s, entry, tables)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # our own rebuilt connections may have the port
        inet.bind_or_elsewhere(s, index, entry, tables)
        s.listen(entry.backlog)
        tables.own[index] = s.detach()


def _settle_all(tables: RebuildTables) -> None:
    """All TCP sockets, stage by stage: queues, ends of streams, options."""
    every = [(i, entry) for i, entry in enumerate(tables.descriptions) if isinstance(entry, TcpSocket)]
    for index, entry in every:
        if live_sockets.was_taken(index, tables):
            continue
        if entry.queue and entry.listener < 0 and entry.other == OTHER_INSIDE:
            with socket_options.borrowed(tables.own[entry.peer], entry.family, _STREAM) as sender:
                inet.send_all(sender, entry.queue, entry.urgent)
        if entry.urgent_read and entry.listener < 0 and entry.other == OTHER_INSIDE:
            with socket_options.borrowed(tables.own[index], entry.family, _STREAM) as s:
                inet.read_urgent(s)
    for index, entry in every:
        if entry.state == LISTEN:
            tcp_waiting.connect(index, entry, tables)
    for index, entry in every:
        if tcp_connecting.is_known(entry) and not tcp_connecting.connect(tables.own[index], entry):
            refused = _refused(entry)
            os.dup2(refused, tables.own[index], inheritable=False)
            os.close(refused)
    for index, entry in every:
        if not live_sockets.was_taken(index, tables):
            _finish_one(index, entry, tables)


def _shut_down(s: socket.socket, entry: TcpSocket) -> None:
    if entry.state in FIN_SENT:
        s.shutdown(socket.SHUT_WR)
    if entry.deaf:
        s.shutdown(socket.SHUT_RD)


def _finish_one(index: int, entry: TcpSocket, tables: RebuildTables) -> None:
    fd = tables.own[index]
    if tcp_kept.is_kept(index, tables):
        set_status_flags(fd, entry.flags)
        return
    with socket_options.borrowed(fd, entry.family, _STREAM) as s:
        if entry.other == OTHER_INSIDE and not entry.lost:
            _shut_down(s, entry)
        socket_options.restore(s, entry.family, _STREAM, entry.options, tables, tables.who(index))
    set_status_flags(fd, entry.flags)


def _refill_pair(index: int, other: int, tables: RebuildTables) -> None:
    """A connection taken from the present, which is gone now: both queues become the image's.

    Both ends may be one socket.
    """
    ends = [(at, tables.descriptions[at]) for at in (index, other)]
    one, two = (entry for _, entry in ends)
    assert isinstance(one, TcpSocket)
    assert isinstance(two, TcpSocket)
    with (
        socket_options.borrowed(tables.own[index], one.family, _STREAM) as near,
        socket_options.borrowed(tables.own[other], two.family, _STREAM) as far,
    ):
        live_sockets.drain_tcp_pair(near, far)
        inet.send_all(far, one.queue, one.urgent)
        if other != index:
            inet.send_all(near, two.queue, two.urgent)
        for s, entry in ((near, one), (far, two)):
            if entry.urgent_read:
                inet.read_urgent(s)
        for s, at, entry in ((near, index, one), (far, other, two)):
            socket_options.rewind(s, entry.family, _STREAM, entry.options, tables, tables.who(at))
            _shut_down(s, entry)


KINDS: list[Kind] = [TcpKind()]
