"""System calls made by a stopped thread on our behalf.

Two ways, for two situations:

`Borrowed` is for a process that must go on unharmed whatever happens to us. Between any two of our steps we may be
killed; the OS kernel then lets the tracee run with whatever registers it has. So before the first call we lay the
same thing on its stack that a signal handler would find there: a frame with all of its registers, its floating-point
state and its signal mask, under a return address that points to libc's own sigreturn stub. Every call is made at a
`syscall; ret` that exists in the process, with that frame on top of the stack. Left alone at any point, the thread
finishes the call, returns into the stub, and the OS kernel puts every register back. (The order is part of it: the
registers point into the frame before the signal mask is touched.)

`Workshop` is for a process that we are building: it has a page of ours with a small loop which runs a whole table of
system calls per stop, several times faster. Such a process is killed with us (PTRACE_O_EXITKILL).

Sources: signal-frame layout in arch/x86/kernel/signal_64.c and fpu/signal.c of the OS kernel; ptrace(2). The idea of
scoped remote syscalls is in rr's AutoRemoteSyscalls; that of a frame which heals itself is ours.
"""

from __future__ import annotations

import bisect
import ctypes
import errno
import operator
import os
import struct
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType

from kernel_backend.abi import arch, linux
from kernel_backend.abi.x86_64 import UserRegs
from kernel_backend.errors import TargetBusy
from kernel_backend.host import libc
from kernel_backend.tracee import restartable
from kernel_backend.tracee.thread import ALL_BUT_SIGTRAP, Dispatch, Thread

WORD = 0xFFFFFFFFFFFFFFFF
_MAX_ERRNO = 4095
SCRATCH_DATA_BYTES = 4352  # room for arguments below the frame: little, for stacks may be small
BATCH_OFFSET = 512  # in that room: here begins the part that batch.py uses


def check(result: int, what: str) -> int:
    """A raw syscall result as a value, or OSError."""
    if result > WORD - _MAX_ERRNO:
        number = WORD + 1 - result
        raise OSError(number, f"{what} in the tracee: {os.strerror(number)}")
    return result


def failed_with(number: int) -> int:
    """The raw result of a syscall that failed with this errno."""
    return WORD + 1 - number


def restart_number(thread: Thread, regs: UserRegs) -> int:
    """The number of the system call that the thread was interrupted in.

    After an earlier interruption the OS kernel has replaced it by restart_syscall; then the instruction before the
    `syscall` usually still says it (mov $N,%eax).
    """
    if regs.call != arch.SYS["restart_syscall"]:
        return regs.call
    try:
        before = libc.vm_read(thread.tid, regs.pc - 7, 5)
    except OSError:
        return regs.call
    return struct.unpack("<I", before[1:])[0] if before[0] == arch.MOV_EAX_IMM32 else regs.call


# Calls which return EINTR, not "restart me", although nothing but our freeze interrupted them (signal(7), last part);
# those for sockets only when the socket has a time limit
_EINTR_ON_FREEZE = frozenset(
    arch.SYS[name]
    for name in (
        "epoll_wait", "epoll_pwait", "epoll_pwait2", "semop", "semtimedop", "rt_sigtimedwait", "io_getevents",
        "io_uring_enter",
        "accept", "accept4", "connect", "recvfrom", "recvmsg", "recvmmsg", "sendto", "sendmsg", "sendmmsg",
        "read", "readv", "write", "writev",
    )
)  # fmt: skip


def as_interrupted(thread: Thread, regs: UserRegs, *, keep_block: bool, number: int = 0) -> UserRegs:
    """The registers such that the thread, once it runs, repeats the system call that our freeze interrupted.

    The OS kernel itself does the restart when it finds -ERESTART… and a call number in the registers of a thread
    that leaves a stop, so they are mostly kept as they are. Two cases need help: calls that answered EINTR only
    because of us, and (in an image: `keep_block` false) -ERESTART_RESTARTBLOCK, whose remainder lives inside the OS
    kernel and would be gone; the call is then repeated with its original arguments. `number`: of that call, where the
    caller knows better than we.
    """
    result = regs.result
    if regs.call == arch.NO_CALL or result <= WORD - _MAX_ERRNO:
        return regs
    failed = WORD + 1 - result
    if failed == linux.ERESTART_RESTARTBLOCK and not keep_block:
        number = number or restart_number(thread, regs)
        if number == arch.SYS["restart_syscall"]:
            failed = errno.EINTR
        else:
            regs.call, failed = number, linux.ERESTARTNOHAND
        regs.result = WORD + 1 - failed
    elif failed == errno.EINTR and regs.call in _EINTR_ON_FREEZE:
        regs.result = WORD + 1 - linux.ERESTARTNOHAND
    return regs


