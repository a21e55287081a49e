"""Sending entries to a remote or into an archive: packs first, manifests last; only what is missing there travels."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from nbcr.errors import EntryDamaged, RemoteFailed
from nbcr.store import recipe
from nbcr.store.chunks import BadChunk, Codec
from nbcr.store.entry import MANIFEST, SIGNATURE, Entry, packed_parts, recipe_of
from nbcr.store.packs import PACK_BYTES, ChunkMissing, ChunkReader, Packs, encode
from nbcr.store.remotes import ENCRYPTION, mark_path, pack_path
from nbcr.store.store import Store

if TYPE_CHECKING:
    from nbcr.store.packs import Row


class Target(Protocol):
    """Where entries are sent to: a remote, an archive."""

    def read(self, path: str, start: int | None = None, end: int | None = None) -> bytes | None: ...
    def write(self, path: str, data: bytes) -> None: ...
    def entries(self) -> list[str]: ...
    def packs(self) -> dict[str, int]: ...
    def table(self, name: str, size: int) -> list[Row]: ...


class Receiver(Target, Protocol):
    """One that is written to, and where garbage may be collected."""

    def condemned(self) -> set[str]: ...
    def remove(self, path: str) -> None: ...


@dataclass
class Sent:
    """What travelled."""

    entries: list[str] = field(default_factory=list)  # names
    already: list[str] = field(default_factory=list)  # that were there
    chunks: int = 0
    size_bytes: int = 0


def send(
    store: Store, entries: Sequence[Entry], target: Receiver, pulse: Callable[[int], None] = lambda _: None
) -> Sent:
    """Send packed entries. Raises RemoteFailed, EntryDamaged; then what has arrived is not sent again."""
    same_encryption(store, target)
    sent = Sent()
    there = set(target.entries())
    wanted = []
    for entry in entries:
        if entry.id in there and target.read(f"entries/{entry.id}/{MANIFEST}") is not None:
            sent.already.append(entry.name)
        else:
            wanted.append(entry)
    if not wanted:
        return sent
    condemned = target.condemned()
    known = _known_chunks(store, target, condemned)
    for entry in wanted:
        _send_chunks(store, entry, target, known, condemned, sent, pulse)
        _send_entry(entry, target, sent)
        sent.entries.append(entry.name)
    return sent


def same_encryption(store: Store, target: Target) -> None:
    """Refuse to mix: chunks of one key are of no use to the other. Gives an empty target the store's own."""
    path = store.root / ENCRYPTION
    ours = path.read_bytes() if path.exists() else None
    theirs = target.read(ENCRYPTION)
    if ours is not None and theirs is None and not target.packs():
        target.write(ENCRYPTION, ours)
        return
    if _key_id(ours) != _key_id(theirs):
        raise RemoteFailed(
            "one of the two stores is encrypted, and the other is not, or with another key",
            hint="use a place of its own for each",
        )


def _key_id(document: bytes | None) -> str:
    import json

    if document is None:
        return ""
    try:
        return str(json.loads(document)["id"])
    except (ValueError, KeyError, TypeError) as error:
        raise RemoteFailed(f"{ENCRYPTION} cannot be read: {error}") from error


def _known_chunks(store: Store, target: Target, condemned: set[str]) -> set[bytes]:
    """What the target has and keeps. Of packs that are here as well, nothing needs to be read there."""
    packs, found = Packs(store.root), set[bytes]()
    here = set(packs.active())
    for name, size in target.packs().items():
        if name in condemned:  # it may be gone before what we send is there
            continue
        if name in here and packs.size_bytes(name) == size:
            found.update(row.chunk_id for row in packs.table(name))
        else:
            found.update(row.chunk_id for row in target.table(name, size))
    return found


def _send_chunks(
    store: Store,
    entry: Entry,
    target: Receiver,
    known: set[bytes],
    condemned: set[str],
    sent: Sent,
    pulse: Callable[[int], None],
) -> None:
    codec = Codec(store.keys())
    for part in packed_parts(entry.path):
        needs = recipe.read_list(recipe_of(entry.path, part))
        with ChunkReader(Packs(store.root), codec, needs.packs) as reader:
            missing = [chunk for chunk in dict.fromkeys(needs.ids()) if chunk not in known]
            for group in _grouped(reader, missing, entry, part):
                frames = [(chunk, _proved(reader, codec, chunk, entry, part)) for chunk in group]
                name, blocks, _ = encode(frames)
                data = b"".join(blocks)
                if name in condemned:  # it is needed again
                    target.remove(mark_path(name))
                target.write(pack_path(name), data)
                known.update(group)
                sent.chunks += len(group)
                sent.size_bytes += len(data)
                pulse(len(data))


def _grouped(reader: ChunkReader, missing: Sequence[bytes], entry: Entry, part: str) -> Iterator[list[bytes]]:
    """Chunks as they lie in our packs, in groups as large as a pack: a pack that is wanted whole keeps its name."""
    try:
        places = {chunk: reader.place(chunk) for chunk in missing}
    except ChunkMissing as error:
        raise _incomplete(entry, part, error) from error
    group: list[bytes] = []
    size, pack = 0, ""
    for chunk in sorted(places, key=places.__getitem__):
        name, _, stored = places[chunk]
        if group and (size >= PACK_BYTES or (name != pack and size >= PACK_BYTES // 2)):
            yield group
            group, size = [], 0
        group.append(chunk)
        size, pack = size + stored, name
    if group:
        yield group


def _proved(reader: ChunkReader, codec: Codec, chunk: bytes, entry: Entry, part: str) -> bytes:
    """The frame as it is here, when it is what it should be: rot must not travel."""
    try:
        frame = reader.frame(chunk)
        codec.chunk(frame, chunk)
    except (ChunkMissing, BadChunk) as error:
        raise _incomplete(entry, part, error) from error
    return frame


def _incomplete(entry: Entry, part: str, error: Exception) -> EntryDamaged:
    return EntryDamaged(
        f"{part} of entry {entry.name!r} is damaged and was not sent: {error}", hint=f"`nbcr verify {entry.name}`"
    )


def _send_entry(entry: Entry, target: Target, sent: Sent) -> None:
    folder = f"entries/{entry.id}"
    for path in (*(recipe_of(entry.path, part) for part in packed_parts(entry.path)), entry.path / SIGNATURE):
        if path.exists():
            sent.size_bytes += _send_file(path, f"{folder}/{path.name}", target)
    sent.size_bytes += _send_file(entry.path / MANIFEST, f"{folder}/{MANIFEST}", target)


def _send_file(path: Path, to: str, target: Target) -> int:
    data = path.read_bytes()
    target.write(to, data)
    return len(data)
