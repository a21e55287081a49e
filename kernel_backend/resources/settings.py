"""Settings of a process that few programs touch: prctl(2), and the filter of core dumps.

A fork copies all of them, so they are read with what a twin can tell (inherited.py). Which of them exist depends on the
OS kernel; what ours does not know no process of it has set.
"""

from __future__ import annotations

import ctypes
import errno
import time
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path

from kernel_backend.host import libc, proc
from kernel_backend.image.entries import SettingsEntry, ThreadEntry
from kernel_backend.tracee.chorus import Asking
from kernel_backend.tracee.inject import Call, Workshop
from kernel_backend.tracee.process import Process

# linux/prctl.h
GET_TSC, _SET_TSC, _TSC_ENABLE = 25, 26, 1
_MCE_KILL, _MCE_KILL_GET, _MCE_KILL_CLEAR, _MCE_KILL_SET, _MCE_KILL_DEFAULT = 33, 34, 0, 1, 2
_GET_SPECULATION, _SET_SPECULATION, _SPECULATION_SORTS = 52, 53, (0, 1, 2)
_SPEC_BY_PRCTL, _SPEC_STATES = 1, 0x1E
_SET_MDWE, _GET_MDWE = 65, 66
_SET_MEMORY_MERGE, _GET_MEMORY_MERGE = 67, 68
_SET_IO_FLUSHER, _GET_IO_FLUSHER = 57, 58

# linux/membarrier.h; each registration's command is a bit
_MEMBARRIER_REGISTRATIONS = 1 << 9
_MEMBARRIER_REGISTER = (1 << 2, 1 << 4, 1 << 6, 1 << 8)

_FUTEX_HASH, _FUTEX_HASH_SET_SLOTS, _FUTEX_HASH_GET_SLOTS = 78, 1, 2
_ARCH_GET_XCOMP_PERM, _ARCH_REQ_XCOMP_PERM = 0x1022, 0x1023  # asm/prctl.h

_TSC_BYTES, DATA_BYTES = 8, 16
_AUTOGROUP_PATIENCE_S = 0.5


@cache
def _questions() -> list[tuple[str, tuple[int, ...]]]:
    """(what, arguments of prctl) of everything that this OS kernel tells; each asked in the same way of ourselves."""
    every = [
        ("mce_kill", (_MCE_KILL_GET, 0, 0, 0, 0)),
        ("mdwe", (_GET_MDWE, 0, 0, 0, 0)),
        ("memory_merge", (_GET_MEMORY_MERGE, 0, 0, 0, 0)),
        ("io_flusher", (_GET_IO_FLUSHER, 0, 0, 0, 0)),
        *((f"speculation {sort}", (_GET_SPECULATION, sort, 0, 0, 0)) for sort in _SPECULATION_SORTS),
    ]
    return [(what, arguments) for what, arguments in every if _is_answered(arguments)]


def _is_answered(arguments: tuple[int, ...]) -> bool:
    try:
        libc.syscall("prctl", *arguments)
    except OSError:
        return False
    return True


def read_calls(data: int) -> list[Call]:
    """The calls that tell; `data` has room for DATA_BYTES."""
    barriers = [Call("membarrier", _MEMBARRIER_REGISTRATIONS, 0, 0)] if _tells_barriers() else []
    return [
        Call("prctl", GET_TSC, data, 0, 0, 0),
        *(Call("prctl", *arguments) for _, arguments in _questions()),
        *([Call("arch_prctl", _ARCH_GET_XCOMP_PERM, data + _TSC_BYTES)] if _usual_state() else []),
        *barriers,
    ]


@cache
def _usual_state() -> int:
    """The parts of the processor state that a program may use without asking; 0 where it need never ask."""
    word = ctypes.create_string_buffer(8)
    try:
        libc.syscall("arch_prctl", _ARCH_GET_XCOMP_PERM, word)
    except OSError:
        return 0  # before OS kernel 5.16
    return int.from_bytes(word.raw, "little")


