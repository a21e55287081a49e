"""The helper in waiting: started, all that it needs loaded, before anybody orders a checkpoint.

Starting one takes longer than an image of a small session does. One waits while the checkpoint thread runs; each serves
one order, and the next is started in the background.
"""

from __future__ import annotations

import threading
import time

from nbcr.errors import NbcrError
from nbcr.session import namespaces
from nbcr.session.spawning import Helper, Interpreter, spawn

THREAD_NAME = "nbcr-writing"  # of the threads that live no longer than a checkpoint's end
_REFILL_AFTER_S = 0.05


class Standby:
    """The one helper of a process that waits for an order, if there is to be one.

    `alone` is the lock under which a process is checkpointed: no image may be taken while a child of ours is started.
    """

    def __init__(self, alone: threading.RLock) -> None:
        self.helper: Helper | None = None
        self._wanted = False
        self._alone = alone

    @property
    def prepared(self) -> bool:
        """Whether an order would not have to wait for a start, where a helper is to be kept waiting."""
        return self.helper is not None or not self._wanted

    def keep(self, wanted: bool) -> None:
        """Whether one is to be kept waiting from now on."""
        self._wanted = wanted
        if wanted:
            self.refill_soon()
        else:
            self._dismiss()

    def take(self, interpreter: Interpreter | None) -> Helper:
        """The one that waits, when it will do, else a new one. Raises HelperLost, NotPossible."""
        helper, self.helper = self.helper, None
        if helper is not None:
            if helper.alive and interpreter in (None, Interpreter.ours()):
                return helper
            helper.close()
        return spawn(interpreter)

    def refill_soon(self) -> None:
        """While the last one still writes: whoever checkpoints right after its end finds the next one ready.

        But not while the caller has the end of a cell before it: a start keeps the interpreter's lock for milliseconds.
        """
        if self._wanted and self.helper is None:
            threading.Thread(target=self._refill, name=THREAD_NAME, daemon=True).start()

    def _refill(self) -> None:
        """Start the next one, unless a checkpoint is under way: its end will ask again. Never raises."""
        time.sleep(_REFILL_AFTER_S)
        if not self._alone.acquire(blocking=False):
            return
        try:
            if self._wanted and self.helper is None:
                helper = spawn()
                helper.ready()
                self.helper = helper
                if not self._wanted:  # stopped meanwhile
                    self._dismiss()
        except (NbcrError, OSError):
            pass  # the next order starts one, and says what is wrong
        finally:
            self._alone.release()
        if "objects" in namespaces.usual_kinds():
            namespaces.preload()

    def _dismiss(self) -> None:
        helper, self.helper = self.helper, None
        if helper is not None:
            helper.close()
