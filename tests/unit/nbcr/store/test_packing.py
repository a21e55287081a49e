"""Packing: what comes back is what was there, and what was there before takes no room again."""

from __future__ import annotations

import random
import threading
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from nbcr import packer
from nbcr.errors import EntryDamaged
from nbcr.store import Entry, Store, housekeeping, opening, packing, recipe, writers
from nbcr.store.entry import packed_parts, recipe_of
from nbcr.store.packs import Packs
from nbcr.store.pieces import PAGE, PIECE_BYTES
from tests.unit.nbcr.store.making import Memory, contents, layout, put, stored_bytes

MEMORY_PAGES = 2048


def packed(store: Store, entry: Entry) -> Entry:
    """The entry, with nothing but its recipe."""
    for part in opening.hot_parts(entry):
        housekeeping.pack_entry(
            store, entry, parts=[part], layout=layout if part == "image" else housekeeping.no_layout
        )
        assert opening.cool(entry, part)
    assert opening.hot_parts(entry) == []
    return entry


def thawed(entry: Entry, part: str = "image") -> dict[str, bytes]:
    with opening.opened(entry, part) as folder:
        return contents(folder)


def image(files: Mapping[str, bytes]) -> dict[str, bytes]:
    return {path.removeprefix("image/"): data for path, data in files.items()}


@pytest.mark.parametrize("threads", [1, 3])
def test_files_of_every_size_come_back(store: Store, rng: random.Random, threads: int) -> None:
    sizes = [0, 1, PAGE - 1, PAGE, PAGE + 1, PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, 5 * PIECE_BYTES + 77]
    files = {f"image/random-{n}": rng.randbytes(n) for n in sizes}
    files |= {f"image/deeper/zeros-{n}": bytes(n) for n in sizes}
    files |= {f"image/text-{n}": (b"the same words again, " * 40_000)[:n] for n in sizes}
    files["image/holes"] = bytes(PIECE_BYTES * 3) + b"x" + bytes(PIECE_BYTES * 2)
    entry = put(store, "a", files)
    housekeeping.pack_entry(store, entry, threads=threads)
    assert opening.cool(entry, "image")
    assert thawed(entry) == image(files)


def test_zeros_take_no_room_and_stay_holes(store: Store) -> None:
    entry = put(store, "a", {"image/zeros": bytes(100 * PIECE_BYTES)})
    (done,) = housekeeping.pack_entry(store, entry)
    assert (done.stored_bytes, done.size_bytes) == (0, 100 * PIECE_BYTES)
    assert stored_bytes(store) < 2000
    assert opening.cool(entry, "image")
    with opening.opened(entry) as folder:
        assert (folder / "zeros").stat().st_size == 100 * PIECE_BYTES
        assert (folder / "zeros").stat().st_blocks == 0


def test_ten_checkpoints_that_change_one_percent_take_little_more_than_one(store: Store, rng: random.Random) -> None:
    """Scattered changes of random bytes: the worst there is for chunks and for compression."""
    memory = Memory(rng, MEMORY_PAGES)
    saved, parent = [], None
    first = 0
    for number in range(10):
        saved.append((put(store, str(number), memory.files(), parent=parent), memory.files()))
        packed(store, saved[-1][0])
        parent = saved[-1][0].id
        first = first or stored_bytes(store)
        memory.touch(0.01)
    assert stored_bytes(store) <= 1.2 * first
    for entry, files in saved:
        assert thawed(entry) == image(files)


def test_memory_that_comes_and_goes_does_not_disturb_the_rest(store: Store, rng: random.Random) -> None:
    memory = Memory(rng, MEMORY_PAGES)
    first = put(store, "first", memory.files())
    packed(store, first)
    size = stored_bytes(store)
    memory.map(0x1000_0000, 100)  # before everything else: all offsets in the file move by 100 pages
    memory.unmap(0.01)
    second = put(store, "second", memory.files(), parent=first.id)
    packed(store, second)
    assert stored_bytes(store) - size <= 1.2 * (100 * PAGE + 0.01 * size)
    assert thawed(second) == image(memory.files())


def test_another_process_with_the_same_memory_shares_it(store: Store, rng: random.Random) -> None:
    memory = Memory(rng, MEMORY_PAGES)
    packed(store, put(store, "a", memory.files(), pid=1))
    size = stored_bytes(store)
    packed(store, put(store, "b", memory.files(), pid=2))
    assert stored_bytes(store) - size < 0.05 * size


