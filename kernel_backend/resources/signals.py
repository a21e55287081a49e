"""Signals: dispositions, and signals queued but not yet delivered."""

from __future__ import annotations

import struct

from kernel_backend.errors import HostUnsupported
from kernel_backend.host.features import effective_capabilities
from kernel_backend.image.entries import Inventory, ProcessEntry
from kernel_backend.tracee.inject import Call, Workshop
from kernel_backend.tracee.thread import SIGINFO_BYTES, Thread

SIGACTION_BYTES = 32
LAST_SIGNAL = 64
_SIGKILL, _SIGSTOP = 9, 19
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


def flush_calls(data: int) -> tuple[list[Call], bytes]:
    """Calls that throw away everything queued in a process that is about to become another (SIG_IGN empties)."""
    ignore = struct.pack("<4Q", 1, 0, 0, 0)
    return [Call("rt_sigaction", n, data, 0, SIGSET_BYTES) for n in _SETTABLE], ignore


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
