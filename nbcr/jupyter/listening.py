"""Which process serves a connection, by the sockets on which it listens.

A Jupyter kernel's own answer to "what is your pid" is right in its own pid namespace only, and its command
line names the connection file it was started with, which after a restart into another one is not the one
that it serves. The listening sockets do not lie.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from pathlib import Path

from nbcr.jupyter.rekey import Connection
from nbcr.runtime import start_ticks

_LISTEN = "0A"


def process_serving(connection: Connection, likely: int | None = None) -> int | None:
    """The pid that listens on a connection's control channel; `likely` is looked at first."""
    wanted = _listeners(connection)
    if not wanted:
        return None
    if likely is not None and wanted & set(_sockets(likely)):
        return likely
    pids = (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal())
    return _first_of([pid for pid in pids if wanted & set(_sockets(pid))])


def _first_of(pids: Collection[int]) -> int | None:
    """Whose sockets they are: forked children (`multiprocessing`'s workers, for example) hold them as well."""
    own = [pid for pid in pids if _parent(pid) not in pids]
    return min(own, key=lambda pid: (start_ticks(pid) or 0, pid), default=None)


def _parent(pid: int) -> int | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    return int(text.rpartition(")")[2].split()[1])


def serves(pid: int, connection: Connection) -> bool:
    """Whether process `pid` listens on the connection's control channel, and not as somebody's forked child."""
    wanted = _listeners(connection)
    return bool(wanted & set(_sockets(pid))) and not wanted & set(_sockets(_parent(pid) or 0))


def _listeners(connection: Connection) -> set[str]:
    """Inodes of the sockets listening on the control channel."""
    if connection.transport == "tcp":
        return set(_tcp_listeners(connection.ports["control"]))
    return set(_unix_listeners(connection.address("control").removeprefix("ipc://")))


def _tcp_listeners(port: int) -> Iterator[str]:
    for table in ("tcp", "tcp6"):
        for line in _lines(Path("/proc/self/net") / table):
            fields = line.split()
            if len(fields) > 9 and fields[3] == _LISTEN and int(fields[1].rpartition(":")[2], 16) == port:
                yield fields[9]


def _unix_listeners(path: str) -> Iterator[str]:
    for line in _lines(Path("/proc/self/net/unix")):
        fields = line.split(maxsplit=7)
        if len(fields) == 8 and fields[7] == path:
            yield fields[6]


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()[1:]
    except OSError:
        return []


def _sockets(pid: int) -> Iterator[str]:
    """Inodes of the sockets that `pid` holds; none when it is somebody else's."""
    try:
        names = os.listdir(f"/proc/{pid}/fd")
    except OSError:
        return
    for name in names:
        try:
            link = os.readlink(f"/proc/{pid}/fd/{name}")
        except OSError:
            continue
        if link.startswith("socket:["):
            yield link[8:-1]
