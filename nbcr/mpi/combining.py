"""The order in which pickled reductions combine what the ranks have given: that of mpi4py's own, a binary tree. Sums of
floating-point numbers are then the same to the last bit with `nbcr run` and without.

    reduce of 5 ranks   (((0 1) (2 3)) 4)
    scan, rank 6        (((0 1) (2 3)) ((4 5) 6))
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce as fold
from typing import Any

import mpi4py

Combine = Callable[[Any, Any], Any]


def everything(op: Combine, given: Sequence[Any]) -> Any:
    """What `reduce` makes of what all ranks gave."""
    if not _is_tree():
        return fold(op, given)
    items, width = list(given), 1
    while width < len(items):
        for at in range(0, len(items) - width, 2 * width):
            items[at] = op(items[at], items[at + width])
        width *= 2
    return items[0]


def up_to(op: Combine, given: Sequence[Any], rank: int) -> Any:
    """What `scan` makes of what the ranks up to `rank` gave."""
    if not _is_tree():
        return fold(op, given[: rank + 1])
    return _joined(op, [*_blocks(op, given, rank), given[rank]])


def below(op: Combine, given: Sequence[Any], rank: int) -> Any:
    """What `exscan` makes of what the ranks below `rank` gave; None of nothing."""
    if rank == 0:
        return None
    return _joined(op, _blocks(op, given, rank)) if _is_tree() else fold(op, given[:rank])


def _is_tree() -> bool:
    return bool(getattr(mpi4py.rc, "fast_reduce", True))


def _blocks(op: Combine, given: Sequence[Any], rank: int) -> list[Any]:
    """The ranks below, in blocks of powers of two from the largest to the smallest, each combined."""
    blocks, at = [], 0
    for bit in reversed(range(rank.bit_length())):
        width = 1 << bit
        if rank & width:
            blocks.append(everything(op, given[at : at + width]))
            at += width
    return blocks


def _joined(op: Combine, blocks: Sequence[Any]) -> Any:
    """The nearest block first."""
    result = blocks[-1]
    for block in reversed(blocks[:-1]):
        result = op(block, result)
    return result
