"""Proving entries and packs: every byte is read and compared; what is bad is named, the rest is left usable."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from nbcr.errors import EntryDamaged, NbcrError
from nbcr.store import opening, publishing, recipe, signing, thawing
from nbcr.store.chunks import BadChunk, Codec
from nbcr.store.entry import Entry, packed_parts, recipe_of
from nbcr.store.packs import BadPack, ChunkMissing, ChunkReader, Packs, Row, read_table
from nbcr.store.store import Store

if TYPE_CHECKING:
    from nbcr.store.encryption import Keys

_CACHED_CHUNKS = 256
_BATCH = 64
Whole = Callable[[Entry, str, Path], None]  # proves a part of an entry that has no digests; raises what is wrong


@dataclass
class Proof:
    """What was found of one entry."""

    entry: Entry
    origin: str = ""  # own, trusted, stranger, unsigned, forged
    problems: list[str] = field(default_factory=list)  # what is bad, one line each
    usable: list[str] = field(default_factory=list)  # the parts of which there is a good copy
    mended: list[str] = field(default_factory=list)  # bad copies that were dropped, because there is a good one

    @property
    def whole(self) -> bool:
        """Whether nothing is wrong with it."""
        return not self.problems

    @property
    def lost(self) -> list[str]:
        """The parts that cannot be had any more."""
        return [part for part in self.entry.kinds if part not in self.usable]


@dataclass
class PackProof:
    """What was found of all packs."""

    packs: int = 0
    chunks: int = 0
    size_bytes: int = 0
    problems: list[str] = field(default_factory=list)


def verify(store: Store, entry: Entry, *, whole: Whole | None = None, mend: bool = False) -> Proof:
    """Read every byte of an entry. Never raises for what is wrong with it; raises StoreLocked.

    `mend` drops hot files that are bad where the chunks are good, and recipes that are bad where the files are good.
    """
    keys = store.keys()
    proof = Proof(entry)
    try:
        origin = signing.origin_of(entry)
        proof.origin = origin.state
        entry = publishing.unsealed(origin.entry, keys)
    except EntryDamaged as problem:
        proof.problems.append(problem.line())
        return proof
    if origin.state == "forged":
        proof.problems.append("its manifest is not the one that was signed")
    for part in entry.kinds:
        good, bad = _copies(store, entry, part, keys, whole)
        proof.problems += bad.values()
        if good:
            proof.usable.append(part)
            proof.mended += [_dropped(entry, part, what) for what in bad if mend]
        elif not bad:
            proof.problems.append(f"{part} is missing")
    return proof


def _copies(
    store: Store, entry: Entry, part: str, keys: Keys | None, whole: Whole | None
) -> tuple[list[str], dict[str, str]]:
    """The good copies of a part, and what is wrong with the others: "hot", "packed"."""
    good: list[str] = []
    bad: dict[str, str] = {}
    checks: dict[str, Callable[[], None]] = {}
    if opening.hot(entry, part) is not None:
        checks["hot"] = lambda: _check_hot(entry, part, whole)
    if part in packed_parts(entry.path):
        checks["packed"] = lambda: _check_packed(store, entry, part, keys)
    for what, check in checks.items():
        try:
            check()
            good.append(what)
        except (NbcrError, OSError) as problem:
            bad[what] = f"{what}: {problem}"
        except Exception as problem:  # a component's own words for damage
            bad[what] = f"{what}: {type(problem).__name__}: {problem}"
    return good, bad


def _check_hot(entry: Entry, part: str, whole: Whole | None) -> None:
    with opening.opened(entry, part) as folder:
        opening.check_digests(entry, part, folder)
        if whole is not None and not entry.files:
            whole(entry, part, folder)


def _check_packed(store: Store, entry: Entry, part: str, keys: Keys | None) -> None:
    read = recipe.read(recipe_of(entry.path, part), keys)
    if not signing.recipe_is_intact(read):
        raise EntryDamaged("the recipe is not the one that was signed")
    ids, lost = read.needs.ids(), dict[str, str]()
    wanted = {path.partition("/")[2]: known for path, known in entry.files.items() if path.startswith(f"{part}/")}
    with ChunkReader(Packs(store.root), Codec(keys), read.needs.packs, cached=_CACHED_CHUNKS) as reader:
        for file in read.files:
            try:
                digest = thawing.file_digest(file, ids, reader)
                known = wanted.pop(file.path, (file.size, digest))
                if known != (file.size, digest):
                    lost[file.path] = "its contents have another digest"
            except ChunkMissing as problem:
                wanted.pop(file.path, None)
                lost[file.path] = str(problem)
    lost |= dict.fromkeys(wanted, "the recipe does not have it")
    if lost:
        from nbcr.store.damage import damaged

        raise damaged(part, repr(entry.name), lost)


def _dropped(entry: Entry, part: str, what: str) -> str:
    if what == "packed":
        recipe_of(entry.path, part).unlink(missing_ok=True)
        return f"{part}: the recipe was dropped, the files are whole"
    opening.cool(entry, part)
    return f"{part}: the files were dropped, the chunks are whole"


# --- packs


def verify_packs(store: Store) -> PackProof:
    """Read every chunk of every pack; what is bad is told with the entries that need it."""
    proof, packs = PackProof(), Packs(store.root)
    codec = Codec(store.keys())
    condemned = [name for names in packs.condemned().values() for name in names]
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        for name in [*packs.active(), *condemned]:
            try:
                path = packs.find(name)
                proof.size_bytes += path.stat().st_size
                bad = dict(_bad_chunks(path, name, codec, pool, proof))
            except FileNotFoundError:  # collected meanwhile
                continue
            except OSError as error:
                proof.problems.append(f"pack {name[:16]} cannot be read: {error.strerror}")
                continue
            proof.packs += 1
            proof.problems += [f"pack {name[:16]}: {why}" for why in _told(store, bad)]
    return proof


def _bad_chunks(
    path: Path, name: str, codec: Codec, pool: ThreadPoolExecutor, proof: PackProof
) -> Iterator[tuple[bytes, str]]:
    try:
        rows = read_table(path, name)
    except BadPack as error:
        yield b"", f"{error}; its chunks are read one by one"
        rows = Packs(path.parent.parent).table(name)
    proof.chunks += len(rows)
    with path.open("rb") as file:

        def check(row: Row) -> str:
            try:
                codec.chunk(os.pread(file.fileno(), row.frame_bytes, row.offset), row.chunk_id)
            except BadChunk as error:
                return f"chunk {row.chunk_id.hex()[:16]} at byte {row.offset}: {error}"
            return ""

        for start in range(0, len(rows), _BATCH):
            batch = rows[start : start + _BATCH]
            yield from ((row.chunk_id, why) for row, why in zip(batch, pool.map(check, batch), strict=True) if why)


def _told(store: Store, bad: Mapping[bytes, str]) -> list[str]:
    """Each line with the names of the entries that need the chunk."""
    if not bad:
        return []
    users: dict[bytes, list[str]] = {}
    for entry in store.entries():
        for part in packed_parts(entry.path):
            try:
                needed = set(recipe.read_list(recipe_of(entry.path, part)).ids())
            except (EntryDamaged, OSError):
                continue
            for chunk_id in needed & bad.keys():
                users.setdefault(chunk_id, []).append(entry.name)
    return [
        why + (f"; needed by {', '.join(sorted(set(users[chunk])))}" if chunk in users else "")
        for chunk, why in bad.items()
    ]
