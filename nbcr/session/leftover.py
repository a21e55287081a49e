"""Forked children that a killed Jupyter kernel has left behind, which keep its ports.

A worker of a pool (`ProcessPoolExecutor`, `os.fork`) inherits its parent's listening sockets, and may wait for ever for
a parent that was killed. Nobody answers on those ports any more, and nobody else can listen there. What comes back on
them has such workers of its own: those that are left are ended, as a restart in place ends the children of the present.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Collection, Iterator
from pathlib import Path

_LISTEN = "0A"
_SERVER = "ZMQbg"  # how libzmq calls its threads; a fork does not have its parent's
_FORKED_ONLY = 0x40  # PF_FORKNOEXEC: it has never executed a program
_LOOK_S = 0.01


def end_orphans(ports: Collection[int], timeout_s: float = 5.0) -> list[int]:
    """End whoever holds listening sockets of all these ports and cannot serve them; who that was.

    Nobody is, where somebody lives who may serve one of them.
    """
    each = [set(tcp_listeners(port)) for port in ports]
    wanted = set().union(*each)
    holders = {pid: held for pid in _pids() if (held := wanted & set(sockets_of(pid)))}
    if any(may_serve(pid) or not all(held & listeners for listeners in each) for pid, held in holders.items()):
        return []
    descriptors = {}
    for pid in holders:
        with contextlib.suppress(OSError):
            descriptors[pid] = os.pidfd_open(pid)
    try:
        for pid, descriptor in descriptors.items():
            if wanted & set(sockets_of(pid)):  # it is still the one that was looked at
                with contextlib.suppress(OSError):
                    signal.pidfd_send_signal(descriptor, signal.SIGKILL)
    finally:
        for descriptor in descriptors.values():
            os.close(descriptor)
    until = time.monotonic() + timeout_s
    while wanted & _listening(ports) and time.monotonic() < until:  # closed a little later than its holders are gone
        time.sleep(_LOOK_S)
    return sorted(descriptors)


def _listening(ports: Collection[int]) -> set[str]:
    return {inode for port in ports for inode in tcp_listeners(port)}


def _pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdecimal()]


def may_serve(pid: int) -> bool:
    """Whether a process may answer there: it has threads of libzmq, is its own program, is traced, or tells nothing."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
        if not int(stat.rpartition(")")[2].split()[6]) & _FORKED_ONLY:
            return True
        if "TracerPid:\t0\n" not in Path(f"/proc/{pid}/status").read_text(errors="replace"):
            return True
        threads = [thread / "comm" for thread in Path(f"/proc/{pid}/task").iterdir()]
        return any(thread.read_text(errors="replace").startswith(_SERVER) for thread in threads)
    except FileNotFoundError:  # it ends, or a thread of it does
        return Path(f"/proc/{pid}").exists() and bool(set(sockets_of(pid)))
    except OSError:
        return True


def tcp_listeners(port: int) -> Iterator[str]:
    """Inodes of the sockets that listen on a port."""
    for table in ("tcp", "tcp6"):
        try:
            lines = (Path("/proc/self/net") / table).read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            if len(fields) > 9 and fields[3] == _LISTEN and int(fields[1].rpartition(":")[2], 16) == port:
                yield fields[9]


def sockets_of(pid: int) -> Iterator[str]:
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
