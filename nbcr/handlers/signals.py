"""A checkpoint asked for by a POSIX signal.

Request and response are two steps (seed 000). What runs in the signal's handler is CPython's own few lines of C: they
note the signal and write its number to the wake-up descriptor, nothing else. At its other end the checkpoint thread
wakes, and does what has to be done: no lock that the interrupted code may hold is touched, and the main thread need
not come out of its long calculation first.

Another library may take the process's one wake-up descriptor (asyncio does, when it is given signals to handle). Then
the request is passed on by our handler on Python's level, as soon as the main thread runs Python code again.
"""

from __future__ import annotations

import contextlib
import signal
import socket
import threading
from collections.abc import Callable

from nbcr.errors import NotPossible
from nbcr.handlers.thread import CheckpointThread

_PASSED_ON = b"\0"
_UNCATCHABLE = {signal.SIGKILL, signal.SIGSTOP}
# Raised by the very instruction that the handler returns to: it would never end.
_FAULTS = {signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGABRT, signal.SIGTRAP, signal.SIGSYS}


def check_asks(number: int) -> None:
    """Raise NotPossible where a signal cannot ask for anything."""
    if number in _UNCATCHABLE | _FAULTS:
        why = "cannot be caught" if number in _UNCATCHABLE else "tells of a crash that must take its course"
        name = signal.Signals(number).name
        raise NotPossible(f"{name} cannot ask for checkpoints: it {why}", hint="choose another signal")


class RequestSignal:
    """Calls `ask` in the checkpoint thread when signal `number` arrives; several at once may be one request."""

    def __init__(self, number: int, thread: CheckpointThread, ask: Callable[[], None]) -> None:
        self.number = number
        self._thread = thread
        self._ask = ask
        self._receiver, self._sender = socket.socketpair()
        for end in (self._receiver, self._sender):
            end.setblocking(False)
        self._before = -1
        self._heard_early = False  # by the wake-up descriptor: what our handler then passes on is not another one

    def install(self) -> None:
        """Take the signal. Call in the main thread. Raises NotPossible when the program uses it itself."""
        try:
            self._check()
        except NotPossible:
            self._receiver.close()
            self._sender.close()
            raise
        self._thread.watch(self._receiver.fileno(), self._woken)
        signal.signal(self.number, self._pass_on)
        self._before = signal.set_wakeup_fd(self._sender.fileno(), warn_on_full_buffer=False)
        if self._before >= 0:  # somebody was there first: it is theirs, and `_pass_on` has to do
            signal.set_wakeup_fd(self._before)

    def _check(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            raise NotPossible(f"{self._name} can be taken for checkpoints in the main thread only")
        check_asks(self.number)
        if signal.getsignal(self.number) is not signal.SIG_DFL:
            raise NotPossible(
                f"{self._name} is in use by the program and cannot ask for checkpoints", hint="choose another signal"
            )

    def remove(self) -> None:
        """Give the signal back. Call in the main thread."""
        self._thread.unwatch(self._receiver.fileno())
        self.forget()

    def forget(self) -> None:
        """As `remove`, in a forked child without the thread: its copy of the descriptor would wake the parent."""
        signal.signal(self.number, signal.SIG_DFL)
        if self._before < 0:
            current = signal.set_wakeup_fd(-1)
            if current != self._sender.fileno():  # somebody took it from us meanwhile
                signal.set_wakeup_fd(current)
        self._receiver.close()
        self._sender.close()

    @property
    def _name(self) -> str:
        return signal.Signals(self.number).name

    def _pass_on(self, number: int, frame: object) -> None:
        """On Python's level, after the C part has run, which may have had another's wake-up descriptor."""
        with contextlib.suppress(OSError):  # full: a request waits there already
            self._sender.send(_PASSED_ON)

    def _woken(self) -> None:
        try:
            received = self._receiver.recv(4096)
        except OSError:
            return
        asked = False
        for byte in received:
            if byte == self.number:
                asked, self._heard_early = True, True
            elif byte == _PASSED_ON[0]:
                asked, self._heard_early = asked or not self._heard_early, False
        if asked:
            self._ask()


def number_of(name: str) -> int:
    """The signal called `name` ("SIGUSR2", "USR2" or a number). Raises NotPossible when there is none."""
    text = name.strip().upper()
    with contextlib.suppress(ValueError, KeyError):
        if text.isdecimal():
            return int(signal.Signals(int(text)))
        return int(signal.Signals[text if text.startswith("SIG") else f"SIG{text}"])
    raise NotPossible(f"there is no signal {name!r}", hint="SIGUSR2 is the usual one")
