"""The objects tier in the own process: whose names are saved, when the child is forked, and the way back.

A namespace is saved by a child of this process, never by the helper. The child is forked when the process has heard
that its image is taken, so that it is in no image and nobody who stops the tree meets it; and before a handler, or the
caller, goes on. What it holds is therefore what the image holds, but for what other threads of the user's did in the
milliseconds between. `nbcr.objects` and what it needs are imported on first use (`preload`: in idle time).
"""

from __future__ import annotations

import contextlib
import contextvars
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nbcr.errors import NbcrError
from nbcr.handlers.interrupts import waiting
from nbcr.objects import here
from nbcr.session import importing, snapshots

if TYPE_CHECKING:
    from nbcr.objects import Progress, Report, Saving
    from nbcr.session.terms import Limits
    from nbcr.store import Entry

_COUNTED = ("size_bytes", "added_bytes", "blocked_ms", "duration_ms", "how")


def usual_kinds() -> tuple[str, ...]:
    """What a checkpoint of this process holds when nobody says: a script's variables are not meant to be loaded."""
    return ("image",) if here.shell() is None else ("image", "objects")


def preload() -> None:
    """Import what the first save would have to. Never raises: what is wrong will be told by a checkpoint."""
    with contextlib.suppress(Exception), importing.no_fork():
        from nbcr import objects

        objects.preload()


class Part:
    """The objects of one checkpoint, on their way into its draft. Made by `begin`; nothing of it raises NbcrError."""

    def __init__(self, saving: Saving | None, failure: str = "") -> None:
        self.report: Report | None = None  # once it is known
        self._saving, self._failure = saving, failure
        if saving is not None and saving.done:  # there was so little to save
            self.word()

    def word(self, on_progress: Callable[[Progress], None] | None = None) -> dict[str, Any]:
        """Wait for its end; what the helper is told of it. Now and then `on_progress` hears how far it is."""
        if self._saving is not None:
            try:
                with waiting():
                    self.report = self._saving.wait(on_progress=on_progress)
            except NbcrError as error:
                self._failure = error.line()
            except Exception as error:
                self._failure = f"{type(error).__name__}: {error}"
            except BaseException:
                self._saving.cancel()
                raise
            self._saving = None
        if self.report is None:
            return {"op": "objects", "failure": self._failure}
        return {"op": "objects", "counts": counts_of(self.report)}

    def report_at(self, place: Path) -> Report | None:
        """The report, now that the snapshot is part of an entry."""
        from dataclasses import replace

        return None if self.report is None else replace(self.report, place=place)


_Ask = Callable[[], contextvars.Context | None]
_context_of_cells: _Ask | None = None


def cells_run_in(context: _Ask) -> None:
    """Where the values of context variables are the session's: numpy's and decimal's settings are among them."""
    global _context_of_cells
    _context_of_cells = context


def _context() -> contextvars.Context:
    """A copy of what cells see, for a thread that saves in their stead; of what this one sees, where nobody knows."""
    if _context_of_cells is not None and threading.current_thread() is not threading.main_thread():
        with contextlib.suppress(Exception):  # parts of ipykernel, which another version may have otherwise
            found = _context_of_cells()
            if found is not None:
                return found.copy()
    return contextvars.copy_context()


def begin(place: Path, limits: Limits, previous: Path | None, *, beside_image: bool) -> Part:
    """Start to save this session's names into the folder `place`; the caller is blocked for a fork, no longer.

    `previous`: a snapshot whose files are shared where nothing changed; it need not be there any more.
    `beside_image`: the disk is busy with an image, so that not even a little is written while the caller waits.
    """
    try:
        from nbcr import objects

        objects.preload()  # to its end, should a thread of ours be at it: the child has no such thread
        saving = _context().run(
            objects.save, here.namespace(), place, hidden=here.hidden(), history=limits.history,
            max_size=limits.max_size_bytes, max_total=limits.max_total_bytes, previous=previous,
            at_once=not beside_image,
        )  # fmt: skip
    except NbcrError as error:
        return Part(None, error.line())
    except Exception as error:
        return Part(None, f"{type(error).__name__}: {error}")
    return Part(saving)


def load(entry: Entry) -> Report:
    """Roll this session's names back to those of `entry`; names that came since are removed."""
    return snapshots.load(entry, here.namespace(), hidden=here.hidden())


def counts_of(report: Report) -> dict[str, Any]:
    """A report in numbers, as a manifest keeps it."""
    fates = [verdict.fate.value for verdict in report.verdicts.values()]
    counted: Mapping[str, Any] = {key: getattr(report, key) for key in _COUNTED}
    return {**{fate: fates.count(fate) for fate in ("saved", "recomputable", "lost")}, **counted}
