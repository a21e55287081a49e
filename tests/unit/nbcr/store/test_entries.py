"""The store: what FORMAT.md promises, in every state that a crash can leave behind."""

from __future__ import annotations

import errno
import itertools
import json
import os
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import platformdirs
import pytest

from nbcr import runtime
from nbcr.errors import EntryDamaged, NameTaken, NoRoomInStore, StoreRefused, UnknownName, UsageProblem
from nbcr.store import Entry, Store, default_root, files
from tests.support import needs
from tests.unit.nbcr.store.making import manifest_for, put


def hidden(store: Store) -> list[str]:
    return sorted(p.name for p in (store.root / "entries").iterdir() if p.name.startswith("."))


def test_a_folder_goes_while_somebody_still_adds_to_it(tmp_path: Path) -> None:
    """A rank of a job whose checkpoint is given up has not heard of it yet."""
    folder = tmp_path / "draft" / "rank"
    folder.mkdir(parents=True)
    for number in range(2000):  # enough for some to be added between the first and the last that goes
        (folder / str(number)).touch()
    begun, end = threading.Event(), time.monotonic() + 0.5

    def add() -> None:
        with suppress(FileNotFoundError):  # the folder has gone
            for number in itertools.count(2000):
                (folder / str(number)).touch()
                begun.set()
                if time.monotonic() > end:
                    return

    writer = threading.Thread(target=add)
    writer.start()
    assert begun.wait(20)
    files.remove_tree(tmp_path / "draft")
    writer.join()
    assert list(tmp_path.iterdir()) == []


def test_reading_an_absent_store_creates_nothing(store: Store) -> None:
    assert store.entries() == []
    with pytest.raises(UnknownName, match="no checkpoint named 'x'"):
        store.find("x")
    assert not store.root.exists()


def test_default_root_is_what_platformdirs_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("NBCR_STORE", raising=False)
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    assert str(default_root()) == platformdirs.user_data_dir("nbcr")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert str(default_root()) == platformdirs.user_data_dir("nbcr")
    monkeypatch.setenv("NBCR_STORE", "~/elsewhere")
    assert default_root() == Path.home() / "elsewhere"


def test_a_user_without_a_home_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NBCR_STORE", "XDG_DATA_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 3_999_999_999)  # who has no account
    with pytest.raises(StoreRefused, match="home folder"):
        default_root()


def test_what_is_published_is_read_back_whole(store: Store) -> None:
    entry = put(store, "before-fit")
    (read,) = store.entries()
    assert read == entry == store.find("before-fit") == store.find(entry.id) == store.find(entry.id[:15])
    written = json.loads((entry.path / "manifest.json").read_text())
    assert written["format"] == 2
    for key, value in entry.document().items():
        if key not in ("path", "tags"):  # what is not the manifest's
            assert written[key] == value, key
    assert set(written) == set(entry.document()) - {"path", "tags"}
    assert Entry.from_document(json.loads(json.dumps(entry.document())), entry.path) == entry


