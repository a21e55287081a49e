"""Sockets taken from the present process in a restore in place: those whose address nobody else could have meanwhile.

A listener keeps the connections that wait in its backlog. Until the point of no return the present uses the same
description: nothing about it is changed before `adopt`, which runs when the present is gone.
"""

from __future__ import annotations

import array
import fcntl
import os
import select
import socket
import stat
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from kernel_backend.abi import arch, linux
from kernel_backend.errors import EngineError, HostUnsupported
from kernel_backend.host import fds, libc, sockdiag
from kernel_backend.image.descriptions import TcpSocket, UdpSocket, UnixSocket
from kernel_backend.resources import socket_options
from kernel_backend.resources.descriptors import O_ASYNC, CaptureTables, Look, RebuildTables
from kernel_backend.tracee.inject import Workshop

_F_SETFL = 4
_ESTABLISHED = 1
_SIOCOUTQNSD = 0x894B
_DRAIN_BYTES = 1 << 20
_CONTROL_BYTES = socket.CMSG_SPACE(4 * 253)
_ON_THE_WAY_S = 1.0


def family_of(fd: int) -> int:
    """SO_DOMAIN."""
    with socket_options.borrowed(fd, socket.AF_UNIX, socket.SOCK_STREAM) as s:
        return s.getsockopt(socket.SOL_SOCKET, socket.SO_DOMAIN)


def forget_interruption(look: Look) -> None:
    """Take back what our freeze has done to a socket from which somebody is just reading with recvmmsg(2).

    Interrupted after the first datagram, that call notes why in the socket, and the next one would fail with a number
    (ERESTARTSYS) that no program knows.
    """
    readers = (thread.get_regs() for thread in look.process.threads.values()) if not look.in_flight else ()
    asked = select.poll()
    asked.register(look.own, 0)
    if not asked.poll(0):
        return
    for regs in readers:
        if (regs.call, regs.args[0]) == (arch.SYS["recvmmsg"], look.fd) and 0 < regs.result <= regs.args[2]:
            with socket_options.borrowed(look.own, socket.AF_UNIX, socket.SOCK_DGRAM) as s:
                s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            return


def note_left_out(look: Look, tables: CaptureTables, what: str) -> None:
    """Warn of what waits to be told and is in no image, by poll(2): reading an error would take it from the program."""
    asked = select.poll()
    asked.register(look.own, select.POLLIN)
    events = next((events for _, events in asked.poll(0)), 0)
    if events & select.POLLIN:
        tables.warnings.append(f"what waits in the socket at {look.holder} ({what}) is not captured")
    if events & select.POLLERR:
        tables.warnings.append(f"an error waits in the socket at {look.holder}, which a restored process is not told")


def privileged(family: int, kind: int, protocol: int, who: str, what: str) -> socket.socket:
    """A new socket such as only root may have, perhaps."""
    try:
        return socket.socket(family, kind | socket.SOCK_CLOEXEC, protocol)
    except OSError as error:
        raise HostUnsupported(
            f"{who} is a {what}, which this user cannot have: {error.strerror}",
            hint="restart it as root (CAP_NET_RAW)", errno=error.errno,
        ) from error  # fmt: skip


