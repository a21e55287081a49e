"""What is done in the background: packing, dropping hot files, collecting garbage. One process a store."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from nbcr.errors import EntryDamaged, NbcrError, StoreLocked
from nbcr.store import collecting, opening, packing, publishing, recipe, retention, signing
from nbcr.store.entry import Entry, packed_parts, recipe_of
from nbcr.store.packing import Packed, Packing
from nbcr.store.pieces import Run
from nbcr.store.recipe import Recipe
from nbcr.store.store import Store

LOCK = "packing"
Layout = Callable[[Entry, Path], Mapping[str, Sequence[Run]]]


def no_layout(entry: Entry, folder: Path) -> Mapping[str, Sequence[Run]]:
    """For parts of which nothing is known: they are cut by offsets."""
    return {}


@contextlib.contextmanager
def alone(store: Store, *, wait: bool = False) -> Iterator[bool]:
    """Whether nobody else packs in this store (with `wait`: any more); nobody will as long as the block lasts."""
    if not store.root.is_dir():
        yield False
        return
    with store.writing():
        descriptor = os.open(store.root / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except OSError:
            yield False
        else:
            yield True
    finally:
        os.close(descriptor)


def keep(
    store: Store,
    *,
    layout: Layout = no_layout,
    threads: int = 1,
    wait: bool = False,
    pulse: Callable[[], None] = lambda: None,
) -> list[NbcrError]:
    """Pack, drop and collect until there is nothing left to do; what could not be done. `pulse`: see `pack_entry`.

    Returns at once where another process is at it, or with `wait` goes on when that one is through.
    """
    failures: dict[str, NbcrError] = {}
    while True:
        with alone(store, wait=wait) as ours:
            if not ours:
                return list(failures.values())
            while waiting := [entry for entry in hot_only(store) if entry.id not in failures]:
                try:
                    pack_entry(store, waiting[0], layout=layout, threads=threads, pulse=pulse)
                    opening.cool_all(store)
                except NbcrError as error:
                    failures[waiting[0].id] = error
            opening.cool_all(store)
            _prune(store, failures)
            if store.collections.is_dir() and any(store.collections.iterdir()):
                collecting.collect(store)
        # What was published while we still had the lock found nobody who packs it.
        if all(entry.id in failures for entry in hot_only(store)):
            return list(failures.values())


def _prune(store: Store, failures: dict[str, NbcrError]) -> None:
    """Remove what the settings do not keep."""
    try:
        policy = retention.automatic(store)
        if policy is not None:
            retention.prune(store, policy)
    except NbcrError as error:
        failures["prune"] = error


def hot_only(store: Store) -> list[Entry]:
    """Entries with parts that are to be packed, oldest first: so a parent is packed before its child."""
    return [entry for entry in store.entries() if parts_to_pack(entry)]


def parts_to_pack(entry: Entry) -> list[str]:
    """Parts that are hot only."""
    packed = packed_parts(entry.path)
    with contextlib.suppress(FileNotFoundError):
        return [part for part in opening.hot_parts(entry) if part not in packed]
    return []


def pack_entry(
    store: Store,
    entry: Entry,
    *,
    parts: Sequence[str] | None = None,
    layout: Layout = no_layout,
    threads: int = 1,
    pulse: Callable[[], None] = lambda: None,
) -> list[Packed]:
    """Pack parts of an entry (None: those that should be), with a `pulse` every few megabytes.

    Raises EntryDamaged, NoRoomInStore, StoreLocked.
    """
    done = []
    keys = store.keys()
    origin = signing.origin_of(entry)
    for part in parts_to_pack(entry) if parts is None else parts:
        with opening.opened(entry, part) as folder:
            known = publishing.unsealed(origin.entry, keys).files
            job = Packing(
                root=store.root,
                entry=entry.id,
                part=part,
                folder=folder,
                digests={k.partition("/")[2]: digest for k, (_, digest) in known.items() if k.startswith(part + "/")},
                layout=layout(entry, folder),
                base=_base(store, entry, part),
                keys=keys,
                signer=signing.our_signer() if origin.state == "own" else None,
                threads=threads,
                pulse=pulse,
            )
            with store.writing():
                done.append(packing.pack(job))
    return done


def _base(store: Store, entry: Entry, part: str) -> Recipe | None:
    """The recipe that is most like what `entry` will need: its parent's, else the same process's or notebook's last."""
    others = [other for other in store.entries() if other.id != entry.id and part in packed_parts(other.path)]
    for alike in (_is_parent, _is_same_process, _is_same_notebook):
        for other in reversed(others):
            if alike(other, entry):
                with contextlib.suppress(EntryDamaged, StoreLocked):
                    return recipe.read(recipe_of(other.path, part), store.keys())
    return None


def _is_parent(other: Entry, entry: Entry) -> bool:
    return other.id == entry.parent


def _is_same_process(other: Entry, entry: Entry) -> bool:
    return other.pid == entry.pid and other.host.get("hostname") == entry.host.get("hostname")


def _is_same_notebook(other: Entry, entry: Entry) -> bool:
    return entry.notebook is not None and other.notebook == entry.notebook
