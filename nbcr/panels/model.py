"""What a panel shows: texts for its tree, escaped HTML for its details, questions it asks. Knows no widgets."""

from __future__ import annotations

import html
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nbcr import session
from nbcr.errors import NbcrError
from nbcr.rendering import size_text, tags_text, time_text, when_text
from nbcr.session import Entry, Store, upkeep

if TYPE_CHECKING:
    from nbcr.store.retention import Policy

MOST_NAMES = 12  # of each kind of change, before the rest is only counted
MOST_LINES = 12  # of a cell
MOST_REPR = 60  # characters of a variable's value
_SHORT = 20  # characters, of both values of a change
_BESIDE = "display: flex; flex-wrap: wrap; gap: 1em; align-items: flex-start"
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
    tags = "".join(f"  #{tag}" for tag in entry.tags)
    return f"{branch}{mark} {title(entry)}  —  {facts}{tags}"


def head(entries: Sequence[Entry], position: str | None) -> str:
    """Where this session stands."""
    here = next((entry for entry in entries if entry.id == position), None)
    elsewhere = "at no checkpoint yet" if position is None else "at one that is being written, or is not there any more"
    where = f"at <b>{html.escape(title(here))}</b>" if here is not None else elsewhere
    many = "1 checkpoint" if len(entries) == 1 else f"{len(entries)} checkpoints"
    return f'<div role="status" aria-live="polite">This session is {where}. {many} in the store.</div>'


def branched(notebook: str, kernel_id: str, page: Callable[[str], str], warnings: Sequence[str]) -> str:
    """Where a checkpoint was brought back beside this session, and how one gets there."""
    ways = (("JupyterLab", "lab/tree"), ("Notebook", "notebooks"))
    links = " or ".join(
        f'<a style="text-decoration: underline" href="{html.escape(page(kind))}" target="_blank">{what}</a>'
        for what, kind in ways
    )
    more = "".join(f"<br>{html.escape(warning)}" for warning in warnings)
    where = f"{html.escape(notebook)} (Jupyter kernel {html.escape(kernel_id)})"
    return f'<div role="status">It runs in {where}: open it in {links}.{more}</div>'


@dataclass(frozen=True)
class Disk:
    """What the store takes of what it may take: of its budget, else of the disk."""

    share: float
    text: str


def disk(store: Store) -> Disk:
    """How full it is."""
    used = session.disk_use(store)
    try:
        free = shutil.disk_usage(store.root).free
    except OSError:
        return Disk(0.0, f"{size_text(used)} on disk")
    policy, waiting = _own_policy(store), upkeep.not_packed(store)
    more = f"; {waiting} not packed yet" if waiting else ""
    if policy is None or policy.max_bytes is None:
        return Disk(used / max(1, used + free), f"{size_text(used)} on disk, {size_text(free)} free, no budget{more}")
    text = f"{size_text(used)} on disk, of a budget of {size_text(policy.max_bytes)}; {size_text(free)} free{more}"
    return Disk(min(1.0, used / max(1, policy.max_bytes)), text)


def _own_policy(store: Store) -> Policy | None:
    try:
        return upkeep.own_policy(store)
    except NbcrError:  # `nbcr settings` says what is wrong with them
        return None


@dataclass(frozen=True)
class Pruning:
    """What is asked before it is done."""

    policy: Policy
    question: str  # HTML
    removes: int


def pruning(store: Store, last: int) -> Pruning:
    """What would go by the rules of the session or the store; where there are none, `last` of each notebook stay."""
    own = upkeep.own_policy(store)
    policy = own or upkeep.policy(last, 0, 0, 0, 0, (), None, True)
    found, _ = upkeep.prune(policy, store=store, dry_run=True)
    names = [html.escape(title(entry)) for entry in found.removed]
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    rules = "The store's rules" if own else f"The last {last} of each notebook"
    many = "1 checkpoint" if len(names) == 1 else f"{len(names)} checkpoints"
    text = f"{rules} and what is pinned stay. Remove {many} for good: {', '.join(names[:MOST_NAMES])}{more}?"
    return Pruning(policy, f'<span role="alert">{text}</span>', len(names))


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
        ("size", _size(entry)),
        ("pause, duration", f"{time_text(entry.pause_ms)}, {time_text(entry.duration_ms)}"),
        ("cell", _cell(entry)),
        ("notebook", Path(entry.notebook).name if entry.notebook else "unknown"),
        ("note", entry.note),
        ("tags", tags_text(entry.tags)),
        ("variables", _variables(entry, store)),
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
    table = f'<div style="flex: 1 1 24em; min-width: 0"><table style="line-height: 1.4">{body}</table></div>'
    return f'<section aria-label="The selected checkpoint" style="{_BESIDE}">{table}{_figure(entry)}</section>'


def _figure(entry: Entry) -> str:
    """The last figure that the session had shown; it is nothing but letters and digits."""
    if entry.thumbnail is None:
        return ""
    source = f"data:image/png;base64,{entry.thumbnail}"
    style = "max-width: 240px; max-height: 160px; background: white; border: 1px solid var(--jp-border-color1, #bbb)"
    return f'<img alt="The last figure before this checkpoint" style="{style}" src="{source}">'


def _size(entry: Entry) -> str:
    """What it holds, and what it takes of the disk by itself."""
    packed = upkeep.packed_size(entry)
    if packed is None:
        return size_text(entry.size_bytes)
    own, shared = packed.added_bytes, packed.stored_bytes - packed.added_bytes
    return f"{size_text(entry.size_bytes)}; packed: {size_text(own)} of its own, {size_text(shared)} of earlier ones"


def _cell(entry: Entry) -> str:
    """The cell that was running: its number and its text."""
    if entry.cell is None:
        return "none ran"
    lines = entry.cell_source.splitlines()
    return "\n".join([f"[{entry.cell}]", *lines[:MOST_LINES], *(["…"] if len(lines) > MOST_LINES else [])])


def _variables(entry: Entry, store: Store) -> str:
    """The first of the saved variables, as they looked."""
    try:
        found = [v for v in _known(entry, store) if v.fate.value == "saved" and v.type != "module"]
    except NbcrError:
        return ""  # the warnings tell
    shown = [f"{v.name} = {' '.join(v.repr.split())[:MOST_REPR]}" for v in found[:MOST_NAMES]]
    return "\n".join([*shown, *([f"and {len(found) - MOST_NAMES} more"] if len(found) > MOST_NAMES else [])])


def _told(name: str, before: str, after: str) -> str:
    """A name that differs; with both values, where there are two and they are short."""
    both = before and after and before != after and max(len(before), len(after)) <= _SHORT
    return f"{name} ({before} → {after})" if both else name


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
        names = [_told(change.name, change.before, change.after) for change in changes if change.kind == kind]
        more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
        if names:
            said.append(f"{kind}: {', '.join(names[:MOST_NAMES])}{more}")
    return "\n".join(said) or "no variable differs"


def _lost(entry: Entry, store: Store) -> list[str]:
    """Names that are not among the saved variables, and why."""
    try:
        return [f"{v.name}: {v.fate.value}: {v.reason}" for v in _known(entry, store) if v.fate.value != "saved"]
    except NbcrError as error:
        return [error.line()]


def _known(entry: Entry, store: Store) -> session.VariableList | tuple[()]:
    return session.variables(entry.id, store=store) if "objects" in entry.kinds else ()
