"""What the use cases return. Standard library only; how it looks is in nbcr.rendering."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nbcr.errors import NbcrError
from nbcr.handlers import HandlerProblem, RestartEvent
from nbcr.states import Outcome
from nbcr.store import Entry

if TYPE_CHECKING:
    from nbcr.objects import Change, Progress, Report, VariableInfo

_TOLD_EACH_S = 1.0

# How an entry's warnings begin that one of its kinds could not be had; see nbcr.session.taking.
SHORTFALLS = ("no process image was taken", "the objects were not saved")


class CheckpointResult:
    """A checkpoint as its caller sees it: in the life that went on, or in a restored one (`outcome`).

    In the first life the image is still being written when the caller gets this; `done` and `wait` tell how
    that ends.
    """

    def __init__(self, outcome: Outcome, *, entry_id: str, name: str) -> None:
        self.outcome = outcome
        self.id = entry_id
        self.name = name
        self.pause_ms = 0.0  # how long every thread stood still
        self.blocked_ms = 0.0  # how long the caller waited in all
        self.size_bytes = 0  # an estimate until `done`
        self.duration_ms: float | None = None  # from request to published; None until then
        self.entry: Entry | None = None
        self.warnings: list[str] = []
        self.problems: list[HandlerProblem] = []  # handlers that failed after the image was taken
        self.event: RestartEvent | None = None  # in a restored life: what changed around it
        self.failure: NbcrError | None = None  # why the writing failed, once it did
        self.progress: Progress | None = None  # of the objects, while they are being saved and it takes a while
        self.objects: Report | None = None  # what became of each name, once that is known
        self.names_late: list[str] = []  # of `objects`, what is not as it was and was not known at once
        self.told = False  # whether somebody was told of `shortfalls` and `names_late`
        self._ended = threading.Event()
        self._callbacks: list[Callable[[CheckpointResult], None]] = []
        self._followers: list[Callable[[CheckpointResult], None]] = []
        self._advanced_at = time.monotonic()
        self._lock = threading.Lock()

    @property
    def done(self) -> bool:
        """Whether the entry is published, or failed to be."""
        return self._ended.is_set()

    def wait(self, timeout_s: float | None = None) -> Entry:
        """The published entry, in a restored life at once. Raises why it is not written, or TimeoutError after
        `timeout_s` seconds."""
        if not self._ended.wait(timeout_s):
            raise TimeoutError(f"checkpoint {self.name!r} is still being written after {timeout_s:g} s")
        self.told = True
        if self.failure is not None:
            raise self.failure
        if self.entry is None:
            raise RuntimeError("a checkpoint that ended well has an entry")
        return self.entry

    @property
    def shortfalls(self) -> list[str]:
        """What was meant to be written and was not, one line each; empty until `done`."""
        if self.failure is not None:
            return [f"checkpoint {self.name!r} was not written: {self.failure.line()}"]
        if self.entry is None:
            return []
        short = [text for text in self.entry.warnings if text.startswith(SHORTFALLS)]
        return [f"checkpoint {self.name!r}: {text}" for text in short]

    def when_done(self, callback: Callable[[CheckpointResult], None]) -> None:
        """Call `callback` once, from whichever thread learns that the writing ended; at once when it has."""
        with self._lock:
            if not self.done:
                self._callbacks.append(callback)
                return
        callback(self)

    def follow(self, callback: Callable[[CheckpointResult], None]) -> None:
        """Call `callback` about every second while the objects are being saved, from the thread that waits for them."""
        self._followers.append(callback)

    def advance(self, progress: Progress) -> None:
        """Note how far the objects are (called by the session layer)."""
        now = time.monotonic()
        if now - self._advanced_at < _TOLD_EACH_S or progress == self.progress:
            return
        self._advanced_at, self.progress = now, progress
        for callback in self._followers:
            callback(self)

    def finish(self, entry: Entry | None, failure: NbcrError | None = None) -> None:
        """Note how the writing ended (called by the session layer)."""
        with self._lock:
            if self.done:
                return
            self.entry, self.failure, self.progress = entry, failure, None
            if entry is not None:
                self.size_bytes, self.duration_ms = entry.size_bytes, entry.duration_ms
                self.warnings = list(dict.fromkeys([*self.warnings, *entry.warnings]))
            self._ended.set()
            callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback(self)

    def __repr__(self) -> str:
        from nbcr.rendering import checkpoint_text

        return checkpoint_text(self)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        from nbcr.rendering import checkpoint_bundle

        return checkpoint_bundle(self)


class EntryList(list[Entry]):
    """A list of entries that shows itself as a table."""

    writing: tuple[str, ...] = ()  # names of checkpoints of this process that are not published yet

    def __repr__(self) -> str:
        from nbcr.rendering import entries_text

        return entries_text(self, self.writing)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        from nbcr.rendering import entries_bundle

        return entries_bundle(self, self.writing)


@dataclass(frozen=True)
class LoadResult:
    """A session whose names were rolled back to those of `entry`; the process is the same."""

    entry: Entry
    report: Report  # name by name
    why: str = ""  # why its process image was not used, where that was tried

    def __repr__(self) -> str:
        from nbcr.rendering import load_text

        return load_text(self)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        from nbcr.rendering import load_bundle

        return load_bundle(self)


class VariableList(list["VariableInfo"]):
    """What a snapshot of objects holds, as a table."""

    def __repr__(self) -> str:
        from nbcr.rendering import variables_text

        return variables_text(self)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        from nbcr.rendering import variables_bundle

        return variables_bundle(self)


class ChangeList(list["Change"]):
    """How the names of two checkpoints differ, as a table."""

    def __repr__(self) -> str:
        from nbcr.rendering import changes_text

        return changes_text(self)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        from nbcr.rendering import changes_bundle

        return changes_bundle(self)


@dataclass(frozen=True)
class RestartResult:
    """A process tree brought back from outside it. `wait` returns the root's exit status, where it is our child:
    -N if signal N ended it, and 128 + N from a pid namespace of its own, whose init tells it."""

    entry: Entry
    pid: int
    pids: Mapping[int, int]
    warnings: tuple[str, ...] = ()
    facts: tuple[str, ...] = ()  # worth knowing, but nothing to worry about
    connection_file: Path | None = None
    wait: Callable[[], int] | None = field(default=None, repr=False)

    def document(self) -> dict[str, Any]:
        """The fields of ``nbcr restart --json``."""
        return {
            "pid": self.pid,
            "pids": {str(old): new for old, new in self.pids.items()},
            "facts": list(self.facts),
        }
