"""Collecting garbage in two phases, without locks: why it is safe is in FORMAT.md, "Collecting garbage"."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from nbcr.errors import EntryDamaged, StoreLocked
from nbcr.store import files, names, recipe, writers
from nbcr.store.chunks import BadChunk, Codec
from nbcr.store.entry import GONE, packed_parts, recipe_of
from nbcr.store.packs import Index, Packs, PackWriter, Row
from nbcr.store.store import WANTED, Store

NETWORK_GRACE_S = 600.0
_SMALL_BYTES = 4 << 20
_MANY_SMALL = 32
_LEAST_ALIVE = 0.5


@dataclass
class Collected:
    """What a collection did."""

    freed_bytes: int = 0
    deleted: int = 0  # packs
    condemned: int = 0  # packs that will be deleted when the writers of now are through
    rewritten: int = 0  # packs of which little was alive
    kept_bytes: int = 0
    waits_for: list[str] = field(default_factory=list)  # writers


def collect(store: Store, *, grace_s: float | None = None) -> Collected:
    """Mark, and sweep what can be swept by now. A recipe that cannot be read stops it: raises EntryDamaged."""
    done = Collected()
    with store.writing():
        packs = Packs(store.root)
        if not packs.folder.is_dir():
            return done
        if grace_s is None:
            grace_s = NETWORK_GRACE_S if files.is_network(packs.folder) else 0.0
        folder = store.collections
        with _no_matter_how_full():
            folder.mkdir(mode=0o700, exist_ok=True)
        (folder / WANTED).unlink(missing_ok=True)
        _sweep_all(store, packs, done, grace_s)
        _clean(store, packs)
        with _no_matter_how_full():
            _rewrite(store, packs, done)
        if _mark(store, packs, done, grace_s) and not done.waits_for:
            _sweep_all(store, packs, done, grace_s)
        done.condemned = sum(map(len, packs.condemned().values()))
        done.kept_bytes = sum(map(packs.size_bytes, packs.active()))
    return done


@contextlib.contextmanager
def _no_matter_how_full() -> Iterator[None]:
    """What needs room is left undone on a full disk: it is garbage that makes room there."""
    try:
        yield
    except OSError as error:
        if error.errno not in files.NO_ROOM:
            raise


# --- what is alive


def living(store: Store) -> set[bytes]:
    """Ids of all chunks that recipes need, seen freshly. Raises EntryDamaged."""
    found: set[bytes] = set()
    place = store.root / "entries"
    for entry_id in {name.removeprefix(GONE) for name in files.look(place)}:
        if names.is_id(entry_id):
            # Whoever removes an entry takes its name first, and gives it back when somebody turns out to read it.
            for folder in (place / entry_id, place / f"{GONE}{entry_id}", place / entry_id):
                found |= _needed(folder)
    return found


def _needed(folder: Path) -> set[bytes]:
    """Ids of the chunks that the recipes of an entry need; none where it is gone."""
    found: set[bytes] = set()
    for part in packed_parts(folder):
        try:
            found.update(recipe.read_list(recipe_of(folder, part)).ids())
        except FileNotFoundError:  # removed meanwhile
            continue
        except OSError as error:
            raise EntryDamaged(f"recipe of {folder.name} cannot be read: {error}") from error
    return found


@dataclass
class _Tally:
    """A pack's chunks and how many bytes of it are needed that no pack seen before has."""

    name: str
    rows: list[Row]
    alive: list[Row]

    @property
    def alive_bytes(self) -> int:
        return sum(row.frame_bytes for row in self.alive)

    def file_bytes(self, packs: Packs) -> int:
        return packs.size_bytes(self.name)


def _tallies(packs: Packs, pack_names: Iterable[str], alive: set[bytes]) -> list[_Tally]:
    found, seen = [], set[bytes]()
    for name in pack_names:
        try:
            rows = packs.table(name)
        except FileNotFoundError:
            continue
        needed = [row for row in rows if row.chunk_id in alive and row.chunk_id not in seen]
        seen.update(row.chunk_id for row in needed)
        found.append(_Tally(name, rows, needed))
    return found


# --- mark


