"""One traced thread: its stops, registers, masks and queues (ptrace(2))."""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import struct
import time

import msgspec

from kernel_backend.abi import linux
from kernel_backend.abi.x86_64 import SYS, XSTATE_MAX_BYTES, UserRegs
from kernel_backend.errors import TargetBusy, TargetDenied, TargetNotFound, TargetUnsupported
from kernel_backend.host import libc, proc

SIGTRAP = int(signal.SIGTRAP)
ALL_BUT_SIGTRAP = ~(1 << (SIGTRAP - 1)) & 0xFFFFFFFFFFFFFFFF
GENTLE = linux.PTRACE_O_TRACESYSGOOD  # the options under which an original is traced
FOLLOW_NEW = linux.PTRACE_O_TRACECLONE | linux.PTRACE_O_TRACEFORK | linux.PTRACE_O_TRACEVFORK
STOP_TIMEOUT_S = 5.0
_FORKING = {SYS[name] for name in ("clone", "vfork", "clone3")}
SIGINFO_BYTES = 128


_DISPATCH = struct.Struct("<4Q")  # struct ptrace_sud_config
_DISPATCH_OFF, _DISPATCH_OUTSIDE, _DISPATCH_INSIDE = 0, 1, 2  # PR_SYS_DISPATCH_OFF, _EXCLUSIVE_ON, _INCLUSIVE_ON


class Dispatch(msgspec.Struct, frozen=True):
    """System calls that the OS kernel hands to the program itself (prctl(2), PR_SET_SYSCALL_USER_DISPATCH).

    All but those behind which an instruction in [`offset`, `offset` + `length`) follows, which may lead around the end
    of the address space; and where there is a `selector`, only while the byte at that address says so.
    """

    selector: int
    offset: int
    length: int

    def lets_pass(self, instruction: int) -> bool:
        """Whether a call passes, whatever the selector says, after which `instruction` comes."""
        return (instruction - self.offset) % (1 << 64) < self.length


class Stop(msgspec.Struct, frozen=True, gc=False):
    """Why a tracee stopped: its wait status taken apart."""

    signal: int
    event: int

    @property
    def is_step(self) -> bool:
        """A plain SIGTRAP: a step, an int3, or somebody's kill(SIGTRAP)."""
        return self.signal == SIGTRAP and self.event == 0

    @property
    def is_syscall(self) -> bool:
        """At the entry or the exit of a system call (PTRACE_SYSCALL)."""
        return self.signal == SIGTRAP | linux.SYSCALL_STOP

    @property
    def is_delivery(self) -> bool:
        """A signal on its way to the thread, which waits for our word."""
        return self.event == 0 and not self.is_step and not self.is_syscall


class ThreadGone(TargetNotFound):
    """The traced thread ended under our hands."""


