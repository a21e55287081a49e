"""Locks, of asyncio too, and what is local to a thread. Threads themselves do not come back (see `refused`)."""

from __future__ import annotations

import copyreg
import threading
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from nbcr.objects.kinds.base import CannotSave, Kind, Reduction, dotted_name

if TYPE_CHECKING:
    from nbcr.objects.pickling import UnitPickler
    from nbcr.objects.sharing import Survey

_HELD = "its lock was held, by whoever does not come back: it is free again"


class Locks(Kind):
    """Lock and RLock: a free one. Whoever held it is not there to let it go."""

    types = ("_thread.lock", "_thread.RLock", "threading._RLock")

    def reduce(self, obj: Any, pickler: UnitPickler) -> Reduction:
        reentrant = type(obj).__name__ != "lock"
        held = obj._is_owned() or not _is_free(obj) if reentrant else obj.locked()
        if held and id(obj) not in pickler.passing:
            pickler.remarks.add(_HELD)
        return make_lock, (reentrant,)


def _is_free(lock: Any) -> bool:
    free = lock.acquire(blocking=False)
    if free:
        lock.release()
    return bool(free)


def make_lock(reentrant: bool) -> Any:
    """A free lock."""
    return threading.RLock() if reentrant else threading.Lock()


class Conditions(Kind):
    """Condition, and with it Event, Semaphore and Barrier: nobody waits any more.

    Its lock is held in passing only.
    """

    types = ("threading.Condition",)

    def reduce(self, obj: threading.Condition, pickler: UnitPickler) -> Reduction:
        lock = obj._lock  # type: ignore[attr-defined]
        pickler.passing.add(id(lock))
        return type(obj), (lock,)


class Queues(Kind):
    """queue.Queue with what is in it."""

    types = ("queue.Queue",)

    def reduce(self, obj: Any, pickler: UnitPickler) -> Reduction:
        pickler.passing.add(id(obj.mutex))
        return NotImplemented


class Locals(Kind):
    """threading.local: the values of the main thread, in which cells run, where that saves."""

    types = ("_thread._local",)

    def reduce(self, obj: Any, pickler: UnitPickler) -> Reduction:
        if not pickler.context.in_main:
            raise CannotSave(
                "its values are local to the main thread, and another one saves: use %checkpoint in a cell"
            )
        return type(obj), (), dict(obj.__dict__)


class Threads(Kind):
    """Threads that were never started are mere objects; all others are lost."""

    types = ("threading.Thread",)
    refuses = True

    def reduce(self, obj: threading.Thread, pickler: UnitPickler) -> Reduction:
        if obj.ident is None:
            return NotImplemented
        raise CannotSave("a thread does not come back: start it again")


class OfEventLoops(Kind):
    """Queues, events, semaphores and locks of asyncio: they belong to the loop in which somebody first waited for them.

    Without one they belong to the next that does.
    """

    types = ("asyncio.mixins._LoopBoundMixin",)

    def parts(self, obj: Any, survey: Survey) -> Iterable[Any]:
        return self._state(obj).values()

    def reduce(self, obj: Any, pickler: UnitPickler) -> Reduction:
        if any(not one.done() for name in _WAITING for one in getattr(obj, name, None) or ()):
            pickler.remarks.add(f"nobody waits for it any more{_AGAIN * hasattr(obj, '_getters')}")
        state = self._state(obj)
        name = dotted_name(type(obj))
        if name == "asyncio.locks.Semaphore" and not state["_value"]:
            pickler.remarks.add("all of it was taken, by tasks that do not come back: release it, or make it again")
        if name == "asyncio.locks.BoundedSemaphore" and state["_value"] != state["_bound_value"]:
            state["_value"] = state["_bound_value"]
            pickler.remarks.add(_HELD)
        if name == "asyncio.locks.Lock" and state["_locked"]:
            state["_locked"] = False
            pickler.remarks.add(_HELD)
        return copyreg.__newobj__, (type(obj),), state  # type: ignore[attr-defined]

    def _state(self, obj: Any) -> dict[str, Any]:
        state = {**vars(obj), "_loop": None}
        return state | {name: state[name] and type(state[name])() for name in _WAITING if name in state}


_AGAIN = ": start the tasks that take from it again, or its join() never returns"
_WAITING = ("_waiters", "_getters", "_putters")


KINDS: tuple[Kind, ...] = (Locks(), Conditions(), Queues(), Locals(), Threads(), OfEventLoops())
