"""Signals: dispositions, and signals queued but not yet delivered."""

from __future__ import annotations

import struct

from kernel_backend.errors import HostUnsupported
from kernel_backend.host import proc
from kernel_backend.host.features import effective_capabilities
from kernel_backend.image.entries import Inventory, ProcessEntry
from kernel_backend.tracee.inject import Call, Workshop
from kernel_backend.tracee.process import Process
from kernel_backend.tracee.thread import SIGINFO_BYTES, Thread

SIGACTION_BYTES = 32
LAST_SIGNAL = 64
_SIGTRAP, _SIGKILL, _SIGSTOP = 5, 9, 19
_SIG_IGN = 1
SIGSET_BYTES = 8


_SETTABLE = [number for number in range(1, LAST_SIGNAL + 1) if number not in (_SIGKILL, _SIGSTOP)]


ACTIONS_DATA_BYTES = len(_SETTABLE) * SIGACTION_BYTES


def read_calls(data: int) -> list[Call]:
    """Calls that put struct kernel_sigaction of every signal but the two that nobody may catch to `data`.

    A default action has flags too (SA_NOCLDWAIT), so /proc's masks of caught and ignored signals don't say enough.
    """
    rows = enumerate(_SETTABLE)
    return [Call("rt_sigaction", number, 0, data + i * SIGACTION_BYTES, SIGSET_BYTES) for i, number in rows]


def actions_of(raw: bytes) -> dict[int, bytes]:
    """What those calls wrote, by signal number; actions that are all zero left out."""
    actions = (raw[at : at + SIGACTION_BYTES] for at in range(0, len(raw), SIGACTION_BYTES))
    return {number: action for number, action in zip(_SETTABLE, actions, strict=True) if any(action)}


def action_calls(entry: ProcessEntry, data: int) -> tuple[list[Call], bytes]:
    """Calls that set every disposition, default ones too, and their arguments for `data`."""
    calls: list[Call] = []
    arguments = bytearray()
    for number in _SETTABLE:
        calls.append(Call("rt_sigaction", number, data + len(arguments), 0, SIGSET_BYTES))
        arguments += entry.sigactions.get(number, bytes(SIGACTION_BYTES))
    return calls, bytes(arguments)


def note_ignored_traps(entry: ProcessEntry, ignored: int) -> None:
    """Correct what a twin said of SIGTRAP: `ignored` is the mask of what was ignored before the twin was traced."""
    if ignored >> _SIGTRAP - 1 & 1:
        action = entry.sigactions.get(_SIGTRAP, bytes(SIGACTION_BYTES))
        entry.sigactions[_SIGTRAP] = struct.pack("<Q", _SIG_IGN) + action[8:]


def ignore_traps_call(entry: ProcessEntry, shop: Workshop) -> Call | None:
    """The call that has a process ignore SIGTRAP, if it did; its argument is placed.

    Each trap that the OS kernel forces on a thread, as at the end of a table of calls, gives an ignored SIGTRAP its
    default action back. So what `action_calls` has set is gone again, and this call has to be the last.
    """
    action = entry.sigactions.get(_SIGTRAP, b"")
    if int.from_bytes(action[:8], "little") != _SIG_IGN:
        return None
    return Call("rt_sigaction", _SIGTRAP, shop.put(action), 0, SIGSET_BYTES)


def flush_calls(data: int) -> tuple[list[Call], bytes]:
    """Calls that throw away everything queued in a process that is about to become another (SIG_IGN empties)."""
    ignore = struct.pack("<4Q", _SIG_IGN, 0, 0, 0)
    return [Call("rt_sigaction", n, data, 0, SIGSET_BYTES) for n in _SETTABLE], ignore


def has_no_room(process: Process) -> bool:
    """Whether no more signals can be queued (RLIMIT_SIGPENDING): then some may be pending without a record."""
    used, limit = map(int, process.status()["SigQ"].split("/"))
    return used >= limit


def of_no_record(process: Process, tid: int, infos: list[bytes], *, shared: bool) -> list[bytes]:
    """Records of signals that are pending without one, as such are delivered: from nobody."""
    pending = int(proc.status(process.view, tid)["ShdPnd" if shared else "SigPnd"], 16)
    known = {int.from_bytes(info[:4], "little") for info in infos}
    lost = [number for number in _SETTABLE if pending >> (number - 1) & 1 and number not in known]
    return [struct.pack("<iii", number, 0, 0).ljust(SIGINFO_BYTES, b"\0") for number in lost]


def check(inventory: Inventory, hard: int) -> None:
    """Raise HostUnsupported when a process under that hard limit could not hold its signals and timers again."""
    for entry in inventory.processes:
        needed = len(entry.pending) + len(entry.timers) + sum(len(thread.pending) for thread in entry.threads)
        if needed > hard and "CAP_SYS_RESOURCE" not in effective_capabilities():
            raise HostUnsupported(
                f"process {entry.pid} had {needed} signals and timers waiting; the limit where it is to be is {hard}",
                hint="restore the image as a fresh process, under a higher limit (ulimit -Hi)", pid=entry.pid,
            )  # fmt: skip


def queue(shop: Workshop, pid: int, infos: list[bytes], thread: Thread | None = None, tid: int = 0) -> None:
    """Have siginfo records queued for a process, or for one thread of it; `pid` and `tid` are its own numbers.

    Only the receiving process may set si_code freely (kernel/signal.c, do_rt_sigqueueinfo).
    """
    at_once = shop.data_bytes // SIGINFO_BYTES
    for first in range(0, len(infos), at_once):
        part = infos[first : first + at_once]
        shop.put(b"".join(part))
        calls = [_queue_call(pid, tid, info, shop.data + i * SIGINFO_BYTES) for i, info in enumerate(part)]
        shop.run(calls, thread=thread)


def _queue_call(pid: int, tid: int, info: bytes, at: int) -> Call:
    number = int.from_bytes(info[:4], "little")
    return Call("rt_tgsigqueueinfo", pid, tid, number, at) if tid else Call("rt_sigqueueinfo", pid, number, at)
