"""How results look: plain text for a terminal, HTML for a notebook. For every face, and so in none."""

from __future__ import annotations

import datetime
import html
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nbcr.errors import UsageProblem
from nbcr.states import Outcome

if TYPE_CHECKING:
    from nbcr.objects import Change, Progress, Report, VariableInfo
    from nbcr.session.overview import Living, Overview
    from nbcr.session.results import CheckpointResult, LoadResult
    from nbcr.store import Entry

COLUMNS = ("id", "name", "when", "parent", "kinds", "size", "notebook", "pid")
VARIABLE_COLUMNS = ("name", "type", "shape", "size", "fate", "value")
CHANGE_COLUMNS = ("change", "name", "before", "after")
LIVING_COLUMNS = ("kind", "name", "pid", "memory", "nbcr", "last checkpoint", "notebook")
_RIGHT = ("size", "memory", "pid")
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_LONGEST_VALUE = 60
_LONGEST_SIDE = 32
_WORTH_TELLING_BYTES = 1024


def size_text(size_bytes: int) -> str:
    """Bytes as people read them: 512 B, 51.2 MiB, 1.05 GiB."""
    size = float(size_bytes)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024 or unit == "GiB":
            break
        size /= 1024
    return f"{size_bytes} B" if unit == "B" else f"{size:.3g} {unit}" if size < 1000 else f"{size:.0f} {unit}"


def size_from(text: str) -> int:
    """The inverse, as users type it: 512, 100M, 1.5 GiB. Raises UsageProblem."""
    found = re.fullmatch(r"([\d.]+) *([KMGT]?)(i?B)?", text.strip(), re.IGNORECASE)
    try:
        if found is None:
            raise ValueError
        return int(float(found[1]) * _UNITS[found[2].upper()])
    except ValueError:
        raise UsageProblem(f"{text!r} is no size", hint="write it as 512, 100M or 1.5GiB") from None


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
        facts.append(f"duration {time_text(result.blocked_ms)} so far, being written in the background")
    if result.progress is not None:
        facts.append(f"objects: {progress_text(result.progress)}")
    return facts + ([f"objects: {_tally(result.objects)}"] if result.objects is not None else [])


def progress_text(progress: Progress) -> str:
    """How far a save of variables is."""
    at = f", now {progress.current}" if progress.current else ""
    return f"{progress.names_done} of {progress.names_total} saved{at}, {size_text(progress.written_bytes)} written"


def _tally(report: Report) -> str:
    """How many names had which fate."""
    fates = [verdict.fate.value for verdict in report.verdicts.values()]
    counts = [f"{fates.count(fate)} {fate}" for fate in dict.fromkeys(fates)]
    return ", ".join(counts) or "no names"


def _restart_facts(result: CheckpointResult) -> list[str]:
    facts = [f"id {result.id}"]
    if result.event is None:
        return facts
    created = str(result.event.entry.get("created", ""))
    if created:
        facts.append(f"taken {when_text(created)}")
    facts.append(f"size {size_text(result.size_bytes)}")
    facts.append(f"pid {result.event.pid}" + (" (in place)" if result.event.in_place else " (fresh process)"))
    kept = result.event.present.get("kept")
    return [*facts, f"the present is kept: `%restart {kept}` goes forward again"] if kept else facts


def _notes(result: CheckpointResult) -> list[str]:
    names = result.objects.lines() if result.objects is not None else []
    return [f"note: {text}" for text in [*result.warnings, *map(str, result.problems)]] + names


def load_text(result: LoadResult) -> str:
    """A roll-back in one line, and one more for each name that is not as it was."""
    return "\n".join([f"RESTART  {result.entry.name}  " + ", ".join(_load_facts(result)), *_load_notes(result)])


def load_bundle(result: LoadResult) -> dict[str, str]:
    """A roll-back as a mime bundle."""
    facts = " · ".join(html.escape(f) for f in _load_facts(result))
    notes = "".join(f"<div>{html.escape(n)}</div>" for n in _load_notes(result))
    head = f"<b>RESTART</b>&ensp;<code>{html.escape(result.entry.name)}</code>"
    return {"text/plain": load_text(result), "text/html": f"<div>{head}&ensp;{facts}</div>{notes}"}


