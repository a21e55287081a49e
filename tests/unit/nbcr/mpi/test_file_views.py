"""What a view shows of a file, byte by byte."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from nbcr.mpi.file_views import Run, View

VIEWS: dict[str, tuple[int, Sequence[Run], int]] = {
    "all": (0, [(0, 1)], 1),
    "behind a header": (100, [(0, 8)], 8),
    "shifted": (3, [(16, 4)], 4),
    "every second": (5, [(0, 4)], 8),
    "two runs": (0, [(1, 2), (6, 3)], 11),
    "up to the end": (7, [(0, 2), (5, 3)], 8),
    "interlaced": (2, [(0, 4), (16, 4)], 8),
}


def shown(displacement: int, runs: Sequence[Run], extent: int, count: int) -> list[int]:
    """Offsets of the first bytes."""
    tiles = range(count)
    return [
        displacement + tile * extent + offset + at for tile in tiles for offset, length in runs for at in range(length)
    ][:count]


@pytest.mark.parametrize("name", VIEWS)
def test_pieces_are_the_bytes_that_it_shows(name: str) -> None:
    displacement, runs, extent = VIEWS[name]
    view, expected = View(displacement, 1, runs, extent), shown(displacement, runs, extent, 200)
    draw = random.Random(1)
    for _ in range(100):
        position = draw.randrange(150)
        length = draw.randrange(50)
        pieces = list(view.pieces(position, length))
        assert [at for offset, size in pieces for at in range(offset, offset + size)] == (
            expected[position : position + length]
        )
        assert view.offset(position) == expected[position]


@pytest.mark.parametrize("name", VIEWS)
def test_what_is_before_an_offset_is_counted(name: str) -> None:
    displacement, runs, extent = VIEWS[name]
    view, offsets = View(displacement, 1, runs, extent), shown(displacement, runs, extent, 400)
    for end in range(displacement + 150):
        assert view.size_before(end) == sum(offset < end for offset in offsets)


def test_a_view_may_show_nothing() -> None:
    view = View(9, 1, [], 0)
    assert view.is_empty
    assert (view.offset(5), view.size_before(100)) == (9, 0)
