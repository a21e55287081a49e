"""Bytes of a packed part's files, without writing the files: only the chunks that hold what is asked for are read."""

from __future__ import annotations

import contextlib
import os
from bisect import bisect_right
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate

from nbcr.errors import EntryDamaged
from nbcr.store import recipe, signing
from nbcr.store.chunks import Codec
from nbcr.store.damage import damaged
from nbcr.store.entry import Entry, recipe_of
from nbcr.store.packs import ChunkMissing, ChunkReader, Packs
from nbcr.store.recipe import HOLE, FileRecipe, Piece, Recipe
from nbcr.store.store import Store

_CACHED_CHUNKS = 32  # neighbours of small reads
_ALONE_PIECES = 8  # fewer are not worth starting threads for


class PartRanges:
    """The files of one packed part."""

    def __init__(self, read: Recipe, reader: ChunkReader) -> None:
        self._needs, self._reader = read.needs, reader
        self._ids = read.needs.ids()
        self._files = {file.path: file for file in read.files}
        self._starts: dict[str, list[int]] = {}  # of the pieces of a file, and its end

    def read(self, path: str, offset: int = 0, size: int | None = None) -> bytearray:
        """`size` bytes of a file (None: all that follow), each chunk proved. Raises EntryDamaged."""
        file = self._files.get(path)
        if file is None:
            raise damaged(self._needs.part, self._needs.entry, {path: "the recipe does not have it"})
        end = file.size if size is None else offset + size
        if not 0 <= offset <= end <= file.size:
            raise damaged(self._needs.part, self._needs.entry, {path: "it is shorter than it should be"})
        found = bytearray(end - offset)
        try:
            self._fill(found, file, offset, end)
        except ChunkMissing as error:
            raise damaged(self._needs.part, self._needs.entry, {path: str(error)}) from error
        return found

    def _fill(self, found: bytearray, file: FileRecipe, offset: int, end: int) -> None:
        starts = self._starts_of(file)
        first, last = bisect_right(starts, offset) - 1, bisect_right(starts, max(offset, end - 1)) - 1
        target = memoryview(found)

        def fill(number: int) -> None:
            self._fill_piece(target, file.pieces[number], starts[number] - offset)

        numbers = range(max(0, first), min(last + 1, len(file.pieces)))
        if len(numbers) < _ALONE_PIECES:
            for number in numbers:
                fill(number)
            return
        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
            for _ in pool.map(fill, numbers):
                pass

    def _fill_piece(self, target: memoryview, piece: Piece, at: int) -> None:
        """Put the piece, which begins at `at` of the target, into as much of it as it covers."""
        for number, offset, length in piece.parts():
            low, high = max(at, 0), min(at + length, len(target))
            if low < high and number != HOLE:
                chunk = self._reader.chunk(self._ids[number])
                if len(chunk) < offset + length:
                    raise ChunkMissing(self._ids[number], "a chunk is shorter than the recipe says")
                target[low:high] = memoryview(chunk)[offset + low - at : offset + high - at]
            at += length

    def _starts_of(self, file: FileRecipe) -> list[int]:
        if file.path not in self._starts:
            lengths = (sum(piece.extents[2::3]) for piece in file.pieces)
            self._starts[file.path] = list(accumulate(lengths, initial=0))
        return self._starts[file.path]


@contextlib.contextmanager
def ranges(entry: Entry, part: str) -> Iterator[PartRanges | None]:
    """The files of a packed part of a proved entry; None where its recipe is nobody's whom the user trusts.

    Such a recipe is proved by the files that it makes, and nothing less. Raises EntryDamaged, StoreLocked.
    """
    store = Store(entry.store_root)
    path = recipe_of(entry.path, part)
    if not path.exists():
        raise EntryDamaged(f"the {part} of {entry.name!r} is missing", hint=f"`nbcr remove {entry.name}`")
    keys = store.keys()
    read = recipe.read(path, keys)
    if not signing.recipe_is_proved(read, signing.origin_of(entry)):
        yield None
        return
    with ChunkReader(Packs(store.root), Codec(keys), read.needs.packs, cached=_CACHED_CHUNKS) as reader:
        yield PartRanges(read, reader)
