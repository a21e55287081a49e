"""Which process serves a connection, by the sockets on which it listens.

A Jupyter kernel's own answer to "what is your pid" is right in its own pid namespace only, and its command
line names the connection file it was started with, which after a restart into another one is not the one
that it serves. The listening sockets do not lie.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from nbcr.jupyter.rekey import Connection

_LISTEN = "0A"


def process_serving(connection: Connection, likely: int | None = None) -> int | None:
    """The pid that listens on a connection's control channel; `likely` is looked at first."""
    wanted = _listeners(connection)
    if not wanted:
        return None
    if likely is not None and wanted & set(_sockets(likely)):
        return likely
    pids = sorted((int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal()), reverse=True)
    return next((pid for pid in pids if wanted & set(_sockets(pid))), None)


def serves(pid: int, connection: Connection) -> bool:
    """Whether process `pid` listens on the connection's control channel."""
    return bool(_listeners(connection) & set(_sockets(pid)))


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
