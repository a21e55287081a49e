"""Hot files: there when they are wanted, as long as they are wanted, and proved."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from nbcr import runtime
from nbcr.errors import EntryDamaged, NoRoomInStore
from nbcr.store import Entry, Store, housekeeping, opening, settings, thawing
from nbcr.store.settings import Settings
from tests.unit.nbcr.store.making import contents, put


def cold(store: Store, name: str, size: int = 300_000, rng: random.Random | None = None) -> Entry:
    entry = put(store, name, {"image/pages": (rng or random.Random(name)).randbytes(size), "image/more/x": b"x" * 9})
    housekeeping.pack_entry(store, entry)
    assert opening.cool(entry, "image")
    return entry


def names_in(entry: Entry) -> set[str]:
    return {path.name for path in entry.path.iterdir()}


AT_REST = {"manifest.json", "signature.json", "image.recipe"}


def test_what_is_hot_is_given_as_it_is(store: Store) -> None:
    entry = put(store, "a")
    with opening.opened(entry) as folder:
        assert folder == entry.image
    assert names_in(entry) == {"manifest.json", "signature.json", "image"}


def test_what_is_thawed_stays_hot_for_the_next(store: Store) -> None:
    entry = cold(store, "a")
    with opening.opened(entry) as first:
        found = contents(first)
        inode = (first / "pages").stat().st_ino
        assert (first / "pages").stat().st_mode & 0o777 == 0o600
    with opening.opened(entry) as second:
        assert (second / "pages").stat().st_ino == inode
    assert set(found) == {"pages", "more/x"}
    assert names_in(entry) == AT_REST | {first.name}


def test_files_of_another_boot_are_not_used(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A power cut may have left them empty."""
    entry = cold(store, "a")
    with opening.opened(entry) as folder:
        whole = contents(folder)
    (folder / "pages").write_bytes(b"")
    monkeypatch.setattr(runtime, "boot_id", lambda: "0123456789")
    with opening.opened(entry) as folder:
        assert contents(folder) == whole


def test_some_files_can_be_had_without_the_rest(store: Store) -> None:
    entry = cold(store, "a")
    with opening.opened(entry, only=["more/x"]) as folder:
        assert contents(folder) == {"more/x": b"x" * 9}
    assert names_in(entry) == AT_REST


