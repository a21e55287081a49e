"""Signals: dispositions, and signals queued but not yet delivered."""

from __future__ import annotations

import struct

from kernel_backend.host import proc
from kernel_backend.image.entries import ProcessEntry
from kernel_backend.tracee.inject import SCRATCH_DATA_BYTES, Borrowed, Call, Workshop
from kernel_backend.tracee.thread import SIGINFO_BYTES

SIGACTION_BYTES = 32
LAST_SIGNAL = 64
_SIGKILL, _SIGSTOP = 9, 19
SIGSET_BYTES = 8


_SETTABLE = [number for number in range(1, LAST_SIGNAL + 1) if number not in (_SIGKILL, _SIGSTOP)]


def capture_actions(source: Workshop | Borrowed) -> dict[int, bytes]:
    """struct kernel_sigaction of every signal but the two that nobody may catch; those that are all zero left out.

    A default action has flags too (SA_NOCLDWAIT), so /proc's masks of caught and ignored signals don't say enough.
    A fork copies actions: read them in the twin where there is one, then the reading is no part of the pause.
    """
    raw = _read_in_table(source) if isinstance(source, Workshop) else _read_singly(source)
    return {number: action for number, action in zip(_SETTABLE, raw, strict=True) if any(action)}


def _read_in_table(shop: Workshop) -> list[bytes]:
    shop.run(
        Call("rt_sigaction", number, 0, shop.data + i * SIGACTION_BYTES, SIGSET_BYTES)
        for i, number in enumerate(_SETTABLE)
    )
    raw = shop.get(len(_SETTABLE) * SIGACTION_BYTES)
    return [raw[at : at + SIGACTION_BYTES] for at in range(0, len(raw), SIGACTION_BYTES)]


def _read_singly(borrowed: Borrowed) -> list[bytes]:
    at_once = SCRATCH_DATA_BYTES // SIGACTION_BYTES
    found: list[bytes] = []
    for first in range(0, len(_SETTABLE), at_once):
        numbers = _SETTABLE[first : first + at_once]
        for i, number in enumerate(numbers):
            borrowed.call("rt_sigaction", number, 0, borrowed.data + i * SIGACTION_BYTES, SIGSET_BYTES)
        raw = borrowed.get(len(numbers) * SIGACTION_BYTES)
        found += [raw[at : at + SIGACTION_BYTES] for at in range(0, len(raw), SIGACTION_BYTES)]
    return found


def action_calls(entry: ProcessEntry, data: int) -> tuple[list[Call], bytes]:
    """Calls that set every disposition, default ones too, and their arguments for `data`."""
    calls: list[Call] = []
    arguments = bytearray()
    for number in _SETTABLE:
        calls.append(Call("rt_sigaction", number, data + len(arguments), 0, SIGSET_BYTES))
        arguments += entry.sigactions.get(number, bytes(SIGACTION_BYTES))
    return calls, bytes(arguments)


ACTIONS_DATA_BYTES = (LAST_SIGNAL - 2) * SIGACTION_BYTES


def flush_calls(data: int) -> tuple[list[Call], bytes]:
    """Calls that throw away everything queued in a process that is about to become another (SIG_IGN empties)."""
    ignore = struct.pack("<4Q", 1, 0, 0, 0)
    return [Call("rt_sigaction", n, data, 0, SIGSET_BYTES) for n in _SETTABLE], ignore


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