def rewound(regs: UserRegs) -> UserRegs:
    """A copy of `regs` that restarts the interrupted call by itself, without the OS kernel's help: for a frame."""
    copy = UserRegs.from_buffer_copy(regs)
    if copy.call == arch.NO_CALL or copy.result <= WORD - _MAX_ERRNO:
        return copy
    failed = WORD + 1 - copy.result
    if failed in (linux.ERESTARTSYS, linux.ERESTARTNOINTR, linux.ERESTARTNOHAND):
        copy.repeat_call()
    elif failed == linux.ERESTART_RESTARTBLOCK:
        copy.result = WORD + 1 - errno.EINTR
    return copy


# Return address; flags and link of struct ucontext; its stack; struct sigcontext; the signal mask
_SIGFRAME = struct.Struct(f"<Q QQ QiiQ {len(arch.SIGCONTEXT_ORDER)}Q4H4QQ64x Q")
_IN_ORDER = operator.attrgetter(*arch.SIGCONTEXT_ORDER)
_FLAGS = arch.UC_FP_XSTATE | arch.UC_SIGCONTEXT_SS | arch.UC_STRICT_RESTORE_SS
_INVALID_STACK = 0, 0x7FFF, 0, 0  # refused by the OS kernel: the alternate stack stays
SIGFRAME_BYTES = _SIGFRAME.size


def build_sigframe(fp_address: int, regs: UserRegs, sigmask: int, restorer: int) -> bytes:
    """A struct rt_sigframe (without siginfo) whose floating-point state lies at `fp_address`."""
    selectors = regs.cs, regs.gs, regs.fs, regs.ss
    return _SIGFRAME.pack(
        restorer, _FLAGS, 0, *_INVALID_STACK, *_IN_ORDER(regs), *selectors, 0, 0, 0, 0, fp_address, sigmask
    )


assert SIGFRAME_BYTES == 8 + 40 + 256 + 8


def sigframe_xstate(state: bytes) -> bytes:
    """XSAVE state as it stands in a signal frame: with the software-reserved words and the end mark filled in.

    ptrace(2) tells the tile data of every thread (the last and by far the largest component), sigreturn takes it only
    of those that have asked for it: a frame that seems too long is stripped down to the SSE registers. So what is not
    in use is left out.
    """
    at = arch.FXSAVE_SW_RESERVED_OFFSET
    features, in_use = (struct.unpack_from("<Q", state, offset)[0] for offset in (at, arch.XSTATE_BV_OFFSET))
    if features & ~in_use & arch.XSTATE_TILE_DATA:
        state = state[: -arch.XSTATE_TILE_DATA_BYTES]
    words = struct.pack("<IIQI", arch.FP_XSTATE_MAGIC1, len(state) + 4, features, len(state)) + bytes(28)
    return state[:at] + words + state[at + 48 :] + struct.pack("<I", arch.FP_XSTATE_MAGIC2)


class Gadgets:
    """Addresses of code in the tracee that injection uses (0: none found).

    `syscall; ret`, a sigreturn stub, and code that stores the result of a call (batch.py).
    """

    __slots__ = ("sigreturn", "store", "syscall")

    def __init__(self, syscall: int, sigreturn: int, store: int = 0) -> None:
        self.syscall = syscall
        self.sigreturn = sigreturn
        self.store = store


_ALLOWED = b"\0"  # SYSCALL_DISPATCH_FILTER_ALLOW


def passes(thread: Thread, dispatch: Dispatch, gadgets: Gadgets) -> bool:
    """Whether the OS kernel would hear of calls that we inject, and of the sigreturn(2) that heals the thread.

    Nothing may be changed about that, not for a moment: should we be killed, the thread would go on with it, and calls
    would pass which its program wants to take.
    """
    ends = [gadgets.syscall + len(arch.SYSCALL_INSTRUCTION)]
    ends += [gadgets.sigreturn + len(stub) for stub in arch.SIGRETURN_STUBS] if gadgets.sigreturn else []
    if all(map(dispatch.lets_pass, ends)):
        return True
    try:
        return bool(dispatch.selector) and libc.vm_read(thread.tid, dispatch.selector, 1) == _ALLOWED
    except OSError:
        return False


def taken(thread: Thread) -> TargetBusy:
    """A thread in code whose calls its program takes: it cannot make one for us."""
    return TargetBusy(
        f"thread {thread.tid} of process {thread.tgid} is in code whose system calls are dispatched to the program "
        f"itself (PR_SET_SYSCALL_USER_DISPATCH)",
        hint="try again when it waits for something", pid=thread.tgid,
    )  # fmt: skip


