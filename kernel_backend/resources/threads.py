"""Threads: registers, floating-point state, masks, queues and the addresses the OS kernel keeps for each."""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import time
from functools import cache

import msgspec

from kernel_backend.abi import arch, linux
from kernel_backend.abi.x86_64 import UserRegs
from kernel_backend.host import libc, proc
from kernel_backend.image.entries import (
    CredentialsEntry,
    DispatchEntry,
    MemoryPolicy,
    ProcessEntry,
    RseqEntry,
    SchedulingEntry,
    ThreadEntry,
)
from kernel_backend.resources import landlock, numa, processes, settings, signals, timeouts
from kernel_backend.tracee.chorus import Asking, together
from kernel_backend.tracee.inject import WORD, Borrowed, Call, Workshop, as_interrupted
from kernel_backend.tracee.process import Process
from kernel_backend.tracee.thread import ALL_BUT_SIGTRAP, Dispatch, Thread, ThreadGone

ALTSTACK_BYTES = 24
_END_S = 10.0  # the most that a thread may take to end
_IOPRIO_WHO_PROCESS = 1
_TO_BE_RESTARTED = WORD + 1 - linux.ERESTARTSYS
_ARCH_GET_CPUID, _ARCH_SET_CPUID = 0x1011, 0x1012  # asm/prctl.h


def borrow_all(process: Process) -> list[Borrowed]:
    """Every thread of a frozen process, the leader first, about to be borrowed."""
    tids = sorted(process.threads, key=lambda tid: (tid != process.pid, tid))
    return [process.borrow(process.threads[tid]) for tid in tids]


class Told(msgspec.Struct):
    """What only a thread itself can ask for."""

    altstack: bytes
    tid_address: int  # of the word that is cleared when it ends
    slack_ns: int
    pdeathsig: int
    numa: MemoryPolicy | None
    cpuid_faults: bool
    tsc: int
    speculation: list[int]
    securebits: int
    own_rights: bool  # it is somebody else than its process
    mce_kill: int  # -1: this OS kernel does not tell
    name: str
    confined: bool  # it may not look at the outsider that it was told of


def ask(borrowed: Borrowed, *, speculates_otherwise: bool, own_rights: bool, outsider: int) -> Asking[Told]:
    """Ask a thread all that."""
    data = borrowed.data
    calls = [
        Call("sigaltstack", 0, data),
        Call("prctl", linux.PR_GET_TID_ADDRESS, data + 32),
        Call("prctl", linux.PR_GET_PDEATHSIG, data + 40),
        Call("prctl", settings.GET_TSC, data + 44, 0, 0, 0),
        Call("prctl", linux.PR_GET_NAME, data + 48),
        Call("prctl", linux.PR_GET_TIMERSLACK),
    ]
    if _cpuid_may_fault():
        calls.append(Call("arch_prctl", _ARCH_GET_CPUID, 0))
    calls.append(Call("prctl", linux.PR_GET_SECUREBITS))
    mce_kill = settings.mce_kill_question()
    others = len(calls)
    calls += mce_kill + numa.first_question(data + 64)
    results = yield from together(borrowed, *calls, unsure=landlock.question(outsider))
    raw = borrowed.get(64 + numa.MODE_BYTES)
    faults = _cpuid_may_fault() and not results[6]
    numa_policy = yield from numa.ask(borrowed, raw[64:])
    speculation = (yield from settings.ask_speculation()) if speculates_otherwise else []
    confined = landlock.forbids(results[len(calls) :])
    tid_address, pdeathsig, tsc, name = struct.unpack_from("<Qii16s", raw, 32)
    return Told(
        raw[:ALTSTACK_BYTES], tid_address, results[5], pdeathsig, numa_policy, faults, tsc, speculation,
        results[others - 1], own_rights, results[others] if mce_kill else -1,
        name.partition(b"\0")[0].decode(errors="surrogateescape"), confined,
    )  # fmt: skip


@cache
def _cpuid_may_fault() -> bool:
    """Whether the processor can be told to refuse CPUID to a thread."""
    try:
        libc.syscall("arch_prctl", _ARCH_SET_CPUID, 1)
    except OSError:
        return False
    return True


def capture(process: Process, asked: dict[Borrowed, Told], waits: dict[int, timeouts.Wait]) -> list[ThreadEntry]:
    """The threads that were asked, in the same order; before them a leader that has ended.

    `waits`: those that have slept since before the freeze, by tid.
    """
    full = signals.has_no_room(process)
    bits = next((told.securebits for told in asked.values()), 0)  # which a twin inherits, and so says of the process
    for told in asked.values():
        told.own_rights |= told.securebits != bits
    entries = [_capture_one(process, b, told, waits.get(b.thread.tid), full=full) for b, told in asked.items()]
    if process.pid not in process.threads:
        name = proc.comm(process.pid, process.pid)
        entries.insert(0, ThreadEntry(tid=process.pid, name=name, regs=b"", xstate=b"", sigmask=0, exited=True))
    return entries


