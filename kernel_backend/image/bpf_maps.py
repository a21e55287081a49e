"""What a BPF map of an image may be: of a kind that can be read whole, and of bounded size.

The OS kernel takes the room of a map from nobody's memory but its own. So all maps of an image together are bounded,
by what they may come to hold.
"""

from __future__ import annotations

from collections.abc import Iterable

from kernel_backend.abi import linux
from kernel_backend.image.descriptions import BpfMap, Description
from kernel_backend.image.expecting import expect

MOST_BYTES = 64 << 20  # of all maps of an image; they are read while everything stands still
PER_PROCESSOR = (linux.BPF_MAP_TYPE_PERCPU_HASH, linux.BPF_MAP_TYPE_PERCPU_ARRAY)
ARRAYS = (linux.BPF_MAP_TYPE_ARRAY, linux.BPF_MAP_TYPE_PERCPU_ARRAY)
KINDS = (*ARRAYS, linux.BPF_MAP_TYPE_HASH, linux.BPF_MAP_TYPE_PERCPU_HASH, linux.BPF_MAP_TYPE_LRU_HASH)
FLAGS = (
    linux.BPF_F_NO_PREALLOC | linux.BPF_F_ZERO_SEED | linux.BPF_F_RDONLY_PROG | linux.BPF_F_WRONLY_PROG
    | linux.BPF_F_MMAPABLE
)  # fmt: skip
_ENTRY_BYTES = 64  # what the OS kernel needs beside key and value, about
_MOST_PROCESSORS = 1 << 13
_INDEX_BYTES = 4


def value_bytes(entry: BpfMap) -> int:
    """How long a value is where it is read or written: with those of all processors."""
    return _whole_words(entry.value_size) * entry.processors if entry.type in PER_PROCESSOR else entry.value_size


def room_bytes(entry: BpfMap) -> int:
    """What the OS kernel needs for a map when it is full, about."""
    return entry.max_entries * (_ENTRY_BYTES + _whole_words(entry.key_size) + _whole_words(value_bytes(entry)))


def _whole_words(size: int) -> int:
    return -(-size // 8) * 8


def facts(entry: BpfMap) -> tuple[object, ...]:
    """What all descriptions of one map say."""
    return (
        entry.type, entry.key_size, entry.value_size, entry.max_entries, entry.map_flags, entry.name, entry.frozen,
        entry.processors,
    )  # fmt: skip


def check(entry: BpfMap, what: str) -> None:
    """Raise Unfit unless it can be made and filled."""
    expect(entry.type in KINDS and not entry.map_flags & ~FLAGS, f"the kind of {what}")
    sizes = min(entry.key_size, entry.value_size, entry.max_entries) > 0
    expect(sizes and (entry.type not in ARRAYS or entry.key_size == _INDEX_BYTES), f"a size of {what}")
    most = _MOST_PROCESSORS if entry.type in PER_PROCESSOR else 1
    expect(1 <= entry.processors <= most, f"the processors of {what}")
    count, rest = divmod(len(entry.keys), entry.key_size)
    expect(not rest and len(entry.values) == count * value_bytes(entry), f"the entries of {what}")
    expect(count <= entry.max_entries, f"{what} holds more than it says")


def check_together(descriptions: Iterable[Description]) -> None:
    """Raise Unfit where one map is said to be two things, or they need too much."""
    known: dict[int, BpfMap] = {}
    for entry in descriptions:
        if isinstance(entry, BpfMap):
            first = known.setdefault(entry.id, entry)
            expect(facts(first) == facts(entry), f"the BPF map {entry.id}")
            expect(first is entry or not entry.keys, f"the BPF map {entry.id} is filled twice")
    expect(sum(map(room_bytes, known.values())) <= MOST_BYTES, "the size of its BPF maps")
