"""Signals: dispositions, and signals queued but not yet delivered."""

from __future__ import annotations

import struct

from kernel_backend.host import proc
from kernel_backend.image.entries import ProcessEntry
from kernel_backend.tracee.inject import Borrowed, Call
from kernel_backend.tracee.thread import SIGINFO_BYTES

SIGACTION_BYTES = 32
LAST_SIGNAL = 64
_SIGKILL, _SIGSTOP = 9, 19
SIGSET_BYTES = 8


def capture_actions(borrowed: Borrowed, status: dict[str, str]) -> dict[int, bytes]:
    """struct kernel_sigaction of every signal that is caught or ignored."""
    interesting = int(status["SigCgt"], 16) | int(status["SigIgn"], 16)
    actions: dict[int, bytes] = {}
    for number in range(1, LAST_SIGNAL + 1):
        if interesting >> (number - 1) & 1:
            borrowed.call("rt_sigaction", number, 0, borrowed.data, SIGSET_BYTES)
            actions[number] = borrowed.get(SIGACTION_BYTES)
    return actions


def action_calls(entry: ProcessEntry, data: int) -> tuple[list[Call], bytes]:
    """Calls that set every disposition, default ones too, and their arguments for `data`."""
    calls: list[Call] = []
    arguments = bytearray()
    for number in range(1, LAST_SIGNAL + 1):
        if number in (_SIGKILL, _SIGSTOP):
            continue
        calls.append(Call("rt_sigaction", number, data + len(arguments), 0, SIGSET_BYTES))
        arguments += entry.sigactions.get(number, bytes(SIGACTION_BYTES))
    return calls, bytes(arguments)


ACTIONS_DATA_BYTES = (LAST_SIGNAL - 2) * SIGACTION_BYTES


def flush_calls(data: int) -> tuple[list[Call], bytes]:
    """Calls that throw away everything queued in a process that is about to become another (SIG_IGN empties)."""
    ignore = struct.pack("<4Q", 1, 0, 0, 0)
    numbers = [n for n in range(1, LAST_SIGNAL + 1) if n not in (_SIGKILL, _SIGSTOP)]
    return [Call("rt_sigaction", n, data, 0, SIGSET_BYTES) for n in numbers], ignore


def queue_calls(pid: int, tid: int, infos: list[bytes], data: int, *, shared: bool) -> tuple[list[Call], bytes]:
    """Calls by which a thread queues siginfo records for its process (shared) or for itself.

    Only the receiving process may set si_code freely (kernel/signal.c, do_rt_sigqueueinfo).
    """
    calls = []
    for i, info in enumerate(infos):
        number, at = struct.unpack_from("<i", info)[0], data + i * SIGINFO_BYTES
        if shared:
            calls.append(Call("rt_sigqueueinfo", pid, number, at))
        else:
            calls.append(Call("rt_tgsigqueueinfo", pid, tid, number, at))
    return calls, b"".join(infos)


def live_status(pid: int) -> dict[str, str]:
    """/proc/PID/status."""
    return proc.status(pid)