def _facts(fd: int) -> tuple[int, int, bool, object, int] | None:
    """(family, type, listening, address, inode) of a present descriptor, None when it is no socket."""
    found = os.fstat(fd)
    if not stat.S_ISSOCK(found.st_mode) or fds.status_flags(fd) & linux.O_PATH:
        return None
    family = family_of(fd)
    with socket_options.borrowed(fd, family, socket.SOCK_STREAM) as s:
        kind = s.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE)
        listening = bool(s.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
        try:
            address = s.getsockname()
        except OSError:
            address = None
    return family, kind, listening, address, found.st_ino


def _present(tables: RebuildTables) -> dict[int, tuple[int, int, bool, object, int]]:
    known: dict[int, tuple[int, int, bool, object, int]] | None = tables.cache.get("present sockets")
    if known is None:
        facts = {fd: _facts(fd) for fd in (*tables.live.values(), *tables.below.values())}
        known = tables.cache["present sockets"] = {fd: found for fd, found in facts.items() if found is not None}
    return known


def _free(fd: int, tables: RebuildTables) -> bool:
    return fd not in tables.cache.get("taken from the present", {}).values()


def find_unix(entry: UnixSocket, tables: RebuildTables) -> int:
    """The present's socket of the same name and sort, or -1."""
    for fd, (family, kind, listening, address, _) in _present(tables).items():
        name = address if isinstance(address, bytes) else os.fsencode(str(address))
        if (family, kind, listening, name) == (socket.AF_UNIX, entry.type, entry.listening, entry.name):
            return fd if _free(fd, tables) else -1
    return -1


def find_inet(entry: TcpSocket | UdpSocket, kind: int, tables: RebuildTables, *, listening: bool) -> int:
    """The present's socket of the same address, or -1."""
    for fd, (family, found_kind, found_listening, address, _) in _present(tables).items():
        here = isinstance(address, tuple) and address[:2] == (entry.host, entry.port)
        if (family, found_kind, found_listening) == (entry.family, kind, listening) and here and _free(fd, tables):
            return fd
    return -1


def find_inode(inode: int, tables: RebuildTables) -> int:
    """The present's descriptor of the very same socket (same boot), or -1."""
    if not tables.boot_id_same:
        return -1
    return next((fd for fd, facts in _present(tables).items() if facts[4] == inode), -1)


def _by_inode(inode: int, tables: RebuildTables) -> int:
    fd = find_inode(inode, tables)
    return fd if fd >= 0 and _free(fd, tables) else -1


def take_unix_pair(index: int, entry: UnixSocket, peer: UnixSocket, tables: RebuildTables) -> bool:
    """Let both ends be the present's, when it has this very pair and neither end was shut down since."""
    one, other = _by_inode(entry.inode, tables), _by_inode(peer.inode, tables)
    if one < 0 or other < 0:
        return False
    now = sockdiag.unix_sockets()
    ends = [now.get(entry.inode), now.get(peer.inode)]
    for end, wanted in zip(ends, (entry, peer), strict=True):
        if end is None or end.shutdown or end.name.rstrip(b"\0") != wanted.name.rstrip(b"\0"):
            return False
    assert ends[0] is not None
    if ends[0].peer != peer.inode:
        return False
    _take_both((index, one), (entry.peer, other), tables)
    return True


def take_waiting_unix(index: int, entry: UnixSocket, tables: RebuildTables) -> bool:
    """The same for a connection that waits to be accepted, and on which nothing was sent since."""
    fd = _by_inode(entry.inode, tables)
    now = sockdiag.unix_sockets().get(entry.inode) if fd >= 0 else None
    if now is None or now.peer != 0 or now.shutdown or now.unread != entry.unread:
        return False
    take(index, fd, tables)
    return True


def find_connection(entry: TcpSocket, tables: RebuildTables) -> int:
    """The present's end of the very same TCP connection, still whole, or -1."""
    for fd, (family, kind, listening, address, _) in _present(tables).items():
        if (family, kind) != (entry.family, socket.SOCK_STREAM) or listening or not isinstance(address, tuple):
            continue
        if address[:2] == (entry.host, entry.port) and _free(fd, tables):
            with socket_options.borrowed(fd, family, kind) as s:
                whole = s.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == _ESTABLISHED
                if whole and s.getpeername()[:2] == (entry.peer_host, entry.peer_port):
                    return fd
    return -1


def take_tcp_pair(index: int, entry: TcpSocket, peer: TcpSocket, tables: RebuildTables) -> bool:
    """Let both ends of a connection be the present's."""
    one, other = find_connection(entry, tables), find_connection(peer, tables)
    if one < 0 or other < 0:
        return False
    _take_both((index, one), (entry.peer, other), tables)
    return True


def _take_both(one: tuple[int, int], other: tuple[int, int], tables: RebuildTables) -> None:
    pairs: dict[int, int] = tables.cache.setdefault("pairs taken from the present", {})
    for (index, fd), (second, _) in ((one, other), (other, one)):
        take(index, fd, tables)
        pairs[index] = second


def pair_to_refill(index: int, tables: RebuildTables) -> int:
    """The other end of a taken pair whose queues are still the present's; once. -1: nothing to do."""
    pairs: dict[int, int] = tables.cache.get("pairs taken from the present", {})
    other = pairs.pop(index, -1)
    pairs.pop(other, None)
    return other


def take(index: int, fd: int, tables: RebuildTables) -> None:
    """Let a description be the present's."""
    tables.own[index] = os.dup(fd)
    tables.cache.setdefault("taken from the present", {})[index] = fd


def was_taken(index: int, tables: RebuildTables) -> bool:
    """Whether `take` was called for it."""
    return index in tables.cache.get("taken from the present", {})


def adopt(
    index: int, entry: TcpSocket | UdpSocket | UnixSocket, kind: int, tables: RebuildTables, workshop: Workshop, fd: int
) -> None:
    """When the present is gone: the image's status flags, from inside, and its options."""
    workshop.call("fcntl", fd, _F_SETFL, entry.flags & ~os.O_ACCMODE & ~O_ASYNC)
    family = socket.AF_UNIX if isinstance(entry, UnixSocket) else entry.family
    with socket_options.borrowed(tables.own[index], family, kind) as s:
        socket_options.rewind(s, family, kind, entry.options, tables, tables.who(index))


@contextmanager
def no_way_back(index: int, tables: RebuildTables) -> Iterator[None]:
    """The present is gone: a queue that cannot be put back is no reason to lose the rest."""
    try:
        yield
    except (OSError, EngineError) as error:
        tables.warn(f"the queue of the socket at {tables.who(index)} is not what it was: {error}")


def disconnect(s: socket.socket) -> bool:
    """Let a datagram socket be connected to nobody; whether it was."""
    try:
        s.getpeername()
    except OSError:
        return False
    libc.syscall("connect", s.fileno(), struct.pack("<H14x", socket.AF_UNSPEC), 16)
    return True


def drain(s: socket.socket) -> int:
    """Throw away what waits to be received, descriptors in flight too; how many pieces that was.

    A packet filter goes, too, until `socket_options.rewind`: what waited in the image had come before it, maybe.
    """
    pieces = 0
    with suppress(OSError):  # there is none, or it is locked
        s.setsockopt(socket.SOL_SOCKET, socket_options.SO_DETACH_FILTER, 0)
    while True:
        try:
            data, control, _, _ = s.recvmsg(_DRAIN_BYTES, _CONTROL_BYTES, socket.MSG_DONTWAIT)
        except OSError:
            return pieces
        for level, kind, rights in control:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                for fd in array.array("i", rights[: len(rights) & ~3]):
                    os.close(fd)
        if not data and s.type != socket.SOCK_DGRAM and (s.type == socket.SOCK_STREAM or has_ended(s)):
            return pieces
        pieces += 1


def has_ended(s: socket.socket) -> bool:
    """Whether nothing more will come: what is empty then is no message. An error that waits is no end."""
    asked = select.poll()
    asked.register(s, select.POLLRDHUP)
    return any(events & select.POLLRDHUP for _, events in asked.poll(0))


def drain_tcp_pair(one: socket.socket, other: socket.socket) -> None:
    """Throw away what is in both queues and on the way between them."""
    deadline = time.monotonic() + _ON_THE_WAY_S
    while time.monotonic() < deadline:
        drain(one)
        drain(other)
        unsent = [struct.unpack("<i", fcntl.ioctl(s.fileno(), _SIOCOUTQNSD, bytes(4)))[0] for s in (one, other)]
        if not any(unsent):
            break
        fds.is_ready(one.fileno(), other.fileno(), wait_ms=10)
    drain(one)
    drain(other)
