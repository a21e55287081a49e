"""Encryption at rest: who has only the store reads nothing of it, and no damage or other key goes unnoticed."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from nbcr.errors import NbcrError, StoreLocked, StoreRefused, UsageProblem
from nbcr.session import upkeep
from nbcr.store import Store, encryption, housekeeping, opening, settings, trust
from nbcr.store.settings import Settings
from tests.unit.nbcr.store.making import contents, put

SECRET = b"the secret words of this session"


@pytest.fixture(autouse=True)
def _cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cost of scrypt is its purpose, but not here."""
    monkeypatch.setattr(encryption, "_SCRYPT", {"n": 1 << 10, "r": 8, "p": 1})
    for name in ("NBCR_PASSPHRASE", "NBCR_PASSPHRASE_FILE", "NBCR_KEY_FILE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def encrypted(store: Store, monkeypatch: pytest.MonkeyPatch) -> Store:
    assert upkeep.encrypt(store=store, passphrase="correct horse") == []
    monkeypatch.setenv("NBCR_PASSPHRASE", "correct horse")
    return store


def data_of(rng: random.Random) -> dict[str, bytes]:
    return {"image/pages": SECRET * 9000 + rng.randbytes(200_000), "objects/index": SECRET}


def read(store: Store, name: str) -> dict[str, bytes]:
    found = {}
    for part in ("image", "objects"):
        with opening.opened(store.find(name), part) as folder:
            found |= {f"{part}/{path}": data for path, data in contents(folder).items()}
    return found


def test_nothing_can_be_read_without_the_key(
    encrypted: Store, rng: random.Random, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = data_of(rng)
    put(encrypted, "a", data)
    assert housekeeping.keep(encrypted) == []
    assert read(encrypted, "a") == data
    assert trust.proved(encrypted.find("a")).jupyter == {"key": "hunter2", "ports": {"shell": 1}}
    for path in encrypted.root.rglob("*"):
        held = path.read_bytes() if path.is_file() else b""
        assert SECRET not in held, path
        assert b"hunter2" not in held, path
        assert b"inventory" not in held, path
    assert upkeep.verify(store=encrypted).whole

    monkeypatch.delenv("NBCR_PASSPHRASE")
    assert [entry.name for entry in encrypted.entries()] == ["a"]
    for action in (lambda: read(encrypted, "a"), lambda: put(encrypted, "b"), lambda: upkeep.verify(store=encrypted)):
        with pytest.raises(StoreLocked, match="encrypted and locked"):
            action()
    monkeypatch.setenv("NBCR_PASSPHRASE", "wrong horse")
    with pytest.raises(StoreLocked):
        read(encrypted, "a")


def test_the_same_contents_are_stored_once_and_have_other_names_elsewhere(
    encrypted: Store, rng: random.Random, tmp_path: Path
) -> None:
    data = data_of(rng)
    for name in ("a", "b"):
        put(encrypted, name, data)
    assert housekeeping.keep(encrypted) == []
    size = sum(path.stat().st_size for path in (encrypted.root / "packs").iterdir())
    assert size < 300_000
    plain = Store(tmp_path / "plain")
    put(plain, "a", data)
    housekeeping.keep(plain)
    assert not {path.name for path in (plain.root / "packs").iterdir()} & {
        path.name for path in (encrypted.root / "packs").iterdir()
    }


def test_further_passphrases_and_key_files(
    encrypted: Store, rng: random.Random, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = data_of(rng)
    put(encrypted, "a", data)
    housekeeping.keep(encrypted)
    upkeep.encrypt(store=encrypted, key_file=tmp_path / "key")
    upkeep.encrypt(store=encrypted, passphrase="another")
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600
    monkeypatch.delenv("NBCR_PASSPHRASE")
    monkeypatch.setenv("NBCR_KEY_FILE", str(tmp_path / "key"))
    assert read(encrypted, "a") == data
    monkeypatch.delenv("NBCR_KEY_FILE")
    (tmp_path / "words").write_text("another\n")
    monkeypatch.setenv("NBCR_PASSPHRASE_FILE", str(tmp_path / "words"))
    assert read(encrypted, "a") == data
    monkeypatch.setenv("NBCR_KEY_FILE", str(tmp_path / "key"))
    (tmp_path / "key").chmod(0o644)
    with pytest.raises(StoreLocked, match="can be read or written by others"):
        read(encrypted, "a")


def test_unlocked_until_it_is_locked(encrypted: Store, rng: random.Random, monkeypatch: pytest.MonkeyPatch) -> None:
    data = data_of(rng)
    put(encrypted, "a", data)
    housekeeping.keep(encrypted)
    monkeypatch.delenv("NBCR_PASSPHRASE")
    with pytest.raises(StoreLocked, match="does not open"):
        upkeep.unlock(store=encrypted, passphrase="wrong")
    where = upkeep.unlock(store=encrypted, passphrase="correct horse")
    assert where is not None
    assert (where.stat().st_mode & 0o777, where.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert read(encrypted, "a") == data
    assert upkeep.lock(store=encrypted)
    assert not upkeep.lock(store=encrypted)
    with pytest.raises(StoreLocked):
        read(encrypted, "a")


def test_what_was_there_before_stays_readable(store: Store, rng: random.Random, tmp_path: Path) -> None:
    data = data_of(rng)
    put(store, "old", data)
    settings.write(store.root, Settings(hot_entries=0))
    housekeeping.keep(store)
    assert upkeep.encrypt(store=store, key_file=tmp_path / "key") == ["old"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NBCR_KEY_FILE", str(tmp_path / "key"))
        put(store, "new", data)
        housekeeping.keep(store)
        assert (read(store, "old"), read(store, "new")) == (data, data)
        assert upkeep.verify(store=store).whole


def test_any_flipped_bit_is_noticed(encrypted: Store, rng: random.Random) -> None:
    put(encrypted, "a", data_of(rng))
    housekeeping.keep(encrypted)
    targets = [*(encrypted.root / "packs").iterdir(), *encrypted.find("a").path.glob("*.recipe")]
    for target in targets:
        whole = target.read_bytes()
        for at in [*range(60, 64), *rng.sample(range(16, len(whole)), 4)]:  # the end of a frame's head, too
            target.write_bytes(whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :])
            assert not upkeep.verify(store=encrypted).whole, (target, at)
        target.write_bytes(whole)
    assert upkeep.verify(store=encrypted).whole


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": 99, "id": "", "wraps": []}', '{"format": 1}'])
def test_a_damaged_encryption_file_is_refused(encrypted: Store, text: str) -> None:
    (encrypted.root / "encryption.json").write_text(text)
    with pytest.raises(StoreRefused):
        put(encrypted, "a")


def test_scrypt_of_a_stranger_does_not_take_our_memory(encrypted: Store) -> None:
    path = encrypted.root / "encryption.json"
    document = json.loads(path.read_text())
    document["wraps"][0]["n"] = 1 << 30
    path.write_text(json.dumps(document))
    with pytest.raises(NbcrError):
        put(encrypted, "a")


def test_what_makes_no_sense(store: Store, tmp_path: Path) -> None:
    for words in ({}, {"passphrase": "a", "key_file": tmp_path / "key"}, {"passphrase": ""}):
        with pytest.raises(UsageProblem):
            upkeep.encrypt(store=store, **words)  # type: ignore[arg-type]
    assert not store.is_encrypted
    assert upkeep.unlock(store=store) is None
