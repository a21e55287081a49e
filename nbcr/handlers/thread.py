"""The checkpoint thread: asleep on a semaphore until asked, then running handlers while the program runs on.

The semaphore is an eventfd (EFD_SEMAPHORE), because the thread also waits for what others watch with it: the socket
for requests from outside (`listening`), the wake-up of a signal (`signals`). Both the semaphore and the thread are
part of each image: a restored life finds its checkpoint thread asleep, and wakes it.

A handler that hangs must not take the thread with it: when a call is late it is left alone in its thread, and
another thread takes over.
"""

from __future__ import annotations

import contextlib
import os
import select
import threading
from collections.abc import Callable
from pathlib import Path
from queue import Empty, SimpleQueue
from types import FrameType

from nbcr.handlers.deadline import Deadline
from nbcr.handlers.places import Job, LateError, where_is

THREAD_NAME = "nbcr-checkpoint"
LATE_NAME = "nbcr-late"
_END_BOUND_S = 10.0


class CheckpointThread:
    """One daemon thread per process, and a `Place`."""

    def __init__(self) -> None:
        self._jobs: SimpleQueue[Job] = SimpleQueue()
        self._semaphore = -1
        self._watched: dict[int, Callable[[], None]] = {}
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread, unless it runs."""
        if self._semaphore < 0:
            self._semaphore = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK | os.EFD_SEMAPHORE)
        if not self.alive:
            self._replace()

    def stop(self) -> None:
        """End the thread; called from the thread itself: after the call that it is in."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        self._wake()
        if thread is not threading.current_thread():
            thread.join(_END_BOUND_S)

    def forget(self) -> None:
        """In a forked child, which has the semaphore but not the thread, nor its calls."""
        self._thread = None
        self._watched, self._jobs = {}, SimpleQueue()
        if self._semaphore >= 0:
            os.close(self._semaphore)
        self._semaphore = -1

    @property
    def alive(self) -> bool:
        """Whether calls are served."""
        return self._thread is not None and self._thread.is_alive()

    @property
    def is_current(self) -> bool:
        """Whether the caller is the checkpoint thread."""
        return threading.current_thread() is self._thread

    def run(self, job: Job, deadline: Deadline) -> None:
        """See `Place.run`. After a LateError another thread has taken over."""
        if self.is_current:
            job.call()
            return
        self.start()
        self._jobs.put(job)
        self._wake()
        try:
            ended = job.wait(deadline)
        except BaseException:
            if job.abandoned:
                self._leave_alone()
            raise
        if not ended:
            raise LateError(deadline, self._leave_alone())

    def watch(self, descriptor: int, call: Callable[[], None]) -> None:
        """Call `call` in this thread whenever `descriptor` is readable, until `unwatch`."""
        self._watched = {**self._watched, descriptor: call}
        self._wake()

    def unwatch(self, descriptor: int) -> None:
        """Watch `descriptor` no longer. From another thread: one last call may be under way."""
        self._watched = {number: call for number, call in self._watched.items() if number != descriptor}
        self._wake()

    def _wake(self) -> None:
        if self._semaphore >= 0:
            os.eventfd_write(self._semaphore, 1)

    def _leave_alone(self) -> FrameType | None:
        """The thread does not come back from its call: another one takes its place. Returns where it is."""
        late = self._thread
        frame = where_is(late)
        if late is not None:
            late.name = LATE_NAME
            _name_natively(late, LATE_NAME)
        self._replace()
        return frame

    def _replace(self) -> None:
        thread = threading.Thread(target=self._serve, name=THREAD_NAME, daemon=True)
        self._thread = thread
        thread.start()
        _name_natively(thread, THREAD_NAME)

    def _serve(self) -> None:
        me = threading.current_thread()
        while self._thread is me:
            watched = self._watched
            poller = select.poll()
            poller.register(self._semaphore, select.POLLIN)
            for descriptor in watched:
                poller.register(descriptor, select.POLLIN)
            for descriptor, _ in poller.poll():
                if descriptor == self._semaphore:
                    self._serve_job()
                elif descriptor in self._watched and self._thread is me:
                    watched[descriptor]()

    def _serve_job(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._semaphore)
        with contextlib.suppress(Empty):  # woken to look at what it watches
            job = self._jobs.get_nowait()
            me = threading.current_thread()
            _name_natively(me, _main_name())  # threads that a handler starts inherit the name
            job.do()
            _name_natively(me, me.name)


def _name_natively(thread: threading.Thread, name: str) -> None:
    """As `ps -L` and `top -H` show it; Python does this itself from 3.14 on."""
    with contextlib.suppress(OSError):
        Path(f"/proc/self/task/{thread.native_id}/comm").write_text(name[:15])


def _main_name() -> str:
    try:
        return Path("/proc/self/comm").read_text().rstrip("\n")
    except OSError:
        return "python"
