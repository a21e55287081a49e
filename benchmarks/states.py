"""The states that are saved: cells which build them in a Jupyter kernel, and what it takes to hold them."""

from __future__ import annotations

from dataclasses import dataclass

MIB, GIB = 2**20, 2**30

_ARRAY = """
import ctypes, mmap
import numpy as np
def _make(size, advice):
    made = np.empty(size // 8)  # as numpy has it from malloc; then the kind of pages that is to be measured
    start = -(-made.ctypes.data // mmap.PAGESIZE) * mmap.PAGESIZE
    ctypes.CDLL(None).madvise(ctypes.c_void_p(start), ctypes.c_size_t(size - mmap.PAGESIZE), advice)
    np.random.default_rng(7).random(out=made)
    return made
data = _make({size}, mmap.{advice})
"""
_OBJECTS = """
import numpy as np
objects = [(i, f"name {{i}}") for i in range({rows})]
"""


@dataclass(frozen=True)
class State:
    """What a Jupyter kernel holds while it is measured."""

    name: str
    build: str  # a cell
    check: str  # an expression whose value shows whether the state came back
    spoil: str  # a cell that loses it
    needs_bytes: int  # about how large it is
    memory_bytes: int = 0  # the least memory that must be available
    repetitions: int = 0  # 0: as many as the run asks for
    gib_bound: str = ""  # which of the bounds on a pause is its own
    change: str = ""  # a cell that changes one thing in it


def array(size: int, *, huge: bool, repetitions: int = 0) -> State:
    """One numpy array of random numbers, in pages of 4 KiB or in huge ones."""
    advice = "MADV_HUGEPAGE" if huge else "MADV_NOHUGEPAGE"
    shown = f"{size / GIB:g} GiB" if size >= GIB else f"{size / MIB:g} MiB"
    return State(
        name=f"{shown} array, {'huge' if huge else '4 KiB'} pages",
        build=_ARRAY.format(size=size, advice=advice),
        check="float(data[0] + data[len(data) // 2] + data[-1])",
        spoil="data = None",
        needs_bytes=size,
        memory_bytes=10 * GIB if size > GIB else 3 * size,
        repetitions=repetitions,
        gib_bound={(GIB, False): "4k", (GIB, True): "huge", (4 * GIB, False): "4gib"}.get((size, huge), ""),
    )


def small_objects(count: int) -> State:
    """Many small Python objects: a list of tuples of an int and a str."""
    return State(
        name=f"{count:,} small objects".replace(",", " "),
        build=_OBJECTS.format(rows=count // 3),
        check="(len(objects), objects[-1])",
        spoil="objects = None",
        needs_bytes=count * 80,
        memory_bytes=count * 1000,
    )


def small_variables(count: int) -> State:
    """What a notebook has collected: numbers, texts, lists, dictionaries, functions."""
    kinds = ("{i}", "'text {i}'", "[{i}, 'a', None]", "{{'number': {i}, 'list': [{i}]}}", "lambda x: x + {i}")
    lines = [f"v{i} = {kinds[i % len(kinds)].format(i=i)}" for i in range(count)]
    return State(
        name=f"{count} small variables",
        build="\n".join(lines),
        check=f"(v{count - 1}(1), v{count - 2}, v{count - 3})",
        spoil="\n".join(f"v{i} = None" for i in range(count)),
        needs_bytes=0,
    )


_FRAME = """
import numpy as np, pandas as pd
_rng = np.random.default_rng(7)
table = pd.DataFrame({{'number': np.arange({rows}), 'a': _rng.random({rows}), 'b': _rng.random({rows}),
    'kind': pd.Categorical.from_codes(_rng.integers(0, 9, {rows}), list('abcdefghi'))}})
"""
_FRAME_CHECK = "(len(table), float(table['a'].iloc[-1]), str(table['kind'].iloc[5]))"


def frame(rows: int) -> State:
    """A pandas frame with columns of numbers and of a category."""
    return State(
        name=f"{rows / 1e6:g}e6-row frame",
        build=_FRAME.format(rows=rows),
        check=_FRAME_CHECK,
        spoil="table = None",
        needs_bytes=25 * rows,
        memory_bytes=200 * rows,
    )


def many_then_one(size: int, rows: int) -> State:
    """An array, a frame, small objects and one number, which is what is changed."""
    large = array(size, huge=False)
    needs_bytes = size + 25 * rows + 30_000 * 80
    rest = "objects = [(i, f'name {i}') for i in range(10_000)]\ncounter = 1"
    return State(
        name=f"one int changed after {needs_bytes / 1e9:.1f} GB",
        build=f"{large.build}{_FRAME.format(rows=rows)}{rest}",
        check=f"({large.check}, {_FRAME_CHECK}, objects[-1], counter)",
        spoil="counter = 7; later = 1",
        change="counter += 1",
        needs_bytes=needs_bytes,
        memory_bytes=4 * needs_bytes,
    )