class Thread:
    """A thread we trace. Methods need it to be stopped, unless they say otherwise."""

    __slots__ = ("group_stop", "lasting", "regs", "stop", "tgid", "tid")

    def __init__(self, tid: int, tgid: int) -> None:
        self.tid = tid
        self.tgid = tgid
        self.stop: Stop | None = None
        self.lasting = 0  # PTRACE_O_ options that hold as long as it is traced
        self.group_stop = 0  # the job-control signal that had stopped it before we came, or 0
        self.regs = UserRegs()

    # --- coming and going ---------------------------------------------------------------------------------------
    def seize(self, options: int = GENTLE) -> None:
        """Become its tracer; it runs on. Raises TargetBusy, TargetDenied, ThreadGone."""
        try:
            libc.ptrace(linux.PTRACE_SEIZE, self.tid, 0, options)
        except OSError as error:
            raise self._why_not_seized(error) from error

    def _why_not_seized(self, error: OSError) -> Exception:
        if error.errno == errno.ESRCH:
            return ThreadGone(f"thread {self.tid} of process {self.tgid} ended", pid=self.tgid)
        try:
            status = proc.status(self.tgid, self.tid)
        except OSError:
            return ThreadGone(f"thread {self.tid} of process {self.tgid} ended", pid=self.tgid)
        if status["State"][0] in "ZX":
            return ThreadGone(f"thread {self.tid} of process {self.tgid} ended", pid=self.tgid)
        tracer = int(status["TracerPid"])
        if tracer:
            return TargetBusy(
                f"process {self.tgid} is traced by process {tracer} already", pid=self.tgid, tracer=tracer
            )
        return TargetDenied(f"not permitted to trace process {self.tgid} ({status.get('Name', '?')})", pid=self.tgid)

    def interrupt(self) -> None:
        """Ask it to stop (does not wait)."""
        self._ask(linux.PTRACE_INTERRUPT)

    def wait(self, timeout_s: float | None = STOP_TIMEOUT_S) -> Stop:
        """Wait for its next stop. None waits without bound (for a system call that moves much data).

        Raises ThreadGone when it ended, TargetUnsupported when it does not stop in time.
        """
        return self._note(self.wait_status(timeout_s))

    def has_stopped(self) -> bool:
        """Whether it has stopped since it was resumed (does not wait). Raises ThreadGone when it ended."""
        try:
            pid, status = os.waitpid(self.tid, linux.WALL | os.WNOHANG)
        except ChildProcessError as error:
            raise ThreadGone(f"thread {self.tid} of process {self.tgid} ended", pid=self.tgid) from error
        if pid:
            self._note(status)
        return bool(pid)

    def _note(self, status: int) -> Stop:
        if not os.WIFSTOPPED(status):
            raise ThreadGone(f"thread {self.tid} of process {self.tgid} ended", pid=self.tgid, status=status)
        self.stop = Stop((status >> 8) & 0xFF, status >> 16)
        return self.stop

    def wait_status(self, timeout_s: float | None = STOP_TIMEOUT_S) -> int:
        """Its next wait status, also of its end. Raises ThreadGone when there is none, else as `wait` does."""
        try:
            if timeout_s is None:
                return os.waitpid(self.tid, linux.WALL)[1]
            for attempt in range(1_000_000_000):
                pid, status = os.waitpid(self.tid, linux.WALL | os.WNOHANG)
                if pid:
                    return status
                if attempt == 0:
                    deadline = time.monotonic() + timeout_s
                elif attempt > 30:
                    if time.monotonic() > deadline:
                        raise self._why_not_stopped(timeout_s)
                    time.sleep(min(0.001, 0.00002 * (attempt - 30)))
        except ChildProcessError as error:
            raise ThreadGone(f"thread {self.tid} of process {self.tgid} ended", pid=self.tgid) from error
        raise AssertionError("unreachable")

    def _why_not_stopped(self, timeout_s: float) -> TargetUnsupported:
        who = f"thread {self.tid} of process {self.tgid}"
        if proc.system_call(self.tgid, self.tid) in _FORKING:
            return TargetUnsupported(
                f"{who} waits in vfork for a child that does not run its program",
                hint="end that child, or try again when it has started", pid=self.tgid,
            )  # fmt: skip
        return TargetUnsupported(
            f"{who} did not stop within {timeout_s:g} s (in an uninterruptible wait of the OS kernel)",
            hint="try again when its disk or network file system answers", pid=self.tgid,
        )  # fmt: skip

    def resume(self, request: int = linux.PTRACE_CONT, sig: int = 0) -> None:
        """Let it run (PTRACE_CONT) or run one instruction (PTRACE_SINGLESTEP)."""
        self._ask(request, 0, sig)

    def detach(self, sig: int = 0) -> bool:
        """Let it go for good. A thread that ended meanwhile is no error; whether it was there."""
        try:
            libc.ptrace(linux.PTRACE_DETACH, self.tid, 0, sig)
        except OSError:
            return False
        return True

    def set_options(self, options: int) -> None:
        """Replace the PTRACE_O_ options, but for those that last."""
        self._ask(linux.PTRACE_SETOPTIONS, 0, options | self.lasting)

    def suspend_filters(self, options: int = GENTLE) -> None:
        """Let no seccomp filter judge its calls until it is let go; `options` besides. Raises OSError."""
        self._ask(linux.PTRACE_SETOPTIONS, 0, options | linux.PTRACE_O_SUSPEND_SECCOMP)
        self.lasting = linux.PTRACE_O_SUSPEND_SECCOMP

    def event_message(self) -> int:
        """The tid of a new thread at a clone or fork event."""
        value = ctypes.c_ulong()
        self._ask(linux.PTRACE_GETEVENTMSG, 0, ctypes.byref(value))
        return value.value

    # --- registers ----------------------------------------------------------------------------------------------
    # Not by NT_PRSTATUS of PTRACE_GETREGSET: of a thread that is in code of 32 bits that tells those of such a program.
    def get_regs(self, into: UserRegs | None = None) -> UserRegs:
        """The general registers; a new object unless one is given."""
        regs = UserRegs() if into is None else into
        self._ask(linux.PTRACE_GETREGS, 0, ctypes.byref(regs))
        return regs

    def set_regs(self, regs: UserRegs) -> None:
        """Set the general registers, fs and gs base included."""
        self._ask(linux.PTRACE_SETREGS, 0, ctypes.byref(regs))

    def get_xstate(self) -> bytes:
        """x87, SSE, AVX … state in the standard XSAVE layout."""
        buffer = ctypes.create_string_buffer(XSTATE_MAX_BYTES)
        iov = libc.Iovec(ctypes.addressof(buffer), XSTATE_MAX_BYTES)
        self._regset(linux.PTRACE_GETREGSET, linux.NT_X86_XSTATE, iov)
        return buffer.raw[: iov.length]

    def set_xstate(self, state: bytes) -> None:
        """Set what get_xstate gave."""
        buffer = ctypes.create_string_buffer(state, len(state))
        iov = libc.Iovec(ctypes.addressof(buffer), len(state))
        self._regset(linux.PTRACE_SETREGSET, linux.NT_X86_XSTATE, iov)

    def _regset(self, request: int, kind: int, iov: libc.Iovec) -> None:
        self._ask(request, kind, ctypes.byref(iov))

    def _ask(self, request: int, addr: int = 0, data: object = 0) -> int:
        """A request of ptrace(2) that needs it to be stopped; it is not any more when somebody killed it meanwhile."""
        try:
            return libc.ptrace(request, self.tid, addr, data)
        except OSError as error:
            if error.errno == errno.ESRCH:
                raise ThreadGone(f"thread {self.tid} of process {self.tgid} ended", pid=self.tgid) from error
            raise

    # --- signals ------------------------------------------------------------------------------------------------
    def get_sigmask(self) -> int:
        """Blocked signals, bit n-1 for signal n."""
        mask = ctypes.c_uint64()
        self._ask(linux.PTRACE_GETSIGMASK, 8, ctypes.byref(mask))
        return mask.value

    def set_sigmask(self, mask: int) -> None:
        """Replace the blocked signals."""
        self._ask(linux.PTRACE_SETSIGMASK, 8, ctypes.byref(ctypes.c_uint64(mask)))

    def siginfo(self) -> bytes:
        """The siginfo of the present signal-delivery stop."""
        buffer = ctypes.create_string_buffer(SIGINFO_BYTES)
        self._ask(linux.PTRACE_GETSIGINFO, 0, buffer)
        return buffer.raw

    def pending_signals(self, *, shared: bool) -> list[bytes]:
        """Queued siginfo records: the process's (shared) or this thread's own."""
        room = 64
        found: list[bytes] = []
        while True:
            buffer = ctypes.create_string_buffer(room * SIGINFO_BYTES)
            flags = linux.PTRACE_PEEKSIGINFO_SHARED if shared else 0
            args = struct.pack("<QIi", len(found), flags, room)
            count = self._ask(linux.PTRACE_PEEKSIGINFO, ctypes_address(args), buffer)
            raw = buffer.raw
            found += [raw[i * SIGINFO_BYTES : (i + 1) * SIGINFO_BYTES] for i in range(count)]
            if count < room:
                return found

    def dispatch(self) -> Dispatch | None:
        """Which of its system calls the program itself takes; None: none, or the OS kernel does not tell (< 6.4)."""
        config = ctypes.create_string_buffer(_DISPATCH.size)
        try:
            libc.ptrace(linux.PTRACE_GET_SYSCALL_USER_DISPATCH_CONFIG, self.tid, _DISPATCH.size, config)
        except OSError:
            return None
        mode, *found = _DISPATCH.unpack(config.raw)
        return Dispatch(*found) if mode != _DISPATCH_OFF else None

    def set_dispatch(self, wanted: Dispatch | None) -> None:
        """Have the program take these of its system calls, or none. Raises OSError."""
        mode, offset, length = _DISPATCH_OFF, 0, 0
        if wanted is not None:
            mode, offset, length = _DISPATCH_OUTSIDE, wanted.offset, wanted.length
            if wanted.offset + wanted.length >= 1 << 64:  # around a range whose calls are taken: that is set otherwise
                mode, offset, length = _DISPATCH_INSIDE, wanted.offset + wanted.length - (1 << 64), (1 << 64) - length
        config = _DISPATCH.pack(mode, wanted.selector if wanted else 0, offset, length)
        self._ask(linux.PTRACE_SET_SYSCALL_USER_DISPATCH_CONFIG, _DISPATCH.size, config)

    def rseq(self) -> tuple[int, int, int, int] | None:
        """(address, size, signature, flags) of the restartable-sequences area, or None."""
        buffer = ctypes.create_string_buffer(24)
        try:
            libc.ptrace(linux.PTRACE_GET_RSEQ_CONFIGURATION, self.tid, 24, buffer)
        except OSError:
            return None  # an OS kernel without rseq
        address, size, signature, flags, _ = struct.unpack("<QIIII", buffer.raw)
        return (address, size, signature, flags) if address else None


def ctypes_address(data: bytes) -> int:
    """The address of a bytes object's content; valid while the object lives."""
    value = ctypes.cast(ctypes.c_char_p(data), ctypes.c_void_p).value
    assert value is not None
    return value
