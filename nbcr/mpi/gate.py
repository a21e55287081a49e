"""The gate between a program and MPI: every call passes it, and during a checkpoint nobody does.

What happens at every call must cost next to nothing, so there is no lock: lists as long as there are calls inside,
whose operations are atomic under the interpreter lock, and flags. Whoever enters is counted first and looks at the
flag then; whoever closes sets the flag first and counts then: one of the two sees the other (Dekker).

Two kinds of calls are told apart. *Matching* ones (receives, probes, tests) look for messages: they poll, leave when
the gate closes and begin again when it opens, in whichever life. *Passing* ones (blocking sends and collectives) end by
themselves once the messages in flight are drained and all members have begun.

    HOLD    collectives beyond the target wait, everything else goes on    (`alert`)
    LOCK    nobody enters; who polls leaves, who passes comes to his end   (`alert` and `closed`)
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from types import CodeType, FrameType
from typing import Any, TypeVar

_Call = TypeVar("_Call", bound=Callable[..., Any])

SPINS = 200  # polls at full speed: as long as a message in flight takes
_YIELDS = 20_000  # then polls that let others have the processor, before it is given up for moments
_NAP_S = 50e-6
_LOOK_S = 0.0002


class Gate:
    """The one of this process; `gate` below."""

    __slots__ = (
        "_between", "_changed", "_matching", "_passing", "_waiting", "alert", "arrive", "closed", "counts", "enter",
        "holders", "keeper", "leave", "opened", "pass_in", "pass_out", "targets", "ticket",
    )  # fmt: skip

    def __init__(self) -> None:
        self._matching: list[None] = []  # as long as there are calls: append and pop are atomic, and cost least
        self._passing: list[None] = []
        self._between: list[None] = []  # collectives that want to begin, and are not counted yet
        self.enter, self.leave = self._matching.append, self._matching.pop
        self.pass_in, self.pass_out = self._passing.append, self._passing.pop
        self.ticket, self.arrive = self._between.append, self._between.pop
        self.alert = False
        self.closed = False
        self.opened = threading.Event()
        self.opened.set()
        self.targets: dict[str, int] = {}
        self.keeper = 0  # the thread that has closed the gate
        self.holders: set[CodeType] = set()  # of calls that count as inside while they run
        self.counts: dict[str, tuple[int, tuple[int, ...]]] = {}  # collectives begun that no communicator counts
        self._changed = threading.Condition()
        self._waiting: dict[int, str] = {}  # thread → the key of the collective it wants to begin

    # In threads of the program

    def admit(self) -> None:
        """For a matching call that found the gate closed: out, wait, and in again."""
        while self.closed and not self._is_exempt():
            self.leave()
            self.opened.wait()
            self.enter(None)

    def admit_passing(self) -> None:
        """The same for a passing one."""
        while self.closed and not self._is_exempt():
            self.pass_out()
            self.opened.wait()
            self.pass_in(None)

    def _is_exempt(self) -> bool:
        """Whether the calling thread is who closed the gate, or is inside already: mpi4py's methods call each other."""
        if threading.get_ident() == self.keeper:
            return True
        frame: FrameType | None = sys._getframe(2)
        assert frame is not None
        frame = frame.f_back  # beyond the call that asks
        while frame is not None:
            if frame.f_code in self.holders:
                return True
            frame = frame.f_back
        return False

    def admit_collective(self, key: str, begun: int) -> None:
        """For a collective that found the gate on alert, after `begun` others of its communicator: wait its turn."""
        thread = threading.get_ident()
        with self._changed:
            if self._may_begin(key, begun):
                return
            self._waiting[thread] = key
            self.arrive()
            self.pass_out()
            try:
                self._changed.wait_for(lambda: self._may_begin(key, begun))
            finally:
                self.pass_in(None)
                self.ticket(None)
                del self._waiting[thread]

    def _may_begin(self, key: str, begun: int) -> bool:
        return not self.alert or (not self.closed and begun < self.targets.get(key, 0))

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
        """Let no further collective begin. Returns when it is known which have."""
        self.targets = {}
        self.alert = True
        while self._between:
            time.sleep(_LOOK_S)

    def raise_to(self, targets: dict[str, int]) -> None:
        """Let collectives begin up to these."""
        with self._changed:
            self.targets.update(targets)
            self._changed.notify_all()

    def waiting_for(self) -> list[str]:
        """Keys of the collectives that threads want to begin."""
        return list(dict(self._waiting).values())

    def lock(self) -> None:
        """Let nobody in any more but the calling thread."""
        self.keeper = threading.get_ident()
        self.opened.clear()
        self.closed = True

    @property
    def matching(self) -> int:
        """How many calls may be looking for messages."""
        return len(self._matching)

    @property
    def passing(self) -> int:
        """How many blocking sends and collectives are under way."""
        return len(self._passing)

    def open(self) -> None:
        """Everybody goes on."""
        self.keeper = 0
        self.closed = False
        self.alert = False
        self.opened.set()
        with self._changed:
            self._changed.notify_all()


gate = Gate()


def holder(call: _Call) -> _Call:
    """`call` is inside MPI while it runs, and counted (see `Gate.holders`)."""
    gate.holders.add(call.__code__)
    return call


def waited(condition: Callable[[], Any], deadline_s: float) -> bool:
    """Poll until `condition` holds; False when it does not in time. Nothing here can be waited for otherwise."""
    end = time.monotonic() + deadline_s
    while not condition():
        if time.monotonic() >= end:
            return False
        time.sleep(_LOOK_S)
    return True
