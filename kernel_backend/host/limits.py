"""Resource limits of a process (getrlimit(2)), from outside."""

from __future__ import annotations

import contextlib
import resource
from pathlib import Path

UNLIMITED = 2**64 - 1
SIGPENDING = 11  # RLIMIT_SIGPENDING, which the module resource does not name
# Not the stack's: where it is unlimited when a program begins, its memory is laid out otherwise.
_IN_THE_WAY = (
    resource.RLIMIT_AS, resource.RLIMIT_DATA, resource.RLIMIT_FSIZE, resource.RLIMIT_NPROC, resource.RLIMIT_NOFILE,
    resource.RLIMIT_MEMLOCK, resource.RLIMIT_MSGQUEUE, SIGPENDING,
)  # fmt: skip


def read(pid: int) -> list[tuple[int, int]]:
    """(soft, hard) of every resource limit, by number. From /proc, which asks for no privilege."""
    lines = Path(f"/proc/{pid}/limits").read_text().splitlines()[1:]
    names = 26  # the width of the first column; lines are in the order of the limits' numbers
    pairs = [line[names:].split()[:2] for line in lines]
    return [(_limit(soft), _limit(hard)) for soft, hard in pairs]


def _limit(text: str) -> int:
    return UNLIMITED if text == "unlimited" else int(text)


def hard(pid: int, which: int) -> int:
    """The hard limit: what a process may not go beyond."""
    return read(pid)[which][1]


def lift(pid: int) -> None:
    """Let a process of our making have as much of everything as it ever may; as root, without bounds."""
    for which in _IN_THE_WAY:
        with contextlib.suppress(OSError, ValueError):
            hard = resource.prlimit(pid, which)[1]
            resource.prlimit(pid, which, (hard, hard))
            resource.prlimit(pid, which, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
