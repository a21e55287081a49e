"""Tags: words that a user puts on an entry later, and whether it must stay (FORMAT.md, "Tags")."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from nbcr.errors import EntryDamaged
from nbcr.store import files, names
from nbcr.store.entry import TAGS, Entry


def read(folder: Path) -> dict[str, bool]:
    """The tags of the entry in `folder`, each with whether it pins the entry. Raises EntryDamaged."""
    try:
        document = json.loads((folder / TAGS).read_text(encoding="utf-8"))
        return {str(tag): bool(facts["pinned"]) for tag, facts in document["tags"].items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise EntryDamaged(
            f"the tags of entry {folder.name} cannot be read: {error}", hint=f"mend or remove {folder / TAGS}"
        ) from error


def is_pinned(folder: Path) -> bool:
    """Whether the entry must stay; one whose tags cannot be read must."""
    try:
        return any(read(folder).values())
    except EntryDamaged:
        return True


def change(entry: Entry, add: Mapping[str, bool], remove: Iterable[str] = ()) -> dict[str, bool]:
    """Give and take tags; those that it has then. Raises UsageProblem, EntryDamaged."""
    for tag in add:
        names.check_name(tag)
    with files.locked_folder(entry.path):  # two commands at once
        gone = set(remove)
        found = {tag: pinned for tag, pinned in {**read(entry.path), **add}.items() if tag not in gone}
        document = {"tags": {tag: {"pinned": pinned} for tag, pinned in sorted(found.items())}}
        files.write_atomically(entry.path / TAGS, json.dumps(document, ensure_ascii=False).encode() + b"\n")
    return found
