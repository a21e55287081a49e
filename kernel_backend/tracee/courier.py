"""Descriptors into a tracee: it connects to a socket of ours and receives them (unix(7), SCM_RIGHTS).

This needs no permission of the tracee to look into us, works from one user or user namespace to another, and moves
up to 253 descriptors with one call.
"""

from __future__ import annotations

import array
import os
import socket
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from kernel_backend.tracee.inject import Workshop

BATCH = 253  # SCM_MAX_FD of the OS kernel
_SOCKADDR_BYTES = 110
_CONTROL_BYTES = 16 + 4 * BATCH + 4
_ACCEPT_TIMEOUT_S = 10.0


class Courier:
    """A connection between us and one tracee; `remote` is its descriptor there; who moves it says so."""

    def __init__(self, workshop: Workshop, connection: socket.socket, remote: int) -> None:
        self.workshop = workshop
        self.connection = connection
        self.remote = remote

    def send(self, fds: Sequence[int]) -> list[int]:
        """Give it duplicates of our descriptors; their numbers there, in the same order."""
        numbers: list[int] = []
        for first in range(0, len(fds), BATCH):
            part = fds[first : first + BATCH]
            rights = array.array("i", part)
            self.connection.sendmsg([b"."], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
            numbers += self._receive(len(part))
        return numbers

    def _receive(self, count: int) -> list[int]:
        shop = self.workshop
        header, vector, byte, control = shop.data, shop.data + 64, shop.data + 96, shop.data + 128
        message = struct.pack("<QIIQQQQIi", 0, 0, 0, vector, 1, control, _CONTROL_BYTES, 0, 0)
        shop.put(message.ljust(64, b"\0") + struct.pack("<QQ", byte, 1))
        shop.call("recvmsg", self.remote, header, 0)
        raw = shop.get(16 + 4 * count, 128)
        length = struct.unpack_from("<Q", raw)[0]
        got = (length - 16) // 4
        if got != count:
            raise OSError(24, f"the process received {got} of {count} descriptors (its limit is too low)")
        return list(struct.unpack_from(f"<{count}i", raw, 16))


@contextmanager
def courier(workshop: Workshop) -> Iterator[Courier]:
    """Open the connection; our end and the tracee's are closed afterwards."""
    name = b"\0nbcr-" + os.urandom(12).hex().encode()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(name)
        listener.listen(1)
        listener.settimeout(_ACCEPT_TIMEOUT_S)
        remote = workshop.call("socket", socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC, 0)
        address = struct.pack("<H", socket.AF_UNIX) + name
        workshop.call("connect", remote, workshop.put(address), len(address))
        connection, _ = listener.accept()
    with connection:
        _check_peer(connection, workshop.thread.tgid)
        line = Courier(workshop, connection, remote)
        yield line
    workshop.call("close", line.remote)


def _check_peer(connection: socket.socket, pid: int) -> None:
    """The abstract name is random, but anyone may connect: make sure that it was our tracee."""
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    peer = struct.unpack("<iii", raw)[0]
    if peer != pid:
        raise PermissionError(1, f"process {peer} connected in place of process {pid}; {os.strerror(1)}")
