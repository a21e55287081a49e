"""The parent's pid as forked children know it, kept where the restored parent has another.

A child that is to end with its parent compares os.getppid() with what that was in the beginning (the workers of torch's
DataLoader, and many watchdogs). After a restart into a fresh Jupyter kernel, whose pid stays, they would all end.

Nobody tells children of a restart: no handler runs in them. So each finds out for itself, once the answer is another
than at its fork: a process that began at another time than it was forked has been restored, and its parent with it,
unless that runs another program: then it is somebody who adopts orphans. `os.getppid` is replaced in forked children
only. Times are those since the host's start, which nobody sets, and which tell another start apart as well.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

_EARLIER_S, _LATER_S = 5.0, 0.1  # than we note it, a process that was forked may seem to begin: late, and in ticks

_true_getppid = os.getppid
_parent = _restored_parent = 0
_forked_at = 0.0


def remember_in_children() -> None:
    """Have every process that is forked from now on note who its parent is. Called once."""
    os.register_at_fork(after_in_child=_remember)


def _remember() -> None:
    global _parent, _restored_parent, _forked_at
    _parent, _restored_parent, _forked_at = _true_getppid(), 0, _since_start_s()
    os.getppid = _getppid


def _getppid() -> int:
    """As os.getppid, but a parent that was restored with this process keeps the number that it had at the fork."""
    global _restored_parent
    now = _true_getppid()
    if now not in (_parent, _restored_parent) and _were_restored() and _runs_our_program(now):
        _restored_parent = now
    return _parent if now == _restored_parent else now


def _were_restored() -> bool:
    try:
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return False
    began = int(fields[19]) / os.sysconf("SC_CLK_TCK")  # proc_pid_stat(5): starttime
    return not -_EARLIER_S <= began - _forked_at <= _LATER_S


def _since_start_s() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _runs_our_program(pid: int) -> bool:
    try:
        return os.readlink(f"/proc/{pid}/exe") == os.readlink("/proc/self/exe")
    except OSError:
        return False