def test_pieces_that_were_changed_often_are_stored_anew(store: Store, rng: random.Random) -> None:
    memory = Memory(rng, 32, start=0x7F00_0000_0000)
    parent: Entry | None = None
    for number in range(60):
        entry = put(store, str(number), memory.files(), parent=None if parent is None else parent.id)
        packed(store, entry)
        read = recipe.read(recipe_of(entry.path, "image"), None)
        assert all(len(piece.extents) <= 3 * packing.MOST_EXTENTS for file in read.files for piece in file.pieces)
        assert thawed(entry) == image(memory.files())
        if parent is not None:
            store.remove(parent)
        parent = entry
        memory.touch(0.03)


@pytest.mark.parametrize("seed", range(12))
def test_whatever_happens_to_memory_comes_back(store: Store, seed: int) -> None:
    """Lives of memory at random: touched, mapped, unmapped; each state is checked against its parent's and its own."""
    rng = random.Random(seed)
    memory = Memory(rng, rng.choice([1, 31, 32, 33, 300]), start=rng.randrange(1 << 30) * PAGE)
    saved: list[tuple[Entry, dict[str, bytes]]] = []
    for number in range(6):
        parent = rng.choice(saved)[0].id if saved and rng.random() < 0.8 else None
        entry = put(store, str(number), memory.files(), parent=parent, pid=rng.choice([1, 2]))
        saved.append((packed(store, entry), memory.files()))
        memory.touch(rng.choice([0.01, 0.1, 0.6]))
        if rng.random() < 0.5:
            memory.map(rng.randrange(1 << 30) * PAGE, rng.randrange(1, 80))
        if rng.random() < 0.5:
            memory.unmap(rng.choice([0.02, 0.5]))
        zeroed = rng.choice(sorted(memory.pages)) if memory.pages else 0
        memory.pages[zeroed] = bytes(PAGE)
    for entry, files in saved:
        assert thawed(entry) == image(files)


def test_a_hot_file_that_went_bad_is_not_packed(store: Store) -> None:
    entry = put(store, "a", {"image/pages": b"0123456789" * 1000, "image/other": b"x"})
    (entry.image / "pages").write_bytes(b"0123456788" * 1000)
    with pytest.raises(EntryDamaged, match="image/pages is damaged"):
        housekeeping.pack_entry(store, entry)
    assert packed_parts(entry.path) == []
    assert opening.hot_parts(entry) == ["image"]


def test_entries_of_format_1_are_packed_too(store: Store) -> None:
    entry = put(store, "a")
    file = entry.path / "manifest.json"
    file.write_text(file.read_text().replace('"format": 2', '"format": 1'))
    (entry.path / "signature.json").unlink()
    old = replace(Entry.read(entry.path), files={})
    assert thawed(packed(store, old)) == {"pages": b"0123456789"}


