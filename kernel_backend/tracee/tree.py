"""A process tree, frozen whole: no member runs while another is still being stopped or looked at."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import msgspec

from kernel_backend.errors import EngineError
from kernel_backend.host import proc
from kernel_backend.tracee.process import Process, check_target
from kernel_backend.tracee.thread import STOP_TIMEOUT_S


class FrozenTree(msgspec.Struct):
    """Stopped processes by pid, parents before children, and children that ended but were not waited for."""

    root: int
    processes: dict[int, Process] = {}
    zombies: dict[int, proc.Stat] = {}

    @property
    def tids(self) -> set[int]:
        """Every number that it has, also those of threads that have ended and were not waited for."""
        living = {tid for process in self.processes.values() for tid in process.threads}
        return living | self.processes.keys() | self.zombies.keys()


@contextmanager
def frozen_tree(pid: int, *, descend: bool = True) -> Iterator[FrozenTree]:
    """The tree below `pid` (or that one process), all stopped; it runs on afterwards, whatever happens inside."""
    tree = FrozenTree(pid)
    with ExitStack() as stack:
        _freeze_one(tree, pid, stack)
        deadline = time.monotonic() + STOP_TIMEOUT_S
        while descend and _freeze_children(tree, stack, deadline):
            pass
        for process in tree.processes.values():
            process.return_signals()
        try:
            yield tree
        finally:
            for process in tree.processes.values():
                process.fix_interrupted()


def _freeze_one(tree: FrozenTree, pid: int, stack: ExitStack) -> None:
    check_target(pid)
    process = Process(pid)
    stack.callback(process.release)
    process.seize_all()
    tree.processes[pid] = process


def _freeze_children(tree: FrozenTree, stack: ExitStack, deadline: float) -> bool:
    """One round over everybody's children; whether there was a new one."""
    found = False
    for parent in list(tree.processes):
        for pid in proc.children(parent):
            if pid in tree.processes or pid in tree.zombies:
                continue
            try:
                stat = proc.stat(pid)
                ended = stat.state in "ZX" and proc.view(pid) == pid  # and no other thread of it goes on
            except OSError:
                found = True  # it has ended; a child of its own may be here by now
                continue
            if ended:
                if stat.exit_signal != 0:  # otherwise it is a dead twin of an earlier dump: not the program's
                    tree.zombies[pid] = stat
                    found = True
                continue
            found = True
            try:
                _freeze_one(tree, pid, stack)
            except EngineError:
                if not _has_ended(pid) or time.monotonic() > deadline:
                    raise
                tree.processes.pop(pid, None)  # the next round sees a zombie, or nothing
    return found


_PF_EXITING = 0x4


def _has_ended(pid: int) -> bool:
    """Whether it is a zombie, or on its way to become one."""
    try:
        stat = proc.stat(proc.view(pid))
        return stat.state in "ZX" or bool(stat.flags & _PF_EXITING)
    except OSError:
        return True
