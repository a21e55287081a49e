"""Collecting garbage: what is needed stays, what is not goes, whoever is writing meanwhile."""

from __future__ import annotations

import json
import os
import random
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from nbcr.errors import EntryDamaged
from nbcr.store import Entry, Store, collecting, housekeeping, opening, packing, recipe, writers
from nbcr.store.packs import Packs
from tests.unit.nbcr.store.making import contents, put

CHUNK = 131072


@pytest.fixture(autouse=True)
def _small_packs(monkeypatch: pytest.MonkeyPatch) -> None:
    real = packing.PackWriter
    monkeypatch.setattr(
        packing, "PackWriter", lambda packs, index, writer_id: real(packs, index, writer_id, pack_bytes=2 * CHUNK)
    )


def cold(store: Store, name: str, data: bytes) -> Entry:
    entry = put(store, name, {"image/pages": data})
    housekeeping.pack_entry(store, entry)
    assert opening.cool(entry, "image")
    return entry


def read(entry: Entry) -> bytes:
    with opening.opened(entry) as folder:
        found = contents(folder)["pages"]
    opening.cool(entry, "image")
    return found


def pack_files(store: Store) -> list[Path]:
    return sorted((store.root / "packs").iterdir())


def test_a_store_without_packs_has_no_garbage(store: Store) -> None:
    assert collecting.collect(store).freed_bytes == 0
    assert not store.root.exists()
    put(store, "a")
    assert collecting.collect(store).deleted == 0


def test_what_a_removed_entry_needed_alone_goes(store: Store, rng: random.Random) -> None:
    shared, own = rng.randbytes(4 * CHUNK), rng.randbytes(4 * CHUNK)
    kept = cold(store, "kept", shared)
    size = sum(path.stat().st_size for path in pack_files(store))
    gone = cold(store, "gone", shared + own)
    store.remove(gone)
    done = collecting.collect(store)
    assert done.freed_bytes >= len(own)
    assert (done.deleted, done.condemned) == (2, 0)
    assert sum(path.stat().st_size for path in pack_files(store)) == done.kept_bytes == size
    assert read(kept) == shared
    assert list(store.collections.iterdir()) == []


def test_the_last_entry_takes_everything_with_it(store: Store, rng: random.Random) -> None:
    store.remove(cold(store, "a", rng.randbytes(5 * CHUNK)))
    collecting.collect(store)
    assert pack_files(store) == []


def test_nothing_goes_while_a_writer_may_still_count_on_it(store: Store, rng: random.Random) -> None:
    data = rng.randbytes(4 * CHUNK)
    store.remove(cold(store, "a", data))
    with writers.marked(store.root, "testing") as mark:
        done = collecting.collect(store)
        assert (done.deleted, done.waits_for) == (0, [mark.writer_id])
        assert done.condemned == 2
        assert collecting.collect(store).deleted == 0
    assert collecting.collect(store).deleted == 2


def test_a_writer_that_comes_later_is_not_waited_for_and_does_not_use_what_is_condemned(
    store: Store, rng: random.Random
) -> None:
    data = rng.randbytes(4 * CHUNK)
    store.remove(cold(store, "a", data))
    with writers.marked(store.root, "early"):
        collecting.collect(store)
    with writers.marked(store.root, "late"):
        again = cold(store, "b", data)
        assert len([path for path in pack_files(store) if path.suffix == ".pack"]) == 2, "stored once more"
        assert collecting.collect(store).deleted == 2
    assert read(again) == data


def test_what_a_writer_needed_after_all_is_put_back(store: Store, rng: random.Random) -> None:
    """It had looked before, and published its recipe after the packs were condemned."""
    data = rng.randbytes(4 * CHUNK)
    first = cold(store, "a", data)
    second = put(store, "b", {"image/pages": data})
    saved = (first.path / "image.recipe").read_bytes()
    with writers.marked(store.root, "the writer of b"):
        store.remove(first)
        assert collecting.collect(store).condemned == 2
        recipe.write(second.path, "image", saved)
    done = collecting.collect(store)
    assert (done.deleted, done.condemned) == (0, 0)
    assert len([path for path in pack_files(store) if path.suffix == ".pack"]) == 2
    assert opening.cool(second, "image")
    assert read(second) == data


