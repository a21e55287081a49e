"""`look` and `diff`: what is in a snapshot, without unpickling anything of it."""

from __future__ import annotations

from pathlib import Path

from nbcr.objects import index as indexes
from nbcr.objects.index import Index
from nbcr.objects.results import Change, Fate, VariableInfo


def look(place: Path | str) -> list[VariableInfo]:
    """The names of a snapshot as they looked when it was saved, in the namespace's order."""
    index = indexes.read(Path(place))
    return [
        VariableInfo(
            name.name,
            Fate(name.fate),
            name.type,
            name.shape,
            name.size,
            name.repr,
            name.reason,
            _companions(index, name),
        )
        for name in index.names
    ]


def _companions(index: Index, name: indexes.Name) -> tuple[str, ...]:
    if name.unit < 0:
        return ()
    return tuple(other for other in index.units[name.unit].names if other != name.name)


def diff(before: Path | str, after: Path | str) -> list[Change]:
    """The names that two snapshots do not have in common, or whose contents differ."""
    old, new = ({name.name: name for name in indexes.read(Path(place)).names} for place in (before, after))
    changes = []
    for name in (*old, *(name for name in new if name not in old)):
        was, became = old.get(name), new.get(name)
        if was is None or became is None or (was.digest, was.imported) != (became.digest, became.imported):
            (was_bytes, before), (new_bytes, after) = _side(was), _side(became)
            changes.append(Change(name, was_bytes, new_bytes, before, after))
    return changes


def _side(name: indexes.Name | None) -> tuple[int | None, str]:
    """Size and looks of a name, which one of two snapshots may not have."""
    if name is None:
        return None, ""
    return name.size, name.reason or name.repr or " ".join(filter(None, (name.type, name.shape)))
