"""The store's journal: what was done with its entries, and what failed (FORMAT.md, "Journal"). For people.

Nothing depends on it: one that cannot be written loses a line and disturbs nobody.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from nbcr.errors import StoreRefused, to_wire
from nbcr.store import files

FILE, OLDER = "journal.jsonl", "journal.1.jsonl"
_MOST_BYTES = 1 << 20  # then a new file is begun, and the older one is the only one that is kept
_LONGEST_ERROR = 2000


def note(root: Path, what: str, **facts: Any) -> None:
    """Add one line to the journal of the store at `root`, where that is there, can be written, and is ours alone:
    one that is refused is not written to either.
    """
    when = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    line = json.dumps({"when": when, "what": what, **facts}, ensure_ascii=False, default=str)
    with contextlib.suppress(OSError, StoreRefused):
        files.check_private(root, what="store")
        with contextlib.suppress(FileNotFoundError):
            if (root / FILE).stat().st_size > _MOST_BYTES:
                (root / FILE).rename(root / OLDER)
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(root / FILE, flags, 0o600)
        try:
            os.write(descriptor, line.encode() + b"\n")  # one write: lines of several are not mixed
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def told(root: Path, what: str, **facts: Any) -> Iterator[dict[str, Any]]:
    """Note how the block ends: with what it adds to the facts that it is given, or with its error."""
    known = dict(facts)
    try:
        yield known
    except BaseException as error:
        document = to_wire(error)
        failure = ": ".join(part for part in (document["message"], document["hint"]) if part)
        note(
            root,
            f"{what} failed",
            **known,
            error=failure[:_LONGEST_ERROR],
            stage=str(getattr(error, "stage", "") or ""),
        )
        raise
    note(root, what, **known)


def read(root: Path) -> list[dict[str, Any]]:
    """All lines that are whole, the oldest first."""
    found: list[dict[str, Any]] = []
    for name in (OLDER, FILE):
        with contextlib.suppress(OSError):
            for line in (root / name).read_text(encoding="utf-8", errors="replace").splitlines():
                with contextlib.suppress(ValueError):
                    document = json.loads(line)
                    if isinstance(document, dict):
                        found.append(document)
    return found
