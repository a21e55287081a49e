"""Fetching entries from a remote or an archive: only chunks that no pack here has travel; published like any other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nbcr.errors import EntryDamaged, RemoteFailed
from nbcr.store import files, names, recipe, writers
from nbcr.store.chunks import BadChunk, Codec
from nbcr.store.entry import MANIFEST, PARTS, SIGNATURE, Entry, recipe_of
from nbcr.store.packs import Index, Packs, PackWriter, Row
from nbcr.store.remotes import ENCRYPTION, pack_path
from nbcr.store.sending import Target
from nbcr.store.store import Store

_GAP_BYTES = 64 << 10  # what lies between two wanted chunks is read along with them, if it is no more
_READ_BYTES = 8 << 20
_LARGEST_MANIFEST = 64 << 20


@dataclass
class Fetched:
    """What travelled."""

    entries: list[Entry] = field(default_factory=list)
    already: list[str] = field(default_factory=list)  # names that are here
    chunks: int = 0
    size_bytes: int = 0


@dataclass(frozen=True)
class Offered:
    """An entry that a source has."""

    entry: Entry
    manifest: bytes


def offered(source: Target, root: Path) -> list[Offered]:
    """The entries that a source has, oldest first, as if they were in the store at `root`; no damaged ones."""
    found = []
    for entry_id in source.entries():
        manifest = source.read(f"entries/{entry_id}/{MANIFEST}")
        if manifest is None or len(manifest) > _LARGEST_MANIFEST:
            continue
        try:
            found.append(Offered(Entry.from_bytes(manifest, root / "entries" / entry_id), manifest))
        except EntryDamaged:
            continue
    return sorted(found, key=lambda offer: (offer.entry.created, offer.entry.id))


def chosen(offers: Sequence[Offered], wanted: Iterable[str]) -> list[Offered]:
    """Those with these names or ids; without any, all. Raises UnknownName."""
    entries = [offer.entry for offer in offers]
    ids = {names.find(entries, name).id for name in wanted}
    return [offer for offer in offers if not ids or offer.entry.id in ids]


def fetch(
    store: Store,
    source: Target,
    offers: Sequence[Offered],
    *,
    replace: bool = False,
    pulse: Callable[[int], None] = lambda _: None,
) -> Fetched:
    """Fetch entries. Raises RemoteFailed, EntryDamaged, NameTaken; then what has arrived is not fetched again."""
    _take_encryption(store, source)
    done = Fetched()
    here = {entry.id: entry.name for entry in store.entries()}
    places: dict[bytes, tuple[str, Row]] | None = None
    for offer in offers:
        if offer.entry.id in here:
            done.already.append(offer.entry.name)
            continue
        if places is None:
            sizes = source.packs()
            places = {row.chunk_id: (name, row) for name in sizes for row in source.table(name, sizes[name])}
        done.entries.append(_fetch_one(store, source, offer, places, replace, done, pulse))
    return done


def _take_encryption(store: Store, source: Target) -> None:
    from nbcr.store.sending import same_encryption

    theirs = source.read(ENCRYPTION)
    store.log_folder()  # the store is there now
    with store.writing():
        if theirs is not None and not store.is_encrypted and not store.entries():
            files.write_atomically(store.root / ENCRYPTION, theirs)
    same_encryption(store, source)
    store.keys()


def _fetch_one(
    store: Store,
    source: Target,
    offer: Offered,
    places: dict[bytes, tuple[str, Row]],
    replace: bool,
    done: Fetched,
    pulse: Callable[[int], None],
) -> Entry:
    entry, packs = offer.entry, Packs(store.root)
    draft = store.draft(entry.name, replace=replace, entry_id=entry.id, created=entry.created)
    try:
        with store.writing():
            packs.create()
            needed = _write_entry(source, offer, draft.path)
            while True:
                # The mark stays until the entry is published: then its recipes count.
                with writers.marked(store.root, f"fetching {entry.id}") as mark:
                    index = Index()
                    index.load(packs, packs.active())
                    writer = PackWriter(packs, index, mark.writer_id)
                    missing = [chunk for chunk in needed if chunk not in index]
                    _fetch_chunks(source, entry, missing, places, Codec(store.keys()), writer, mark, done, pulse)
                    files.fsync_tree(draft.path)
                    if set(packs.active()) >= {index.place(chunk)[0] for chunk in needed}:
                        published = Entry.read(store.put_in_place(draft))
                        break
    except BaseException:
        store.discard(draft)
        raise
    for other in store.entries() if replace else ():  # what it replaces may be newer
        if other.name == published.name and other.id != published.id:
            store.remove(other)
    return published


def _write_entry(source: Target, offer: Offered, folder: Path) -> list[bytes]:
    """Recipes, signature and manifest into a draft; ids of the chunks that are needed."""
    remote = f"entries/{offer.entry.id}"
    needed: dict[bytes, None] = {}
    for part in offer.entry.kinds:
        if part not in PARTS:
            raise EntryDamaged(f"{remote} has a part {part!r} that this nbcr does not know", hint="update nbcr")
        path = recipe_of(folder, part)
        data = source.read(f"{remote}/{path.name}")
        if data is None:
            raise RemoteFailed(f"{remote}/{path.name} is not there, so that the {part} cannot be had")
        files.write_new(path, [data])
        found = recipe.read_list(path)
        if (found.entry, found.part) != (offer.entry.id, part):
            raise EntryDamaged(f"{remote}/{path.name} is the recipe of something else")
        needed |= dict.fromkeys(found.ids())
    signature = source.read(f"{remote}/{SIGNATURE}")
    if signature is not None:
        files.write_new(folder / SIGNATURE, [signature])
    files.write_new(folder / MANIFEST, [offer.manifest])
    return list(needed)


def _fetch_chunks(
    source: Target,
    entry: Entry,
    missing: Sequence[bytes],
    places: dict[bytes, tuple[str, Row]],
    codec: Codec,
    writer: PackWriter,
    mark: writers.Mark,
    done: Fetched,
    pulse: Callable[[int], None],
) -> None:
    lost = [chunk for chunk in missing if chunk not in places]
    if lost:
        raise RemoteFailed(
            f"{len(lost)} chunks of {entry.name!r} are not there, the first is {lost[0].hex()[:16]}",
            hint="send it there again from a store that has it whole",
        )
    ordered = sorted(missing, key=lambda chunk: (places[chunk][0], places[chunk][1].offset))
    for name, rows in _ranges(places[chunk] for chunk in ordered):
        start, end = rows[0].offset, rows[-1].offset + rows[-1].frame_bytes
        data = source.read(pack_path(name), start, end)
        if data is None or len(data) != end - start:
            raise RemoteFailed(f"pack {name[:16]} is cut off, or gone")
        for row in rows:
            frame = data[row.offset - start : row.offset - start + row.frame_bytes]
            try:
                codec.chunk(frame, row.chunk_id)
            except BadChunk as error:
                raise RemoteFailed(
                    f"chunk {row.chunk_id.hex()[:16]} in pack {name[:16]} is damaged there: {error}"
                ) from error
            writer.add(row.chunk_id, frame)
        done.chunks += len(rows)
        done.size_bytes += len(data)
        mark.touch()
        pulse(len(data))
    writer.flush()


def _ranges(places: Iterable[tuple[str, Row]]) -> Iterable[tuple[str, list[Row]]]:
    """Neighbours, which one read brings."""
    name, rows = "", list[Row]()
    for pack, row in places:
        near = rows and pack == name and row.offset - (rows[-1].offset + rows[-1].frame_bytes) <= _GAP_BYTES
        if rows and not (near and row.offset + row.frame_bytes - rows[0].offset <= _READ_BYTES):
            yield name, rows
            rows = []
        name = pack
        rows.append(row)
    if rows:
        yield name, rows
