"""The places of this process: its checkpoint thread and its main thread."""

from __future__ import annotations

import os
import threading

from nbcr.handlers.base import Context
from nbcr.handlers.deadline import Deadline
from nbcr.handlers.main_thread import Loan
from nbcr.handlers.passage import Places
from nbcr.handlers.places import Here, Place
from nbcr.handlers.thread import CheckpointThread

checkpoint_thread = CheckpointThread()
"""The process's own; started when it is first needed."""

os.register_at_fork(after_in_child=checkpoint_thread.forget)


class ProcessPlaces(Places):
    """Thread context in the checkpoint thread, signal context in the main thread, which is borrowed for it."""

    def __init__(self) -> None:
        self._loan: Loan | None = None

    def enter(self, context: Context, deadline: Deadline) -> None:
        """Interrupt the main thread when it is needed, unless it is the one that asks."""
        if context == "signal" and threading.current_thread() is not threading.main_thread():
            self._loan = Loan()
            self._loan.claim(deadline)

    def of(self, context: Context) -> Place:
        """See `Places.of`."""
        return checkpoint_thread if context == "thread" else self._loan or Here()

    def leave(self) -> None:
        """Let the main thread go on."""
        if self._loan is not None:
            self._loan.give_back()