class FrameSpans:
    """Where the frames of a process's borrowed threads lie, so that none is laid over another's; often thousands."""

    def __init__(self) -> None:
        self._spans: list[tuple[int, int]] = []

    def claim(self, span: tuple[int, int]) -> bool:
        """Take [start, end), unless some of it is taken; whether it could be had."""
        start, end = span
        at = bisect.bisect(self._spans, span)
        if at > 0 and self._spans[at - 1][1] > start:
            return False
        if at < len(self._spans) and self._spans[at][0] < end:
            return False
        self._spans.insert(at, span)
        return True

    def leave(self, span: tuple[int, int]) -> None:
        """It is not needed any more."""
        at = bisect.bisect_left(self._spans, span)
        if self._spans[at : at + 1] == [span]:
            del self._spans[at]


class Borrowed:
    """A context in which a stopped thread makes system calls and afterwards is as it was."""

    def __init__(
        self,
        thread: Thread,
        gadgets: Gadgets,
        spare_room: Callable[[int], int] | None = None,
        frames: FrameSpans | None = None,
    ) -> None:
        """`spare_room`: the end of so many bytes that nobody uses, for a thread whose stack has no room left.

        `frames`: those of all borrowed threads of the same memory.
        """
        self.thread = thread
        self.gadgets = gadgets
        self._spare_room = spare_room
        self._frames = frames or FrameSpans()
        self.new_tids: list[int] = []
        self.regs = UserRegs()  # with sigmask and xstate: what the thread gets back
        self.sigmask = 0
        self.xstate = b""
        self.rseq: restartable.Area | None = None
        self.dispatch: Dispatch | None = None
        self.data = 0  # address of SCRATCH_DATA_BYTES bytes for arguments
        self.stack = 0  # of the frame that heals the thread
        self.fp_address = 0  # of the floating-point state in it
        self._work = UserRegs()
        self._covered = b""  # what lay where frame and arguments are
        self._given_back = self._leaving = False

    def __enter__(self) -> Borrowed:
        thread = self.thread
        self.dispatch = thread.dispatch()
        if self.dispatch is not None and not passes(thread, self.dispatch, self.gadgets):
            raise taken(thread)
        thread.get_regs(self.regs)
        self.rseq = thread.rseq()
        aborted = restartable.abort_section(thread, self.regs, self.rseq)
        self.sigmask = thread.get_sigmask()
        self.xstate = thread.get_xstate()
        self._lay_frame()
        ctypes.memmove(ctypes.byref(self._work), ctypes.byref(self.regs), ctypes.sizeof(UserRegs))
        self._work.call, self._work.sp = arch.NO_CALL, self.stack
        self._work.leave_narrow_code()
        if self.gadgets.sigreturn:
            self._work.pc = self.gadgets.syscall + len(arch.SYSCALL_INSTRUCTION)
            thread.set_regs(self._work)
        if aborted:
            restartable.clear(thread, aborted)
        try:
            thread.set_sigmask(ALL_BUT_SIGTRAP)
        except BaseException:
            self._give_back()
            raise
        return self

    def _lay_frame(self) -> None:
        regs = self.regs
        state = sigframe_xstate(self.xstate)
        self._find_room(len(state))
        content = build_sigframe(self.fp_address, rewound(regs), self.sigmask, self.gadgets.sigreturn)
        libc.vm_write(self.thread.tid, self.stack, content.ljust(self.fp_address - self.stack, b"\0") + state)

    def _find_room(self, state_bytes: int) -> None:
        """Place frame and arguments on the stack.

        A stack may be tiny or full, and some code computes with its stack pointer: then it has to be elsewhere. So it
        has where stacks are so close to each other that two threads' frames would lie on top of each other.
        """
        try:
            self._place(self.regs.sp - arch.RED_ZONE_BYTES, state_bytes)
        except OSError as error:
            if error.errno != errno.EFAULT or self._spare_room is None:
                raise
        else:
            if self._spare_room is None or self._frames.claim(self._span):
                return
        self._place(self._spare_room(state_bytes + SIGFRAME_BYTES + SCRATCH_DATA_BYTES + 128), state_bytes)
        self._frames.claim(self._span)

    @property
    def _span(self) -> tuple[int, int]:
        return self.data, self.data + len(self._covered)

    def _place(self, top: int, state_bytes: int) -> None:
        self.fp_address = (top - state_bytes) & WORD & ~63
        self.stack = (self.fp_address - SIGFRAME_BYTES) & WORD & ~15
        self.data = (self.stack - SCRATCH_DATA_BYTES) & WORD
        self._covered = self._read_stack(self.data, self.fp_address + state_bytes - self.data)

    def _read_stack(self, address: int, size: int) -> bytes:
        if address + size > linux.TASK_SIZE:
            raise OSError(errno.EFAULT, os.strerror(errno.EFAULT))
        try:
            return libc.vm_read(self.thread.tid, address, size)
        except OSError as error:
            if error.errno != errno.EFAULT:
                raise
        libc.grow_stack(self.thread.tid, address)  # it ends above: nothing deeper was ever called
        return libc.vm_read(self.thread.tid, address, size)

    def call(self, name: str, *args: int) -> int:
        """Make one system call; its result, or OSError."""
        return check(self.raw(arch.SYS[name], args), name)

    def raw(self, number: int, args: Sequence[int]) -> int:
        """Make one system call; its raw result."""
        self.begin(number, args)
        self.go_inside()
        return self.result()

    # A call in three parts, so that several threads can be at one each (chorus.py). The thread is led from its entry
    # to its exit (PTRACE_SYSCALL). Single steps would do with half the stops, but rest in signal-delivery stops, and
    # when we die there the OS kernel delivers the SIGTRAP.
    def begin(self, number: int, args: Sequence[int]) -> None:
        """Send the thread to the entry of a system call."""
        self._work.make_call(self.gadgets.syscall, number, args)
        self._work.sp = self.stack
        self.thread.set_regs(self._work)
        self.thread.resume(linux.PTRACE_SYSCALL)

    def set_off(self, call: Call, stack: int, store_at: int) -> None:
        """Have the thread make a call and go on as `stack` says, without a stop (batch.py)."""
        name, args = call
        self._work.make_call(self.gadgets.syscall, arch.SYS[name], args)
        self._work.sp, self._work.store_at = stack, store_at
        self.thread.set_regs(self._work)
        self.thread.resume()

    def go_inside(self) -> None:
        """When it is at the entry, send it on to the exit."""
        self._await_syscall_stop()
        self.thread.resume(linux.PTRACE_SYSCALL)

    def result(self) -> int:
        """When it is at the exit: the raw result."""
        self._await_syscall_stop()
        return self.thread.get_regs().result

    def _await_syscall_stop(self) -> None:
        thread = self.thread
        while not (stop := thread.wait()).is_syscall:
            if stop.event in (linux.PTRACE_EVENT_CLONE, linux.PTRACE_EVENT_FORK, linux.PTRACE_EVENT_VFORK):
                self.new_tids.append(thread.event_message())
            thread.resume(linux.PTRACE_SYSCALL)

    def put(self, data: bytes) -> int:
        """Place argument bytes (up to SCRATCH_DATA_BYTES) and give their address."""
        assert len(data) <= SCRATCH_DATA_BYTES
        libc.vm_write(self.thread.tid, self.data, data)
        return self.data

    def get(self, size: int) -> bytes:
        """Result bytes from the same place."""
        return libc.vm_read(self.thread.tid, self.data, size)

    def end_frame(self) -> int:
        """The address of a second frame, from which a copy of the thread that is left alone just exits."""
        regs = UserRegs.from_buffer_copy(self._work)
        regs.make_call(self.gadgets.syscall, arch.SYS["exit_group"])
        return self.put(build_sigframe(0, regs, self.sigmask, self.gadgets.sigreturn))

    def begin_to_leave(self) -> None:
        """Give the thread its own mask, registers and stack back, and send it to where the OS kernel restarts calls."""
        thread = self.thread
        if self._given_back:
            return
        thread.set_sigmask(self.sigmask)
        thread.set_regs(self.regs)
        libc.vm_write(thread.tid, self.data, self._covered)  # not before: until now it was what heals the thread
        if thread.stop is not None and thread.stop.is_syscall:
            thread.interrupt()
            thread.resume(linux.PTRACE_CONT)
            self._leaving = True
        self._given_back = True

    @property
    def sleeps_on(self) -> bool:
        """Whether its own call goes on with a limit that the OS kernel alone remembers (restart_syscall(2)).

        Any signal frame makes it forget that, and any other call with a limit puts its own there.
        """
        return self.regs.call != arch.NO_CALL and self.regs.result == WORD + 1 - linux.ERESTART_RESTARTBLOCK

    def uncover(self, copy: int) -> None:
        """Put back what lay where frame and arguments are, in a copy of the process (fork) that needs neither."""
        libc.vm_write(copy, self.data, self._covered)

    def has_healed(self) -> None:
        """The thread got everything back by itself, and runs: there is nothing to give back any more."""
        self._given_back = True

    def finish_leaving(self) -> None:
        """When it has stopped there: it is as it was."""
        while self._leaving:
            self._leaving = self.thread.wait().event != linux.PTRACE_EVENT_STOP
            if self._leaving:
                self.thread.resume(linux.PTRACE_CONT)

    def _give_back(self) -> None:
        self.begin_to_leave()
        self.finish_leaving()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._frames.leave(self._span)
        try:
            self._give_back()
        except OSError:
            if error is None:
                raise