def _mark(store: Store, packs: Packs, done: Collected, grace_s: float) -> bool:
    """Condemn what nobody needs; whether there is anything to sweep later."""
    alive = living(store)
    useless = [tally.name for tally in _tallies(packs, packs.active(), alive) if not tally.alive]
    adopted = [(name, old) for old, group in packs.condemned().items() if not _noted(store, old) for name in group]
    if not useless and not adopted:
        return False
    generation = names.new_id(datetime.now(UTC))
    for name in useless:
        _rename(packs.path(name), packs.condemned_path(name, generation))
    for name, old in adopted:  # their collector died before it had noted whom to wait for
        _rename(packs.condemned_path(name, old), packs.condemned_path(name, generation))
    files.fsync_path(packs.folder)
    done.waits_for = sorted(writers.alive(store.root))
    note = json.dumps({"waits_for": done.waits_for}).encode()
    try:
        files.write_atomically(_note(store, generation), note)
    except OSError as error:
        no_room = error.errno in files.NO_ROOM or not store.collections.is_dir()
        if not no_room or done.waits_for or grace_s > 0:
            raise  # our packs get a new generation
        _sweep(store, packs, generation, done)  # there is nobody to remember
        return False
    return True


def _rename(old: Path, new: Path) -> None:
    with contextlib.suppress(FileNotFoundError):  # another collector was faster
        old.rename(new)


def _note(store: Store, generation: str) -> Path:
    return store.collections / f"{generation}.json"


def _noted(store: Store, generation: str) -> bool:
    return _note(store, generation).exists()


# --- sweep


def _sweep_all(store: Store, packs: Packs, done: Collected, grace_s: float) -> None:
    """Sweep every generation that is ripe."""
    seen = files.look(store.collections)
    for name in seen:
        generation = name.removesuffix(".json")
        if not names.is_id(generation):
            continue
        path = store.collections / name
        try:
            age_s = seen.now_s - path.stat().st_mtime
            waits_for = set(json.loads(path.read_bytes())["waits_for"])
        except FileNotFoundError:
            continue
        except (OSError, ValueError, KeyError, TypeError):
            path.unlink(missing_ok=True)  # its packs get a new generation
            continue
        if age_s >= grace_s and not waits_for & writers.alive(store.root):
            _sweep(store, packs, generation, done)
            path.unlink(missing_ok=True)


def _sweep(store: Store, packs: Packs, generation: str, done: Collected) -> None:
    """Delete what `generation` condemned, or put it back where it is needed after all."""
    condemned = packs.condemned().get(generation, [])
    if not condemned:
        return
    alive = living(store)
    for tally in _tallies(packs, packs.active(), alive):
        alive.difference_update(row.chunk_id for row in tally.rows)
    for tally in _tallies(packs, condemned, alive):
        path = packs.condemned_path(tally.name, generation)
        if tally.alive:
            _rename(path, packs.path(tally.name))
        else:
            with contextlib.suppress(FileNotFoundError):
                done.freed_bytes += path.stat().st_size
                path.unlink()
                done.deleted += 1
    files.fsync_path(packs.folder)


def _clean(store: Store, packs: Packs) -> None:
    """Remove what dead writers had begun."""
    drafts = [name for name in files.look(packs.folder) if name.startswith(".tmp-")]
    if drafts:
        alive = writers.alive(store.root)
        for name in drafts:
            if name.removeprefix(".tmp-").rpartition("-")[0] not in alive:
                (packs.folder / name).unlink(missing_ok=True)


# --- writing packs anew


def _rewrite(store: Store, packs: Packs, done: Collected) -> None:
    """Copy what is alive out of packs that are mostly dead, and out of small ones where there are many.

    The mark that follows finds that nobody needs the old ones any more: newer packs count first.
    """
    alive = living(store)
    tallies = [tally for tally in _tallies(packs, packs.active(), alive) if tally.alive]
    chosen = {tally.name: tally for tally in tallies if tally.alive_bytes < _LEAST_ALIVE * tally.file_bytes(packs)}
    small = {tally.name: tally for tally in tallies if tally.file_bytes(packs) < _SMALL_BYTES}
    if len(small) >= _MANY_SMALL:
        chosen |= small
    if not chosen:
        return
    try:
        codec = Codec(store.keys())
    except StoreLocked:  # nothing is copied that cannot be proved
        return
    with writers.marked(store.root, "collecting garbage") as mark:
        writer = PackWriter(packs, Index(), mark.writer_id)  # knows of no pack: what it copies is in one already
        for tally in chosen.values():
            done.rewritten += _copied(packs, tally, codec, writer)
            mark.touch()
        writer.flush()


def _copied(packs: Packs, tally: _Tally, codec: Codec, writer: PackWriter) -> bool:
    """Copy what is alive in a pack; not if any of it is damaged, which is for `verify` to find where it is."""
    frames = {}
    try:
        with packs.find(tally.name).open("rb") as file:
            for row in tally.alive:
                file.seek(row.offset)
                frames[row.chunk_id] = file.read(row.frame_bytes)
                codec.chunk(frames[row.chunk_id], row.chunk_id)
    except (OSError, BadChunk):
        return False
    for chunk_id, frame in frames.items():
        writer.add(chunk_id, frame)
    return True
