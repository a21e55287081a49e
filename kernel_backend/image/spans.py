"""Arithmetic of address ranges: lists of [start, end), by address and apart from each other."""

from __future__ import annotations

from collections.abc import Iterable

Range = tuple[int, int]


def joined(ranges: Iterable[Range]) -> list[Range]:
    """The same bytes, by address, and adjacent ranges as one."""
    found: list[Range] = []
    for low, high in sorted(ranges):
        if found and low <= found[-1][1]:
            found[-1] = found[-1][0], max(high, found[-1][1])
        elif low < high:
            found.append((low, high))
    return found


def overlap(one: list[Range], other: list[Range]) -> list[Range]:
    """What is in both."""
    found: list[Range] = []
    i = j = 0
    while i < len(one) and j < len(other):
        low, high = max(one[i][0], other[j][0]), min(one[i][1], other[j][1])
        if low < high:
            found.append((low, high))
        if one[i][1] <= other[j][1]:
            i += 1
        else:
            j += 1
    return found


def without(ranges: list[Range], taken: list[Range]) -> list[Range]:
    """What is in the first list only."""
    found: list[Range] = []
    j = 0
    for low, high in ranges:
        while j < len(taken) and taken[j][1] <= low:
            j += 1
        k = j
        while k < len(taken) and taken[k][0] < high:
            if low < taken[k][0]:
                found.append((low, taken[k][0]))
            low = max(low, taken[k][1])
            k += 1
        if low < high:
            found.append((low, high))
    return found
