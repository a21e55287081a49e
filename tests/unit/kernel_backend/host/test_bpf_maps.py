"""BPF maps are read whole, however their entries lie."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator

import pytest

from kernel_backend.abi import linux
from kernel_backend.host import bpf_maps
from tests.support import needs

ENTRIES = 500


@pytest.fixture
def filled() -> Iterator[int]:
    """A hash of numbers, with twice the number as value."""
    try:
        fd = bpf_maps.create(linux.BPF_MAP_TYPE_HASH, 4, 8, ENTRIES, 0, "filled")
    except PermissionError:
        needs("CAP_BPF", available=False)
    numbers = range(ENTRIES)
    bpf_maps.write(
        fd, struct.pack(f"<{ENTRIES}I", *numbers), struct.pack(f"<{ENTRIES}Q", *(2 * n for n in numbers)), ENTRIES
    )
    yield fd
    os.close(fd)


@pytest.mark.parametrize("part", [1, 7, ENTRIES, 10 * ENTRIES])
def test_all_entries_whatever_is_read_at_once(filled: int, part: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some of its buckets hold several, which are told together or not at all."""
    monkeypatch.setattr(bpf_maps, "_PART", part)
    keys, values = bpf_maps.read(filled, 4, 8, ENTRIES)
    found = dict(
        zip(struct.unpack(f"<{len(keys) // 4}I", keys), struct.unpack(f"<{len(values) // 8}Q", values), strict=True)
    )
    assert found == {n: 2 * n for n in range(ENTRIES)}
    assert len(keys) == 4 * ENTRIES


def test_one_that_is_frozen_is_read_and_not_written(filled: int) -> None:
    bpf_maps.freeze(filled)
    with pytest.raises(PermissionError):
        bpf_maps.write(filled, bytes(4), bytes(8), 1)
    assert len(bpf_maps.read(filled, 4, 8, ENTRIES)[0]) == 4 * ENTRIES


def test_another_description_may_do_what_it_says(filled: int) -> None:
    facts = bpf_maps.facts(filled)
    assert (facts.type, facts.key_size, facts.value_size, facts.max_entries, facts.name) == (1, 4, 8, ENTRIES, "filled")
    reading = bpf_maps.by_id(facts.id, linux.BPF_F_RDONLY)
    try:
        assert bpf_maps.facts(reading) == facts
        with pytest.raises(PermissionError):
            bpf_maps.write(reading, bytes(4), bytes(8), 1)
    finally:
        os.close(reading)
