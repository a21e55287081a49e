"""How results look: plain text for a terminal, HTML for a notebook. For every face, and so in none."""

from __future__ import annotations

import datetime
import html
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from nbcr.states import Outcome

if TYPE_CHECKING:
    from nbcr.session.results import CheckpointResult
    from nbcr.store import Entry

COLUMNS = ("id", "name", "when", "parent", "kinds", "size", "notebook", "pid")
_RIGHT = ("size", "pid")


def size_text(size_bytes: int) -> str:
    """Bytes as people read them: 512 B, 51.2 MiB, 1.05 GiB."""
    size = float(size_bytes)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024 or unit == "GiB":
            break
        size /= 1024
    return f"{size_bytes} B" if unit == "B" else f"{size:.3g} {unit}" if size < 1000 else f"{size:.0f} {unit}"


def time_text(ms: float) -> str:
    """Milliseconds as people read them: 3.4 ms, 0.71 s, 12 s."""
    if ms < 100:
        return f"{ms:.1f} ms"
    if ms < 1000:
        return f"{ms:.0f} ms"
    return f"{ms / 1000:.3g} s"


def when_text(created: str) -> str:
    """An ISO 8601 time in the reader's own time zone, to the second."""
    try:
        moment = datetime.datetime.fromisoformat(created)
    except ValueError:
        return created
    return moment.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def checkpoint_text(result: CheckpointResult) -> str:
    """A checkpoint's result in one line, and one more for each thing to know."""
    return "\n".join([f"{result.outcome.value}  {result.name}  " + ", ".join(_facts(result)), *_notes(result)])


def checkpoint_bundle(result: CheckpointResult) -> dict[str, str]:
    """A checkpoint's result as a mime bundle."""
    facts = " · ".join(html.escape(f) for f in _facts(result))
    notes = "".join(f"<div>{html.escape(n)}</div>" for n in _notes(result))
    head = f"<b>{result.outcome.value}</b>&ensp;<code>{html.escape(result.name)}</code>"
    return {"text/plain": checkpoint_text(result), "text/html": f"<div>{head}&ensp;{facts}</div>{notes}"}


def _facts(result: CheckpointResult) -> list[str]:
    if result.outcome is Outcome.RESTART:
        return _restart_facts(result)
    facts = [f"id {result.id}"]
    if result.failure is not None:
        return [*facts, "FAILED: " + result.failure.line()]
    size = size_text(result.size_bytes)
    facts.append(f"size {size}" if result.done else f"size about {size}")
    facts.append(f"pause {time_text(result.pause_ms)}")
    if result.duration_ms is not None:
        facts.append(f"duration {time_text(result.duration_ms)}")
    else:
        facts.append(f"duration {time_text(result.blocked_ms)} so far, being written behind your back")
    return facts


def _restart_facts(result: CheckpointResult) -> list[str]:
    facts = [f"id {result.id}"]
    if result.event is None:
        return facts
    created = str(result.event.entry.get("created", ""))
    if created:
        facts.append(f"taken {when_text(created)}")
    facts.append(f"size {size_text(result.size_bytes)}")
    facts.append(f"pid {result.event.pid}" + (" (in place)" if result.event.in_place else " (fresh process)"))
    return facts


def _notes(result: CheckpointResult) -> list[str]:
    return [f"note: {text}" for text in [*result.warnings, *map(str, result.problems)]]


def entries_text(entries: Sequence[Entry], writing: Sequence[str] = ()) -> str:
    """A table of entries, aligned, and the names of those being written."""
    coming = [f"being written: {', '.join(writing)}"] if writing else []
    if not entries:
        return "\n".join(coming or ["no checkpoints"])
    rows = [list(COLUMNS), *table_rows(entries)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(COLUMNS))]
    lines = []
    for row in rows:
        cells = [
            cell.rjust(width) if column in _RIGHT else cell.ljust(width)
            for cell, width, column in zip(row, widths, COLUMNS, strict=True)
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join([*lines, *coming])


def entries_bundle(entries: Sequence[Entry], writing: Sequence[str] = ()) -> dict[str, str]:
    """A table of entries as a mime bundle."""
    text = entries_text(entries, writing)
    if not entries:
        return {"text/plain": text, "text/html": f"<i>{html.escape(text)}</i>"}
    head = "".join(f"<th>{c}</th>" for c in COLUMNS)
    body = "".join("<tr>" + "".join(_cells(row)) + "</tr>" for row in table_rows(entries))
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    coming = f"<i>being written: {html.escape(', '.join(writing))}</i>" if writing else ""
    return {"text/plain": text, "text/html": table + coming}


def _cells(row: Iterable[str]) -> Iterable[str]:
    for cell, column in zip(row, COLUMNS, strict=True):
        align = "right" if column in _RIGHT else "left"
        yield f'<td style="text-align: {align}">{html.escape(cell)}</td>'


def table_rows(entries: Sequence[Entry]) -> list[list[str]]:
    """One row of texts per entry, in the order of COLUMNS."""
    names = {e.id: e.name for e in entries}
    return [
        [
            entry.id,
            entry.name,
            when_text(entry.created),
            names.get(entry.parent or "", entry.parent or "-"),
            "+".join(entry.kinds),
            size_text(entry.size_bytes),
            entry.notebook or "-",
            str(entry.pid),
        ]
        for entry in entries
    ]
