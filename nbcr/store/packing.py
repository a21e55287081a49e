"""Packing a part: hot files become chunks and a recipe (FORMAT.md, "Recipes", "Packing").

Files are read in batches of pieces. What has to be computed for a piece (is it zero, is it the base's, which pages
differ, else compress it) is done in threads; what was found is put together in order by `_Assembly`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice, pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from blake3 import blake3

from nbcr.errors import EntryDamaged
from nbcr.store import recipe, writers
from nbcr.store.chunks import Bytes, Codec
from nbcr.store.entry import recipe_of
from nbcr.store.packs import ChunkMissing, ChunkReader, Index, Packs, PackWriter
from nbcr.store.pieces import PIECE_BYTES, Run, Window, cut, pages
from nbcr.store.recipe import HOLE, ChunkList, FileRecipe, Piece, Recipe

if TYPE_CHECKING:
    from nbcr.store.encryption import Keys
    from nbcr.store.signing import Signer

MOST_EXTENTS = 24
KNOWN_PACKS = 1024  # the newest: 16 GiB in which chunks are recognised, some 50 MB of memory
_BATCH = 64
_CACHED_CHUNKS = 256
_ZEROS = bytes(PIECE_BYTES)


@dataclass(frozen=True)
class Packing:
    """What to pack, and with what."""

    root: Path  # of the store
    entry: str
    part: str
    folder: Path  # the hot files
    digests: Mapping[str, str]  # of each file, hex; those that are not known are not compared
    layout: Mapping[str, Sequence[Run]]  # where the bytes of a file belong
    base: Recipe | None = None
    keys: Keys | None = None
    signer: Signer | None = None
    threads: int = 1
    pulse: Callable[[], None] = lambda: None  # called every few megabytes


@dataclass(frozen=True)
class Packed:
    """What came of it."""

    size_bytes: int  # of the files
    stored_bytes: int  # of all chunks of the recipe
    added_bytes: int  # of those that were new


def pack(job: Packing) -> Packed:
    """Pack a part. Returns when its recipe is there and every chunk of it. Raises EntryDamaged, OSError."""
    packs = Packs(job.root)
    packs.create()
    while True:
        with writers.marked(job.root, f"packing {job.entry}") as mark:
            index = Index()
            hints = job.base.needs.packs if job.base is not None else []
            names = dict.fromkeys(packs.active())
            index.load(packs, [*(name for name in hints if name in names), *islice(names, KNOWN_PACKS)])
            writer = PackWriter(packs, index, mark.writer_id)
            done, needs = _pack(job, packs, index, writer, mark)
            if _all_there(packs, needs):
                return done
            recipe_of(job.root / "entries" / job.entry, job.part).unlink(missing_ok=True)


def _all_there(packs: Packs, needs: ChunkList) -> bool:
    """Whether nobody took us for dead and deleted what we relied upon."""
    there = {*packs.active(), *(name for names in packs.condemned().values() for name in names)}
    return set(needs.packs) <= there


def _pack(job: Packing, packs: Packs, index: Index, writer: PackWriter, mark: writers.Mark) -> tuple[Packed, ChunkList]:
    codec = Codec(job.keys)
    with ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(job.threads)) if job.threads > 1 else None
        base = None
        if job.base is not None:
            reader = ChunkReader(packs, codec, job.base.needs.packs, cached=_CACHED_CHUNKS)
            base = _Base(job.base, stack.enter_context(reader), index)
        assembly = _Assembly(writer, codec)
        recipes = [_pack_file(job, path, assembly, base, pool, mark) for path in _files(job.folder)]
        assembly.finish()
    writer.flush()
    needs = assembly.needs(job.entry, job.part, index, writer.added_bytes)
    data = recipe.encode(needs, recipes, job.keys, job.signer)
    recipe.write(job.root / "entries" / job.entry, job.part, data)
    return Packed(sum(file.size for file in recipes), needs.stored_bytes, needs.added_bytes), needs


def _files(folder: Path) -> list[str]:
    """Paths of the regular files below `folder`, relative to it."""
    found = []
    for place, _, names in os.walk(folder):
        found += [str(Path(place, name).relative_to(folder)) for name in names if not Path(place, name).is_symlink()]
    return sorted(found)


def _pack_file(
    job: Packing, path: str, assembly: _Assembly, base: _Base | None, pool: Executor | None, mark: writers.Mark
) -> FileRecipe:
    runs = job.layout.get(path, ())
    old = {} if base is None else base.pieces(path)
    hasher = blake3()
    made: list[Piece] = []
    descriptor = os.open(job.folder / path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        size = os.fstat(descriptor).st_size
        windows = cut(size, runs)
        while batch := list(islice(windows, _BATCH)):
            data = _read(descriptor, batch[0].offset, batch[-1].offset + batch[-1].length)
            hasher.update(data)
            examine = _Examination(assembly, base, old, data, batch[0].offset)
            made += [assembly.piece(found) for found in (pool.map if pool else map)(examine, batch)]
            mark.touch()
            job.pulse()
    finally:
        os.close(descriptor)
    if job.digests.get(path, "") not in ("", hasher.hexdigest()):
        raise EntryDamaged(
            f"{job.folder / path} is damaged: its digest is not the one it had when it was written",
            hint=f"`nbcr verify {job.entry}` says what is still good",
        )
    return FileRecipe(path, size, [assembly.settled(piece) for piece in made])


def _read(descriptor: int, start: int, end: int) -> memoryview:
    data = os.pread(descriptor, end - start, start)
    if len(data) != end - start:
        raise EntryDamaged("a hot file became shorter while it was packed")
    return memoryview(data)


# --- one piece

Extent = tuple[bytes | None, int, int]  # chunk (None: zeros), offset in it, length
NewExtent = tuple[bytes | memoryview | None, int, int]  # or a page that has to be stored


@dataclass(frozen=True)
class _Found:
    """What became of a piece: extents of known chunks, with new pages between them, or a chunk of its own."""

    window: Window
    digest: bytes
    extents: tuple[NewExtent, ...] = ()
    frame: bytes = b""  # of a chunk that has to be stored


class _Base:
    """Another checkpoint's recipe of the same part."""

    def __init__(self, base: Recipe, reader: ChunkReader, index: Index) -> None:
        self._files = {file.path: file for file in base.files}
        self._ids = base.needs.ids()
        self._reader, self._index = reader, index

    def pieces(self, path: str) -> dict[int, Piece]:
        """The pieces of a file, by address."""
        file = self._files.get(path)
        return {} if file is None else {piece.address: piece for piece in file.pieces}

    def extents(self, piece: Piece) -> list[Extent] | None:
        """Its extents by chunk id; None where a chunk is in no pack that may be used."""
        found = [(None if n == HOLE else self._ids[n], offset, length) for n, offset, length in piece.parts()]
        return found if all(chunk is None or chunk in self._index for chunk, _, _ in found) else None

    def bytes(self, extents: list[Extent]) -> bytes:
        """What the extents hold. Raises ChunkMissing."""
        return b"".join(
            bytes(length) if chunk is None else self._reader.chunk(chunk)[offset : offset + length]
            for chunk, offset, length in extents
        )


