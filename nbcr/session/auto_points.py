"""A point after each cell, and the way back to one of them.

A point is an automatic checkpoint at a cell's very end, when its outputs are there and its reply is about to leave: a
life restored from it is the session between two cells. A point after cell k is where undoing cell k + 1 goes.

Points cost the user tens of milliseconds each, and a disk the whole image. So they are taken at once only while they
have cost less than a share of the time that has passed, and while no earlier one is being written; else a little
later, when the session is idle, at no cost to anybody. Cells of a "Run All" that are too short for either have no
point between them, and undoing says so instead of going somewhere else.

What is remembered here is part of each image: a restored life knows the points before it, and no later ones.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NoReturn

from nbcr import runtime
from nbcr.errors import NbcrError, NotPossible, UnknownName, UsageProblem
from nbcr.session import auto, inprocess
from nbcr.session.auto import SettingsOf
from nbcr.session.results import CheckpointResult
from nbcr.states import Outcome
from nbcr.store import Entry

LONGEST_TRAIL = 1000
IDLE_AFTER_S = 0.3  # longer than any client takes between two cells of a "Run All", shorter than people do
_LOOK_AGAIN_S = 0.05
MOST_TRIES = 40  # to find a helper in waiting, before a point waits for a new one
_OURS = re.compile(
    r"\s*(#.*|%(nbcr|undo|checkpoint|checkpoints|restart)\b.*|%(re|un)?load_ext\s+nbcr\s*|%config\s+Nbcr.*)?"
)


def only_ours(cell: str) -> bool:
    """Whether a cell holds nothing but commands to nbcr, which do nothing that could be undone."""
    return all(_OURS.fullmatch(line) for line in cell.splitlines())


@dataclass(frozen=True)
class Point:
    """An automatic checkpoint between two cells."""

    position: int  # how many cells had been run
    entry_id: str
    cell: int | None  # execution count of the last of them

    @property
    def where(self) -> str:
        """As people say it."""
        return "before the first cell" if self.cell is None else f"after cell {self.cell}"


class Points:
    """What this session knows of its own course. All but `on` is used by the main thread only.

    `later` calls something in the main thread so many seconds later, or when that has next nothing to do; `idle` tells
    whether it has nothing to do now, and `say` tells the user something.
    """

    def __init__(
        self,
        settings: SettingsOf,
        *,
        later: Callable[[float, Callable[[], None]], None] = lambda after_s, call: None,
        idle: Callable[[], bool] = lambda: False,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.on = self.always = False
        self.position = 0
        self.running = False
        self.trail: list[Point] = []
        self._same: tuple[int, str] | None = None  # position and id of a checkpoint that holds the present
        self._settings, self._later, self._idle, self._say = settings, later, idle, say
        self._only_ours = True  # of the cell that runs, or ran last
        self._last_cell: int | None = None
        self._began = self._ended = 0.0  # when the last cell did
        self._within = 0
        self._tries = 0
        self._complained = ""
        self._restart_clock()

    def _restart_clock(self) -> None:
        self._since, self._spent_s = time.monotonic(), 0.0
        self._cost_s, self._cost_bytes = 0.0, 0  # of the last point: what it took, and how much memory there was

    def switch(self, on: bool, *, always: bool = False) -> None:
        """Take points from now on, or no more. `always`: after every cell, whatever it costs the user."""
        self.on, self.always = on, always
        self._complained = ""
        self._restart_clock()

    # What happens to the session

    def begins(self, cell: str) -> None:
        """A cell is about to run."""
        if not self._within:
            self.running = True
            self._began = time.monotonic()
            self._only_ours = only_ours(cell)

    def ended(self, count: int | None) -> bool:
        """A cell has ended. Whether that was in another life, which has come back to its point."""
        if self._within:
            return False
        self.running = False
        self._ended = time.monotonic()
        if not self._only_ours:
            self.position += 1
            self._last_cell = count
            self._only_ours = True
        if self.on and not self._has_point():
            if self.always or self._may_be_taken_now():
                return self._take()
            self._later(IDLE_AFTER_S, self._take_late)
        return False

    def within(self) -> _Within:
        """A context in which cells run within a cell, as parts of it."""
        return _Within(self)

    def noted(self, result: CheckpointResult) -> None:
        """A checkpoint of this session was taken, or brought back: it is the present, until a cell runs."""
        self._same = (self.position, result.id)

    def unchanged_since(self) -> str | None:
        """Id of a checkpoint that holds this session as it is now; None where there may be none."""
        if self._same is None or self._same[0] != self.position or not self._only_ours or auto.others_at_work():
            return None
        return self._same[1]

    # Points

    def _has_point(self) -> bool:
        return bool(self.trail) and self.trail[-1].position == self.position

    def _may_be_taken_now(self) -> bool:
        if inprocess.writing() or not inprocess.prepared():
            return False
        allowed_s = self._settings().share * (time.monotonic() - self._since)
        return not self.trail or 0 <= self._spent_s + self._expected_cost_s() <= allowed_s

    def _expected_cost_s(self) -> float:
        """What the next point will take, as far as that depends on how much memory there is."""
        growth = runtime.resident_bytes(os.getpid()) / self._cost_bytes if self._cost_bytes else 1.0
        return self._cost_s * max(1.0, growth)

    def _take_late(self) -> None:
        """In the main thread, between cells: the point that could not be taken at once."""
        if not self.on or self._has_point() or not self._idle():
            return  # another cell runs: its end is the next occasion
        writing = inprocess.writing()
        idle_s = time.monotonic() - self._ended
        if idle_s < IDLE_AFTER_S:  # cells ran in the meantime, and the next one may be on its way
            self._later(IDLE_AFTER_S - idle_s, self._take_late)
        elif writing:
            writing[-1].when_done(lambda result: self._later(_LOOK_AGAIN_S, self._take_late))
        elif not inprocess.prepared() and self._tries < MOST_TRIES:
            self._tries += 1
            self._later(_LOOK_AGAIN_S, self._take_late)
        else:
            self._tries = 0
            self._take(late=True)

    def _take(self, *, late: bool = False) -> bool:
        begun = time.monotonic()
        point = Point(self.position, "", self._last_cell)
        try:
            result = auto.take("cell", point.where, self._settings(), spared=self.ids)
        except NbcrError as error:
            self._complain(f"no point to undo to was kept {point.where}: {error.line()}")
            return False
        self.trail.append(replace(point, entry_id=result.id))
        del self.trail[:-LONGEST_TRAIL]
        self.noted(result)
        if result.outcome is Outcome.RESTART:
            self._restart_clock()
            return True
        resumed = time.monotonic()
        self._cost_s, self._cost_bytes = resumed - begun, runtime.resident_bytes(os.getpid())
        self._spent_s += 0.0 if late else self._cost_s
        result.when_done(lambda written: self._count_writing(resumed, late=late))
        return False

    def _count_writing(self, resumed: float, *, late: bool) -> None:
        """Writing takes from the user what it takes of the machine: of a late point's, while a cell runs beside it."""
        ended = time.monotonic()
        processors = os.cpu_count() or 1
        self._cost_s += (ended - resumed) / processors
        if not late:
            self._spent_s += (ended - resumed) / processors
        elif self._began > resumed:
            self._spent_s += (ended - self._began) / processors

    def ids(self) -> set[str]:
        """Ids of the entries that undoing may go to."""
        return {point.entry_id for point in self.trail}

    def _complain(self, text: str) -> None:
        """Once for each reason: a session that cannot be checkpointed must not hear so after every cell."""
        if text.rpartition(": ")[2] != self._complained:
            self._complained = text.rpartition(": ")[2]
            self._say(text)

    # Undoing

    def point_before(self, cells: int) -> Point:
        """Where undoing the last `cells` cells goes. Raises NotPossible when no point was kept there, UsageProblem."""
        if cells < 1:
            raise UsageProblem(f"%undo {cells} makes no sense", hint="1 is the last cell, 2 the last two, …")
        target = self.position - cells
        found = [point for point in self.trail if point.position <= target]
        if found and found[-1].position == target:
            return found[-1]
        what = "the last cell" if cells == 1 else f"the last {cells} cells"
        if found:
            back = self.position - found[-1].position
            hint = f"`%undo {back}` goes back to the nearest point before that, {found[-1].where}"
        elif self.on:
            since = f"points are kept since {self.trail[0].where}" if self.trail else "there is none yet"
            hint = f"{since}: cells that follow at once have none, but with `%nbcr auto --each-cell --always`"
        else:
            hint = "`%nbcr auto --each-cell` keeps a point after each cell from then on"
        raise NotPossible(f"no point was kept before {what}", hint=hint)

    def entry_of(self, point: Point) -> Entry:
        """What `point` holds. Raises NotPossible when it is not kept any more."""
        settings = self._settings()
        try:
            return inprocess.find(point.entry_id, settings.store, deadline_s=settings.deadline_s)
        except UnknownName:
            kept = settings.keep.get("cell", auto.KEEP["cell"])
            hint = f"the last {kept} are kept (NbcrAuto.keep_cells says how many)"
            there = {entry.id for entry in settings.store.entries()}
            left = [each for each in self.trail if each.entry_id in there and each.position < self.position]
            if left:
                hint += f"; `%undo {self.position - left[0].position}` goes back to the oldest of them, {left[0].where}"
            raise NotPossible(f"the point {point.where} is not in the store any more", hint=hint) from None

    def undo(self, point: Point) -> NoReturn:
        """Go back to `point`; does not return.

        Raises NbcrError when that cannot be; then this session goes on as it was.
        """
        entry, settings = self.entry_of(point), self._settings()
        inprocess.replace_by(entry, settings.store, deadline_s=settings.deadline_s)


class _Within:
    def __init__(self, points: Points) -> None:
        self._points = points

    def __enter__(self) -> None:
        self._points._within += 1

    def __exit__(self, *_: object) -> None:
        self._points._within -= 1
