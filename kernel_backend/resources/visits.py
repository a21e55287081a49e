"""Namespaces of others that we go into ourselves: IPC and network.

Who looks at a namespace's objects, and makes them, does so in the one that it is in itself. So we go there: for a dump
into the tree's, for a restore into a new one, which all that we fork is born in, or in place into that of the process
which is replaced. Then everything else is done as in our own. That takes CAP_SYS_ADMIN, and a tree that is all in one.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable
from typing import Literal

from kernel_backend.abi import linux
from kernel_backend.errors import EngineError, ResourceUnsupported, TargetDenied, TargetUnsupported
from kernel_backend.host import libc
from kernel_backend.host.features import effective_capabilities
from kernel_backend.tracee.process import Process

Kind = Literal["ipc", "net"]
KINDS: dict[Kind, int] = {"ipc": linux.CLONE_NEWIPC, "net": linux.CLONE_NEWNET}
_CALLED: dict[Kind, str] = {"ipc": "IPC", "net": "network"}


def identity(kind: Kind, view: int) -> int:
    """Which namespace a process is in; 0 for all where the OS kernel has none."""
    return _number(f"/proc/{view}/ns/{kind}")


def here(kind: Kind) -> int:
    """The one that we are in just now."""
    return _number(f"/proc/thread-self/ns/{kind}")


def _number(link: str) -> int:
    try:
        return os.stat(link).st_ino
    except FileNotFoundError:
        return 0


def of_all(tree: Iterable[Process]) -> set[Kind]:
    """Of which kinds all of a tree is in one namespace, which we may look into."""
    if "CAP_SYS_ADMIN" not in effective_capabilities():
        return set()
    views = [process.view for process in tree]
    return {kind for kind in KINDS if len({identity(kind, view) for view in views}) == 1}


class Visit:
    """Our stay in other namespaces: of the calling thread alone, which is back in its own afterwards."""

    def __init__(self) -> None:
        self._homes: dict[Kind, int] = {}
        self._undoing: list[Callable[[], None]] = []

    def __enter__(self) -> Visit:
        return self

    def join(self, kind: Kind, pid: int) -> None:
        """Go where a process is."""
        self._note_home(kind)
        there = os.open(f"/proc/{pid}/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            libc.syscall("setns", there, KINDS[kind])
        finally:
            os.close(there)

    def begin(self, kind: Kind) -> None:
        """Go into a new one."""
        self._note_home(kind)
        libc.syscall("unshare", KINDS[kind])

    def undo(self, work: Callable[[], None]) -> None:
        """Have `work` done as we leave, to take back a change in a namespace of the present; not after `commit`."""
        self._undoing.append(work)

    def commit(self) -> None:
        """The point of no return is past: what we have changed stays when we leave."""
        self._undoing.clear()

    def is_away(self, kind: Kind) -> bool:
        """Whether we are in another one than our own."""
        return kind in self._homes

    def _note_home(self, kind: Kind) -> None:
        self._homes[kind] = os.open(f"/proc/thread-self/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC)

    def __exit__(self, *_: object) -> None:
        while self._undoing:
            with contextlib.suppress(EngineError, OSError):
                self._undoing.pop()()
        for kind, home in self._homes.items():
            libc.syscall("setns", home, KINDS[kind])
            os.close(home)
        self._homes.clear()


def go_to_tree(kind: Kind, root: Process, visit: Visit) -> int:
    """For a dump: be where the tree is. Which namespace that is; 0 for the one that we were in already."""
    number = identity(kind, root.view)
    if number == here(kind):
        return 0
    if "CAP_SYS_ADMIN" not in effective_capabilities():
        article = "an" if kind == "ipc" else "a"
        raise ResourceUnsupported(
            f"process {root.pid} lives in {article} {_CALLED[kind]} namespace of its own",
            hint="checkpoint it as root", pid=root.pid,
        )  # fmt: skip
    visit.join(kind, root.view)
    return number


def check(kind: Kind, wanted: int, root_pid: int, present: Process | None, *, same_boot: bool) -> None:
    """Before a restore: raise unless a tree can have its namespace.

    `wanted` is the number of the one that it was in, 0 for that of who made the image; `present` is the process that
    is replaced, None for none.
    """
    if present is not None:
        there = identity(kind, present.view)
        if there != (wanted or here(kind)) or (wanted and not same_boot):
            raise TargetUnsupported(
                f"process {present.pid} lives in another {_CALLED[kind]} namespace than process {root_pid} of the "
                "image did, so that cannot take its place",
                hint="restore the image as a fresh process", pid=present.pid,
            )  # fmt: skip
    if wanted and "CAP_SYS_ADMIN" not in effective_capabilities():
        article = "an" if kind == "ipc" else "a"
        raise TargetDenied(
            f"process {root_pid} of the image lives in {article} {_CALLED[kind]} namespace of its own: that takes "
            "CAP_SYS_ADMIN",
            hint="restore it as root", pid=root_pid,
        )  # fmt: skip
