"""Packs: what is written is read back, also from a pack of which a part is damaged."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from nbcr.store.chunks import BadChunk, Codec
from nbcr.store.encryption import Keys
from nbcr.store.packs import BadPack, ChunkMissing, ChunkReader, Index, Packs, PackWriter, read_table, scan

PLAIN, SECRET = Codec(), Codec(Keys(bytes(range(32))))


@pytest.fixture
def packs(tmp_path: Path) -> Packs:
    found = Packs(tmp_path)
    found.create()
    return found


def written(packs: Packs, chunks: list[bytes], codec: Codec = PLAIN, pack_bytes: int = 1 << 20) -> list[bytes]:
    writer = PackWriter(packs, Index(), "w", pack_bytes=pack_bytes)
    ids = [codec.id_of(chunk) for chunk in chunks]
    for chunk_id, chunk in zip(ids, chunks, strict=True):
        writer.add(chunk_id, codec.frame(chunk_id, chunk))
    writer.flush()
    return ids


@pytest.mark.parametrize("codec", [PLAIN, SECRET], ids=["plain", "encrypted"])
@pytest.mark.parametrize("chunk", [b"x", b"ab" * 40_000, random.Random(1).randbytes(130_000)], ids=len)
def test_a_frame_gives_its_chunk_back_and_nothing_else(codec: Codec, chunk: bytes) -> None:
    chunk_id = codec.id_of(chunk)
    frame = codec.frame(chunk_id, chunk)
    assert codec.chunk(frame, chunk_id) == chunk
    assert len(frame) <= len(chunk) + 48 + 28
    for position in (0, 5, 37, 45, 48, len(frame) - 1):
        damaged = bytearray(frame)
        damaged[position] ^= 1
        with pytest.raises(BadChunk):
            codec.chunk(damaged, chunk_id)
    for cut in (frame[:-1], frame[:20], frame + b"x"):
        with pytest.raises(BadChunk):
            codec.chunk(cut, chunk_id)
    with pytest.raises(BadChunk):
        codec.chunk(frame, bytes(32))


def test_an_encrypted_frame_shows_neither_bytes_nor_digest() -> None:
    chunk = b"the password is hunter2" * 100
    chunk_id = SECRET.id_of(chunk)
    assert chunk_id != PLAIN.id_of(chunk)
    frame = SECRET.frame(chunk_id, chunk)
    assert b"hunter2" not in frame
    assert frame != SECRET.frame(chunk_id, chunk), "nonces are random"
    for other in (PLAIN, Codec(Keys(bytes(32)))):
        with pytest.raises(BadChunk):
            other.chunk(frame, chunk_id)


def test_a_frame_that_claims_to_be_huge_is_refused_before_memory_is_taken() -> None:
    frame = bytearray(PLAIN.frame(PLAIN.id_of(bytes(9000)), bytes(9000)))
    frame[36:40] = (0xFFFFFFFF).to_bytes(4, "little")
    with pytest.raises(BadChunk):
        PLAIN.chunk(frame, PLAIN.id_of(bytes(9000)))


def test_chunks_are_found_in_whichever_pack_has_them(packs: Packs, rng: random.Random) -> None:
    chunks = [rng.randbytes(50_000) for _ in range(40)]
    ids = written(packs, chunks, pack_bytes=300_000)
    assert len(packs.active()) == 7
    with ChunkReader(packs, PLAIN) as reader:
        assert [reader.chunk(chunk_id) for chunk_id in ids] == chunks
        with pytest.raises(ChunkMissing, match="in no pack"):
            reader.chunk(bytes(32))


def test_a_chunk_is_written_once(packs: Packs) -> None:
    index = Index()
    writer = PackWriter(packs, index, "w")
    chunk_id = PLAIN.id_of(b"same")
    for _ in range(3):
        writer.add(chunk_id, PLAIN.frame(chunk_id, b"same"))
    writer.flush()
    writer.add(chunk_id, PLAIN.frame(chunk_id, b"same"))
    writer.flush()
    (name,) = packs.active()
    assert [row.chunk_id for row in packs.table(name)] == [chunk_id]


def test_condemned_packs_are_read_but_not_active(packs: Packs) -> None:
    (chunk_id,) = written(packs, [b"needed after all"])
    (name,) = packs.active()
    generation = "20260101T000000-abcdef"
    packs.path(name).rename(packs.condemned_path(name, generation))
    assert packs.active() == []
    assert packs.condemned() == {generation: [name]}
    with ChunkReader(packs, PLAIN, [name]) as reader:
        assert reader.chunk(chunk_id) == b"needed after all"


def test_a_pack_that_is_written_anew_while_it_is_read_is_found_again(packs: Packs) -> None:
    ids = written(packs, [b"one", b"two"])
    with ChunkReader(packs, PLAIN, packs.active()) as reader:
        (old,) = packs.active()
        packs.path(old).unlink()
        written(packs, [b"three", b"two"])
        assert reader.chunk(ids[1]) == b"two"
        with pytest.raises(ChunkMissing):
            reader.chunk(ids[0])


@pytest.mark.parametrize("damage", ["table", "footer", "cut off", "header"])
def test_a_damaged_table_costs_no_chunk(packs: Packs, damage: str, rng: random.Random) -> None:
    chunks = [rng.randbytes(1000) for _ in range(5)]
    ids = written(packs, chunks)
    (name,) = packs.active()
    path = packs.path(name)
    data = bytearray(path.read_bytes())
    whole = read_table(path, name)
    if damage == "cut off":
        del data[-100:]
    else:
        data[{"table": -30, "footer": -1, "header": 2}[damage]] ^= 1
    path.write_bytes(data)
    if damage != "header":
        with pytest.raises(BadPack):
            read_table(path, name)
    assert scan(path) == whole
    with ChunkReader(packs, PLAIN) as reader:
        assert [reader.chunk(chunk_id) for chunk_id in ids] == chunks


def test_a_damaged_chunk_is_named_and_the_others_are_read(packs: Packs) -> None:
    ids = written(packs, [bytes([n]) * 999 + b"tail" for n in range(4)])
    (name,) = packs.active()
    row = packs.table(name)[2]
    data = bytearray(packs.path(name).read_bytes())
    data[row.offset + 60] ^= 1
    packs.path(name).write_bytes(data)
    with ChunkReader(packs, PLAIN) as reader:
        for number in (0, 1, 3):
            assert reader.chunk(ids[number])[0] == number
        with pytest.raises(ChunkMissing, match=f"{ids[2].hex()[:16]} in pack {name[:16]} at byte {row.offset}"):
            reader.chunk(ids[2])
