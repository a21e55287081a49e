"""Sockets taken from the present process in a restore in place: those whose address nobody else could have meanwhile.

A listener keeps the connections that wait in its backlog. Until the point of no return the present uses the same
description: nothing about it is changed before `adopt`, which runs when the present is gone.
"""

from __future__ import annotations

import os
import socket
import stat

from kernel_backend.image.descriptions import TcpSocket, UdpSocket, UnixSocket
from kernel_backend.resources import socket_options
from kernel_backend.resources.descriptors import O_ASYNC, RebuildTables
from kernel_backend.tracee.inject import Workshop

_F_SETFL = 4


def family_of(fd: int) -> int:
    """SO_DOMAIN."""
    with socket_options.borrowed(fd, socket.AF_UNIX, socket.SOCK_STREAM) as s:
        return s.getsockopt(socket.SOL_SOCKET, socket.SO_DOMAIN)


def _facts(fd: int) -> tuple[int, int, bool, object, int] | None:
    """(family, type, listening, address, inode) of a present descriptor, None when it is no socket."""
    found = os.fstat(fd)
    if not stat.S_ISSOCK(found.st_mode):
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
        facts = {fd: _facts(fd) for fd in tables.live.values()}
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


def take(index: int, fd: int, tables: RebuildTables) -> None:
    """Let a description be the present's."""
    tables.own[index] = os.dup(fd)
    tables.cache.setdefault("taken from the present", {})[index] = fd


def was_taken(index: int, tables: RebuildTables) -> bool:
    """Whether `take` was called for it."""
    return index in tables.cache.get("taken from the present", {})


def adopt(index: int, flags: int, tables: RebuildTables, workshop: Workshop, fd: int) -> None:
    """From inside, when the present is gone: the image's status flags."""
    workshop.call("fcntl", fd, _F_SETFL, flags & ~os.O_ACCMODE & ~O_ASYNC)


def drain(s: socket.socket) -> None:
    """Throw away what waits in a datagram socket."""
    while True:
        try:
            s.recvmsg(0, 0, socket.MSG_DONTWAIT | socket.MSG_TRUNC)
        except OSError:
            return
