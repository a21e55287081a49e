"""Cutting: pieces tile the file, and the same memory is cut in the same way whatever came before it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from nbcr.store.pieces import PAGE, PIECE_BYTES, Run, cut, pages

PAGES = PIECE_BYTES // PAGE


@st.composite
def runs(draw: st.DrawFn) -> list[Run]:
    found: list[Run] = []
    offset = 0
    for _ in range(draw(st.integers(1, 12))):
        address = draw(st.integers(0, 8 * PAGES)) * PAGE
        length = draw(st.integers(1, 3 * PAGES)) * PAGE
        found.append((address, length, offset))
        offset += length
    return found


@given(runs())
def test_pieces_of_runs_tile_the_file(layout: list[Run]) -> None:
    size = sum(length for _, length, _ in layout)
    windows = list(cut(size, layout))
    at = 0
    for window in windows:
        assert window.offset == at
        assert 0 < window.length <= PIECE_BYTES
        assert window.address % PIECE_BYTES == 0
        assert window.mask.bit_count() * PAGE == window.length
        at += window.length
    assert at == size


@given(st.integers(0, 5 * PIECE_BYTES))
def test_files_without_a_layout_are_cut_by_offset(size: int) -> None:
    windows = list(cut(size))
    assert [w.address for w in windows] == list(range(0, size, PIECE_BYTES))
    assert sum(w.length for w in windows) == size
    assert all(sum(length for *_, length in pages(w.mask, w.length)) == w.length for w in windows)


def test_memory_that_moves_in_the_file_is_cut_at_the_same_addresses() -> None:
    base = 5 * PIECE_BYTES
    before = list(cut(3 * PIECE_BYTES, [(base, 3 * PIECE_BYTES, 0)]))
    after = list(cut(3 * PIECE_BYTES + PAGE, [(PAGE, PAGE, 0), (base, 3 * PIECE_BYTES, PAGE)]))
    assert [w.address for w in after[1:]] == [w.address for w in before]
    assert [w.offset for w in after[1:]] == [w.offset + PAGE for w in before]


def test_holes_inside_a_window_do_not_make_more_pieces() -> None:
    layout = [(n * 2 * PAGE, PAGE, n * PAGE) for n in range(PAGES)]
    assert [(w.mask.bit_count(), w.length) for w in cut(PAGES * PAGE, layout)] == [
        (PAGES // 2, PIECE_BYTES // 2),
        (PAGES // 2, PIECE_BYTES // 2),
    ]


def test_a_layout_that_is_not_the_whole_file_is_left_out_of_account() -> None:
    size = 2 * PIECE_BYTES
    by_offset = list(cut(size))
    for wrong in (
        [(0, PAGE, 0)],
        [(0, size, PAGE)],
        [(1, size, 0)],
        [(0, size + PAGE, 0)],
        [(-PAGE, size, 0)],
        [(0, 0, 0), (0, size, 0)],
    ):
        assert list(cut(size, wrong)) == by_offset
    assert list(cut(0)) == []