class _Examination:
    """What is to be done with each piece of a batch; runs in threads."""

    def __init__(
        self, assembly: _Assembly, base: _Base | None, old: Mapping[int, Piece], data: memoryview, start: int
    ) -> None:
        self._assembly, self._base, self._old = assembly, base, old
        self._data, self._start = data, start

    def __call__(self, window: Window) -> _Found:
        at = window.offset - self._start
        data = bytes(self._data[at : at + window.length])  # comparing bytes is much faster than comparing views
        if data == _ZEROS[: window.length]:
            return _Found(window, b"", ((None, 0, window.length),))
        digest = blake3(data).digest()
        old = self._old.get(window.address)
        if old is not None and self._base is not None:
            extents = self._base.extents(old)
            if extents is not None:
                if old.digest == digest:
                    return _Found(window, digest, tuple(extents))
                patched = self._patched(window, data, old, extents)
                if patched is not None:
                    return _Found(window, digest, patched)
        return self._whole(window, data, digest)

    def _whole(self, window: Window, data: bytes, digest: bytes) -> _Found:
        codec = self._assembly.codec
        chunk_id = codec.id_of(data)
        known = chunk_id in self._assembly.writer
        return _Found(window, digest, ((chunk_id, 0, window.length),), b"" if known else codec.frame(chunk_id, data))

    def _patched(self, window: Window, data: bytes, old: Piece, extents: list[Extent]) -> tuple[NewExtent, ...] | None:
        """The base's extents with the pages that differ; None where too few are the same."""
        assert self._base is not None
        try:
            before = self._base.bytes(extents)
        except ChunkMissing:  # damaged: store it anew
            return None
        was = {number: (offset, length) for number, offset, length in pages(old.mask, len(before))}
        made: list[NewExtent] = []
        new = 0
        for number, offset, length in pages(window.mask, window.length):
            page = data[offset : offset + length]
            there, size = was.get(number, (0, 0))
            if size == length and before[there : there + size] == page:
                made += _within(extents, there, size)
            elif page == _ZEROS[:length]:
                made.append((None, 0, length))
            else:
                made.append((memoryview(page), 0, length))
                new += length
        joined = _joined(made)
        return joined if 2 * new <= window.length and _count(joined) <= MOST_EXTENTS else None