@cache
def _tells_barriers() -> bool:
    """Whether membarrier(2) says what a process has registered for (since OS kernel 6.3)."""
    try:
        libc.syscall("membarrier", _MEMBARRIER_REGISTRATIONS, 0, 0)
    except OSError:
        return False
    return True


def entry_of(results: Sequence[int], room: bytes, pid: int) -> SettingsEntry:
    """What `read_calls` gave, and the core dump filter of `pid`."""
    found = {what: result for (what, _), result in zip(_questions(), results[1:], strict=False)}
    return SettingsEntry(
        tsc=int.from_bytes(room[:4], "little"),
        state_asked_for=int.from_bytes(room[_TSC_BYTES:DATA_BYTES], "little") & ~_usual_state(),
        mce_kill=found.get("mce_kill", _MCE_KILL_DEFAULT),
        mdwe=found.get("mdwe", 0),
        memory_merge=bool(found.get("memory_merge", 0)),
        speculation=[found.get(f"speculation {sort}", 0) for sort in _SPECULATION_SORTS],
        io_flusher=bool(found.get("io_flusher", 0)),
        membarrier=results[-1] if _tells_barriers() else 0,
        coredump_filter=int(Path(f"/proc/{pid}/coredump_filter").read_text() or "0", 16),
    )


@cache
def _tells_futex_hash() -> bool:
    """Whether processes can have tables of waiters of their own (since OS kernel 6.16)."""
    try:
        libc.syscall("prctl", _FUTEX_HASH, _FUTEX_HASH_GET_SLOTS, 0, 0, 0)
    except OSError:
        return False
    return True


def futex_hash_question() -> list[Call]:
    """The call that tells of a process's own table of futex waiters, which a fork does not copy."""
    return [Call("prctl", _FUTEX_HASH, _FUTEX_HASH_GET_SLOTS, 0, 0, 0)] if _tells_futex_hash() else []


def futex_hash_of(answers: Sequence[int]) -> int:
    """How many slots that table has; -1: not known."""
    return next(iter(answers), -1)


def speculate_otherwise(pids: Iterable[int]) -> set[int]:
    """Tids of threads that speculate otherwise than the first of their process: the only ones worth asking."""
    found = set()
    for pid in pids:
        try:
            tids = proc.task_ids(pid)
            usual = _speculation(pid, proc.view(pid)) if len(tids) > 1 else []
            found |= {tid for tid in tids if usual and _speculation(pid, tid) != usual}
        except OSError:
            continue  # it ended meanwhile
    return found


def _speculation(pid: int, tid: int) -> list[str]:
    return [text for name, text in proc.status(pid, tid).items() if name.startswith("Speculation")]


def mce_kill_question() -> list[Call]:
    """The call that tells when a thread hears of broken memory (PR_MCE_KILL): each has that for itself."""
    return [Call("prctl", *arguments) for what, arguments in _questions() if what == "mce_kill"]


def ask_speculation() -> Asking[list[int]]:
    """Of one thread, what _questions() asks of a process's first; empty where this OS kernel tells nothing."""
    asked = dict(_questions())
    found = []
    for sort in _SPECULATION_SORTS:
        arguments = asked.get(f"speculation {sort}")
        found.append((yield Call("prctl", *arguments)) if arguments else 0)
    return found if any(found) else []


def denies_execution(process: Process) -> bool:
    """Whether a process may not make memory executable, which it cannot take back."""
    try:
        with process.borrow() as borrowed:
            return bool(borrowed.call("prctl", _GET_MDWE, 0, 0, 0, 0))
    except OSError:
        return False  # before OS kernel 6.3


# --- coming back ------------------------------------------------------------------------------------------------------


def early_calls(entry: SettingsEntry) -> Iterator[Call]:
    """What new threads inherit from the first."""
    if entry.tsc not in (0, _TSC_ENABLE):
        yield Call("prctl", _SET_TSC, entry.tsc, 0, 0, 0)
    if entry.mce_kill != _MCE_KILL_DEFAULT:
        yield Call("prctl", _MCE_KILL, _MCE_KILL_SET, entry.mce_kill, 0, 0)
    for part in range(64):
        if entry.state_asked_for >> part & 1:
            yield Call("arch_prctl", _ARCH_REQ_XCOMP_PERM, part)
    for command in _MEMBARRIER_REGISTER:
        if entry.membarrier & command:
            yield Call("membarrier", command, 0, 0)
    for sort, state in zip(_SPECULATION_SORTS, entry.speculation, strict=False):
        if _can_be_set(state) and _differs(sort, state):
            yield Call("prctl", _SET_SPECULATION, sort, state & _SPEC_STATES, 0, 0)


