"""Connections that were just being made (SYN_SENT): they are made anew, and whoever waits for them waits on.

A call of connect(2) that the freeze interrupted is begun again and finds that it is under way; who polls is told of the
end as of any other.
"""

from __future__ import annotations

import errno
import os
import socket
from contextlib import suppress

from kernel_backend.host import sockdiag
from kernel_backend.image.descriptions import TcpSocket
from kernel_backend.resources import inet, socket_options
from kernel_backend.resources.descriptors import Look
from kernel_backend.resources.tcp_states import SYN_SENT

_STREAM = socket.SOCK_STREAM


def note_address(look: Look, entry: TcpSocket) -> None:
    """Whom it connects to, which getpeername(2) does not say yet."""
    inode = os.fstat(look.own).st_ino
    for found in sockdiag.tcp_entries():
        if found.inode == inode:
            entry.peer_host, entry.peer_port = socket.inet_ntop(found.family, found.remote[0]), found.remote[1]


def is_known(entry: TcpSocket) -> bool:
    """Whether it was being connected, to somebody whom the image knows."""
    return entry.state == SYN_SENT and bool(entry.peer_port)


def bound(entry: TcpSocket) -> int:
    """A socket at its address, or where that is in use at any."""
    with socket.socket(entry.family, _STREAM | socket.SOCK_CLOEXEC) as s:
        socket_options.set_before_binding(s, entry.options)
        with suppress(OSError):  # its own end is nothing that anybody was told of yet
            inet.bind(s, entry)
        return s.detach()


def connect(fd: int, entry: TcpSocket) -> bool:
    """Begin, when all listeners stand; False where it has failed at once."""
    with socket_options.borrowed(fd, entry.family, _STREAM) as s:
        s.setblocking(False)
        try:
            failed = s.connect_ex(inet.flowing(s, inet.peer_sockaddr(entry), entry.peer_flow))
        finally:
            s.setblocking(True)
        return failed in (0, errno.EINPROGRESS)
