"""Which process serves a connection, by the sockets on which it listens.

A Jupyter kernel's own answer to "what is your pid" is right in its own pid namespace only, and its command
line names the connection file it was started with, which after a restart into another one is not the one
that it serves. The listening sockets do not lie.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

from nbcr.jupyter.rekey import Connection
from nbcr.runtime import start_ticks
from nbcr.session.leftover import may_serve, sockets_of, tcp_listeners


def process_serving(connection: Connection, likely: int | None = None) -> int | None:
    """The pid that listens on a connection's control channel; `likely` is looked at first."""
    wanted = _listeners(connection)
    if not wanted:
        return None
    if likely is not None and wanted & set(sockets_of(likely)):
        return likely
    pids = (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal())
    return _first_of([pid for pid in pids if wanted & set(sockets_of(pid)) and may_serve(pid)])


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
    if not wanted & set(sockets_of(pid)) or wanted & set(sockets_of(_parent(pid) or 0)):
        return False
    return may_serve(pid)  # a child whose parent was killed does not


def _listeners(connection: Connection) -> set[str]:
    """Inodes of the sockets listening on the control channel."""
    if connection.transport == "tcp":
        return set(tcp_listeners(connection.ports["control"]))
    return set(_unix_listeners(connection.address("control").removeprefix("ipc://")))


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