def thread_calls(entry: ThreadEntry, usual: SettingsEntry) -> list[Call]:
    """What a thread has otherwise than the process that it inherits from."""
    calls = [Call("prctl", _SET_TSC, entry.tsc, 0, 0, 0)] if entry.tsc not in (0, usual.tsc) else []
    if entry.mce_kill not in (-1, usual.mce_kill):
        calls.append(Call("prctl", _MCE_KILL, _MCE_KILL_SET, entry.mce_kill, 0, 0))
    for sort, state, inherited in zip(_SPECULATION_SORTS, entry.speculation, usual.speculation, strict=False):
        if _can_be_set(state) and state != inherited:
            calls.append(Call("prctl", _SET_SPECULATION, sort, state & _SPEC_STATES, 0, 0))
    return calls


def _can_be_set(state: int) -> bool:
    return bool(state & _SPEC_BY_PRCTL and state & _SPEC_STATES)


def _differs(sort: int, state: int) -> bool:
    """From what a process of ours has by itself."""
    try:
        return libc.syscall("prctl", _GET_SPECULATION, sort, 0, 0, 0) != state
    except OSError:
        return False


def apply_futex_hash(shop: Workshop, slots: int, pid: int) -> list[str]:
    """When all threads are there, for which the OS kernel makes a table by itself; warnings."""
    try:
        if slots >= 0 and shop.call("prctl", _FUTEX_HASH, _FUTEX_HASH_GET_SLOTS, 0, 0, 0) != slots:
            shop.call("prctl", _FUTEX_HASH, _FUTEX_HASH_SET_SLOTS, slots, 0, 0)
    except OSError as error:
        return [f"process {pid} has no table of futex waiters as it had (PR_FUTEX_HASH): {error.strerror}"]
    return []


def late_calls(entry: SettingsEntry) -> Iterator[Call]:
    """What must wait until all mappings stand."""
    if entry.io_flusher:
        yield Call("prctl", _SET_IO_FLUSHER, 1, 0, 0, 0)
    if entry.memory_merge:
        yield Call("prctl", _SET_MEMORY_MERGE, 1, 0, 0, 0)
    if entry.mdwe:
        yield Call("prctl", _SET_MDWE, entry.mdwe, 0, 0, 0)


def autogroup_nice(pid: int) -> int:
    """How nice a session is towards others (sched(7)); 0 where the OS kernel does not group by sessions."""
    try:
        return int(Path(f"/proc/{pid}/autogroup").read_text().rpartition("nice ")[2])
    except (OSError, ValueError):
        return 0


def apply_autogroup(pid: int, entry: SettingsEntry) -> list[str]:
    """From outside; warnings. The OS kernel lets ordinary users change it ten times a second at most."""
    if entry.autogroup_nice == autogroup_nice(pid):
        return []
    deadline = time.monotonic() + _AUTOGROUP_PATIENCE_S
    while True:
        try:
            Path(f"/proc/{pid}/autogroup").write_text(str(entry.autogroup_nice))
            return []
        except OSError as error:
            if error.errno != errno.EAGAIN or time.monotonic() > deadline:
                return [f"the nice value of the session of process {pid} was not restored: {error.strerror}"]
            time.sleep(0.02)


def apply_coredump_filter(pid: int, entry: SettingsEntry) -> list[str]:
    """From outside; warnings."""
    path = Path(f"/proc/{pid}/coredump_filter")
    try:
        if int(path.read_text() or "0", 16) != entry.coredump_filter:
            path.write_text(f"{entry.coredump_filter:#x}")
    except OSError as error:
        return [f"the core dump filter of process {pid} was not restored: {error.strerror}"]
    return []
