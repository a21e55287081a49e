"""Where a handler runs: here, in the checkpoint thread, or in the main thread; and what happens when it is late.

A place runs one call at a time. Whoever asks waits until the call has ended or the deadline has passed; in the
latter case, or when the wait is interrupted, the call is abandoned: nobody waits any more, and when it ends after all,
the place itself does what was ordered for that case (it tells the handler that nothing came of it).

Everything is handed over by `queue.SimpleQueue` and by operations of lists that are atomic: a signal may interrupt
the main thread between any two instructions, also here, and whatever it runs then must not need a lock that the
interrupted code holds (seed 000).
"""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from types import FrameType
from typing import Protocol

from nbcr.handlers.deadline import Deadline
from nbcr.handlers.interrupts import uninterrupted, waiting

Call = Callable[[], None]


class LateError(Exception):
    """A call did not end before the deadline. `frame`: where its thread was then, when that is known."""

    def __init__(self, deadline: Deadline, frame: FrameType | None = None, why: str = "") -> None:
        super().__init__(f"it had not ended after {deadline.elapsed_s:.1f} s" + (f": {why}" if why else ""))
        self.frame = frame
        self.why = why


class Job:
    """A call, perhaps on its way to another thread and back; `if_late` is called after it when nobody waited for it."""

    def __init__(self, call: Call, if_late: Call) -> None:
        self.call = call
        self.if_late = if_late
        self.thread: threading.Thread | None = None  # that does it
        self.abandoned = False
        self._error: BaseException | None = None
        self._is_over = False
        self._ended: SimpleQueue[None] = SimpleQueue()
        self._claims = [None]  # who takes the only claim decides: the call ended in time, or it was abandoned

    def _claim(self) -> bool:
        try:
            self._claims.pop()
        except IndexError:
            return False
        return True

    def do(self) -> None:
        """In the thread that it is meant for. Raises nothing."""
        self.thread = threading.current_thread()
        try:
            self.call()
        except BaseException as error:
            self._error = error
        if not self._claim():
            with contextlib.suppress(BaseException):  # nobody is there any more to hear of it
                self.if_late()
        self._is_over = True
        self._ended.put(None)

    def wait(self, deadline: Deadline) -> bool:
        """Whether it ended in time; then what it raised is raised. Otherwise it is abandoned."""
        try:
            with waiting():
                ended = self.ended(deadline.left_s)
        except BaseException:  # an interrupt
            self.abandoned = self._claim()
            if not self.abandoned and self._error is None:  # it ended at the same moment
                self.if_late()
            raise
        self.abandoned = not ended and self._claim()
        if self._error is not None and not self.abandoned:
            raise self._error
        return not self.abandoned

    def ended(self, timeout_s: float) -> bool:
        """Whether it ends within so many seconds; it stays wanted in any case."""
        if not self._is_over:
            with contextlib.suppress(Empty):
                self._ended.get(timeout=timeout_s)
        return self._is_over


class Place(Protocol):
    """Somewhere jobs can be done."""

    def run(self, job: Job, deadline: Deadline) -> None:
        """Have `job` done there and wait for its end: raises what it raises, or LateError, after which it is abandoned
        (or was late, and has ended since)."""


class Here:
    """The calling thread. It cannot leave a call that is late: it only says so afterwards."""

    def run(self, job: Job, deadline: Deadline) -> None:
        """Do `job`; see `Place.run`. Interrupts come to a late one only: that would otherwise never end."""
        with uninterrupted(unless=lambda: deadline.passed):
            job.call()
        if deadline.passed:
            job.if_late()
            raise LateError(deadline)


def where_is(thread: threading.Thread | None) -> FrameType | None:
    """The innermost frame of another thread just now."""
    return sys._current_frames().get(thread.ident or 0) if thread is not None else None
