"""Entries travel: whole, once, and only what is missing; a broken journey is gone on with."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import fsspec
import pytest

from nbcr.errors import EntryDamaged, NameTaken, RemoteFailed, UnknownName, Untrusted, UsageProblem
from nbcr.session import upkeep
from nbcr.store import Store, collecting, encryption, fetching, opening, remotes, sending, trust
from nbcr.store.remotes import Remote
from tests.unit.nbcr.store.making import contents, put

CHUNK = 131072


@pytest.fixture(params=["memory", "file", "path"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "memory":
        yield "memory://nbcr-test"
        fsspec.filesystem("memory").rm("/nbcr-test", recursive=True)
    else:
        yield ("file://" if request.param == "file" else "") + str(tmp_path / "remote")


@pytest.fixture
def other(tmp_path: Path) -> Store:
    return Store(tmp_path / "other")


def image(rng: random.Random, shared: bytes = b"") -> dict[str, bytes]:
    return {"image/pages": shared + rng.randbytes(3 * CHUNK), "image/inventory.json": b"{}", "objects/index": b"o" * 50}


def read(store: Store, name: str) -> dict[str, bytes]:
    found = {}
    for part in ("image", "objects"):
        with opening.opened(store.find(name), part) as folder:
            found |= {f"{part}/{path}": data for path, data in contents(folder).items()}
    return found


def test_there_and_back(store: Store, other: Store, url: str, rng: random.Random) -> None:
    shared = rng.randbytes(4 * CHUNK)
    one, two = image(rng, shared), image(rng, shared)
    put(store, "one", one)
    put(store, "two", two)
    sent = upkeep.push(url, store=store)
    assert (sent.entries, sent.already) == (["one", "two"], [])
    assert 10 * CHUNK < sent.size_bytes < 11 * CHUNK
    again = upkeep.push(url, store=store)
    assert (again.entries, again.already, again.size_bytes) == ([], ["one", "two"], 0)
    fetched = upkeep.pull(url, ["two"], store=other)
    assert [entry.name for entry in fetched.entries] == ["two"]
    assert 7 * CHUNK < fetched.size_bytes < 8 * CHUNK
    assert read(other, "two") == two
    rest = upkeep.pull(url, store=other)
    assert ([entry.name for entry in rest.entries], rest.already) == (["one"], ["two"])
    assert 3 * CHUNK < rest.size_bytes < 4 * CHUNK
    assert read(other, "one") == one
    assert upkeep.verify(store=other).whole
    assert [entry.created for entry in other.entries()] == [entry.created for entry in store.entries()]
    collecting.collect(other)
    assert upkeep.verify(store=other).whole
    with pytest.raises(UnknownName, match="no checkpoint named 'three'"):
        upkeep.pull(url, ["three"], store=other)


def test_what_changed_since_is_all_that_travels(store: Store, url: str, rng: random.Random) -> None:
    shared = rng.randbytes(40 * CHUNK)
    put(store, "one", image(rng, shared))
    upkeep.push(url, store=store)
    put(store, "two", image(rng, shared))
    sent = upkeep.push(url, ["two"], store=store)
    assert 3 * CHUNK < sent.size_bytes < 3.2 * CHUNK


def test_a_journey_that_was_broken_off_is_gone_on_with(
    store: Store, other: Store, url: str, rng: random.Random, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "PACK_BYTES", 2 * CHUNK)
    monkeypatch.setattr(fetching, "_READ_BYTES", 2 * CHUNK)
    data = image(rng, rng.randbytes(20 * CHUNK))
    put(store, "one", data)
    sizes: list[int] = []

    def breaking(size: int) -> None:
        sizes.append(size)
        if len(sizes) == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        upkeep.push(url, store=store, pulse=breaking)
    assert fetching.offered(Remote(url), other.root) == []  # it is no entry yet
    rest = upkeep.push(url, store=store)
    assert rest.entries == ["one"]
    assert sum(sizes) + rest.size_bytes < 24.5 * CHUNK

    sizes.clear()
    monkeypatch.setattr(fetching.PackWriter, "__init__", _small_packs(fetching.PackWriter.__init__))
    with pytest.raises(KeyboardInterrupt):
        upkeep.pull(url, store=other, pulse=breaking)
    assert other.entries() == []
    fetched = upkeep.pull(url, store=other)
    assert sum(sizes) + fetched.size_bytes < 27 * CHUNK
    assert read(other, "one") == data


def _small_packs(real):  # type: ignore[no-untyped-def]
    return lambda self, packs, index, writer: real(self, packs, index, writer, pack_bytes=2 * CHUNK)


def test_uploads_that_were_cut_off_are_sent_again(store: Store, other: Store, tmp_path: Path) -> None:
    data = image(random.Random(2))
    put(store, "one", data)
    url = str(tmp_path / "remote")
    upkeep.push(url, store=store)
    for pack in (tmp_path / "remote" / "packs").iterdir():
        pack.write_bytes(pack.read_bytes()[:-100])
    (manifest,) = (tmp_path / "remote" / "entries").glob("*/manifest.json")
    manifest.unlink()
    assert upkeep.push(url, store=store).entries == ["one"]
    upkeep.pull(url, store=other)
    assert read(other, "one") == data


def test_rot_does_not_travel(store: Store, other: Store, tmp_path: Path, rng: random.Random) -> None:
    put(store, "one", image(rng))
    url = str(tmp_path / "remote")
    upkeep.push(url, store=store)
    (pack,) = (path for path in (tmp_path / "remote" / "packs").iterdir() if path.stat().st_size > CHUNK)
    whole = pack.read_bytes()
    pack.write_bytes(whole[:5000] + b"x" + whole[5001:])
    with pytest.raises(RemoteFailed, match="is damaged there"):
        upkeep.pull(url, store=other)
    assert other.entries() == []
    pack.write_bytes(whole)
    upkeep.pull(url, store=other)
    opening.cool(store.find("one"), "image")
    for path in (store.root / "packs").iterdir():
        path.write_bytes(path.read_bytes()[:5000] + b"x" + path.read_bytes()[5001:] if path.stat().st_size > CHUNK else path.read_bytes())  # fmt: skip  # noqa: E501
    with pytest.raises(EntryDamaged, match="was not sent"):
        upkeep.push(str(tmp_path / "second"), store=store)


def test_names_that_are_taken_and_strangers(
    store: Store, other: Store, url: str, rng: random.Random, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(store, "one", image(rng))
    upkeep.push(url, store=store)
    put(other, "one", image(rng))
    with pytest.raises(NameTaken):
        upkeep.pull(url, store=other)
    upkeep.pull(url, store=other, force=True)
    assert [entry.id for entry in other.entries()] == [store.find("one").id]
    monkeypatch.setenv("NBCR_CONFIG", str(tmp_path / "somebody"))
    with pytest.raises(Untrusted, match="whom you do not trust"):
        trust.proved(other.find("one"))
    assert upkeep.trust("one", store=other, signer=True).state == "trusted"
    trust.proved(other.find("one"))
    assert read(other, "one") == read(store, "one")


def test_places_that_cannot_be_used(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remotes, "_PAUSE_S", 0.0)
    put(store, "one")
    with pytest.raises(UsageProblem, match="the URL is empty"):
        upkeep.pull(" ", store=store)
    with pytest.raises(RemoteFailed, match=r"ftp://127\.0\.0\.1:9 cannot be reached: .*refused"):
        upkeep.pull("ftp://127.0.0.1:9", store=store)
    with pytest.raises(RemoteFailed, match="gopher"):
        upkeep.push("gopher://x", store=store)
    (tmp_path / "file").write_text("")
    with pytest.raises(RemoteFailed, match="cannot be"):
        upkeep.push(str(tmp_path / "file" / "below"), store=store)
    with pytest.raises(RemoteFailed, match="is no archive"):
        upkeep.import_file(tmp_path / "file", store=store)


def test_archives(store: Store, other: Store, tmp_path: Path, rng: random.Random) -> None:
    data = image(rng, rng.randbytes(5 * CHUNK))
    put(store, "one", data)
    put(store, "two", image(rng))
    archive = tmp_path / "one.nbcr"
    assert upkeep.export(["one"], archive, store=store).entries == ["one"]
    assert archive.stat().st_mode & 0o777 == 0o600
    with pytest.raises(UsageProblem, match="is there already"):
        upkeep.export(["one"], archive, store=store)
    upkeep.export(["one"], archive, store=store, force=True)
    assert [entry.name for entry in upkeep.import_file(archive, store=other).entries] == ["one"]
    assert read(other, "one") == data
    assert upkeep.import_file(archive, store=other).already == ["one"]
    archive.write_bytes(archive.read_bytes()[: 4 * CHUNK])
    with pytest.raises(RemoteFailed):
        upkeep.import_file(archive, store=Store(tmp_path / "third"))
    assert Store(tmp_path / "third").entries() == []
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_encrypted_stores_exchange_with_their_like_only(
    store: Store, other: Store, url: str, tmp_path: Path, rng: random.Random, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NBCR_KEY_FILE", str(tmp_path / "key"))
    store.log_folder()
    encryption.encrypt_from_now_on(store.root, key_file=tmp_path / "key")
    data = image(rng)
    put(store, "one", data)
    upkeep.push(url, store=store)
    plain = Store(tmp_path / "plain")
    put(plain, "plain", image(rng))
    with pytest.raises(RemoteFailed, match="is encrypted, and the other is not"):
        upkeep.push(url, store=plain)
    with pytest.raises(RemoteFailed, match="is encrypted, and the other is not"):
        upkeep.pull(url, store=plain)
    upkeep.pull(url, store=other)
    assert other.is_encrypted
    assert read(other, "one") == data
    for path in (other.root / "packs").iterdir():
        assert data["image/pages"][5000:5100] not in path.read_bytes()


# --- garbage there


def _pushed(store: Store, url: str, rng: random.Random) -> dict[str, dict[str, bytes]]:
    shared = rng.randbytes(4 * CHUNK)
    known = {name: image(rng, shared) for name in ("one", "two")}
    for name, files in known.items():
        put(store, name, files)
        upkeep.push(url, [name], store=store)
    return known


def _forget(url: str, entry_id: str) -> None:
    remote = Remote(url)
    for name in remote.sizes(f"entries/{entry_id}"):
        remote.remove(f"entries/{entry_id}/{name}")


def test_what_no_entry_there_needs_is_condemned_and_deleted_later(
    store: Store, other: Store, url: str, rng: random.Random
) -> None:
    known = _pushed(store, url, rng)
    assert upkeep.collect_remote(url, grace_s=0).condemned == 0
    _forget(url, store.find("two").id)
    before = Remote(url).packs()
    first = upkeep.collect_remote(url, grace_s=0)
    assert (first.removed, first.condemned, Remote(url).packs()) == (0, 1, before)
    assert upkeep.collect_remote(url).removed == 0, "a day is not over"
    second = upkeep.collect_remote(url, grace_s=0)
    assert (second.removed, second.condemned) == (1, 0)
    assert 3 * CHUNK < second.freed_bytes < 4 * CHUNK
    assert (len(Remote(url).packs()), Remote(url).condemned()) == (len(before) - 1, set())
    upkeep.pull(url, store=other)
    assert [entry.name for entry in other.entries()] == ["one"]
    assert read(other, "one") == known["one"]


def test_who_sends_does_not_count_on_what_is_condemned(
    store: Store, other: Store, url: str, rng: random.Random
) -> None:
    known = _pushed(store, url, rng)
    _forget(url, store.find("two").id)
    assert upkeep.collect_remote(url).condemned == 1
    sent = upkeep.push(url, ["two"], store=store)
    assert sent.size_bytes > 3 * CHUNK, "its own chunks travel again"
    again = upkeep.collect_remote(url, grace_s=0)
    assert (again.removed, again.condemned, Remote(url).condemned()) == (0, 0, set())
    upkeep.pull(url, store=other)
    assert {name: read(other, name) for name in known} == known


def test_what_is_being_sent_is_needed(store: Store, other: Store, url: str, rng: random.Random) -> None:
    known = _pushed(store, url, rng)
    entry = store.find("two")
    Remote(url).remove(f"entries/{entry.id}/manifest.json")  # as it is until the last moment
    assert upkeep.collect_remote(url, grace_s=0).condemned == 0
    upkeep.push(url, store=store)
    upkeep.pull(url, store=other)
    assert read(other, "two") == known["two"]


def test_nothing_is_deleted_where_it_cannot_be_told_what_is_needed(store: Store, url: str, rng: random.Random) -> None:
    _pushed(store, url, rng)
    before = Remote(url).packs()
    one, two = store.find("one").id, store.find("two").id
    _forget(url, two)
    upkeep.collect_remote(url, grace_s=0)
    Remote(url).write(f"entries/{one}/image.recipe", b"nonsense")
    with pytest.raises(RemoteFailed, match="nobody knows what it needs"):
        upkeep.collect_remote(url, grace_s=0)
    assert Remote(url).packs() == before


@pytest.mark.parametrize("use", [upkeep.collect_remote, upkeep.pull])
def test_a_wrong_url_is_not_taken_for_a_tidy_remote(use: Callable[[str], object], tmp_path: Path) -> None:
    with pytest.raises(RemoteFailed, match=r"there are no checkpoints at .*/nowhere"):
        use(str(tmp_path / "nowhere"))
    assert not (tmp_path / "nowhere").exists()
