"""A process that is about to become another: made by fork or taken over, then emptied for its new life.

Everything here happens past the point where the stub has anything of its own to lose, so registers are not saved and
it dies with us (PTRACE_O_EXITKILL).
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterable, Sequence
from typing import NoReturn

from kernel_backend.abi import arch, linux
from kernel_backend.abi.x86_64 import UserRegs
from kernel_backend.errors import EngineError, HostUnsupported
from kernel_backend.host import fds, libc, proc
from kernel_backend.tracee.inject import WORD, Call, Workshop, check
from kernel_backend.tracee.thread import ALL_BUT_SIGTRAP, FOLLOW_NEW, Thread, ThreadGone

STUB_OPTIONS = FOLLOW_NEW | linux.PTRACE_O_TRACEEXEC | linux.PTRACE_O_EXITKILL
_RW = linux.PROT_READ | linux.PROT_WRITE
_RWX = _RW | linux.PROT_EXEC
_DIES_WITHIN_S = 10.0
_RSEQ_UNREGISTER = 1
_ANON = linux.MAP_PRIVATE | linux.MAP_ANONYMOUS


def step_call(thread: Thread, gadget: int, name: str, *args: int) -> int:
    """One system call at a `syscall` instruction of the tracee; its registers are left as the call leaves them."""
    regs = thread.get_regs()
    regs.make_call(gadget, arch.SYS[name], [x & WORD for x in args])
    thread.set_regs(regs)
    after = UserRegs()
    while True:
        thread.resume(linux.PTRACE_SINGLESTEP)
        if thread.wait().is_step and thread.get_regs(after).pc == gadget + len(arch.SYSCALL_INSTRUCTION):
            return check(after.result, name)


def call_without_trap(thread: Thread, gadget: int, calls: Iterable[Call]) -> None:
    """System calls as `step_call` makes them, but led from entry to exit: nothing that may send SIGTRAP is used."""
    thread.set_options(STUB_OPTIONS | linux.PTRACE_O_TRACESYSGOOD)
    for name, args in calls:
        regs = thread.get_regs()
        regs.make_call(gadget, arch.SYS[name], [x & WORD for x in args])
        thread.set_regs(regs)
        for _ in ("entry", "exit"):
            thread.resume(linux.PTRACE_SYSCALL)
            while not thread.wait().is_syscall:
                thread.resume(linux.PTRACE_SYSCALL)
        check(thread.get_regs().result, name)
    thread.interrupt()  # at an exit the OS kernel would not restart the call that is in the image's registers
    thread.resume(linux.PTRACE_CONT)
    while thread.wait().event != linux.PTRACE_EVENT_STOP:
        thread.resume(linux.PTRACE_CONT)


def spawn(set_tid: int = 0) -> Thread:
    """A child of ours that only waits, seized and stopped; with a chosen pid where that is permitted."""
    pid = fork(0, [set_tid] if set_tid else ())
    try:
        return hold(pid)
    except BaseException:
        end_child(pid)
        raise


def fork(flags: int, set_tid: Sequence[int] = ()) -> int:
    """A child of ours that does nothing, with every signal blocked, until it is seized; it dies with us."""
    parent = libc.pidfd_open(os.getpid())
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        pid = libc.clone3(flags, exit_signal=signal.SIGCHLD, set_tid=set_tid)
        if pid == 0:
            _wait_for_ever(parent)
        return pid
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        os.close(parent)


def _wait_for_ever(parent: int) -> NoReturn:
    try:
        libc.prctl(linux.PR_SET_PDEATHSIG, signal.SIGKILL)
        fds.is_ready(parent, wait_ms=None)  # it may have ended before it was said that we die with it
    finally:
        os._exit(1)


def hold(pid: int) -> Thread:
    """Seize a child that was forked so, and stop it."""
    thread = Thread(pid, pid)
    thread.seize(STUB_OPTIONS)
    thread.interrupt()
    thread.wait()
    thread.set_sigmask(ALL_BUT_SIGTRAP)
    return thread


def end_child(pid: int) -> None:
    """Kill and reap a child of ours."""
    os.kill(pid, signal.SIGKILL)
    collect(pid)


def find_syscall(pid: int) -> int:
    """The address of any `syscall` instruction in the process: in its vdso, or else in its code."""
    mappings = sorted(proc.maps(pid), key=lambda m: m.path != "[vdso]")
    for mapping in mappings:
        if "x" in mapping.perms and mapping.path != "[vsyscall]":
            at = libc.vm_read(pid, mapping.start, mapping.size).find(arch.SYSCALL_INSTRUCTION)
            if at >= 0:
                return mapping.start + at
    raise HostUnsupported(f"process {pid} holds no system-call instruction")


def open_workshop(thread: Thread, address: int, size: int, *, fixed: bool) -> Workshop:
    """Map our page into a stub: at `address`, or wherever there is room when not `fixed`.

    A twin of a process that may not make memory executable (PR_SET_MDWE) has our code in its copy of the vdso.
    """
    flags = _ANON | (linux.MAP_FIXED_NOREPLACE if fixed else 0)
    gadget = find_syscall(thread.tgid)
    try:
        return Workshop(thread, step_call(thread, gadget, "mmap", address, size, _RWX, flags, -1 & WORD, 0), size)
    except PermissionError:
        at = step_call(thread, gadget, "mmap", address, size, _RW, flags, -1 & WORD, 0)
        return Workshop(thread, at, size, _vdso(thread.tgid))


def _vdso(pid: int) -> int:
    """Where the OS kernel's own code lies in a process."""
    found = next((mapping.start for mapping in proc.maps(pid) if mapping.path == "[vdso]"), 0)
    if not found:
        raise HostUnsupported(f"process {pid} may not make memory executable and has no vdso")
    return found