def test_nothing_is_synced_before_an_entry_that_settles_later(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    real = os.fsync

    def counted(fd: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{fd}"))
        real(fd)
        in_use.unlink(missing_ok=True)  # a reader's mark, which may go at any moment

    put(store, "first")  # makes the store, and our key
    draft = store.draft("present")
    (draft.path / "image").mkdir()
    (draft.path / "image" / "pages").write_bytes(b"p" * 10_000)
    in_use = store.root / "entries" / draft.id / ".use-one"
    monkeypatch.setattr(os, "fsync", counted)
    entry = store.publish(draft, manifest_for(draft), durable=False)
    assert synced == []
    assert store.find("present") == entry
    in_use.touch()
    store.settle(entry)
    held = [entry.path, *entry.path.rglob("*"), entry.path.parent]
    assert not in_use.exists()
    assert {str(path) for path in held} <= set(synced)
    store.remove(entry)
    store.settle(entry)  # gone meanwhile: nothing to do, and no error


def test_an_entry_shown_in_a_notebook_is_short_and_tells_no_key(store: Store) -> None:
    read = replace(put(store, "before-fit"), jupyter={"key": "a-secret"})
    assert "before-fit" in repr(read)
    assert "a-secret" not in repr(read)
    assert len(repr(read)) < 400


def test_modes_are_private_whatever_the_umask(store: Store) -> None:
    old = os.umask(0)
    try:
        entry = put(store, "a")
        store.log_folder()
    finally:
        os.umask(old)
    for folder in (store.root, store.root / "entries", entry.path, store.root / "log"):
        assert folder.stat().st_mode & 0o777 == 0o700
    assert (entry.path / "manifest.json").stat().st_mode & 0o777 == 0o600


def test_secrets_are_shown_nowhere(store: Store) -> None:
    assert "hunter2" not in json.dumps(put(store, "a").details())


def test_nothing_is_listed_before_it_is_published(store: Store) -> None:
    draft = store.draft("a")
    assert store.entries() == []
    draft.image.mkdir()
    assert store.entries() == []
    store.discard(draft)
    assert hidden(store) == []


def test_a_taken_name_needs_force_also_while_it_is_being_written(store: Store) -> None:
    put(store, "a")
    with pytest.raises(NameTaken, match="exists already") as caught:
        store.draft("a")
    assert "--force" in caught.value.hint
    store.draft("b")
    with pytest.raises(NameTaken, match=f"being written by process {os.getpid()}"):
        store.draft("b")


def test_replacing_keeps_the_old_entry_until_the_new_one_is_published(store: Store) -> None:
    old = put(store, "a")
    draft = store.draft("a", replace=True)
    assert store.find("a") == old
    draft.image.mkdir()
    new = store.publish(draft, manifest_for(draft))
    assert store.entries() == [new]
    assert not old.path.exists()
    assert hidden(store) == []


def test_replacing_does_not_ask_the_clock(store: Store) -> None:
    """One that was set back, as of a laptop or a virtual machine that has just woken up."""
    old = put(store, "a")
    new = put(store, "a", replace=True, now=datetime.now(UTC) - timedelta(days=9000))
    assert store.entries() == [new]
    assert not old.path.exists()


def test_two_entries_of_one_name_mean_the_newer_one(store: Store) -> None:
    """As a writer leaves them that dies between publishing and removing."""
    now = datetime.now(UTC)
    old = put(store, "a", now=now - timedelta(seconds=3))
    draft = store.draft("a", replace=True, now=now)
    draft.image.mkdir()
    draft.replace = False
    new = store.publish(draft, manifest_for(draft))
    assert store.entries() == [old, new]
    assert store.find("a") == new
    assert store.entries() == [old, new]
    newest = put(store, "a", replace=True, now=now + timedelta(seconds=1))
    assert store.entries() == [newest]


def test_a_name_left_out_is_the_id(store: Store) -> None:
    entry = put(store, None)
    assert entry.name == entry.id


def test_near_misses_are_offered(store: Store) -> None:
    with pytest.raises(UnknownName) as caught:
        store.find("any")
    assert caught.value.line() == f"no checkpoint named 'any': the store {store.root} is empty"
    put(store, "before-fit")
    with pytest.raises(UnknownName) as caught:
        store.find("Before-Fti")
    assert caught.value.near == ["before-fit"]
    assert "did you mean 'before-fit'" in caught.value.line()


def test_an_ambiguous_beginning_of_an_id_is_refused(store: Store) -> None:
    entries = [put(store, n) for n in "abc"]
    with pytest.raises(UnknownName, match="beginning of 3 ids"):
        store.find(entries[0].id[:6])


@pytest.mark.parametrize("name", ["", " a", "-rf", ".hidden", "a\nb", "a\x00b", "x" * 201, "\x1b[31m"])
def test_impossible_names_are_refused(store: Store, name: str) -> None:
    with pytest.raises(UsageProblem):
        store.draft(name)


@pytest.mark.parametrize("name", ["a b", "run/7", "überprüft", "50%", "日本"])
def test_unusual_names_work(store: Store, name: str) -> None:
    assert store.find(put(store, name).name).name == name


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o777, 0o720])
def test_a_store_that_others_can_write_to_is_refused(store: Store, mode: int) -> None:
    put(store, "a")
    for folder in (store.root, store.root / "entries"):
        folder.chmod(mode)
        for use in (store.entries, lambda: store.find("a"), lambda: store.draft("b")):
            with pytest.raises(StoreRefused, match="can be written by others"):
                use()
        folder.chmod(0o700)
    assert len(store.entries()) == 1


