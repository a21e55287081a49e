"""Part from the shell channel's clients just before the present is replaced, so that nothing they send is lost.

What a client has written to a connection is gone when the connection goes with its process. A client whose
connection was ended in good order, however, keeps what it sends until it is connected again, a tenth of a second
later at the earliest: then it is the restored life that it reaches. So we finish sending (FIN), the client closes,
and whatever was on its way to us arrives before its own FIN does.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

PARTING_S = 0.5
_POLL_S = 0.001


@dataclass(frozen=True)
class Wire:
    """One connected socket of this process."""

    fd: int
    inode: int
    local: Any
    remote: Any

    @property
    def is_open(self) -> bool:
        """Whether its owner still has it: libzmq closes it when it has read all that came before the end."""
        try:
            return os.stat(self.fd).st_ino == self.inode
        except OSError:
            return False

    def finish_sending(self) -> None:
        """The other end reads an end of file, and may go on sending."""
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(self.fd)) as end:
            if os.fstat(end.fileno()).st_ino == self.inode:
                end.shutdown(socket.SHUT_WR)


async def part(app: Any) -> None:
    """End the connections of clients to the shell channel of `app`. What they had sent can be received after this."""
    wires = list(_from_clients(app))
    for wire in wires:
        wire.finish_sending()
    deadline = time.monotonic() + PARTING_S
    while any(wire.is_open for wire in wires) and time.monotonic() < deadline:
        await asyncio.sleep(_POLL_S)  # libzmq's own thread reads and closes; it tells nobody who did not ask before


def _from_clients(app: Any) -> Iterator[Wire]:
    """Connections accepted on the shell channel, but for the debugger's own (over ipc that one is just made anew)."""
    wires = list(_wires())
    ours = {wire.local for wire in wires if wire.local}
    for wire in wires:
        if _is_shell(wire.local, app) and wire.remote not in ours:
            yield wire


def _is_shell(local: Any, app: Any) -> bool:
    if isinstance(local, tuple):
        return bool(local[1] == app.shell_port)
    return bool(local == f"{app.ip}-{app.shell_port}")


def _wires() -> Iterator[Wire]:
    for number in map(int, os.listdir("/proc/self/fd")):
        with contextlib.suppress(OSError):
            yield _wire(number)


def _wire(fd: int) -> Wire:
    """What is connected at `fd`; raises OSError where nothing is."""
    found = os.fstat(fd)
    if not stat.S_ISSOCK(found.st_mode):
        raise OSError(errno.ENOTSOCK, os.strerror(errno.ENOTSOCK))
    with socket.socket(fileno=os.dup(fd)) as end:
        return Wire(fd, found.st_ino, end.getsockname(), end.getpeername())
