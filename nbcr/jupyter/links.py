"""The connections that clients have to a Jupyter kernel's channels: found among its descriptors, told apart by port."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import stat
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

CHANNELS = ("shell", "iopub", "stdin")
"""Those over which a cell answers and asks: what is sent into a connection that is going is lost."""
ALL_CHANNELS = (*CHANNELS, "control", "hb")


@dataclass(frozen=True)
class Wire:
    """One connected socket of this process."""

    fd: int
    inode: int
    local: Any
    remote: Any

    @property
    def name(self) -> Any:
        """What tells it from those that come later: the other end's address, or the socket where that has none."""
        return self.remote or self.inode

    @property
    def is_open(self) -> bool:
        """Whether its owner still has it: libzmq closes it when it has read all that came before the end."""
        try:
            return os.stat(self.fd).st_ino == self.inode
        except OSError:
            return False

    @property
    def has_peer(self) -> bool:
        """Whether the other end is there still: that of a connection which an image has brought along is not."""
        poll = select.poll()
        poll.register(self.fd, select.POLLRDHUP)
        return self.is_open and not poll.poll(0)

    def finish_sending(self) -> None:
        """The other end reads an end of file, and may go on sending."""
        self._shut_down(socket.SHUT_WR)

    def cut(self) -> None:
        """Neither end sends or hears anything more."""
        self._shut_down(socket.SHUT_RDWR)

    def _shut_down(self, how: int) -> None:
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(self.fd)) as end:
            if os.fstat(end.fileno()).st_ino == self.inode:
                end.shutdown(how)


def of_clients(app: Any, *channels: str) -> Iterator[Wire]:
    """Connections accepted on these channels, but for the debugger's own (over ipc that one is just made anew)."""
    wires = list(_wires())
    ours = {wire.local for wire in wires if wire.local}
    for wire in wires:
        if wire.remote not in ours and any(_is_on(wire.local, app, channel) for channel in channels):
            yield wire


def cut(app: Any, names: Collection[Any]) -> None:
    """Have clients connect again that an image has brought along (`--tcp keep`): a restart waits for them to do so.

    `names` are those that there were: a client may be back already, and what it has sent would be lost.
    """
    for wire in of_clients(app, *ALL_CHANNELS):
        if wire.name in names:
            wire.cut()


def counts(app: Any) -> dict[str, int]:
    """How many connections of clients there are to each of CHANNELS."""
    return {channel: sum(wire.has_peer for wire in of_clients(app, channel)) for channel in CHANNELS}


def listeners(app: Any) -> frozenset[Any]:
    """The connections of those that listen, by name."""
    return frozenset(wire.name for wire in of_clients(app, "iopub") if wire.has_peer)


def are_back(app: Any, before: Mapping[str, int]) -> bool:
    """Whether there are as many as there were; where nobody has counted, whether those that listen can ask too."""
    now = counts(app)
    wanted = before or {"shell": max(1, now["iopub"])}
    return all(now[channel] >= count for channel, count in wanted.items())


def _is_on(local: Any, app: Any, channel: str) -> bool:
    port = getattr(app, f"{channel}_port")
    return bool(local[1] == port if isinstance(local, tuple) else local == f"{app.ip}-{port}")


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