def test_many_readers_at_once_thaw_one_copy(store: Store) -> None:
    entry = cold(store, "a", 3_000_000)
    seen: list[bytes] = []
    ready = threading.Barrier(6)

    def read() -> None:
        ready.wait()
        with opening.opened(entry) as folder:
            seen.append((folder / "pages").read_bytes())

    threads = [threading.Thread(target=read) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 6
    assert len(set(seen)) == 1
    assert len(names_in(entry) - AT_REST) == 1


def test_what_is_in_use_is_not_dropped(store: Store) -> None:
    entry = put(store, "a")
    housekeeping.pack_entry(store, entry)
    with opening.opened(entry) as folder:
        assert not opening.cool(entry, "image")
        assert contents(folder)
    assert opening.cool(entry, "image")
    assert names_in(entry) == AT_REST


def test_a_reader_that_comes_while_it_is_dropped_keeps_it(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = put(store, "a")
    housekeeping.pack_entry(store, entry)
    answers = iter([False, True])
    monkeypatch.setattr(opening, "in_use", lambda path: next(answers))
    assert not opening.cool(entry, "image")
    assert names_in(entry) == AT_REST | {"image"}


def test_marks_of_dead_readers_hold_nothing(store: Store) -> None:
    entry = put(store, "a")
    housekeeping.pack_entry(store, entry)
    code = f"""
import os
from nbcr.store import Store, opening
with opening.opened(Store({str(store.root)!r}).find("a")): os._exit(9)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 9
    assert any(name.startswith(".use-") for name in names_in(entry))
    assert opening.cool(entry, "image")
    assert names_in(entry) == AT_REST


def test_what_is_not_packed_is_never_dropped(store: Store) -> None:
    entry = put(store, "a")
    assert not opening.cool(entry, "image")
    settings.write(store.root, Settings(hot_entries=0))
    opening.cool_all(store)
    assert opening.hot_parts(entry) == ["image"]


def test_the_last_used_stay_hot(store: Store) -> None:
    entries = [cold(store, name) for name in "abcd"]
    for number, name in enumerate("cadb"):
        with opening.opened(store.find(name)) as folder:
            pass
        os.utime(folder, (1000 + number, 1000 + number))
    opening.cool_all(store)
    assert [opening.hot(entry, "image") is not None for entry in entries] == [False, True, False, True]
    settings.write(store.root, Settings(hot_entries=4, hot_bytes=400_000))
    opening.cool_all(store)
    assert [opening.hot(entry, "image") is not None for entry in entries] == [False, True, False, False]
    settings.write(store.root, Settings(hot_entries=0))
    assert opening.cool_all(store) > 290_000
    assert all(opening.hot(entry, "image") is None for entry in entries)


def test_what_the_dead_left_half_thawed_goes_after_a_while(store: Store) -> None:
    entry = cold(store, "a")
    for name in (".thawing-x", ".cooling-y", "thawed-anotherb-image"):
        (entry.path / name).mkdir()
        (entry.path / name / "pages").write_bytes(b"half")
    opening.cool_all(store)
    assert len(names_in(entry) - AT_REST) == 3
    for name in names_in(entry) - AT_REST:
        os.utime(entry.path / name, (time.time() - 4000,) * 2)
    opening.cool_all(store)
    assert names_in(entry) == AT_REST


def test_rot_is_found_and_named_and_nothing_half_done_is_left(store: Store) -> None:
    entry = cold(store, "a", 10 * 131072)
    (pack,) = (store.root / "packs").glob("*.pack")
    data = bytearray(pack.read_bytes())
    data[len(data) // 2] ^= 1
    pack.write_bytes(data)
    with pytest.raises(EntryDamaged, match=r"image of entry \S+ is damaged: pages: chunk \w+ in pack \w+ at byte"):
        opening.opened(entry).__enter__()
    assert names_in(entry) == AT_REST
    with opening.opened(entry, only=["more/x"]) as folder:
        assert contents(folder) == {"more/x": b"x" * 9}


def test_a_full_disk_leaves_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = cold(store, "a")

    def full(*words: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(thawing, "_write_all", full)
    with pytest.raises(NoRoomInStore):
        opening.opened(entry).__enter__()
    assert names_in(entry) == AT_REST


def test_an_entry_that_was_removed_is_told_so(store: Store) -> None:
    entry = cold(store, "a")
    store.remove(entry)
    with pytest.raises(EntryDamaged, match="gone"):
        opening.opened(entry).__enter__()


def test_an_entry_whose_removal_is_not_decided_is_waited_for(store: Store) -> None:
    """Its name is away for a moment, and comes back because somebody else reads it."""
    entry = cold(store, "a")
    away = entry.path.with_name(f".gone-{entry.id}")
    entry.path.rename(away)
    threading.Timer(0.2, lambda: away.rename(entry.path)).start()
    with opening.opened(entry) as folder:
        assert contents(folder)


def test_a_part_that_is_nowhere_is_told_so(store: Store) -> None:
    entry = put(store, "a")
    with pytest.raises(EntryDamaged, match="the objects of 'a' is missing"):
        opening.opened(entry, "objects").__enter__()


def test_errors_of_whoever_reads_are_their_own(store: Store) -> None:
    entry = cold(store, "a")
    with pytest.raises(PermissionError), opening.opened(entry):
        raise PermissionError(1, "theirs")
    assert not any(name.startswith(".use-") for name in names_in(entry))


def test_a_recipe_that_nobody_vouches_for_is_compared_with_the_manifest(store: Store) -> None:
    entry, other = cold(store, "a"), cold(store, "b")
    recipe = bytearray((other.path / "image.recipe").read_bytes())
    recipe[-96:] = bytes(96)  # not signed
    (entry.path / "image.recipe").write_bytes(recipe)
    with pytest.raises(EntryDamaged, match="pages: its contents have another digest"):
        opening.opened(entry).__enter__()


@pytest.mark.parametrize("text", ["{", '{"hot_entries": -1}', '{"pack": "sometimes"}', '{"hot_entries": "x"}', "[1]"])
def test_impossible_settings_are_refused(store: Store, text: str) -> None:
    put(store, "a")
    (store.root / "settings.json").write_text(text)
    with pytest.raises(Exception, match=r"settings\.json"):
        settings.read(store.root)


def test_settings_are_what_was_written(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    put(store, "a")
    assert settings.read(store.root) == Settings()
    wanted = Settings(hot_entries=5, hot_bytes=1 << 30, pack="never")
    settings.write(store.root, wanted)
    assert settings.read(store.root) == wanted
    (store.root / "settings.json").write_text(json.dumps({"hot_entries": 7, "of a later version": 1}))
    assert settings.read(store.root) == Settings(hot_entries=7)
    monkeypatch.delenv("NBCR_PACK", raising=False)
    assert Settings().packs_in_background
    assert not wanted.packs_in_background


def test_every_path_is_relative_to_the_part(tmp_path: Path, store: Store) -> None:
    entry = put(store, "a", {"image/a/b/c/d": b"1", "image/a/b2": b"2"})
    housekeeping.pack_entry(store, entry)
    opening.cool(entry, "image")
    with opening.opened(entry) as folder:
        assert contents(folder) == {"a/b/c/d": b"1", "a/b2": b"2"}
