"""What a panel shows: texts for its tree, escaped HTML for its details. Knows no widgets."""

from __future__ import annotations

import html
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nbcr import session
from nbcr.errors import NbcrError
from nbcr.rendering import size_text, time_text, when_text
from nbcr.session import Entry, Store

MOST_NAMES = 12  # of each kind of change, before the rest is only counted
_INDENT = "\N{NO-BREAK SPACE}" * 3


@dataclass(frozen=True)
class Line:
    """One checkpoint in the tree."""

    entry_id: str
    text: str


def title(entry: Entry) -> str:
    """How people call it."""
    return entry.name if entry.automatic is None else f"{entry.automatic}: {entry.note}"


def tree(entries: Sequence[Entry], position: str | None) -> list[Line]:
    """All entries, each below its parent, the oldest first; the current position is marked.

    A long line of single children is no deeper than its first: only branches indent.
    """
    known = {entry.id for entry in entries}
    children: dict[str | None, list[Entry]] = {}
    for entry in entries:
        children.setdefault(entry.parent if entry.parent in known else None, []).append(entry)
    lines: list[Line] = []
    waiting = _siblings(children, None, 0)
    while waiting:
        entry, depth = waiting.pop()
        lines.append(Line(entry.id, _text(entry, depth, position)))
        waiting += _siblings(children, entry.id, depth)
    told = {line.entry_id for line in lines}
    return lines + [Line(e.id, _text(e, 0, position)) for e in entries if e.id not in told]  # parents in a circle


def _siblings(children: dict[str | None, list[Entry]], parent: str | None, depth: int) -> list[tuple[Entry, int]]:
    found = children.pop(parent, [])
    return [(entry, depth + (len(found) > 1)) for entry in reversed(found)]


def _text(entry: Entry, depth: int, position: str | None) -> str:
    mark = "▶" if entry.id == position else "•"
    branch = _INDENT * max(0, depth - 1) + ("└ " if depth else "")
    facts = f"{when_text(entry.created)[-8:]}  {size_text(entry.size_bytes)}  {'+'.join(entry.kinds)}"
    return f"{branch}{mark} {title(entry)}  —  {facts}"


def head(entries: Sequence[Entry], position: str | None, store: Store) -> str:
    """Where this session stands, and what the store takes."""
    here = next((entry for entry in entries if entry.id == position), None)
    elsewhere = "at no checkpoint yet" if position is None else "at one that is being written, or is not there any more"
    where = f"at <b>{html.escape(title(here))}</b>" if here is not None else elsewhere
    used = size_text(session.disk_use(store))
    try:
        free = f", {size_text(shutil.disk_usage(store.root).free)} free"
    except OSError:
        free = ""
    many = "1 checkpoint" if len(entries) == 1 else f"{len(entries)} checkpoints"
    return f'<div role="status" aria-live="polite">This session is {where}. {many}, {used} on disk{free}.</div>'


def notebooks(entries: Sequence[Entry]) -> list[str]:
    """Notebooks that have checkpoints."""
    return sorted({entry.notebook for entry in entries if entry.notebook})


def details(entry: Entry, entries: Sequence[Entry], store: Store) -> str:
    """Everything worth knowing of one entry, as an HTML table; all of it escaped."""
    rows = [
        ("name", title(entry)),
        ("id", entry.id),
        ("when", when_text(entry.created)),
        ("holds", " and ".join({"image": "process image", "objects": "variables"}[kind] for kind in entry.kinds)),
        ("size", size_text(entry.size_bytes)),
        ("pause, duration", f"{time_text(entry.pause_ms)}, {time_text(entry.duration_ms)}"),
        ("cell", f"[{entry.cell}]" if entry.cell is not None else "none ran"),
        ("notebook", Path(entry.notebook).name if entry.notebook else "unknown"),
        ("note", entry.note),
        ("since its parent", _changes(entry, entries, store)),
        ("warnings", "\n".join([*entry.warnings, *_lost(entry, store)])),
    ]
    left = "text-align: left; vertical-align: top"
    body = "".join(
        f'<tr><th scope="row" style="{left}; padding-right: 1em">{html.escape(what)}</th>'
        f'<td style="{left}; white-space: pre-wrap">{html.escape(text)}</td></tr>'
        for what, text in rows
        if text
    )
    return f"<table>{body}</table>"


def _changes(entry: Entry, entries: Sequence[Entry], store: Store) -> str:
    parent = next((other for other in entries if other.id == entry.parent), None)
    if parent is None:
        return ""
    if "objects" not in entry.kinds or "objects" not in parent.kinds:
        return "unknown: variables were not saved in both"
    try:
        changes = session.diff(parent.id, entry.id, store=store)
    except NbcrError as error:
        return f"unknown: {error.line()}"
    said = []
    for kind in ("added", "changed", "removed"):
        names = [change.name for change in changes if change.kind == kind]
        more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
        if names:
            said.append(f"{kind}: {', '.join(names[:MOST_NAMES])}{more}")
    return "\n".join(said) or "no variable differs"


def _lost(entry: Entry, store: Store) -> list[str]:
    """Names that are not among the saved variables, and why."""
    if "objects" not in entry.kinds:
        return []
    try:
        variables = session.variables(entry.id, store=store)
    except NbcrError as error:
        return [error.line()]
    return [f"{v.name}: {v.fate.value}: {v.reason}" for v in variables if v.fate.value != "saved"]