def test_dead_writers_are_not_waited_for(store: Store, rng: random.Random) -> None:
    entry = cold(store, "a", rng.randbytes(4 * CHUNK))
    code = f"""
import os
from pathlib import Path
from nbcr.store import writers
with writers.marked(Path({str(store.root)!r}), "dying") as mark:
    Path({str(store.root)!r}, "packs", f".tmp-{{mark.writer_id}}-abc").write_text("half a pack")
    os._exit(9)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 9
    assert len(list((store.root / "writers").iterdir())) == 1
    store.remove(entry)
    assert collecting.collect(store).deleted == 2
    assert list((store.root / "writers").iterdir()) == []
    assert pack_files(store) == []


def test_writers_on_other_hosts_are_waited_for_a_day(store: Store, rng: random.Random) -> None:
    entry = cold(store, "a", rng.randbytes(4 * CHUNK))
    mark = store.root / "writers" / "1-far.json"
    mark.write_text(json.dumps({"pid": 1, "host": "not-" + socket.gethostname(), "boot_id": "x"}))
    store.remove(entry)
    assert collecting.collect(store).waits_for == ["1-far"]
    os.utime(mark, (mark.stat().st_mtime - 25 * 3600,) * 2)
    assert collecting.collect(store).deleted == 2


def test_the_grace_is_kept(store: Store, rng: random.Random) -> None:
    store.remove(cold(store, "a", rng.randbytes(4 * CHUNK)))
    assert collecting.collect(store, grace_s=600).deleted == 0
    assert collecting.collect(store, grace_s=600).condemned == 2
    (note,) = store.collections.iterdir()
    os.utime(note, (note.stat().st_mtime - 700,) * 2)
    assert collecting.collect(store, grace_s=600).deleted == 2


def test_a_collector_that_died_is_taken_over_from(store: Store, rng: random.Random) -> None:
    """Between condemning and noting whom to wait for: its packs get a new generation, and a new wait."""
    store.remove(cold(store, "a", rng.randbytes(4 * CHUNK)))
    packs = Packs(store.root)
    for name in packs.active():
        packs.path(name).rename(packs.condemned_path(name, "20260101T000000-abcdef"))
    with writers.marked(store.root, "testing"):
        assert collecting.collect(store).deleted == 0
        assert "20260101T000000-abcdef" not in packs.condemned()
    assert collecting.collect(store).deleted == 2
    assert list(store.collections.iterdir()) == []


@pytest.mark.parametrize("damage", ["recipe", "note"])
def test_nothing_is_deleted_where_nobody_knows_what_is_needed(store: Store, rng: random.Random, damage: str) -> None:
    kept = cold(store, "kept", rng.randbytes(2 * CHUNK))
    store.remove(cold(store, "gone", rng.randbytes(2 * CHUNK)))
    if damage == "recipe":
        (kept.path / "image.recipe").write_bytes(b"nonsense")
        with pytest.raises(EntryDamaged, match=r"recipe .* is damaged"):
            collecting.collect(store)
        assert len(pack_files(store)) == 2
        store.remove(kept)
        assert collecting.collect(store).deleted == 2
        return
    with writers.marked(store.root, "testing"):
        collecting.collect(store)
        (note,) = store.collections.iterdir()
        note.write_text("{")
        assert collecting.collect(store).deleted == 0
    assert collecting.collect(store).deleted == 1


def test_packs_that_are_mostly_dead_are_written_anew(
    store: Store, rng: random.Random, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()  # packs as large as they are
    blocks = [rng.randbytes(CHUNK) for _ in range(30)]
    kept = cold(store, "all", b"".join(blocks))
    small = cold(store, "few", b"".join(blocks[::10]))
    before = sum(path.stat().st_size for path in pack_files(store))
    store.remove(kept)
    done = collecting.collect(store)
    assert (done.rewritten, done.deleted) == (1, 1)
    assert sum(path.stat().st_size for path in pack_files(store)) < before / 5
    assert read(small) == b"".join(blocks[::10])
    assert collecting.collect(store).rewritten == 0


def test_what_is_damaged_is_not_copied(store: Store, rng: random.Random, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    blocks = [rng.randbytes(CHUNK) for _ in range(30)]
    kept = cold(store, "all", b"".join(blocks))
    small = cold(store, "few", b"".join(blocks[:3]))
    (pack,) = pack_files(store)
    data = bytearray(pack.read_bytes())
    data[100] ^= 1
    pack.write_bytes(data)
    store.remove(kept)
    assert collecting.collect(store).rewritten == 0
    with pytest.raises(EntryDamaged, match=pack.name[:16]):
        read(small)


def test_many_small_packs_become_one(store: Store, rng: random.Random) -> None:
    saved = [(cold(store, str(n), data), data) for n in range(40) for data in [rng.randbytes(900)]]
    assert len(pack_files(store)) == 40
    assert collecting.collect(store).rewritten == 40
    assert len(pack_files(store)) == 1
    for entry, data in saved:
        assert read(entry) == data


def test_chunks_in_two_packs_lose_one_of_them_only(store: Store, rng: random.Random) -> None:
    """As two packers leave it that did not see each other."""
    data = rng.randbytes(CHUNK)
    entry = cold(store, "a", data)
    (pack,) = pack_files(store)
    aside = pack.rename(store.root / "aside")
    housekeeping_entry = put(store, "b", {"image/pages": data + b"x"})
    housekeeping.pack_entry(store, housekeeping_entry)
    aside.rename(pack)
    assert collecting.collect(store).deleted == 1
    assert read(entry) == data
    assert opening.cool(housekeeping_entry, "image")
    assert read(housekeeping_entry) == data + b"x"


def test_what_the_format_does_not_know_is_left_alone(store: Store, rng: random.Random) -> None:
    cold(store, "a", rng.randbytes(CHUNK))
    (store.root / "packs" / "notes.txt").write_text("mine")
    (store.root / "gc").mkdir(exist_ok=True)
    (store.root / "gc" / "notes.txt").write_text("mine")
    collecting.collect(store)
    assert (store.root / "packs" / "notes.txt").exists()
    assert (store.root / "gc" / "notes.txt").exists()


def test_removing_leaves_word_for_who_packs_next(store: Store, rng: random.Random) -> None:
    store.remove(cold(store, "a", rng.randbytes(CHUNK)))
    assert [path.name for path in store.collections.iterdir()] == ["wanted"]
    housekeeping.keep(store)
    assert pack_files(store) == []
    assert list(store.collections.iterdir()) == []
