"""Ranges of packed files: the same bytes as the files have, and no more chunks read than hold them."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbcr.errors import EntryDamaged
from nbcr.store import Entry, Store, housekeeping, opening
from nbcr.store.packs import ChunkReader
from nbcr.store.ranges import ranges
from tests.unit.nbcr.store.making import Memory, layout, put

SIZE = 1_500_000


def file_of(rng: random.Random) -> bytes:
    return rng.randbytes(400_000) + bytes(500_000) + b"ab" * 150_000 + rng.randbytes(300_000)


@pytest.fixture(scope="module")
def cold(tmp_path_factory: pytest.TempPathFactory) -> tuple[Entry, bytes]:
    store, data = Store(tmp_path_factory.mktemp("ranges")), file_of(random.Random(1))
    entry = put(store, "a", {"objects/big": data, "objects/empty": b""})
    housekeeping.pack_entry(store, entry)
    assert opening.cool(entry, "objects")
    return entry, data


@given(st.integers(0, SIZE), st.integers(0, SIZE))
def test_any_range_is_what_the_file_has(cold: tuple[Entry, bytes], a: int, b: int) -> None:
    entry, data = cold
    start, end = sorted((a, b))
    with ranges(entry, "objects") as parts:
        assert parts is not None
        assert parts.read("big", start, end - start) == data[start:end]


def test_whole_files_and_what_is_not_there(cold: tuple[Entry, bytes]) -> None:
    entry, data = cold
    with ranges(entry, "objects") as parts:
        assert parts is not None
        assert (parts.read("big"), parts.read("empty")) == (data, b"")
        with pytest.raises(EntryDamaged, match="shorter than it should be"):
            parts.read("big", SIZE - 1, 2)
        with pytest.raises(EntryDamaged, match="does not have it"):
            parts.read("other")


def test_pieces_that_were_patched(store: Store, rng: random.Random) -> None:
    memory = Memory(rng, 500)
    for _ in range(3):
        entry = put(store, None, memory.files(), pid=7)
        housekeeping.pack_entry(store, entry, layout=layout)
        memory.touch(0.05)
    with ranges(entry, "image") as parts:
        assert parts is not None
        data = (entry.image / "pages-1.img").read_bytes()
        for start in range(0, len(data), 99_991):
            assert parts.read("pages-1.img", start, 5000) == data[start : start + 5000] or start + 5000 > len(data)


def test_no_other_chunks_are_read(cold: tuple[Entry, bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    entry, _ = cold
    seen: list[bytes] = []
    real = ChunkReader.frame
    monkeypatch.setattr(ChunkReader, "frame", lambda self, wanted: (seen.append(wanted), real(self, wanted))[1])
    with ranges(entry, "objects") as parts:
        assert parts is not None
        parts.read("big", 200_000, 1000)
    assert len(seen) == 1


def test_a_recipe_of_a_stranger_is_not_read_in_parts(store: Store, tmp_path: Path) -> None:
    entry = put(store, "a")
    housekeeping.pack_entry(store, entry)
    recipe = entry.path / "image.recipe"
    recipe.write_bytes(recipe.read_bytes()[:-96] + bytes(96))
    with ranges(entry, "image") as parts:
        assert parts is None
