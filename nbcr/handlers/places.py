"""Where a handler runs: here, in the checkpoint thread, or in the main thread; and what happens when it is late.

A place runs one call at a time. Whoever asks waits until the call has ended or the deadline has passed; in the
latter case the call is abandoned: nobody waits any more, and when it ends after all, the place itself does what
was ordered for that case (it tells the handler that nothing came of it).

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

Call = Callable[[], None]


class LateError(Exception):
    """A call did not end before the deadline. `frame`: where its thread was then, when that is known."""

    def __init__(self, deadline: Deadline, frame: FrameType | None = None) -> None:
        super().__init__(f"it had not ended after {deadline.elapsed_s:.1f} s")
        self.frame = frame


class Place(Protocol):
    """Somewhere calls can be run."""

    def run(self, call: Call, deadline: Deadline, if_late: Call) -> None:
        """Run `call` there and wait for its end: raises what it raises, or LateError.

        After a LateError `if_late` is, or will be, called there, once `call` has ended.
        """


class Here:
    """The calling thread. It cannot leave a call that is late: it only says so afterwards."""

    def run(self, call: Call, deadline: Deadline, if_late: Call) -> None:
        """Run `call`; see `Place.run`."""
        call()
        if deadline.passed:
            if_late()
            raise LateError(deadline)


class Job:
    """A call on its way to another thread and back."""

    def __init__(self, call: Call, if_late: Call) -> None:
        self._call = call
        self._if_late = if_late
        self._error: BaseException | None = None
        self._ended: SimpleQueue[None] = SimpleQueue()
        self._claims = [None]  # who takes the only claim decides: the call ended in time, or it was abandoned
        self.abandoned = False

    def _claim(self) -> bool:
        try:
            self._claims.pop()
        except IndexError:
            return False
        return True

    def do(self) -> None:
        """In the thread that it is meant for. Raises nothing."""
        try:
            self._call()
        except BaseException as error:
            self._error = error
        if self._claim():
            self._ended.put(None)
        else:
            with contextlib.suppress(BaseException):  # nobody is there any more to hear of it
                self._if_late()

    def wait(self, deadline: Deadline) -> bool:
        """Whether it ended in time; then what it raised is raised. Otherwise it is abandoned."""
        try:
            if not self.ended(deadline.left_s):
                self.abandoned = self._claim()
        except BaseException:  # an interrupt of the thread that waits
            self.abandoned = self._claim()
            if not self.abandoned:  # it ended at the same moment
                self._if_late()
            raise
        if self.abandoned:
            return False
        if self._error is not None:
            raise self._error
        return True

    def ended(self, timeout_s: float) -> bool:
        """Whether it ends within so many seconds; it stays wanted in any case."""
        try:
            self._ended.get(timeout=timeout_s)
        except Empty:
            return False
        return True


def where_is(thread: threading.Thread | None) -> FrameType | None:
    """The innermost frame of another thread just now."""
    return sys._current_frames().get(thread.ident or 0) if thread is not None else None
