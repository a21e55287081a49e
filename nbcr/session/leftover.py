"""Processes that a killed Jupyter kernel has left behind, which would be in the way of what comes back.

A worker of a pool (`ProcessPoolExecutor`, `os.fork`) inherits its parent's listening sockets, and may wait for ever for
a parent that was killed. Nobody answers on those ports any more, and nobody else can listen there. What comes back on
them has such workers of its own: those that are left are ended, as a restart in place ends the children of the present.
Whoever has but some of the ports is another program, which came since: a server that went into the background has been
forked, too.

Workers that execute a program of their own (`spawn`, loky as in scikit-learn's n_jobs) have no ports, but share
semaphores and files that have names with those that come back, and take their turns for ever. Other programs that the
session had started are told only: they may be about something that is worth more than what an image knows of it.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from nbcr import runtime

_LISTEN = "0A"
_SERVER = "ZMQbg"  # how libzmq calls its threads; a fork does not have its parent's
_FORKED_ONLY = 0x40  # PF_FORKNOEXEC: it has never executed a program
_LOOK_S = 0.01
_ENDS_WITHIN_S = 5.0
_POOLS = ("multiprocessing.", "loky.backend.")  # in how their interpreters are called


def end_orphans(ports: Collection[int], timeout_s: float = 5.0) -> list[int]:
    """End whoever holds listening sockets of all these ports and cannot serve them; who that was.

    Nobody is, where somebody lives who may serve one of them.
    """
    each = [set(tcp_listeners(port)) for port in ports]
    wanted = set().union(*each)
    holders = {pid: held for pid in _pids() if (held := wanted & set(sockets_of(pid)))}
    if any(may_serve(pid) or not all(held & listeners for listeners in each) for pid, held in holders.items()):
        return []
    for pid in holders:
        _end(pid, lambda pid=pid: bool(wanted & set(sockets_of(pid))))  # type: ignore[misc]
    until = time.monotonic() + timeout_s
    while wanted & _listening(ports) and time.monotonic() < until:  # closed a little later than its holders are gone
        time.sleep(_LOOK_S)
    return sorted(holders)


def end_workers(killed: int, present: int | None = None) -> list[str]:
    """End the workers that the Jupyter kernel `killed` has left behind; what was done and what was left, in words.

    Only of one that is gone, and led a session of its own. `killed` is its number as an image knows it: a restored one
    may have lived in a pid namespace. Nobody looks where `present`, which is to be replaced, is that one.
    """
    if present is not None and _inner_numbers(present)[:1] == [killed]:
        return []
    members = _left_by(killed)
    workers = [pid for pid in members if _is_worker(pid)]
    for pid in workers:
        _end(pid, lambda pid=pid: runtime.start_ticks(pid) == members[pid])  # type: ignore[misc]
    others = ", ".join(f"{pid} ({_program(pid)})" for pid in sorted(members.keys() - set(workers)))
    said = [f"ended {', '.join(map(str, sorted(workers)))}: left behind by the Jupyter kernel that was killed"]
    told = f"left behind by the Jupyter kernel that was killed, and still running beside what comes back: {others}"
    return [*(said if workers else ()), *([told] if others else ())]


def _end(pid: int, is_still_it: Callable[[], bool]) -> None:
    """End a process, and nobody who has its number since it was looked at."""
    with contextlib.suppress(OSError):
        descriptor = os.pidfd_open(pid)
        try:
            if is_still_it():
                signal.pidfd_send_signal(descriptor, signal.SIGKILL)
                runtime.readable(descriptor, _ENDS_WITHIN_S)
        finally:
            os.close(descriptor)


def _left_by(leader: int) -> dict[int, int | None]:
    """Processes of the group and the session of `leader`, where that has ended, and when they started (ticks)."""
    found: dict[str, dict[int, int | None]] = {}
    led = set()
    for pid in _pids():
        numbers = _inner_numbers(pid)
        if leader in numbers:
            with contextlib.suppress(OSError):  # it has ended, or is somebody else's
                namespace = os.readlink(f"/proc/{pid}/ns/pid")
                if numbers[0] == leader:
                    led.add(namespace)
                elif numbers[1:] == [leader, leader]:
                    found.setdefault(namespace, {})[pid] = runtime.start_ticks(pid)
    return {pid: start for namespace, pids in found.items() if namespace not in led for pid, start in pids.items()}


def _inner_numbers(pid: int) -> list[int]:
    """Pid, group and session of a process as it knows them itself; none of one that has ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(errors="replace")
    except OSError:
        return []
    if re.search(r"^State:\s*[ZX]", status, re.MULTILINE):
        return []
    return [int(number) for number in re.findall(r"^NS(?:pid|pgid|sid):.*\b(\d+)$", status, re.MULTILINE)]


def _is_worker(pid: int) -> bool:
    """Whether it serves a parent: it runs its parent's program, or one of Python's pools of processes."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return False
    words = _command(pid)
    return bool(int(fields[6]) & _FORKED_ONLY) or any(name in word for word in words for name in _POOLS)


def _program(pid: int) -> str:
    return " ".join(_command(pid)[:2])


def _command(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace").rstrip("\0").split("\0")
    except OSError:
        return []


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
