"""The objects of an entry, wherever their bytes are: hot files are mapped, packed ones written again or read in parts.

What is unpickled was signed by the user or by somebody the user trusts; what is only looked at need not be.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nbcr.errors import EntryDamaged
from nbcr.store.entry import OBJECTS

if TYPE_CHECKING:
    from nbcr.objects import Report
    from nbcr.store import Entry

_INDEX = "index"  # nbcr/objects/FORMAT.md


@contextlib.contextmanager
def looked_into(entry: Entry) -> Iterator[Path]:
    """A folder with the index of the snapshot at least, from which nothing may be unpickled."""
    from nbcr.store import opening

    with opening.opened(entry, OBJECTS, only=(_INDEX,)) as place:
        yield place


def load(entry: Entry, namespace: dict[str, Any], *, hidden: Any) -> Report:
    """Roll `namespace` back to the names of `entry`. Raises Untrusted, EntryDamaged."""
    from nbcr import objects
    from nbcr.store import opening, trust

    entry = trust.proved(entry)
    with opening.opened(entry, OBJECTS) as place:
        return objects.load(place, namespace, hidden=hidden, remove_new=True, trust=_Proof(entry))


def get(entry: Entry, variable: str, namespace: dict[str, Any]) -> Any:
    """One variable of `entry`; no other variable's bytes are read. Raises Untrusted, EntryDamaged, UnknownName."""
    from nbcr import objects
    from nbcr.store import opening, trust

    entry = trust.proved(entry)
    proof = _Proof(entry)
    if opening.hot(entry, OBJECTS) is None:
        from nbcr.store.ranges import ranges

        with ranges(entry, OBJECTS) as parts:
            if parts is not None:
                return objects.get(entry.snapshot, variable, namespace=namespace, trust=proof, fetch=parts.read)
    with opening.opened(entry, OBJECTS) as place:
        return objects.get(place, variable, namespace=namespace, trust=proof)


class _Proof:
    """What the manifest of a proved entry says of its snapshot: the index's digest, which covers every byte."""

    def __init__(self, entry: Entry) -> None:
        self._entry = entry

    def __call__(self, place: Path, fingerprint: str) -> None:
        """Raise unless it is the snapshot of that entry, and its files are nobody else's."""
        from nbcr.objects.loading import owned_by_us

        known = self._entry.files.get(f"{OBJECTS}/{_INDEX}")
        if known is not None and known[1] != fingerprint:
            raise EntryDamaged(
                f"the objects of {self._entry.name!r} are damaged: the index is not the one that was signed",
                hint=f"`nbcr verify {self._entry.name}` says what is still good",
            )
        if place.is_dir():  # of packed ones every chunk is proved
            owned_by_us(place, fingerprint)
