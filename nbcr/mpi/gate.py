"""The gate between a program and MPI: every call passes it, and during a checkpoint nobody does.

What happens at every call must cost next to nothing: it looks at a flag. Who is inside is seen from outside, when it
matters: a thread is, while one of the calls marked here is on its stack. Whoever closes the gate sets the flag first
and looks at the stacks then; whoever enters is on his stack before he looks at the flag: one of the two sees the other
(Dekker; the interpreter lock orders these steps). Rejected: counting who enters and leaves, which was a fifth of an
Allreduce.

Two kinds of calls are told apart. *Matching* ones (receives, probes, tests) look for messages: they poll, stay out when
the gate closes and go on when it opens, in whichever life. *Passing* ones (blocking sends and collectives) end by
themselves once the messages in flight are drained and all members have begun.

    HOLD    collectives beyond the target wait, everything else goes on    (`alert`)
    LOCK    nobody enters; who polls stays out, who passes comes to his end   (`alert` and `closed`)

A collective counts itself as begun first, and looks whether it may then. When it may not, it takes that back, unless it
has been reported as begun meanwhile: what was reported may begin, also when the gate is closed.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from types import CodeType, FrameType
from typing import Any, TypeVar

from nbcr.runtime import where_threads_are

_Call = TypeVar("_Call", bound=Callable[..., Any])

SPINS = 200  # polls at full speed: as long as a message in flight takes
_YIELDS = 20_000  # then polls that let others have the processor, before it is given up for moments
_NAP_S = 50e-6
_LOOK_S = 0.0002


@dataclass
class Count:
    """Collectives begun that no living communicator counts."""

    _key: str
    _members: tuple[int, ...]  # world ranks of all who take part
    _begun: int = 0
    is_over: bool = False  # no more of them will come: the communicator has been freed


class Gate:
    """The one of this process; `gate` below."""

    __slots__ = (
        "_changed", "_matching", "_passing", "_waiting", "alert", "closed", "counts", "keeper", "opened", "reported",
        "targets",
    )  # fmt: skip

    def __init__(self) -> None:
        self._matching: set[CodeType] = set()
        self._passing: set[CodeType] = set()
        self.alert = False
        self.closed = False
        self.opened = threading.Event()
        self.opened.set()
        self.targets: dict[str, int] = {}
        self.reported: dict[str, int] = {}  # what the launcher has been told
        self.keeper = 0  # the thread that has closed the gate
        self.counts: dict[str, Count] = {}
        self._changed = threading.Condition()
        self._waiting: dict[int, Any] = {}  # thread → whose collective it wants to begin

    # Which calls there are

    def matches(self, call: _Call) -> _Call:
        """`call` looks for messages while it runs, or is over in a moment."""
        self._matching.add(call.__code__)
        return call

    def passes(self, call: _Call) -> _Call:
        """`call` comes to its end by itself."""
        self._passing.add(call.__code__)
        return call

    # In threads of the program

    def stay_out(self) -> None:
        """For a call that found the gate closed: wait until it is open."""
        while self.closed and not self._is_inside():
            self._sleep()

    def keeps_out(self) -> bool:
        """Whether a call that found the gate closed has to leave what it is at, and to `stay_out`."""
        return self.closed and not self._is_inside()

    def _sleep(self) -> None:
        self.opened.wait()

    def _is_inside(self) -> bool:
        """Whether the calling thread is who closed the gate, or in another call already: mpi4py's methods call each
        other."""
        if threading.get_ident() == self.keeper:
            return True
        caller = sys._getframe(2).f_back
        return _is_in(caller, self._matching) or _is_in(caller, self._passing)

    def await_turn(self, comm: Any) -> None:
        """For a collective of `comm` that has counted itself as begun and found the gate on alert."""
        with self._changed:
            if self._may_begin(comm, comm._begun - 1):
                return
            comm._begun -= 1
            self._sleep_until_turn(comm)
            comm._begun += 1

    def _sleep_until_turn(self, comm: Any) -> None:
        thread = threading.get_ident()
        self._waiting[thread] = comm
        try:
            self._changed.wait_for(lambda: self._may_begin(comm, comm._begun))
        finally:
            del self._waiting[thread]

    def _may_begin(self, comm: Any, begun: int) -> bool:
        if not self.alert or begun < self.reported.get(comm._key, 0):
            return True
        return not self.closed and begun < self.targets.get(comm._key, 0)

    def wait_until_calm(self) -> None:
        """Until no checkpoint is under way."""
        with self._changed:
            self._changed.wait_for(lambda: not self.alert)

    def relax(self, polls: int) -> None:
        """Between two polls that found nothing."""
        if polls > _YIELDS:
            time.sleep(_NAP_S)
        elif polls > SPINS:
            os.sched_yield()

    # In the thread that takes the checkpoint

    def hold(self) -> None:
        """Let no further collective begin."""
        self.targets, self.reported = {}, {}
        self.alert = True

    def report(self, comms: Collection[Any]) -> dict[str, tuple[int, tuple[int, ...]]]:
        """How many collectives of each have begun, and its members. Who has leave to begin has begun."""
        with self._changed:
            for comm in comms:
                waits = any(each is comm for each in self._waiting.values())
                self.reported[comm._key] = comm._begun + (waits and self._may_begin(comm, comm._begun))
            return {comm._key: (self.reported[comm._key], comm._members) for comm in comms}

    def raise_to(self, targets: dict[str, int]) -> None:
        """Let collectives begin up to these."""
        with self._changed:
            self.targets.update(targets)
            self._changed.notify_all()

    def waiting_for(self) -> list[str]:
        """Keys of the collectives that threads want to begin."""
        return [comm._key for comm in dict(self._waiting).values()]

    def lock(self) -> None:
        """Let nobody in any more but the calling thread."""
        self.keeper = threading.get_ident()
        self.opened.clear()
        with self._changed:  # who has been let in has counted himself
            self.closed = True

    @property
    def matching(self) -> int:
        """How many calls may be looking for messages."""
        return self._inside(self._matching)

    @property
    def passing(self) -> int:
        """How many blocking sends and collectives are under way, or certain to begin."""
        with self._changed:
            certain = len([c for c in self._waiting.values() if c._begun < self.reported.get(c._key, 0)])
        return certain + self._inside(self._passing)

    def _inside(self, calls: Collection[CodeType]) -> int:
        ours = threading.get_ident()
        frames = where_threads_are()
        return sum(_is_in(frame, calls) for thread, frame in frames.items() if thread != ours)

    def forget_what_is_over(self) -> None:
        """Of communicators that all members have freed. Other counts stay: who waits at the gate goes on by his."""
        self.counts = {key: count for key, count in self.counts.items() if not count.is_over}

    def open(self) -> None:
        """Everybody goes on."""
        self.keeper = 0
        self.closed = False
        self.alert = False
        self.opened.set()
        with self._changed:
            self._changed.notify_all()


_OUT = frozenset(
    call.__code__
    for call in (Gate._sleep, Gate._sleep_until_turn, Gate.wait_until_calm)
)  # fmt: skip


def _is_in(frame: FrameType | None, calls: Collection[CodeType]) -> bool:
    """Whether a stack is in one of these calls, and that not waiting at the gate: a signal's handler may have begun
    another one above that."""
    while frame is not None and frame.f_code not in _OUT:
        if frame.f_code in calls:
            return True
        frame = frame.f_back
    return False


gate = Gate()


def waited(condition: Callable[[], Any], deadline_s: float) -> bool:
    """Poll until `condition` holds; False when it does not in time. Nothing here can be waited for otherwise."""
    end = time.monotonic() + deadline_s
    while not condition():
        if time.monotonic() >= end:
            return False
        time.sleep(_LOOK_S)
    return True