def _capture_one(
    process: Process, borrowed: Borrowed, told: Told, wait: timeouts.Wait | None, *, full: bool
) -> ThreadEntry:
    thread, regs = borrowed.thread, UserRegs.from_buffer_copy(borrowed.regs)
    wait_left_ns = timeouts.left_ns(thread, regs, wait)
    number = timeouts.interrupted(thread, regs, wait)
    robust_head, robust_length = libc.get_robust_list(thread.tid)
    rseq, taken = borrowed.rseq, borrowed.dispatch
    pending = thread.pending_signals(shared=False)
    if full:
        pending += signals.of_no_record(process, thread.tid, pending, shared=False)
    return ThreadEntry(
        tid=thread.tid,
        name=told.name,
        regs=bytes(as_interrupted(thread, regs, keep_block=False, number=number)),
        wait_left_ns=wait_left_ns,
        xstate=borrowed.xstate,
        sigmask=borrowed.sigmask,
        pending=pending,
        altstack=told.altstack,
        tid_address=told.tid_address,
        pdeathsig=told.pdeathsig,
        numa=told.numa,
        cpuid_faults=told.cpuid_faults,
        tsc=told.tsc,
        speculation=told.speculation,
        mce_kill=told.mce_kill,
        personality=proc.personality(process.pid, thread.tid),
        robust_head=robust_head,
        robust_length=robust_length,
        dispatch=DispatchEntry(selector=taken.selector, offset=taken.offset, length=taken.length) if taken else None,
        rseq=RseqEntry(address=rseq[0], size=rseq[1], signature=rseq[2], flags=rseq[3]) if rseq else None,
        scheduling=_scheduling(thread.tid, told.slack_ns),
        credentials=_credentials(process.pid, thread.tid, told.securebits) if told.own_rights else None,
    )


def _credentials(pid: int, tid: int, securebits: int) -> CredentialsEntry:
    return processes.credentials(proc.status(pid, tid), securebits, bool(securebits & processes.SECBIT_KEEP_CAPS))


def _scheduling(tid: int, slack_ns: int = 0) -> SchedulingEntry:
    attr = ctypes.create_string_buffer(56)
    libc.syscall("sched_getattr", tid, attr, 56, 0)
    _, policy, flags, _, priority, runtime, deadline, period = struct.unpack_from("<IIQiIQQQ", attr.raw)
    return SchedulingEntry(
        policy=policy,
        priority=priority,
        nice=os.getpriority(os.PRIO_PROCESS, tid),  # also under policies that do not heed it
        flags=flags,
        runtime_ns=runtime,
        deadline_ns=deadline,
        period_ns=period,
        affinity=sorted(os.sched_getaffinity(tid)),
        ioprio=libc.syscall("ioprio_get", _IOPRIO_WHO_PROCESS, tid),
        timerslack_ns=slack_ns,
    )


# --- coming back ------------------------------------------------------------------------------------------------------


def setup_calls(entry: ThreadEntry, usual: ProcessEntry, data: int) -> tuple[list[Call], bytes]:
    """What the new thread calls for itself, and the argument bytes that must stand at `data` before.

    `usual`: its process, whose settings it has by inheriting them.
    """
    name = entry.name.encode(errors="surrogateescape")[:15] + b"\0"
    altstack = bytearray(entry.altstack or bytes(ALTSTACK_BYTES))
    flags = struct.unpack_from("<i", altstack, 8)[0]
    struct.pack_into("<i", altstack, 8, flags & ~1)  # SS_ONSTACK is told, never set
    arguments = name.ljust(16, b"\0") + bytes(altstack).ljust(32, b"\0")
    calls = [Call("set_tid_address", entry.tid_address), Call("prctl", linux.PR_SET_NAME, data)]
    if entry.robust_head:
        calls.append(Call("set_robust_list", entry.robust_head, entry.robust_length))
    calls.append(Call("sigaltstack", data + 16, 0))
    if entry.scheduling.timerslack_ns:
        calls.append(Call("prctl", linux.PR_SET_TIMERSLACK, entry.scheduling.timerslack_ns, 0, 0, 0))
    if entry.cpuid_faults:
        calls.append(Call("arch_prctl", _ARCH_SET_CPUID, 0))
    calls += settings.thread_calls(entry, usual.settings)
    if entry.personality not in (-1, usual.personality):
        calls.append(Call("personality", entry.personality))
    if entry.rseq:
        calls.append(Call("rseq", entry.rseq.address, entry.rseq.size, entry.rseq.flags, entry.rseq.signature))
    return calls, arguments


SETUP_DATA_BYTES = 64
MOST_SETUP_CALLS = 13


