"""Behind the user's back: what a real checkpoint leaves is packed, small, and comes back."""

from __future__ import annotations

import os
import random
import signal
import subprocess
from pathlib import Path

import pytest

from nbcr.store import Store, opening, settings
from nbcr.store.entry import packed_parts
from nbcr.store.settings import Settings
from tests.integration.store.programs import changing, cli, disk_bytes, is_packed, wait_until
from tests.support import ProcessTracker, children_of, describe_process


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def test_a_checkpoint_is_packed_and_comes_back_from_its_chunks(store: Store, processes: ProcessTracker) -> None:
    with changing(store, 2, 8) as program:
        entries = store.entries()
        wait_until(lambda: all(map(is_packed, entries)), "packing")
        # The packer is nobody's child but init's, or ours as the subreaper.
        assert children_of(program.pid) == set(), [describe_process(pid) for pid in children_of(program.pid)]
        program.communicate("")
    for number, entry in enumerate(entries):
        assert opening.cool(entry, "image")
        cli(store, "restart", entry.name, status=10 + number)
        assert entry.path.joinpath("image").exists() is False


def test_ten_checkpoints_that_change_one_percent_take_little_more_than_one(
    store: Store, processes: ProcessTracker
) -> None:
    store.log_folder()
    settings.write(store.root, Settings(hot_entries=0))
    with changing(store, 1, 32) as program:
        program.communicate("")
    wait_until(lambda: all(map(_is_cold, _paths(store))), "packing")
    cli(store, "pack")  # waits until the packer is through: it may still be deleting
    one = disk_bytes(store.root)
    cli(store, "remove", "c0")
    with changing(store, 10, 32) as program:
        program.communicate("")
    wait_until(lambda: all(map(_is_cold, _paths(store))), "packing")
    cli(store, "pack")
    ten = disk_bytes(store.root)
    assert len(store.entries()) == 10
    print(f"ten take {ten / one:.3f} times what one takes")
    assert ten <= 1.35 * one, f"{ten / one:.2f} times"
    cli(store, "restart", "c9", status=19)


def _paths(store: Store) -> list[Path]:
    return [entry.path for entry in store.entries()]


def _is_cold(entry: Path) -> bool:
    return packed_parts(entry) == ["image"] and not (entry / "image").exists()


def test_a_packer_that_is_killed_is_gone_on_from_by_the_next(store: Store, processes: ProcessTracker) -> None:
    with changing(store, 1, 64) as program:
        packers = [pid for pid in processes.strays() if "nbcr.packer" in describe_process(pid)]
        for pid in packers:
            os.kill(pid, signal.SIGKILL)
        program.communicate("")
    (entry,) = store.entries()
    cli(store, "pack")
    assert is_packed(entry)
    assert opening.cool(entry, "image")
    cli(store, "restart", "c0", status=10)
    assert [path.name for path in (store.root / "packs").iterdir() if path.name.startswith(".")] == []


def test_nothing_is_packed_where_the_settings_forbid_it(store: Store, processes: ProcessTracker) -> None:
    store.log_folder()
    settings.write(store.root, Settings(pack="never"))
    with changing(store, 1, 1) as program:
        program.communicate("")
    for pid in processes.strays():  # helpers, that could have become packers
        processes.reap(pid)
    assert not (store.root / "packing").exists()


def test_an_encrypted_session_comes_back_and_leaves_nothing_plain(
    store: Store, processes: ProcessTracker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cli(store, "encrypt", "--key-file", str(tmp_path / "key"))
    monkeypatch.setenv("NBCR_KEY_FILE", str(tmp_path / "key"))
    with changing(store, 1, 2) as program:
        program.communicate("")
    wait_until(lambda: all(map(_is_cold, _paths(store))), "packing")
    cli(store, "pack")
    memory = random.Random(1).randbytes(2 << 20)
    for path in store.root.rglob("*"):
        held = path.read_bytes() if path.is_file() else b""
        assert memory[100_000:100_064] not in held, path
        assert b"pagemap" not in held, path
    cli(store, "restart", "c0", status=10)
    assert all(map(_is_cold, _paths(store)))
    assert not list(store.root.glob("entries/*/thawed-*"))
    monkeypatch.delenv("NBCR_KEY_FILE")
    assert "encrypted and locked" in cli(store, "restart", "c0", status=36).stderr
    with subprocess.Popen(["sleep", "600"]) as sleeper:
        assert "encrypted and locked" in cli(store, "checkpoint", str(sleeper.pid), status=36).stderr
        assert sleeper.poll() is None
        sleeper.kill()


def test_what_a_stranger_signed_is_refused_until_it_is_trusted(
    store: Store, processes: ProcessTracker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with changing(store, 1, 1) as program:
        program.communicate("")
    monkeypatch.setenv("NBCR_CONFIG", str(tmp_path / "somebody"))
    assert "whom you do not trust" in cli(store, "restart", "c0", status=35).stderr
    assert cli(store, "list").stdout.splitlines()[1].split()[1] == "c0"
    cli(store, "trust", "c0")
    cli(store, "restart", "c0", status=10)
    cli(store, "trust", "c0", "--forget")
    cli(store, "restart", "c0", status=35)
