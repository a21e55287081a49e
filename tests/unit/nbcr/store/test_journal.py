"""The journal: what was done and what failed, and nothing where it is not ours to write."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from nbcr.errors import NotPossible
from nbcr.store import Store, journal
from tests.support import needs
from tests.unit.nbcr.store.making import put


def test_what_was_done_and_what_failed_is_told_in_order(store: Store) -> None:
    put(store, "a")
    with journal.told(store.root, "checkpoint", name="a") as told:
        told["id"] = "1"
    with pytest.raises(NotPossible), journal.told(store.root, "restart", name="a"):
        raise NotPossible("no such luck", hint="try again")
    done, failed = journal.read(store.root)
    assert (done["what"], done["name"], done["id"]) == ("checkpoint", "a", "1")
    assert (failed["what"], failed["error"]) == ("restart failed", "no such luck: try again")


def test_nothing_is_written_where_others_can_write(store: Store) -> None:
    put(store, "a")
    store.root.chmod(0o777)
    journal.note(store.root, "checkpoint")
    assert not (store.root / journal.FILE).exists()


def test_nothing_is_written_into_a_store_of_somebody_else(store: Store) -> None:
    needs("root, to give a store to somebody else", available=os.geteuid() == 0)
    put(store, "a")
    os.chown(store.root, 65534, 65534)
    journal.note(store.root, "checkpoint")
    assert not (store.root / journal.FILE).exists()


def test_a_store_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    journal.note(tmp_path / "absent", "checkpoint")
    assert not (tmp_path / "absent").exists()