def test_a_store_of_somebody_else_is_refused(store: Store) -> None:
    needs("root, to give a folder to another user", available=os.geteuid() == 0)
    put(store, "a")
    os.chown(store.root, 4242, 4242)
    with pytest.raises(StoreRefused, match="belongs to user 4242"):
        store.entries()


def test_an_entry_of_somebody_else_is_not_listed(store: Store) -> None:
    needs("root, to give a file to another user", available=os.geteuid() == 0)
    entry = put(store, "a")
    os.chown(entry.path / "manifest.json", 4242, 4242)
    assert store.entries() == []
    assert "not written by you" in str(store.damaged()[0])


def test_a_store_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "s").write_text("")
    with pytest.raises(StoreRefused):
        Store(tmp_path / "s").draft("a")
    with pytest.raises(StoreRefused):
        Store(tmp_path / "s").entries()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda text: "", "cannot be read"),
        (lambda text: text[: len(text) // 2], "cannot be read"),
        (lambda text: text.replace('"format": 2', '"format": 3'), "has format 3"),
        (lambda text: text.replace('"format": 2', '"format": "x"'), "no format version"),
        (lambda text: text.replace('"id": "2', '"id": "3'), "not that entry's own"),
        (lambda text: text.replace('"pid": 1234,', ""), "is damaged"),
        (lambda text: "[]", "not that entry's own"),
    ],
)
def test_damaged_manifests_are_reported_and_harm_no_other_entry(store: Store, damage: object, message: str) -> None:
    good, bad = put(store, "good"), put(store, "bad")
    file = bad.path / "manifest.json"
    file.write_text(damage(file.read_text()))  # type: ignore[operator]
    assert store.entries() == [good]
    (problem,) = store.damaged()
    assert isinstance(problem, EntryDamaged)
    assert message in str(problem)
    put(store, "bad")


def test_unknown_keys_are_for_later_versions(store: Store) -> None:
    entry = put(store, "a")
    file = entry.path / "manifest.json"
    file.write_text(file.read_text().replace('"format": 2,', '"format": 2, "chunks": [1, 2],'))
    assert store.entries() == [entry]


