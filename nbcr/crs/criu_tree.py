"""What component criu looks at before it lets CRIU take a process tree: who is in it, and what leads outside.

CRIU refuses a terminal, or one end of a Unix socket, whose other end it does not take, unless it is named beforehand;
and it wants to be given something in its place at restore. A pipe comes back without its other end, unless something
is given. This is done for the standard streams of the root process and for the channel; what else leads outside is
CRIU's to judge.
"""

from __future__ import annotations

import os
import re
import signal
import stat
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from kernel_backend.ahead import tree_pids
from kernel_backend.host import proc, sockdiag
from nbcr.crs.criu_record import OutsideRecord, ProcessRecord
from nbcr.errors import NotPossible, TargetUnknown

CHANNEL = -1  # as OutsideRecord.stream
_STANDARD_STREAMS = (0, 1, 2)
_TERMINALS = (4, *range(136, 144))  # major numbers: consoles and serial lines, pseudo-terminals
_PTY_MASTERS = ("/dev/ptmx", "/dev/pts/ptmx")


@dataclass
class Tree:
    """A living process and its descendants, as they were a moment ago."""

    root: int
    processes: dict[int, ProcessRecord]
    standing: frozenset[int]  # those that were stopped already

    def go_on(self) -> None:
        """Let everybody in it go on whom CRIU left stopped."""
        for pid in tree_pids(self.root, descend=True):
            if pid not in self.standing:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)

    def named(self, tids_of: dict[int, list[int]]) -> list[ProcessRecord]:
        """The processes that CRIU took; one born since we looked is asked now."""
        found = []
        for pid, tids in tids_of.items():
            process = self.processes.get(pid) or _process(pid)
            process.tids = tids
            found.append(process)
        return found


def look(pid: int) -> Tree:
    """The tree at `pid`. Raises TargetUnknown when there is no such living process."""
    try:
        state = proc.stat(proc.view(pid)).state
    except OSError:
        state = "X"
    if state in "ZX":
        raise TargetUnknown(f"there is no living process {pid}", hint="check the pid; the process may have ended")
    processes = {member: _process(member) for member in tree_pids(pid, descend=True)}
    return Tree(pid, processes, frozenset(member for member in processes if _is_standing(member)))


def _is_standing(pid: int) -> bool:
    with suppress(OSError):
        return proc.stat(pid).state == "T"
    return True


def _process(pid: int) -> ProcessRecord:
    """What /proc tells of a process; of one that has ended, or ends just now, little."""
    found = ProcessRecord(pid, 0, "", [], [pid], 0, "")
    with suppress(OSError):
        facts = proc.stat(pid)
        found.ppid, found.argv = facts.ppid, [facts.comm]
        found.resident_bytes = int(proc.status(pid).get("VmRSS", "0").split()[0]) * 1024
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[:-1]
        found.argv = [os.fsdecode(word) for word in words] or found.argv
        found.cwd = os.readlink(f"/proc/{pid}/cwd")
        found.exe = os.readlink(f"/proc/{pid}/exe")
    return found


# --- what leads outside -----------------------------------------------------------------------------------------------


@dataclass
class _Held:
    """What the whole tree holds, as far as it decides whether something leads outside."""

    pipe_modes: dict[str, set[int]] = field(default_factory=dict)  # link -> access modes
    sockets: set[int] = field(default_factory=set)  # inodes
    masters: set[int] = field(default_factory=set)  # numbers of pseudo-terminals

    def add(self, pid: int, fd: int) -> None:
        link = proc.fd_link(pid, fd)
        if link.startswith("pipe:"):
            self.pipe_modes.setdefault(link, set()).add(proc.fdinfo(pid, fd).flags & os.O_ACCMODE)
        elif link.startswith("socket:"):
            self.sockets.add(_inode(link))
        elif link in _PTY_MASTERS:
            self.masters.add(int(proc.fdinfo(pid, fd).value("tty-index") or -1))


def leading_outside(tree: Tree, channel_fd: int | None) -> list[OutsideRecord]:
    """The channel, and what standard streams of the root process have their other end outside the tree."""
    held = _held(tree.processes)
    found = [] if channel_fd is None else [OutsideRecord(_channel(tree.root, channel_fd), CHANNEL)]
    for stream in _STANDARD_STREAMS:
        key = _key(tree.root, stream, held)
        if key and all(key != other.key for other in found):
            found.append(OutsideRecord(key, stream))
    return found


def _held(pids: Iterable[int]) -> _Held:
    held = _Held()
    for pid in pids:
        with suppress(OSError):
            for fd in proc.fd_numbers(pid):
                with suppress(OSError):
                    held.add(pid, fd)
    return held


def _channel(pid: int, fd: int) -> str:
    with suppress(OSError):
        link = proc.fd_link(pid, fd)
        if link.startswith("socket:") and _inode(link) in sockdiag.unix_sockets():
            return link
    raise NotPossible(f"component criu cannot use descriptor {fd} of process {pid} as a channel: it is no Unix socket")


def _key(pid: int, fd: int, held: _Held) -> str | None:
    """By which name CRIU knows what descriptor `fd` leads to, if that is outside."""
    try:
        link, status = proc.fd_link(pid, fd), os.stat(f"/proc/{pid}/fd/{fd}")
    except OSError:
        return None
    if link.startswith("pipe:"):
        modes = held.pipe_modes.get(link, set())
        return None if os.O_RDWR in modes or {os.O_RDONLY, os.O_WRONLY} <= modes else link
    if link.startswith("socket:"):
        facts = sockdiag.unix_sockets().get(_inode(link))
        return link if facts and facts.peer and facts.peer not in held.sockets else None
    if stat.S_ISCHR(status.st_mode) and os.major(status.st_rdev) in _TERMINALS:
        inside = link.startswith("/dev/pts/") and os.minor(status.st_rdev) in held.masters
        return None if inside else f"tty[{status.st_rdev:x}:{status.st_dev:x}]"
    return None


def _inode(link: str) -> int:
    match = re.fullmatch(r"socket:\[(\d+)\]", link)
    return int(match[1]) if match else 0