def _within(extents: Sequence[Extent], start: int, length: int) -> Iterator[Extent]:
    """The part of `extents` that holds `length` bytes from `start` on."""
    at, end = 0, start + length
    for chunk, offset, size in extents:
        low, high = max(start, at), min(end, at + size)
        if low < high:
            yield chunk, offset + low - at, high - low
        at += size


def _joined(extents: Sequence[NewExtent]) -> tuple[NewExtent, ...]:
    """The same with neighbours in one; new pages stay apart."""
    made: list[NewExtent] = []
    for what, offset, length in extents:
        if made and not isinstance(what, memoryview):
            last, before, size = made[-1]
            if last == what and not isinstance(last, memoryview) and (what is None or before + size == offset):
                made[-1] = (last, before, size + length)
                continue
        made.append((what, offset, length))
    return tuple(made)


def _count(extents: Sequence[NewExtent]) -> int:
    """How many extents it will be: new pages that follow each other will be one."""
    new = [isinstance(what, memoryview) for what, _, _ in extents]
    return len(new) - sum(this and before for before, this in pairwise(new))


# --- all of them


class _Assembly:
    """Gives chunks their numbers, hands new ones to the writer, collects new pages into chunks."""

    def __init__(self, writer: PackWriter, codec: Codec) -> None:
        self.writer, self.codec = writer, codec
        self._numbers: dict[bytes, int] = {}
        self._ids: list[bytes] = []  # by number; empty: pages that are still being collected
        self._pages = bytearray()
        self._pages_number = HOLE

    def piece(self, found: _Found) -> Piece:
        """The recipe's piece for what was found."""
        if found.frame:
            (chunk_id, _, _), *_ = found.extents
            assert isinstance(chunk_id, bytes)
            self.writer.add(chunk_id, found.frame)
        extents: list[int] = []
        for what, offset, length in found.extents:
            if isinstance(what, memoryview):
                extents += self._collect(what)
            else:
                extents += (HOLE if what is None else self._number(what), offset, length)
        return Piece(found.window.address, found.window.mask, found.digest, extents)

    def settled(self, piece: Piece) -> Piece:
        """The piece with neighbouring extents in one."""
        joined: list[int] = []
        for number, offset, length in piece.parts():
            if joined and joined[-3] == number and (number == HOLE or joined[-2] + joined[-1] == offset):
                joined[-1] += length
            else:
                joined += (number, offset, length)
        return Piece(piece.address, piece.mask, piece.digest, joined)

    def finish(self) -> None:
        """No more pages are coming."""
        if not self._pages:
            return
        chunk_id = self.codec.id_of(self._pages)
        if chunk_id not in self.writer:
            self.writer.add(chunk_id, self.codec.frame(chunk_id, self._pages))
        self._ids[self._pages_number] = chunk_id
        self._pages = bytearray()

    def needs(self, entry: str, part: str, index: Index, added_bytes: int) -> ChunkList:
        """The recipe's list; every chunk is in a pack by now."""
        places = {chunk_id: index.place(chunk_id) for chunk_id in self._ids}
        names = sorted({name for name, _, _ in places.values()})
        stored = sum(stored for _, _, stored in places.values())
        return ChunkList(entry, part, b"".join(self._ids), names, stored, added_bytes)

    def _number(self, chunk_id: bytes) -> int:
        if chunk_id not in self._numbers:
            self._numbers[chunk_id] = len(self._ids)
            self._ids.append(chunk_id)
        return self._numbers[chunk_id]

    def _collect(self, page: Bytes) -> tuple[int, int, int]:
        if len(self._pages) + len(page) > PIECE_BYTES:
            self.finish()
        if not self._pages:
            self._pages_number = len(self._ids)
            self._ids.append(b"")
        offset = len(self._pages)
        self._pages += page
        return self._pages_number, offset, len(page)