def unregister_rseq(workshop: Workshop) -> None:
    """Before the memory goes to which the OS kernel writes by itself (rseq(2))."""
    if rseq := workshop.thread.rseq():
        workshop.call("rseq", rseq[0], rseq[1], _RSEQ_UNREGISTER, rseq[2])


def execute(workshop: Workshop, path: str) -> None:
    """Make the stub run `path` and stop before its first instruction (execve(2), PTRACE_EVENT_EXEC)."""
    thread = workshop.thread
    name = os.fsencode(path) + b"\0"
    at = workshop.put(name.ljust(len(name) + (-len(name) % 8), b"\0") + bytes(8))
    empty = at + len(name) + (-len(name) % 8)
    regs = thread.get_regs()
    instruction = workshop.address + arch.RUN_TABLE.index(arch.SYSCALL_INSTRUCTION)
    regs.make_call(instruction, arch.SYS["execve"], (at, empty, empty))
    thread.set_regs(regs)
    thread.resume(linux.PTRACE_SINGLESTEP)
    while True:
        stop = thread.wait()
        if stop.event == linux.PTRACE_EVENT_EXEC:
            break
        if stop.is_step:
            check(thread.get_regs().result, f"execve of {path}")
        thread.resume(linux.PTRACE_SINGLESTEP)
    # This stop is inside the call, which still will write its result to the registers: step out of it.
    thread.resume(linux.PTRACE_SINGLESTEP)
    while not thread.wait().is_step:
        thread.resume(linux.PTRACE_SINGLESTEP)


def end_threads(threads: Iterable[Thread], gadget: int) -> None:
    """Make threads (never a leader) exit, and take their remains, before the leader may exec."""
    for thread in threads:
        try:
            step_call(thread, gadget, "exit", 0)
        except ThreadGone:
            continue


def kill_and_collect(pid: int) -> None:
    """End a process that we trace and take its remains, as its tracer; one that we do not trace (any more) is spared.

    Its other threads must be waited for before the leader, whose end is announced only then.
    """
    try:
        tids = proc.task_ids(pid)
        if not any(_is_ours(pid, tid) for tid in tids):
            return
        os.kill(pid, signal.SIGKILL)
    except OSError:
        return  # it is gone
    for tid in [tid for tid in tids if tid != pid] + [pid]:
        collect(tid)


def _is_ours(pid: int, tid: int) -> bool:
    try:
        return int(proc.status(pid, tid)["TracerPid"]) == threading.get_native_id()
    except OSError:
        return False


def collect(pid: int) -> None:
    """Take the remains of a dying process that we trace; its real parent still has to wait for it."""
    try:
        while os.WIFSTOPPED(Thread(pid, pid).wait_status(_DIES_WITHIN_S)):
            continue
    except EngineError:
        return  # there is none, or the OS kernel does not let go of it
