"""Keys and trust: private, made once, and also where nobody may write to the home folder."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from nbcr.errors import StoreRefused, Untrusted
from nbcr.session import upkeep
from nbcr.store import Store, signing, trust
from tests.support import CHECKOUT
from tests.unit.nbcr.store.making import put


def test_of_processes_that_need_a_key_at_once_all_have_the_same(tmp_path: Path) -> None:
    code = "from nbcr.store import signing; print(signing.our_signer().public.hex())"
    environ = {"NBCR_CONFIG": str(tmp_path / "config"), "PATH": "/usr/bin"}
    programs = [
        subprocess.Popen([sys.executable, "-c", code], cwd=CHECKOUT, env=environ, stdout=subprocess.PIPE, text=True)
        for _ in range(6)
    ]
    assert len({program.communicate()[0] for program in programs}) == 1
    assert [path.name for path in (tmp_path / "config").iterdir()] == ["signing.key"]
    assert (tmp_path / "config" / "signing.key").stat().st_mode & 0o777 == 0o600


def test_a_key_that_others_can_read_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: Store) -> None:
    monkeypatch.setenv("NBCR_CONFIG", str(tmp_path / "config"))
    put(store, "signed")
    (tmp_path / "config" / "signing.key").chmod(0o644)
    with pytest.raises(StoreRefused, match="can be read or written by others"):
        upkeep.own_key()
    entry = put(store, "unsigned")  # a checkpoint is worth more than its signature
    assert "not signed" in entry.warnings[-1]


def test_where_there_can_be_no_configuration_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: Store
) -> None:
    (tmp_path / "home").write_text("not a folder, as if nobody may write there")
    monkeypatch.delenv("NBCR_CONFIG")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NBCR_STORE", str(store.root))
    put(store, "own")
    assert trust.proved(store.find("own")).name == "own"
    assert (store.root / "config" / "signing.key").stat().st_mode & 0o777 == 0o600
    (store.find("own").path / "signature.json").unlink()
    with pytest.raises(Untrusted, match="it is not signed"):
        trust.proved(store.find("own"))
    upkeep.trust("own", store=store)
    assert trust.proved(store.find("own")).name == "own"
    assert upkeep.distrust("own", store=store)
    assert not upkeep.distrust("own", store=store)


def test_signers_by_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: Store) -> None:
    put(store, "theirs")
    theirs = upkeep.own_key()
    monkeypatch.setenv("NBCR_CONFIG", str(tmp_path / "mine"))
    with pytest.raises(Untrusted, match="whom you do not trust"):
        trust.proved(store.find("theirs"))
    with pytest.raises(StoreRefused, match="is not a public key"):
        upkeep.trust_signer("abc")
    upkeep.trust_signer(theirs)
    assert signing.origin_of(store.find("theirs")).state == "trusted"
    (tmp_path / "mine" / "trusted.json").write_text("{")
    with pytest.raises(StoreRefused, match="cannot be read"):
        trust.proved(store.find("theirs"))
