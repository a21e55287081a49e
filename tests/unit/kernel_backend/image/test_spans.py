"""Arithmetic of address ranges, against sets of addresses."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from kernel_backend.image.spans import Range, joined, overlap, without

Ranges = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 8)).map(lambda pair: (pair[0], sum(pair))))


def members(ranges: list[Range]) -> set[int]:
    return {at for low, high in ranges for at in range(low, high)}


@given(Ranges)
def test_joined_ranges_hold_the_same_and_are_apart(ranges: list[Range]) -> None:
    found = joined(ranges)
    assert members(found) == members(ranges)
    assert all(high < low for (_, high), (low, _) in pairwise(found))


@given(Ranges, Ranges)
def test_overlap_and_difference(one: list[Range], other: list[Range]) -> None:
    a, b = joined(one), joined(other)
    assert members(overlap(a, b)) == members(a) & members(b)
    assert members(without(a, b)) == members(a) - members(b)
