"""What Jupyter servers kept of sessions that they ended, and which of it waits for its notebook to be opened again.

A server ends sessions when it is stopped, and when it culls Jupyter kernels that are idle. What was kept last of a
notebook waits until it is brought back, which a tag tells, or until something newer is kept.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from nbcr import session
from nbcr.errors import NbcrError
from nbcr.session import Entry
from nbcr.session.usecases import StoreLike
from nbcr.store.waiting import AT_STOP, BACK, CULLED, NOTES, is_kept
from nbcr.store.waiting import waiting as waiting_of

__all__ = ["AT_STOP", "CULLED", "NOTES", "documents", "entries", "retire", "waiting"]


def name_of(reason: str, kernel_id: str) -> str:
    """How what is kept of a Jupyter kernel is called."""
    return f"{reason} {kernel_id}"


def entries(store: StoreLike = None) -> list[Entry]:
    """What servers kept, the oldest first; none where the store cannot be read."""
    try:
        return [entry for entry in session.checkpoints(store) if is_kept(entry)]
    except NbcrError:
        return []


def waiting(notebook: str, store: StoreLike = None) -> Entry | None:
    """What was kept last of `notebook`, unless it was brought back since."""
    mine = [entry for entry in entries(store) if entry.notebook == notebook]
    return next(iter(waiting_of(mine)), None)


def retire(keep: int, store: StoreLike = None) -> None:
    """Remove all but the last `keep` of each notebook; what a user has tagged stays."""
    seen: dict[str, int] = {}
    for entry in reversed(entries(store)):
        place = entry.notebook or entry.name
        seen[place] = seen.get(place, 0) + 1
        if seen[place] > keep and set(entry.tags) <= {BACK}:
            with contextlib.suppress(NbcrError, OSError):
                session.remove(entry.id, store=store)


def documents(store: StoreLike = None) -> list[dict[str, Any]]:
    """What can be gone on with, the oldest first."""
    return [
        {
            "id": entry.id,
            "name": entry.name,
            "created": entry.created,
            "kernel_id": (entry.jupyter or {}).get("kernel_id"),
            "notebook": entry.notebook,
            "why": entry.note,
            "back": BACK in entry.tags,
            "command": f"%load_ext nbcr and %restart {entry.id}" + _place(entry.notebook),
        }
        for entry in entries(store)
    ]


def _place(notebook: str | None) -> str:
    return f" in {Path(notebook).name}" if notebook else " in a notebook"
