"""What saving, loading and looking tell.

Plain values of the standard library, cheap to import and easy to render.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any


class Fate(StrEnum):
    """What became of a name."""

    SAVED = "saved"
    RESTORED = "restored"
    RECOMPUTABLE = "recomputable"  # not there, but it is known how to make it again
    LOST = "lost"


@dataclass(frozen=True)
class Verdict:
    """What became of one name, and why."""

    name: str
    fate: Fate
    size_bytes: int = 0  # of its own; what several names share counts for each of them
    culprit: str = ""  # where inside: "model.callbacks[2]._lock"
    reason: str = ""  # why it is lost: "cannot pickle '_thread.lock' object"
    remark: str = ""  # saved or restored, but not quite as it was: "its cache comes back empty"
    recipe: str = ""  # recomputable: the source that makes it
    cell: int | None = None  # and the cell that source came from
    late: bool = False  # a forked child could not save it; `Saving.wait` tries once more, in the process itself

    def line(self) -> str:
        """One line for people."""
        if self.fate in (Fate.SAVED, Fate.RESTORED):
            return f"{self.name}: {self.fate.value}" + (f", {self.remark}" if self.remark else "")
        why = f"{self.culprit}: {self.reason}" if self.culprit and self.culprit != self.name else self.reason
        if self.fate is Fate.RECOMPUTABLE:
            where = f"run cell {self.cell} again" if self.cell is not None else "its source is kept"
            why = f"{where} ({why})" if why else where
        return f"{self.name}: {self.fate.value}: {why}"


@dataclass(frozen=True)
class Drift:
    """A package (or Python itself) that is not the one it was."""

    what: str
    then: str
    now: str  # empty: not installed

    def line(self) -> str:
        """One line for people."""
        return f"{self.what} was {self.then}, " + (f"here it is {self.now}" if self.now else "here it is missing")


@dataclass(frozen=True)
class Report:
    """The outcome of a `save` or a `load`, name by name."""

    place: Path
    verdicts: Mapping[str, Verdict]
    size_bytes: int = 0  # of the snapshot
    added_bytes: int = 0  # of it, what an earlier snapshot did not have yet
    blocked_ms: float = 0.0  # how long the caller stood still
    duration_ms: float = 0.0
    how: str = "forked"  # "at once": there was so little to save; or "in-process": forking is not possible
    remarks: tuple[str, ...] = ()
    drift: tuple[Drift, ...] = ()
    removed: tuple[str, ...] = ()  # of a load: names that had come since

    def of(self, *fates: Fate) -> list[Verdict]:
        """The verdicts with one of these fates, in the namespace's order."""
        return [verdict for verdict in self.verdicts.values() if verdict.fate in fates]

    @property
    def kept(self) -> list[Verdict]:
        """What was saved or restored."""
        return self.of(Fate.SAVED, Fate.RESTORED)

    @property
    def lost(self) -> list[Verdict]:
        """What is gone."""
        return self.of(Fate.LOST)

    @property
    def recomputable(self) -> list[Verdict]:
        """What is not there but can be made again."""
        return self.of(Fate.RECOMPUTABLE)

    def lines(self) -> list[str]:
        """Everything a user should read: what is not as it was, and nothing of what is."""
        told = [verdict for verdict in self.verdicts.values() if verdict not in self.kept or verdict.remark]
        return [verdict.line() for verdict in told] + [drift.line() for drift in self.drift] + list(self.remarks)

    def document(self) -> dict[str, Any]:
        """The same for programs: what ``json.dumps`` takes."""
        verdicts = {name: {**asdict(verdict), "fate": verdict.fate.value} for name, verdict in self.verdicts.items()}
        return {**asdict(self), "place": str(self.place), "verdicts": verdicts}


@dataclass(frozen=True)
class VariableInfo:
    """One name of a snapshot, as it looked when it was saved."""

    name: str
    fate: Fate
    type: str  # "numpy.ndarray"
    shape: str = ""  # "5000000 x 6", "3 items"
    size_bytes: int = 0
    repr: str = ""
    reason: str = ""
    shares_with: tuple[str, ...] = ()  # names that are saved in one piece with it


@dataclass(frozen=True)
class Change:
    """A name that two snapshots do not have in common, or not alike. Sizes are None where it is not there."""

    name: str
    before_bytes: int | None
    after_bytes: int | None
    before: str = ""  # how it looked when it was saved, or why it was not saved
    after: str = ""

    @property
    def kind(self) -> str:
        """added, removed or changed."""
        if self.before_bytes is None:
            return "added"
        return "removed" if self.after_bytes is None else "changed"


@dataclass(frozen=True)
class Progress:
    """How far a save has come."""

    names_done: int
    names_total: int
    written_bytes: int
    current: str = ""  # the name that is being saved


@dataclass
class Remarks:
    """Collects remarks, each once, in order."""

    found: dict[str, None] = field(default_factory=dict)

    def add(self, remark: str) -> None:
        """Remember `remark`."""
        self.found[remark] = None

    def taken(self) -> str:
        """All since the last time, as one text."""
        text = "; ".join(self.found)
        self.found.clear()
        return text
