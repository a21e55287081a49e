"""Mutexes that a thread holds are found by what they look like, and nothing else is."""

from __future__ import annotations

import mmap
import struct

import pytest

from kernel_backend.image.descriptions import PageRun
from kernel_backend.resources.thread_ids import held_mutexes

AT = 0x7F0000001000
PAGE = 4096


def mutex(lock: int, count: int, owner: int, users: int, kind: int, spins: int = 0, links: int = 0) -> bytes:
    return struct.pack("<IIiIIiQQ", lock, count, owner, users, kind, spins, links, links)


def found(contents: dict[int, bytes], *tids: int) -> list[int]:
    image = mmap.mmap(-1, 2 * PAGE)
    for offset, data in contents.items():
        image[PAGE + offset : PAGE + offset + len(data)] = data
    run = PageRun(AT, PAGE, PAGE)
    return [address - AT for address, _ in held_mutexes([run], tids, image)]


@pytest.mark.parametrize("tid", [7, 200, 0x4F27, 0x3FFFFF])  # of a container, too
@pytest.mark.parametrize("shared", [0, 0x80])
def test_held_ones_of_every_sort_are_found(tid: int, shared: int) -> None:
    waited_for = 0x80000000 | tid
    held = [
        mutex(1, 1, tid, 1, shared | 1),  # recursive
        mutex(2, 9, tid, 1, shared | 1),
        mutex(2, 0, tid, 1, shared | 2),  # error-checking
        mutex(tid, 1, tid, 1, shared | 0x220),  # PI
        mutex(waited_for, 1, tid, 1, shared | 0x220),
        mutex(waited_for, 0, tid, 1, shared | 0x10, links=AT),  # robust
    ]
    where = {40 * i: data for i, data in enumerate(held)} | {PAGE - 40: held[0]}
    assert found(where, tid, tid + 1) == list(where)


@pytest.mark.parametrize(
    "data",
    [
        mutex(1, 1, 31, 1, 1),  # another's
        mutex(0, 1, 30, 1, 1),  # free
        mutex(1, 0, 30, 1, 1),  # recursive, locked no times
        mutex(1, 1, 30, 1, 2),
        mutex(1, 1, 30, 0, 1),
        mutex(1, 0, 30, 1, 0),  # a plain one does not look at its owner
        mutex(1, 1, 30, 1, 1, spins=5),
        mutex(1, 1, 30, 1, 1, links=5),
        mutex(31, 1, 30, 1, 0x220),
        mutex(1, 1, 30, 1, 0x4001),
        b"\0\0\0\0" + mutex(1, 1, 30, 1, 1),  # not where one can lie
    ],
)
def test_what_looks_otherwise_is_none(data: bytes) -> None:
    assert found({80: data}, 30) == []
    assert found({80: data}, 30, 0x3FFFFF) == []


def test_the_end_of_a_page_may_come_first() -> None:
    assert found({PAGE - 24: mutex(1, 1, 30, 1, 1)[:24]}, 30) == []
