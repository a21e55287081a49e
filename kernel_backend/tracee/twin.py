"""A frozen copy-on-write twin of a process: what is written to disk while the original runs on.

The twin is made by an injected clone(2) in one stopped thread. It has exit signal 0: such a child is not announced by
SIGCHLD and is invisible to wait(2) without __WALL, so the program never learns of it (where a thread waits with __WALL,
there must be no twin: `would_be_taken`). It inherits every descriptor,
which would keep pipes and sockets open behind the program's back: closing them is the first thing it is made to do.
It never runs a single instruction of the program: it dies with us (PTRACE_O_EXITKILL), and should we die before that is
said, it returns into a frame that makes it exit. A dead twin is reaped by an injected wait4, a stop of one thread for
some 0.1 ms; one that a killed helper left is reaped by the next dump.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import time
from collections.abc import Callable, Iterable

from kernel_backend.abi import arch, linux
from kernel_backend.abi.x86_64 import UserRegs
from kernel_backend.errors import EngineError, TargetBusy
from kernel_backend.host import limits, proc
from kernel_backend.tracee.chorus import Asking, Chorus
from kernel_backend.tracee.inject import WORD, Borrowed, Call, Workshop
from kernel_backend.tracee.process import Process, frozen_thread
from kernel_backend.tracee.stub import kill_and_collect, open_workshop, step_call
from kernel_backend.tracee.thread import ALL_BUT_SIGTRAP, FOLLOW_NEW, GENTLE, Thread

WORKSHOP_BYTES = 1 << 18
_REAP_TRIES, _REAP_AGAIN_S = 20, 0.005
_EVERY_SORT = linux.WALL | linux.WCLONE


class Twin:
    """The twin of one process, stopped for its whole life."""

    def __init__(self, original: Process, pid: int, uncover: Callable[[int], None]) -> None:
        """`uncover`: takes what we laid upon its mother's stack out of the memory of the process with that pid."""
        self.original_pid = original.pid
        self.pid = pid
        self.gadgets = original.gadgets
        self.thread = Thread(pid, pid)
        self.thread.lasting = original.main.lasting  # as a fork inherits them
        self.limits: list[tuple[int, int]] = []  # the original's, which would hinder it
        # The signals that the original ignores, as a mask: a step has SIGTRAP not ignored any more
        self.ignored = int(original.status()["SigIgn"], 16)
        self._uncover = uncover
        self._workshop: Workshop | None = None
        self._ended = False

    def settle(self) -> None:
        """Wait for its first stop, tie its life to ours, close its descriptors.

        It leaves the process group: whoever kills that, as Jupyter does where a kernel has crashed, means the original.
        """
        self.thread.wait()
        self.thread.set_options(linux.PTRACE_O_EXITKILL)
        self._uncover(self.pid)  # where the stack is a small one, of a coroutine, that is the program's data
        self.thread.set_sigmask(ALL_BUT_SIGTRAP)
        self.limits = limits.read(self.pid)
        limits.lift(self.pid)
        step_call(self.thread, self.gadgets.syscall, "close_range", 0, 0xFFFFFFFF, 0)
        step_call(self.thread, self.gadgets.syscall, "setsid")
        if any(self.limits[which][1] != limits.UNLIMITED for which in (resource.RLIMIT_AS, resource.RLIMIT_DATA)):
            _ = self.workshop  # there may be no room for it: known while there is another way

    @property
    def workshop(self) -> Workshop:
        """A page of ours in the twin, for moving data."""
        if self._workshop is None:
            self._workshop = open_workshop(self.thread, 0, WORKSHOP_BYTES, fixed=False)
        return self._workshop

    def end(self, frozen: Process | None = None) -> None:
        """Kill the twin and take its remains out of the original; neither needs to be there any more.

        `frozen` is the original where it is stopped under our trace at this moment. Never raises for what is gone.
        """
        if self._ended:
            return  # its pid may be somebody else's by now
        self._ended = True
        number = _inner_id(self.pid)
        kill_and_collect(self.pid)
        if number and frozen is None:
            reap(self.original_pid, [number])
        elif number and frozen is not None:
            with contextlib.suppress(EngineError, OSError):
                _reap_by(frozen, [number])


def make_twins(processes: Iterable[Process]) -> tuple[list[Twin], OSError | None]:
    """Fork frozen processes, all at the same time; and why the OS kernel would not fork one (memory, limits)."""
    mothers = {process.borrow(): process for process in processes}
    for borrowed in mothers:
        borrowed.thread.set_options(GENTLE | FOLLOW_NEW)
    refused: OSError | None = None
    try:
        with Chorus(mothers) as chorus:
            try:
                chorus.run({borrowed: _fork(borrowed) for borrowed in mothers})
            except OSError as error:
                refused = error
    finally:
        for borrowed in mothers:
            borrowed.thread.set_options(GENTLE)
    twins = [Twin(process, born, b.uncover) for b, process in mothers.items() for born in b.new_tids]
    return twins, refused


def _fork(borrowed: Borrowed) -> Asking[int]:
    return (yield Call("clone", 0, borrowed.end_frame(), 0, 0, 0))


def would_be_taken(regs: UserRegs) -> bool:
    """Whether a thread waits for children of every sort, and would have the twin for one of the program's."""
    ids = ctypes.c_int(regs.args[0]).value
    if regs.call == arch.SYS["wait4"]:
        return ids <= 0 and bool(regs.args[2] & _EVERY_SORT)
    if regs.call == arch.SYS["waitid"]:
        return ids in (os.P_ALL, os.P_PGID) and bool(regs.args[3] & _EVERY_SORT)
    return False


def reap(pid: int, numbers: Iterable[int]) -> None:
    """Take dead twins out of the process's children, by a wait4 in one of its threads; `numbers` are those it knows."""
    for _ in range(_REAP_TRIES):
        try:
            with frozen_thread(pid) as process:
                _reap_by(process, numbers)
        except TargetBusy:
            time.sleep(_REAP_AGAIN_S)  # nothing tells when it will be able to
        except (EngineError, OSError):
            return  # the process has ended; whoever has its children now reaps them
        else:
            return  # otherwise the next dump does it


def _reap_by(process: Process, numbers: Iterable[int]) -> None:
    with process.borrow() as borrowed:
        for number in numbers:
            with contextlib.suppress(ChildProcessError):
                borrowed.call("wait4", number, 0, linux.WALL | os.WNOHANG, 0)


def _inner_id(twin: int) -> int:
    """Its number in its pid namespace, by which its parent knows it; 0 when it is gone."""
    try:
        return proc.inner_id(twin)
    except OSError:
        return 0


def reap_all(call: Callable[..., int]) -> None:
    """Wait, by injected calls, for every dead child of a process; `call` makes one system call in it."""
    any_child = WORD  # -1
    try:
        while call("wait4", any_child, 0, linux.WALL | os.WNOHANG, 0):
            continue
    except ChildProcessError:
        return


def clean_stale_twins(pid: int) -> None:
    """Reap the dead twins that a helper which was killed left behind: zombies with exit signal 0."""
    try:
        stale = [number for number in map(_stale_number, proc.children(pid)) if number]
    except OSError:
        return  # there is no such process: the freeze will say so
    if stale:
        reap(pid, stale)


def _stale_number(child: int) -> int:
    """The number of such a zombie in its pid namespace; 0 when it is none."""
    try:
        stat = proc.stat(child)
        return proc.inner_id(child) if stat.state == "Z" and stat.exit_signal == 0 else 0
    except OSError:
        return 0