def test_a_full_disk_gives_the_space_back_and_lists_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    draft = store.draft("a")
    draft.image.mkdir()

    def full(path: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr(files, "fsync_path", full)
    with pytest.raises(NoRoomInStore, match="no room left"):
        store.sync(draft)
    with pytest.raises(NoRoomInStore):
        store.publish(draft, manifest_for(draft))
    store.discard(draft)
    assert store.entries() == []
    assert hidden(store) == []


def test_garbage_of_dead_writers_is_removed_by_the_next(store: Store) -> None:
    code = "import os; from nbcr.store import Store; d = Store().draft('lost'); d.image.mkdir(); os._exit(9)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 9
    assert len(hidden(store)) == 1
    assert store.entries() == []
    put(store, "lost")
    assert hidden(store) == []


def test_a_pid_used_again_does_not_keep_garbage_alive(store: Store) -> None:
    draft = store.draft("a")
    owner = json.loads((draft.path / "owner.json").read_text())
    for change in ({"start_ticks": 1}, {"boot_id": "another"}, {"pid": 2**22 + 1}):
        (draft.path / "owner.json").write_text(json.dumps({**owner, **change}))
        put(store, "a", replace=True)
        assert hidden(store) == []
        draft.path.mkdir()


def test_a_living_writers_draft_is_left_alone(store: Store) -> None:
    draft = store.draft("a")
    put(store, "b")
    assert hidden(store) == [draft.path.name]


# Ends in the middle of telling who owns the draft: the file is there under its temporary name.
DIES_BEFORE_IT_OWNS = """
import os, pathlib
from nbcr.store import Store
pathlib.Path.replace = lambda path, target: os._exit(9)
Store().draft('lost')
"""


def test_a_writer_that_dies_before_it_has_told_who_it_is_leaves_garbage(store: Store) -> None:
    put(store, "a")
    assert subprocess.run([sys.executable, "-c", DIES_BEFORE_IT_OWNS], check=False).returncode == 9
    (name,) = hidden(store)
    assert [path.name.startswith(".owner.json.") for path in (store.root / "entries" / name).iterdir()] == [True]
    put(store, "lost")
    assert hidden(store) == []


@pytest.mark.parametrize("change", ["another host", "unreadable"])
def test_drafts_of_other_hosts_or_of_nobody_knows_whom_wait_a_week(store: Store, change: str) -> None:
    draft = store.draft("a")
    owner = json.loads((draft.path / "owner.json").read_text())
    text = json.dumps({**owner, "host": "far-away", "pid": 1}) if change == "another host" else "{"
    (draft.path / "owner.json").write_text(text)
    day_s = 24 * 3600
    for days, left in ((0, [draft.path.name]), (6, [draft.path.name]), (8, [])):
        os.utime(draft.path, (time.time() - days * day_s, time.time() - days * day_s))
        put(store, f"after-{days}")
        assert hidden(store) == left


def test_a_writer_that_dies_right_after_publishing_leaves_an_entry(store: Store) -> None:
    draft = store.draft("a")
    draft.image.mkdir()
    store.sync(draft)
    (draft.path / "manifest.json").write_bytes(manifest_for(draft).encoded())
    draft.path.rename(draft.path.with_name(draft.id))
    assert store.find("a").id == draft.id
    put(store, "b")
    assert len(store.entries()) == 2


def test_a_removal_cut_short_is_completed(store: Store) -> None:
    entry = put(store, "a")
    entry.path.rename(entry.path.with_name(f".gone-{entry.id}"))
    assert store.entries() == []
    put(store, "a")
    assert hidden(store) == []


def test_what_the_format_does_not_know_is_left_alone(store: Store) -> None:
    put(store, "a")
    (store.root / "entries" / "notes.txt").write_text("mine")
    (store.root / "entries" / "folder").mkdir()
    put(store, "b")
    assert [e.name for e in store.entries()] == ["a", "b"]
    assert store.damaged() == []
    assert (store.root / "entries" / "notes.txt").exists()


def test_removing_twice_is_harmless(store: Store) -> None:
    entry = put(store, "a")
    store.remove(entry)
    store.remove(entry)
    assert store.entries() == []
    assert hidden(store) == []


def test_many_writers_and_one_name_have_one_winner(store: Store) -> None:
    outcomes: list[object] = []

    def write() -> None:
        try:
            outcomes.append(put(store, "contested"))
        except NameTaken as error:
            outcomes.append(error)

    threads = [threading.Thread(target=write) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(isinstance(o, Entry) for o in outcomes) == 1
    assert len(outcomes) == 8
    assert hidden(store) == []


def test_owner_is_this_process(store: Store) -> None:
    owner = json.loads((store.draft("a").path / "owner.json").read_text())
    assert owner["pid"] == os.getpid()
    assert owner["start_ticks"] == runtime.start_ticks(os.getpid())
    assert owner["name"] == "a"


def test_a_store_that_cannot_be_written_to_is_refused_by_name(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = put(store, "one")
    opened = os.open

    def read_only(path: Any, flags: int, *more: Any, **named: Any) -> int:  # mounting one takes privileges
        if flags & (os.O_RDWR | os.O_WRONLY):
            raise OSError(errno.EROFS, "Read-only file system", str(path))
        return opened(path, flags, *more, **named)

    monkeypatch.setattr(os, "open", read_only)
    with pytest.raises(StoreRefused, match="Read-only"):
        store.remove(entry)
    monkeypatch.undo()
    assert [each.name for each in store.entries()] == ["one"]