def test_a_base_whose_chunks_are_damaged_is_not_built_upon(store: Store, rng: random.Random) -> None:
    memory = Memory(rng, 32, start=0x7F00_0000_0000)  # one piece
    first = put(store, "first", memory.files())
    packed(store, first)
    for pack in (store.root / "packs").glob("*.pack"):
        data = bytearray(pack.read_bytes())
        data[len(data) // 2] ^= 1
        pack.write_bytes(data)
    memory.touch(0.02)
    second = put(store, "second", memory.files(), parent=first.id)
    packed(store, second)
    assert thawed(second) == image(memory.files())
    with pytest.raises(EntryDamaged, match=r"pages-1\.img: chunk"):
        thawed(first)


def test_a_writer_that_was_taken_for_dead_begins_anew(
    store: Store, rng: random.Random, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Packs it had written or counted on are gone when it is through: nothing is dropped, it packs once more."""
    files = {"image/pages": rng.randbytes(3 * PIECE_BYTES)}
    entry = put(store, "a", files)
    real, calls = recipe.write, 0

    def late(folder: Path, part: str, data: bytes) -> None:
        nonlocal calls
        calls += 1
        real(folder, part, data)
        if calls == 1:
            for pack in (store.root / "packs").glob("*.pack"):
                pack.unlink()

    monkeypatch.setattr(recipe, "write", late)
    packed(store, entry)
    assert calls == 2
    assert thawed(entry) == image(files)


def test_a_packer_that_died_is_gone_on_from(store: Store, rng: random.Random, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "PackWriter", _small_packs(packing.PackWriter))
    files = {"image/pages": rng.randbytes(20 * PIECE_BYTES)}
    entry = put(store, "a", files)

    class Died(BaseException):
        pass

    def die(folder: Path, part: str, data: bytes) -> None:
        raise Died

    with monkeypatch.context() as patch:
        patch.setattr(recipe, "write", die)
        with pytest.raises(Died):
            housekeeping.pack_entry(store, entry)
    before = {path.name for path in (store.root / "packs").iterdir()}
    assert len(before) > 3
    (done,) = housekeeping.pack_entry(store, entry)
    assert done.added_bytes == 0
    assert {path.name for path in (store.root / "packs").iterdir()} == before
    assert opening.cool(entry, "image")
    assert thawed(entry) == image(files)


def _small_packs(real: type[packing.PackWriter]) -> object:
    return lambda packs, index, writer_id: real(packs, index, writer_id, pack_bytes=4 * PIECE_BYTES)


def test_marks_of_writers_are_there_while_they_write(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = put(store, "a")
    seen: list[set[str]] = []
    real = recipe.write
    monkeypatch.setattr(recipe, "write", lambda *words: (seen.append(writers.alive(store.root)), real(*words)))
    packed(store, entry)
    assert len(seen[0]) == 1
    assert writers.alive(store.root) == set()


def test_all_that_is_hot_is_packed_and_the_last_stay_hot(store: Store, rng: random.Random) -> None:
    entries = [put(store, str(n), {"image/pages": rng.randbytes(5000)}) for n in range(4)]
    assert housekeeping.keep(store) == []
    assert [packed_parts(e.path) for e in entries] == [["image"]] * 4
    assert [opening.hot_parts(e) for e in entries] == [[], [], ["image"], ["image"]]
    assert housekeeping.keep(store) == []


def test_what_cannot_be_packed_does_not_keep_the_others_from_it(store: Store) -> None:
    bad, good = put(store, "bad"), put(store, "good")
    (bad.image / "pages").write_bytes(b"changed")
    (failure,) = housekeeping.keep(store)
    assert "image/pages is damaged" in str(failure)
    assert packed_parts(good.path) == ["image"]
    assert opening.hot_parts(bad) == ["image"]


def test_one_packer_a_store(store: Store) -> None:
    entry = put(store, "a")
    with housekeeping.alone(store) as first, housekeeping.alone(store) as second:
        assert (first, second) == (True, False)
        assert housekeeping.keep(store) == []
        assert packed_parts(entry.path) == []
    assert housekeeping.keep(store) == []
    assert packed_parts(entry.path) == ["image"]


def test_a_packer_makes_way_for_a_checkpoint_that_is_being_written(store: Store) -> None:
    put(store, "a")
    draft = store.draft("b")
    assert store.is_written()
    waits = threading.Thread(target=packer.Courtesy(store, 1e6).make_way)
    waits.start()
    waits.join(0.3)
    assert waits.is_alive()
    packer.Courtesy(store, 0.1).make_way()  # not for ever
    store.discard(draft)
    waits.join(10)
    assert not waits.is_alive()
    assert not store.is_written()


def test_a_store_that_is_not_there_has_nothing_to_pack(store: Store) -> None:
    assert housekeeping.keep(store) == []
    assert not store.root.exists()


def test_both_parts_are_packed_and_come_back(store: Store) -> None:
    entry = put(store, "a", {"image/pages": b"1", "objects/index": b"2"})
    housekeeping.keep(store)
    assert packed_parts(entry.path) == ["image", "objects"]
    with opening.opened(entry, "objects") as folder:
        assert folder == entry.path / "objects"
    assert opening.cool(entry, "objects")
    with opening.opened(entry, "objects") as folder:
        assert contents(folder) == {"index": b"2"}


def test_packs_are_private(store: Store) -> None:
    packed(store, put(store, "a"))
    assert Packs(store.root).folder.stat().st_mode & 0o777 == 0o700
    for path in (*Packs(store.root).folder.iterdir(), *store.entries()[0].path.glob("*.recipe")):
        assert path.stat().st_mode & 0o777 == 0o600