def apply_scheduling(tid: int, entry: SchedulingEntry) -> list[str]:
    """Policy, nice, affinity of a rebuilt thread, from outside; what is not permitted is told, not fatal."""
    warnings: list[str] = []
    present = _scheduling(tid)
    if entry.affinity != present.affinity:
        possible = set(entry.affinity) & os.sched_getaffinity(0)
        if possible:
            os.sched_setaffinity(tid, possible)
    if _policy(entry) != _policy(present):
        policy, priority, nice, flags, *times = _policy(entry)
        if not policy and times == _policy(present)[4:]:
            times = [0, 0, 0]  # the host's usual slice
        attr = struct.pack("<IIQiIQQQII", 56, policy, flags, nice, priority, *times, 0, 0)
        try:
            libc.syscall("sched_setattr", tid, attr, 0)
            if os.getpriority(os.PRIO_PROCESS, tid) != entry.nice:
                os.setpriority(os.PRIO_PROCESS, tid, entry.nice)
        except OSError as error:
            warnings.append(f"scheduling of thread {tid} was not restored: {error.strerror}")
    if entry.ioprio != present.ioprio:
        try:
            libc.syscall("ioprio_set", _IOPRIO_WHO_PROCESS, tid, entry.ioprio)
        except OSError as error:
            warnings.append(f"I/O priority of thread {tid} was not restored: {error.strerror}")
    return warnings


def _policy(entry: SchedulingEntry) -> list[int]:
    return [
        entry.policy, entry.priority, entry.nice, entry.flags, entry.runtime_ns, entry.deadline_ns, entry.period_ns,
    ]  # fmt: skip


def make_room_for_tiles(shop: Workshop, thread: Thread, entry: ThreadEntry) -> None:
    """A thread's tile registers (AMX) can be set only when it has used them: the OS kernel has room for them then."""
    if not struct.unpack_from("<Q", entry.xstate, arch.XSTATE_HEADER_OFFSET)[0] & arch.XSTATE_TILES:
        return
    regs = thread.get_regs()
    config = shop.put(arch.TILE_CONFIG + arch.USE_TILES)
    regs.run(config + len(arch.TILE_CONFIG), config)
    thread.set_regs(regs)
    thread.resume()
    while not (stop := thread.wait()).is_step:
        if stop.is_delivery:
            raise OSError(errno.EPERM, f"thread {thread.tid} may not use the tile registers that the image has")
        thread.resume()


def final_state(thread: Thread, entry: ThreadEntry, pids: dict[int, int], *, waiting: bool) -> None:
    """Registers, floating-point state and mask: the last thing before the thread runs.

    `waiting`: timeouts.wait_again has begun its call. `pids`: the image's numbers and those that the tree has now.
    """
    regs = UserRegs.from_buffer_copy(entry.regs)
    _wait_for_the_same_child(regs, pids)
    thread.set_xstate(entry.xstate)
    thread.set_sigmask(entry.sigmask)
    thread.set_regs(timeouts.resumed(regs) if waiting else regs)
    if entry.dispatch is not None:  # no call of ours comes after this
        thread.set_dispatch(Dispatch(entry.dispatch.selector, entry.dispatch.offset, entry.dispatch.length))


def _wait_for_the_same_child(regs: UserRegs, pids: dict[int, int]) -> None:
    """A wait4 or waitid that is made again asks for a process or a group by the number that it has now.

    What the program keeps in its memory is its own matter; of the call it cannot know that it is made twice.
    """
    if regs.result != _TO_BE_RESTARTED:
        return
    first, second, *others = regs.args
    number = ctypes.c_int(first).value
    if regs.call == arch.SYS["wait4"] and number not in (-1, 0):  # any child, any of its own group
        new = pids.get(abs(number), abs(number))
        regs.args = ((new if number > 0 else -new) & WORD, second, *others)
    elif regs.call == arch.SYS["waitid"] and number in (os.P_PID, os.P_PGID):
        number = ctypes.c_int(second).value
        regs.args = (first, pids.get(number, number), *others)


def exit_alone(thread: Thread, syscall_address: int) -> None:
    """Have the leader of a process end as it did before the checkpoint, the others living on. Raises ThreadGone."""
    regs = thread.get_regs()
    regs.make_call(syscall_address, arch.SYS["exit"])
    thread.set_sigmask(ALL_BUT_SIGTRAP)
    thread.set_regs(regs)
    there = thread.detach()
    until = time.monotonic() + _END_S
    while there and proc.stat(thread.tgid, thread.tid).state not in "ZX":
        if time.monotonic() > until:
            raise ThreadGone(f"the main thread of process {thread.tgid} does not end", pid=thread.tgid)
        time.sleep(0.0005)
    if not there:
        raise ThreadGone(f"process {thread.tgid} was killed before it ran", pid=thread.tgid)


assert arch.TABLE_ROW.size == 64
