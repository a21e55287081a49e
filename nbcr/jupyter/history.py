"""The history database, which lives outside the image and has gone on without it.

IPython keeps two SQLite connections to history.sqlite, one of them in a thread. A transaction that is open
in the image would, resumed later, write pages over a file that has moved on: so both caches are written out
before the image and their locks are held across it. The thread is ended for that time: IPython joins it before
every fork, also that of the child which saves the variables, and it might wait for those locks. In a restored
life both connections are opened anew, and lines go to a new history session, since the life that went on has
used the next line numbers of the old one.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import Any

from IPython.core.history import HistorySavingThread

LOCK_TIMEOUT_S = 5.0


class History:
    """IPython's HistoryManager across a checkpoint."""

    def __init__(self, shell: Any) -> None:
        self._manager: Any = getattr(shell, "history_manager", None)
        self._locked: list[threading.Lock] = []
        self._at_rest = False  # the thread is ended until `release`

    @property
    def _alive(self) -> bool:
        manager = self._manager
        return manager is not None and bool(manager.enabled) and str(manager.hist_file) != ":memory:"

    def hold(self) -> None:
        """Write out what is cached and keep everyone from the database until `release`."""
        if not self._alive or self._locked:
            return
        self._rest()
        self._manager.writeout_cache()
        for lock in (self._manager.db_input_cache_lock, self._manager.db_output_cache_lock):
            if lock.acquire(timeout=LOCK_TIMEOUT_S):
                self._locked.append(lock)

    def release(self) -> None:
        """Let the history be written again."""
        locked, self._locked = self._locked, []
        for lock in locked:
            lock.release()
        if self._at_rest:
            self._at_rest, self._manager.using_thread = False, True
            _start_thread(self._manager)

    def _rest(self) -> None:
        manager = self._manager
        if manager.save_thread is not None and getattr(manager, "using_thread", False):
            _stop_thread(manager)
            manager.using_thread = False  # so that a fork in the meantime does not start it again
            self._at_rest = True

    def reopen(self, warnings: list[str]) -> None:
        """In a restored life: fresh connections and a new session. That the file has moved on is no news then."""
        if not self._alive:
            self.release()
            return
        manager = self._manager
        warnings[:] = [warning for warning in warnings if str(manager.hist_file) not in warning]
        try:
            manager.db.close()
            manager.init_db()
            manager.new_session()
        except Exception:
            _keep_in_memory(manager)
            raise
        finally:
            self.release()
        if manager.save_thread is not None:
            _stop_thread(manager)
            _start_thread(manager)


# What IPython does itself, which has other names, or none, in its earlier versions.


def _stop_thread(manager: Any) -> None:
    manager.save_thread.stop()
    manager.save_thread = None


def _start_thread(manager: Any) -> None:
    if manager.save_thread is None:
        manager.save_thread = HistorySavingThread(manager)
        manager.save_thread.start()


def _keep_in_memory(manager: Any) -> None:
    with suppress(Exception):
        manager.db.close()
    manager.hist_file = ":memory:"
    manager.init_db()
    manager.new_session()