def _load_facts(result: LoadResult) -> list[str]:
    report = result.report
    facts = [f"id {result.entry.id}", f"taken {when_text(result.entry.created)}"]
    facts.append(f"the objects only: {_tally(report)}, this process goes on")
    facts.append(f"duration {time_text(report.duration_ms)}")
    return facts


def _load_notes(result: LoadResult) -> list[str]:
    notes = [f"note: its process image was not used: {result.why}"] if result.why else []
    removed = [f"removed, because they came later: {', '.join(result.report.removed)}"] if result.report.removed else []
    return [*notes, *result.report.lines(), *removed]


def variables_text(variables: Sequence[VariableInfo]) -> str:
    """A table of variables, aligned."""
    return _table(VARIABLE_COLUMNS, variable_rows(variables)) if variables else "no variables"


def variables_bundle(variables: Sequence[VariableInfo]) -> dict[str, str]:
    """A table of variables as a mime bundle."""
    shown = _html_table(VARIABLE_COLUMNS, variable_rows(variables))
    return {"text/plain": variables_text(variables), "text/html": shown}


def variable_rows(variables: Iterable[VariableInfo]) -> list[list[str]]:
    """One row of texts per variable, in the order of VARIABLE_COLUMNS: what it looked like, or why it is not there."""
    rows = []
    for found in variables:
        value = " ".join(found.reason.split()) or _cut(found.repr, _LONGEST_VALUE)
        rows.append(
            [found.name, found.type, found.shape or "-", size_text(found.size_bytes), found.fate.value, value or "-"]
        )
    return rows


def changes_text(changes: Sequence[Change]) -> str:
    """A table of changes, aligned."""
    return _table(CHANGE_COLUMNS, change_rows(changes)) if changes else "no differences"


def changes_bundle(changes: Sequence[Change]) -> dict[str, str]:
    """A table of changes as a mime bundle."""
    text = changes_text(changes)
    shown = _html_table(CHANGE_COLUMNS, change_rows(changes)) if changes else f"<i>{text}</i>"
    return {"text/plain": text, "text/html": shown}


def change_rows(changes: Iterable[Change]) -> list[list[str]]:
    """One row of texts per change, in the order of CHANGE_COLUMNS."""
    return [
        [change.kind, change.name, _side(change.before, change.before_bytes), _side(change.after, change.after_bytes)]
        for change in changes
    ]


def _side(looks: str, size_bytes: int | None) -> str:
    """What a name was on one side of a comparison: its value, and its size where that says more."""
    if size_bytes is None:
        return "-"
    value = _cut(looks, _LONGEST_SIDE)
    return f"{value}  {size_text(size_bytes)}" if size_bytes >= _WORTH_TELLING_BYTES else value


def _cut(text: str, longest: int) -> str:
    text = " ".join(text.split())
    return text if len(text) <= longest else text[: longest - 1] + "…"


def entries_text(entries: Sequence[Entry], writing: Sequence[str] = ()) -> str:
    """A table of entries, aligned, and the names of those being written."""
    coming = [f"being written: {', '.join(writing)}"] if writing else []
    if not entries:
        return "\n".join(coming or ["no checkpoints"])
    return "\n".join([_table(columns_of(entries), table_rows(entries)), *coming])


def columns_of(entries: Sequence[Entry]) -> tuple[str, ...]:
    """Of a table of entries: COLUMNS, and their tags where there are any."""
    return (*COLUMNS, "tags") if any(entry.tags for entry in entries) else COLUMNS


