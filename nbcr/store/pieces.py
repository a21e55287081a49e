"""Where files are cut, and what pieces have in common (FORMAT.md, "Recipes": cutting)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from nbcr.store.chunks import CHUNK_BYTES

PAGE = 4096
PIECE_BYTES = CHUNK_BYTES
_PAGES = PIECE_BYTES // PAGE

Run = tuple[int, int, int]  # address, length, offset in the file


class Window(NamedTuple):
    """A piece to be: which bytes of the file, and where they are in its own coordinates."""

    address: int
    mask: int
    offset: int
    length: int


def cut(size: int, runs: Sequence[Run] = ()) -> Iterator[Window]:
    """The pieces of a file of `size` bytes, of which the component says which address each run is at.

    Runs that are not the whole file, run behind run in whole pages, are left out of account.
    """
    return _by_address(runs) if runs and _tile(size, runs) else _by_address([(0, size, 0)] if size else [])


def _tile(size: int, runs: Sequence[Run]) -> bool:
    at = 0
    for address, length, offset in runs:
        if offset != at or length <= 0 or address < 0 or address % PAGE or length % PAGE:
            return False
        at += length
    return at == size


def _by_address(runs: Sequence[Run]) -> Iterator[Window]:
    """Runs in one window of the address space make one piece, so that holes between them do not matter."""
    open_: Window | None = None
    for address, length, offset in runs:
        end = address + length
        while address < end:
            base = address - address % PIECE_BYTES
            part = min(end, base + PIECE_BYTES) - address
            first, pages = (address - base) // PAGE, -(-part // PAGE)
            mask = ((1 << pages) - 1) << first
            if open_ is not None and open_.address == base and not open_.mask >> first:
                open_ = Window(base, open_.mask | mask, open_.offset, open_.length + part)
            else:
                if open_ is not None:
                    yield open_
                open_ = Window(base, mask, offset, part)
            address += part
            offset += part
    if open_ is not None:
        yield open_


def pages(mask: int, length: int) -> Iterator[tuple[int, int, int]]:
    """(number of the page, offset in the piece, length) of each page of a piece; the last may be short."""
    offset = 0
    for number in range(_PAGES):
        if mask >> number & 1:
            yield number, offset, min(PAGE, length - offset)
            offset += PAGE
