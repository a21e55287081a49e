"""What Jupyter servers kept of sessions that they ended, and what of it waits for its notebook to be opened again.

A server ends sessions when it is stopped, and when it culls Jupyter kernels that are idle. What was kept last of a
notebook waits until it is brought back, which a tag tells, or until something newer is kept. It is told from others by
its note, which is in the manifest: there is no moment at which it is there and does not wait yet.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from nbcr.errors import NbcrError
from nbcr.store import tags
from nbcr.store.entry import Entry

BACK = "back"  # the tag of what was brought back
AT_STOP, CULLED = "at-stop", "culled"
NOTES = {
    AT_STOP: "kept when the Jupyter server stopped",
    CULLED: "kept when the Jupyter kernel was idle and culled",
}
LONGEST = timedelta(days=30)  # for which nothing is pruned that waits


def is_kept(entry: Entry) -> bool:
    """Whether a server kept it."""
    return any(entry.note == note and entry.name.startswith(reason) for reason, note in NOTES.items())


def waiting(entries: Iterable[Entry]) -> list[Entry]:
    """Those of `entries`, the oldest first, that were kept last of their notebook, and not brought back since."""
    last = {entry.notebook or entry.name: entry for entry in entries if is_kept(entry)}
    return [entry for entry in last.values() if BACK not in entry.tags]


def came_back(entry: Entry) -> None:
    """Note that `entry` was brought back: it waits no longer, if a server had kept it.

    A store that cannot be written is no reason to fail what has succeeded: then it is offered once more.
    """
    if is_kept(entry):
        with contextlib.suppress(NbcrError, OSError):
            tags.change(entry, {BACK: False})


def must_stay(entries: Iterable[Entry]) -> set[str]:
    """The ids of those that wait, and have not waited too long: the only copy of a session that nobody gave up."""
    since = datetime.now(UTC) - LONGEST
    return {entry.id for entry in waiting(entries) if _taken(entry) > since}


def _taken(entry: Entry) -> datetime:
    return datetime.strptime(entry.id[:15] + "+0000", "%Y%m%dT%H%M%S%z")