def _table(columns: Sequence[str], texts: Sequence[Sequence[str]]) -> str:
    rows = [columns, *texts]
    widths = [max(len(row[i]) for row in rows) for i in range(len(columns))]
    lines = []
    for row in rows:
        cells = [
            cell.rjust(width) if column in _RIGHT else cell.ljust(width)
            for cell, width, column in zip(row, widths, columns, strict=True)
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def entries_bundle(entries: Sequence[Entry], writing: Sequence[str] = ()) -> dict[str, str]:
    """A table of entries as a mime bundle."""
    text = entries_text(entries, writing)
    if not entries:
        return {"text/plain": text, "text/html": f"<i>{html.escape(text)}</i>"}
    coming = f"<i>being written: {html.escape(', '.join(writing))}</i>" if writing else ""
    return {"text/plain": text, "text/html": _html_table(columns_of(entries), table_rows(entries)) + coming}


def _html_table(columns: Sequence[str], texts: Iterable[Sequence[str]]) -> str:
    head = "".join(f"<th>{c}</th>" for c in columns)
    body = "".join("<tr>" + "".join(_cells(columns, row)) + "</tr>" for row in texts)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _cells(columns: Sequence[str], row: Sequence[str]) -> Iterable[str]:
    for cell, column in zip(row, columns, strict=True):
        align = "right" if column in _RIGHT else "left"
        yield f'<td style="text-align: {align}">{html.escape(cell)}</td>'


def table_rows(entries: Sequence[Entry]) -> list[list[str]]:
    """One row of texts per entry, in the order of `columns_of`."""
    tagged = len(columns_of(entries)) > len(COLUMNS)
    names = {e.id: e.name for e in entries}
    return [
        [
            entry.id,
            entry.name if entry.automatic is None else f"({entry.automatic}: {entry.note})",
            when_text(entry.created),
            names.get(entry.parent or "", entry.parent or "-"),
            "+".join(entry.kinds),
            size_text(entry.size_bytes),
            entry.notebook or "-",
            str(entry.pid),
            *([tags_text(entry.tags) or "-"] if tagged else ()),
        ]
        for entry in entries
    ]


def tags_text(tags: Mapping[str, bool]) -> str:
    """Tags, and which of them pin."""
    return ", ".join(f"{tag} (pinned)" if pinned else tag for tag, pinned in tags.items())


def age_text(age_s: float) -> str:
    """How long ago, roughly: 12 s, 5 min, 3 h, 2 d."""
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if age_s >= size:
            return f"{age_s / size:.0f} {unit}"
    return f"{max(0.0, age_s):.0f} s"


def living_rows(living: Iterable[Living]) -> list[list[str]]:
    """One row of texts per living session, in the order of LIVING_COLUMNS."""
    rows = []
    for each in living:
        age = f", {age_text(each.last_age_s)} ago" if each.last_age_s is not None else ""
        last = f"{each.last}{age}" if each.last is not None else "-"
        ready = "yes" if each.ready else "when asked"
        facts = [str(each.pid), size_text(each.memory_bytes), ready, last, each.notebook or "-"]
        rows.append([each.kind, each.name, *facts])
    return rows


def overview_lines(seen: Overview) -> list[str]:
    """What is below the table: what is being written, and the store."""
    coming = [
        f"being written: {each.name} ({each.id}), {size_text(each.written_bytes)} in {age_text(each.age_s)}"
        for each in seen.writing
    ]
    many = "1 checkpoint" if seen.checkpoints == 1 else f"{seen.checkpoints} checkpoints"
    return [*coming, f"store {seen.store}: {many}, {size_text(seen.disk_bytes)} on disk"]


def overview_text(seen: Overview) -> str:
    """All of it as plain lines."""
    table = _table(LIVING_COLUMNS, living_rows(seen.living)) if seen.living else "no living sessions or jobs"
    return "\n".join([table, *overview_lines(seen)])


def journal_lines(told: Iterable[Mapping[str, Any]]) -> list[str]:
    """One line for each of the journal's."""
    lines = []
    for line in told:
        name = " ".join(str(line[key]) for key in ("name", "id") if line.get(key)) or "(no name)"
        facts = [f"job {line['job']}"] if line.get("job") else []
        facts += [f"pid {line['pid']}"] if line.get("pid") else []
        facts += [size_text(int(line["size_bytes"]))] if line.get("size_bytes") else []
        facts += [f"pause {time_text(float(line['pause_ms']))}"] if line.get("pause_ms") else []
        facts += [f"into {line['into']}"] if line.get("into") else []
        facts += [f"taken by itself: {line['automatic']}"] if line.get("automatic") else []
        facts += [str(line["error"])] if line.get("error") else []
        facts += [f"warning: {warning}" for warning in line.get("warnings") or ()]
        told_facts = f"  {', '.join(facts)}" if facts else ""
        said = f"{when_text(str(line.get('when', '')))}  {line.get('what', '')}  {name}{told_facts}"
        lines.append("".join(letter if letter.isprintable() else " " for letter in said))
    return lines