class Call(tuple[str, tuple[int, ...]]):
    """One row for a Workshop's table: name and arguments."""

    __slots__ = ()

    def __new__(cls, name: str, *args: int) -> Call:
        """A row; at most six arguments."""
        return super().__new__(cls, (name, args))


class Workshop:
    """The page of ours inside a process that is being built: code, a table of calls, room for arguments.

    `address` lies where neither the image nor the present layout has anything. `size` bytes; the table may take
    `TABLE_ROWS` rows at a time. The code stands at its beginning, or at `code`, where the process may run it.
    """

    TABLE_ROWS = 256
    CODE_BYTES = 64
    DATA_OFFSET = 64 + 256 * 64

    def __init__(self, thread: Thread, address: int, size: int, code: int = 0) -> None:
        self.thread = thread
        self.address = address
        self.size = size
        self.code = code or address
        self.data = address + self.DATA_OFFSET
        self.data_bytes = size - self.DATA_OFFSET
        self.new_tids: list[int] = []
        self._base = thread.get_regs()
        self._base.call = arch.NO_CALL
        if code:
            libc.poke(thread.tid, code, arch.RUN_TABLE)
        else:
            libc.vm_write(thread.tid, address, arch.RUN_TABLE)

    def of_thread(self, thread: Thread) -> Workshop:
        """The same page, for calls of another thread of the process: only one of both may work at a time."""
        return Workshop(thread, self.address, self.size, 0 if self.code == self.address else self.code)

    def put(self, data: bytes, offset: int = 0) -> int:
        """Place argument bytes at `offset` of the data room; their address."""
        assert offset + len(data) <= self.data_bytes, (offset, len(data), self.data_bytes)
        libc.vm_write(self.thread.tid, self.data + offset, data)
        return self.data + offset

    def get(self, size: int, offset: int = 0) -> bytes:
        """Bytes of the data room."""
        return libc.vm_read(self.thread.tid, self.data + offset, size)

    def call(self, name: str, *args: int) -> int:
        """One call; its result, or OSError."""
        return self.run([Call(name, *args)])[0]

    def run(self, calls: Iterable[Call], *, thread: Thread | None = None, timeout_s: float | None = None) -> list[int]:
        """Make the calls in order; their results. The first that fails raises OSError with its name."""
        rows = list(calls)
        results: list[int] = []
        for first in range(0, len(rows), self.TABLE_ROWS):
            results += self._run_part(rows[first : first + self.TABLE_ROWS], thread or self.thread, timeout_s)
        return results

    def start(self, calls: Sequence[Call], thread: Thread, table: int) -> None:
        """Set `thread` going through a table that stands at `table`; `finish` waits for it."""
        packed = b"".join(
            arch.TABLE_ROW.pack(arch.SYS[name], *[a & WORD for a in (*args, 0, 0, 0, 0, 0, 0)[:6]], 0)
            for name, args in calls
        )
        libc.vm_write(self.thread.tid, table, packed)
        regs = UserRegs.from_buffer_copy(self._base)
        regs.run(self.code, table, len(calls))
        thread.set_regs(regs)
        thread.resume(linux.PTRACE_CONT)

    def finish(self, calls: Sequence[Call], thread: Thread, table: int, timeout_s: float | None = None) -> list[int]:
        """Wait until the table has run; the results."""
        while not thread.wait(timeout_s).is_step:
            assert thread.stop is not None
            if thread.stop.event in (linux.PTRACE_EVENT_CLONE, linux.PTRACE_EVENT_FORK, linux.PTRACE_EVENT_VFORK):
                self.new_tids.append(thread.event_message())
            thread.resume(linux.PTRACE_CONT)
        raw = libc.vm_read(self.thread.tid, table, 64 * len(calls))
        rows = [row[7] for row in arch.TABLE_ROW.iter_unpack(raw)]
        return [check(result, name) for (name, _), result in zip(calls, rows, strict=True)]

    def _run_part(self, rows: Sequence[Call], thread: Thread, timeout_s: float | None) -> list[int]:
        table = self.address + self.CODE_BYTES
        self.start(rows, thread, table)
        return self.finish(rows, thread, table, timeout_s)
