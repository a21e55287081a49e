"""Bit rot is found and named, and what is whole stays usable."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from nbcr.errors import EntryDamaged
from nbcr.session import upkeep
from nbcr.store import Store, housekeeping, opening, settings
from nbcr.store.settings import Settings
from tests.unit.nbcr.store.making import contents, put


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def cold(store: Store) -> None:
    store.log_folder()
    settings.write(store.root, Settings(hot_entries=0))
    assert housekeeping.keep(store) == []


def test_what_is_whole_is_said_to_be(store: Store) -> None:
    hot = put(store, "hot", {"image/a": b"1", "objects/index": b"2"})
    found = upkeep.verify(store=store)
    assert found.whole
    cold(store)
    found = upkeep.verify(store=store)
    assert found.whole
    assert [(p.entry.name, p.origin, p.usable) for p in found.proofs] == [(hot.name, "own", ["image", "objects"])]
    assert found.packs is not None
    assert (found.packs.packs, found.packs.problems) == (2, [])


def test_any_flipped_bit_of_the_chunks_is_found_and_the_rest_is_usable(store: Store, rng: random.Random) -> None:
    shared, own = rng.randbytes(200_000), rng.randbytes(150_000)
    put(store, "good", {"image/pages": shared}, pid=1)
    cold(store)
    put(store, "bad", {"image/pages": shared, "image/more": own}, pid=2)
    cold(store)
    newest = max((store.root / "packs").glob("*.pack"), key=lambda path: path.stat().st_mtime_ns)
    for at in rng.sample(range(newest.stat().st_size), 12):
        flip(newest, at)
        found = upkeep.verify(store=store)
        assert not found.whole or at < 16, at  # the header says nothing that is used
        assert found.packs is not None
        if not found.whole:
            (problem, *_) = found.packs.problems
            assert problem.startswith(f"pack {newest.stem[:16]}: ")
        by_name = {proof.entry.name: proof for proof in found.proofs}
        assert by_name["good"].whole
        if not by_name["bad"].whole:  # else only its table is damaged, and is not needed
            assert by_name["bad"].lost == ["image"]
            assert "more: chunk" in by_name["bad"].problems[0]
            with pytest.raises(EntryDamaged, match="more: chunk"), opening.opened(store.find("bad")):
                pass
        with opening.opened(store.find("good")) as folder:
            assert contents(folder) == {"pages": shared}
        flip(newest, at)
    assert upkeep.verify(store=store).whole


def test_a_bad_copy_is_dropped_where_there_is_a_good_one(store: Store, rng: random.Random) -> None:
    data = rng.randbytes(10_000)
    entry = put(store, "a", {"image/pages": data})
    housekeeping.keep(store)
    flip(entry.image / "pages", 5)
    (proof,) = upkeep.verify(["a"], store=store).proofs
    assert (proof.whole, proof.usable, proof.mended) == (False, ["image"], [])
    (proof,) = upkeep.verify(["a"], store=store, mend=True).proofs
    assert proof.mended == ["image: the files were dropped, the chunks are whole"]
    assert upkeep.verify(["a"], store=store).whole
    with opening.opened(entry) as folder:
        assert contents(folder) == {"pages": data}

    flip(entry.path / "image.recipe", 60)
    (proof,) = upkeep.verify(["a"], store=store, mend=True).proofs
    assert proof.mended == ["image: the recipe was dropped, the files are whole"]
    housekeeping.pack_entry(store, entry, parts=["image"])
    assert upkeep.verify(["a"], store=store).whole


def test_manifests_that_were_changed_and_parts_that_are_gone(store: Store) -> None:
    put(store, "changed"), put(store, "gone")
    manifest = store.find("changed").path / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"words"', '"other"'))
    (store.find("gone").image / "pages").unlink()
    store.find("gone").image.rmdir()
    by_name = {proof.entry.name: proof for proof in upkeep.verify(store=store).proofs}
    assert by_name["changed"].problems == ["its manifest is not the one that was signed"]
    assert (by_name["gone"].problems, by_name["gone"].lost) == (["image is missing"], ["image"])
