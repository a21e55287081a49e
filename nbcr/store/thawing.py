"""Writing a part's files again from its recipe: through all processors, each chunk read and proved once."""

from __future__ import annotations

import os
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

from blake3 import blake3

from nbcr.store.damage import damaged
from nbcr.store.openfiles import OpenFiles
from nbcr.store.packs import ChunkMissing, ChunkReader
from nbcr.store.recipe import HOLE, FileRecipe, Recipe

_BATCH_PER_THREAD = 16

Use = tuple[int, int, int, int]  # file, offset in it, offset in the chunk, length


def thaw(recipe: Recipe, reader: ChunkReader, target: Path, *, only: Collection[str] | None = None) -> None:
    """Write the files of `recipe` (or `only` those) into the folder `target`, which must be empty.

    Raises EntryDamaged, naming every file that cannot be had.
    """
    wanted = [file for file in recipe.files if only is None or file.path in only]
    for file in wanted:
        _create(target / file.path, file.size)
    threads = len(os.sched_getaffinity(0))
    lost: dict[str, str] = {}
    with (
        OpenFiles[int](lambda number: _open(target / wanted[number].path)) as targets,
        ThreadPoolExecutor(threads) as pool,
    ):

        def write(job: tuple[bytes, list[Use]]) -> None:
            chunk_id, uses = job
            try:
                chunk = memoryview(reader.chunk(chunk_id))
                for file, at, offset, length in uses:
                    data = chunk[offset : offset + length]
                    if len(data) != length:
                        raise ChunkMissing(chunk_id, f"chunk {chunk_id.hex()[:16]} is shorter than the recipe says")
                    with targets.of(file) as descriptor:
                        _write_all(descriptor, data, at)
            except ChunkMissing as error:
                lost.update({wanted[file].path: str(error) for file, *_ in uses})

        jobs = iter(_in_order(recipe, wanted, reader))
        while batch := list(islice(jobs, threads * _BATCH_PER_THREAD)):
            for _ in pool.map(write, batch):
                pass
    if lost:
        raise damaged(recipe.needs.part, recipe.needs.entry, lost)


def _in_order(recipe: Recipe, wanted: list[FileRecipe], reader: ChunkReader) -> list[tuple[bytes, list[Use]]]:
    """Each chunk and where its bytes go, as chunks lie in their packs."""
    uses: dict[int, list[Use]] = {}
    for number, file in enumerate(wanted):
        at = 0
        for piece in file.pieces:
            for chunk, offset, length in piece.parts():
                if chunk != HOLE:
                    uses.setdefault(chunk, []).append((number, at, offset, length))
                at += length
    ids = recipe.needs.ids()

    def place(chunk: int) -> tuple[str, int]:
        try:
            name, offset, _ = reader.place(ids[chunk])
            return name, offset
        except ChunkMissing:  # it will be told when it is read
            return "", 0

    return [(ids[chunk], uses[chunk]) for chunk in sorted(uses, key=place)]


def _open(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)


def _create(path: Path, size: int) -> None:
    """An empty file of its final size: sparse, 0600."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        os.ftruncate(descriptor, size)
    finally:
        os.close(descriptor)


def _write_all(descriptor: int, data: memoryview, at: int) -> None:
    while data:
        written = os.pwrite(descriptor, data, at)
        data, at = data[written:], at + written


def file_digest(file: FileRecipe, ids: list[bytes], reader: ChunkReader) -> str:
    """The digest of a file as its recipe makes it, without writing it anywhere. Raises ChunkMissing."""
    hasher = blake3()
    for piece in file.pieces:
        for chunk, offset, length in piece.parts():
            data = bytes(length) if chunk == HOLE else reader.chunk(ids[chunk])[offset : offset + length]
            if len(data) != length:
                raise ChunkMissing(ids[chunk], f"chunk {ids[chunk].hex()[:16]} is shorter than the recipe says")
            hasher.update(data)
    return hasher.hexdigest()
