"""Job control: processes that a signal has stopped, and what their parents have not heard of that yet.

A parent hears of each stop, and of each going on, once: by SIGCHLD and from wait(2). So a stopped process is stopped
again while it is made, with the same signal, and what its parent had heard before is taken back by waiting for it.
"""

from __future__ import annotations

import os
import signal
import struct
from collections.abc import Iterable, Sequence
from typing import Literal

from kernel_backend.resources import signals
from kernel_backend.tracee.chorus import Asking
from kernel_backend.tracee.inject import Borrowed, Call, Workshop
from kernel_backend.tracee.thread import ALL_BUT_SIGTRAP, SIGINFO_BYTES, Thread

Change = Literal[0, 5, 6]  # si_code of SIGCHLD: CLD_STOPPED, CLD_CONTINUED
_P_ALL, _P_PID = 0, 1
_CHANGES = os.WSTOPPED | os.WCONTINUED | os.WNOHANG
_ENDS = os.WEXITED | os.WNOHANG | os.WNOWAIT | 0x40000000  # __WALL: whatever signal tells of its end
_CORE_DUMPED = 0x80  # of what wait(2) tells


def ask_untold(borrowed: Borrowed, children: Sequence[int]) -> Asking[dict[int, Change]]:
    """What a process could hear of its living children, by their numbers: it is not used up."""
    found: dict[int, Change] = {}
    try:
        for which, number in [(_P_ALL, 0), *((_P_PID, child) for child in children)]:
            at = borrowed.put(bytes(SIGINFO_BYTES))
            yield Call("waitid", which, number, at, _CHANGES | os.WNOWAIT, 0)
            _, _, code, pid = struct.unpack_from("<iiixxxxi", borrowed.get(SIGINFO_BYTES))
            if not pid:
                if which == _P_ALL:
                    break  # as nearly always
            elif which == _P_PID:
                found[number] = code
    except ChildProcessError:
        return found  # it waits for none of them
    return found


def ask_ends(borrowed: Borrowed, children: Sequence[int]) -> Asking[dict[int, int]]:
    """How children have ended, as wait(2) tells their parent, by their numbers: they stay to be waited for."""
    found: dict[int, int] = {}
    for number in children:
        at = borrowed.put(bytes(SIGINFO_BYTES))
        yield Call("waitid", _P_PID, number, at, _ENDS, 0)
        _, _, code, pid, _, status = struct.unpack_from("<iiixxxxiIi", borrowed.get(SIGINFO_BYTES))
        if pid == number:
            killed = status | (_CORE_DUMPED if code == os.CLD_DUMPED else 0)
            found[number] = (status & 0xFF) << 8 if code == os.CLD_EXITED else killed
    return found


# --- coming back ------------------------------------------------------------------------------------------------------


def default_calls(numbers: Iterable[int], data: int) -> tuple[list[Call], bytes]:
    """Calls that let signals have their default actions, and their arguments."""
    calls = [Call("rt_sigaction", number, data, 0, signals.SIGSET_BYTES) for number in numbers]
    return calls, bytes(signals.SIGACTION_BYTES)


def stop(shop: Workshop, threads: Iterable[Thread], number: int) -> None:
    """Stop a process that is being made, by a signal whose action is the default one; it can still be worked on."""
    leader = shop.thread
    leader.set_sigmask(ALL_BUT_SIGTRAP & ~(1 << number - 1))
    os.kill(leader.tgid, signal.SIGSTOP)
    leader.resume()
    leader.wait()  # SIGSTOP on its way
    leader.resume(sig=number)
    leader.wait()
    leader.set_sigmask(ALL_BUT_SIGTRAP)
    for thread in threads:
        if thread is not leader:
            thread.resume()
            thread.wait()


def go_on(shop: Workshop) -> None:
    """Let a process that was stopped so go on."""
    os.kill(shop.thread.tgid, signal.SIGCONT)
    shop.call("getpid")  # as it passes by, its parent is told


def hear(parent: Workshop, number: int) -> None:
    """Have a parent wait for the last change of a child."""
    parent.call("waitid", _P_PID, number, 0, _CHANGES, 0)
