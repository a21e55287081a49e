"""TCP connections that a rank has with others besides MPI: an image has one end of them, so that a restart resets both.

Looked up, not asked of the sockets: Python changes what it makes an object of when the program has a default timeout.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

_TABLES = (Path("/proc/self/net/tcp"), Path("/proc/self/net/tcp6"))
_LOCAL, _REMOTE, _STATE, _INODE = 1, 2, 3, 9
_ESTABLISHED = "01"
_MAPPED = "0000000000000000FFFF0000"  # an IPv4 address as one of IPv6, as these tables write it


def connections() -> list[list[str]]:
    """Of this process: [own address, the other end's], as the OS kernel writes them."""
    inodes = _sockets()
    found = []
    for table in _TABLES if inodes else ():
        with suppress(OSError), table.open() as file:
            for line in file:
                words = line.split()
                if words[_STATE] == _ESTABLISHED and words[_INODE] in inodes:
                    found.append([words[_LOCAL].removeprefix(_MAPPED), words[_REMOTE].removeprefix(_MAPPED)])
    return found


def _sockets() -> set[str]:
    inodes = set()
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            if match := re.fullmatch(r"socket:\[(\d+)\]", os.readlink(f"/proc/self/fd/{name}")):
                inodes.add(match[1])
    return inodes


def warnings(found: Mapping[int, list[list[str]]]) -> list[str]:
    """Of all ranks' connections: which of them lead from one to another."""
    ends = {(local, remote): rank for rank, each in found.items() for local, remote in each}
    pairs = {
        (rank, other)
        for (local, remote), rank in ends.items()
        if (other := ends.get((remote, local))) is not None and rank < other
    }
    if not pairs:
        return []
    named = ", ".join(f"{rank} and {other}" for rank, other in sorted(pairs)[:3]) + (", …" if len(pairs) > 3 else "")
    return [
        f"ranks {named} have TCP connections with each other besides MPI, which a restart resets; a job that "
        "needs them is saved as a whole when a script starts its mpiexec"
    ]
