"""Rows, bounds with their verdicts, and how both look."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

COLUMNS = ("pause", "blocked", "total", "bytes", "back")
_VERDICTS = {True: "reached", False: "NOT REACHED", None: "not measured"}
_HEADS = {"pause": "pause", "blocked": "user blocked", "total": "total", "bytes": "written", "back": "going back"}


@dataclass
class Row:
    """One contestant on one state. Seconds and bytes; None: does not apply, or was not measured (see `note`)."""

    state: str
    who: str
    pause: float | None = None
    blocked: float | None = None
    total: float | None = None
    bytes: int | None = None
    back: float | None = None
    note: str = ""
    samples: dict[str, list[float]] = field(default_factory=dict)


@dataclass
class Verdict:
    """A figure to reach, and what was measured."""

    what: str
    bound: float
    measured: float | None
    unit: str = "s"
    at_least: bool = False
    best: float | None = None  # of the repetitions whose median is `measured`

    @property
    def reached(self) -> bool | None:
        """Whether the bound holds; None: not measured."""
        if self.measured is None:
            return None
        return self.measured >= self.bound if self.at_least else self.measured <= self.bound


def median(values: Sequence[float]) -> float | None:
    """The median, or None of nothing."""
    return statistics.median(values) if values else None


@dataclass
class Report:
    """Everything one run found out."""

    facts: dict[str, str]
    rows: list[Row] = field(default_factory=list)
    verdicts: list[Verdict] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def text(self) -> str:
        """The tables as a terminal shows them."""
        lines = [f"{name}: {value}" for name, value in self.facts.items()]
        for state in dict.fromkeys(row.state for row in self.rows):
            rows = [row for row in self.rows if row.state == state]
            lines += ["", *_grid([state, *_HEADS.values(), ""], [_cells(row) for row in rows])]
        if self.verdicts:
            body = [
                [
                    v.what,
                    _bound(v),
                    _measured(v),
                    "-" if v.best is None else _value(v, v.best),
                    _VERDICTS[v.reached],
                ]
                for v in self.verdicts
            ]
            lines += ["", *_grid(["figure to reach", "bound", "median", "best", "verdict"], body)]
        return "\n".join([*lines, *_said("note", self.remarks), *_said("FAILED", self.failures)])

    def document(self) -> dict[str, Any]:
        """The same for programs."""
        return {
            "facts": self.facts,
            "rows": [asdict(row) for row in self.rows],
            "bounds": [{**asdict(v), "reached": v.reached} for v in self.verdicts],
            "remarks": self.remarks,
            "failures": self.failures,
        }


def _said(kind: str, lines: list[str]) -> list[str]:
    return [f"{kind}: {line}" for line in lines]


def seconds_text(value: float | None) -> str:
    """Seconds as people read them: 650 ns, 3.42 ms, 0.71 s."""
    if value is None:
        return "-"
    if value < 1e-5:
        return f"{value * 1e9:.3g} ns"
    return f"{value * 1e3:.3g} ms" if value < 0.1 else f"{value:.2f} s"


def bytes_text(value: int | None) -> str:
    """Bytes in MiB."""
    return "-" if value is None else f"{value / 2**20:.1f} MiB"


def _cells(row: Row) -> list[str]:
    times = {name: seconds_text(getattr(row, name)) for name in COLUMNS if name != "bytes"}
    return [row.who, *(bytes_text(row.bytes) if name == "bytes" else times[name] for name in COLUMNS), row.note]


def _bound(verdict: Verdict) -> str:
    return f"{'>=' if verdict.at_least else '<='} {_value(verdict, verdict.bound)}"


def _measured(verdict: Verdict) -> str:
    return "-" if verdict.measured is None else _value(verdict, verdict.measured)


def _value(verdict: Verdict, value: float) -> str:
    if verdict.unit == "s":
        return seconds_text(value)
    return f"{value * 100:.3g} %" if verdict.unit == "%" else f"{value:.3g} {verdict.unit}"


def _grid(head: list[str], body: list[list[str]]) -> list[str]:
    widths = [max(len(line[i]) for line in [head, *body]) for i in range(len(head))]

    def line(cells: list[str]) -> str:
        first, *middle, last = (
            cell.ljust(width) if i in (0, len(head) - 1) else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        return "  ".join([first, *middle, last]).rstrip()

    return [line(head), "-" * len(line(head).ljust(sum(widths[:-1]))), *map(line, body)]
