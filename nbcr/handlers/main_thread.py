"""Borrow the main thread in the middle of what it does: the signal context.

Python runs signal handlers in the main thread, between two instructions, and in system calls that wait and were
interrupted. So the main thread is sent a signal; its handler serves calls until it is given back, across the image:
like the signal handlers of BLCR, which wait in cr_checkpoint() (seeds 001, 002). The signal has no other meaning: a
real-time signal that nobody in this process uses.

A main thread in a long call of C code comes only when that ends: see `Deadline`. What runs here must not need what
the interrupted code may hold (the lock of a queue, of a connection …), as with all signal handlers; what `nbcr` itself
does takes no lock at all.
"""

from __future__ import annotations

import ctypes
import signal
import threading
from queue import Empty, SimpleQueue

from nbcr.errors import NotPossible
from nbcr.handlers.deadline import Deadline
from nbcr.handlers.interrupts import uninterrupted
from nbcr.handlers.places import Job, LateError, where_is
from nbcr.handlers.sections import handling

_SEND_AGAIN_S = 0.02

_signal: int | None = None  # the one that we have taken
_loans: SimpleQueue[Loan] = SimpleQueue()


class Loan:
    """The main thread for as long as it is borrowed: a `Place`."""

    def __init__(self) -> None:
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._arrival = Job(lambda: None, self.give_back)
        self._stuck = False

    def __enter__(self) -> Loan:
        return self

    def __exit__(self, *exc: object) -> None:
        self.give_back()

    def claim(self, deadline: Deadline) -> None:
        """Interrupt the main thread and wait until it is here. Raises LateError, NotPossible."""
        main = threading.main_thread()
        if _signal is None:
            install()
        if _signal is None or main.ident is None:
            raise NotPossible(
                "the main thread cannot be interrupted for handlers of the signal context",
                hint="register such handlers in the main thread, or use context='thread'",
            )
        _loans.put(self)
        # A signal that comes after Python last looked for signals and before a system call begins to wait interrupts
        # neither: it is sent again until the main thread is here.
        signal.pthread_kill(main.ident, _signal)
        while not self._arrival.ended(min(_SEND_AGAIN_S, deadline.left_s)):
            if deadline.passed and not self._arrival.wait(deadline):
                raise LateError(deadline, where_is(main))
            signal.pthread_kill(main.ident, _signal)

    def give_back(self) -> None:
        """Let the main thread go on with what it did; harmless when repeated."""
        self._jobs.put(None)

    def run(self, job: Job, deadline: Deadline) -> None:
        """See `Place.run`. Once a call was late, no other is waited for."""
        self._jobs.put(job)
        if not job.wait(Deadline(0.0) if self._stuck else deadline):
            self._stuck = True
            raise LateError(deadline, where_is(threading.main_thread()))

    def serve(self) -> None:
        """In the main thread: do what comes until it is given back.

        Interrupts come to a call that is late only: that would otherwise never end. What was interrupted by all this
        goes on.
        """
        raised: BaseException | None = None
        self._arrival.do()
        with uninterrupted(unless=lambda: self._stuck), handling():
            while True:
                try:
                    job = self._jobs.get()
                    if job is None:
                        break
                    job.do()
                except BaseException as error:  # the program's handler of another signal raised, a timeout for example
                    raised = error
        if raised is not None:
            raise raised


def install() -> None:
    """Take a signal for this. Called from another thread, the main thread does it as soon as it runs Python code."""
    if _signal is not None:
        return
    if threading.current_thread() is threading.main_thread():
        _take_signal()
    else:
        ctypes.pythonapi.Py_AddPendingCall(_PENDING, None)


def _take_signal() -> None:
    global _signal
    for number in range(signal.SIGRTMAX - 3, signal.SIGRTMIN, -1):
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, lambda number, frame: _serve_loans())
            _signal = number
            return


def _pending(_: object) -> int:
    if _signal is None:
        _take_signal()
    return 0


_PENDING = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p)(_pending)


def _serve_loans() -> None:
    with uninterrupted():  # an interrupt before this leaves the loan where it is, and the signal comes again
        while True:
            try:
                loan = _loans.get_nowait()
            except Empty:
                return
            loan.serve()
