"""Imports in a thread of ours, and the user who forks at that very moment.

The child would have the module half imported, and its lock held by a thread that the child has not: it waits for
ever when it imports the same. So whoever forks waits until the import has ended, which takes some tenths of a second
once in the life of a session. (The interpreter itself sees to its own lock only, which is free while a module's code
runs.)
"""

from __future__ import annotations

import concurrent.futures.thread
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

# Imported above, and by the thread that imports this, because it registers hooks for a fork. Were it another thread,
# a fork could meet the second half of a pair of hooks alone, and complain about a lock that nobody took.
_HOOKS_REGISTERED = concurrent.futures.thread

_PATIENCE_S = 5.0

_one_at_a_time = threading.Lock()
_forking: int | None = None  # the thread that forks, and has the lock


@contextmanager
def no_fork() -> Iterator[None]:
    """Nobody forks inside, in whatever thread. It must not fork itself."""
    with _one_at_a_time:
        yield


def _before() -> None:
    global _forking
    if _one_at_a_time.acquire(timeout=_PATIENCE_S):
        _forking = threading.get_ident()


def _after_in_parent() -> None:
    global _forking
    if _forking == threading.get_ident():
        _forking = None
        _one_at_a_time.release()


def _after_in_child() -> None:
    global _one_at_a_time, _forking
    _one_at_a_time, _forking = threading.Lock(), None


os.register_at_fork(before=_before, after_in_parent=_after_in_parent, after_in_child=_after_in_child)
