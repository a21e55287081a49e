"""What datatypes are made of, as runs of bytes in the order of their data: MPI wants those of a file's type to be in
the order of the file, too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from nbcr.mpi.file_views import Run
from nbcr.mpi.world import MPI, world

_MARK = b"\xff"


def runs_of(datatype: Any) -> list[Run]:
    """The bytes of one item. In one life of MPI: what mpi4py gives of a datatype's parts is freed with the objects."""
    base, combiner, params = MPI.Datatype.decode(datatype)
    if combiner == "STRUCT":
        parts = zip(params["displacements"], params["blocklengths"], params["datatypes"], strict=True)
        return _merged(run for at, count, part in parts for run in _placed(_repeated(part, count), at))
    if combiner in ("DUP", "RESIZED"):
        return runs_of(base)
    if combiner not in _TAKEN_APART:
        return _marked(datatype)
    blocks, scale = _TAKEN_APART[combiner](params)
    if blocks is None:
        return _grid(base, *_dimensions(combiner, params))
    step = _extent(base) if scale else 1
    made: dict[int, list[Run]] = {}  # of a length, all alike
    for _, count in blocks:
        if count not in made:
            made[count] = _repeated(base, count)
    return _merged(run for at, count in blocks for run in _placed(made[count], at * step))


def _evenly(params: dict[str, Any]) -> list[Run]:
    return [(index * params["stride"], params["blocklength"]) for index in range(params["count"])]


def _alike(params: dict[str, Any]) -> list[Run]:
    return [(at, params["blocklength"]) for at in params["displacements"]]


def _each(params: dict[str, Any]) -> list[Run]:
    return list(zip(params["displacements"], params["blocklengths"], strict=True))


# Blocks (where, how many of the base type), and whether they are where they are by its extent or by bytes.
_TAKEN_APART: dict[str, Any] = {
    "CONTIGUOUS": lambda params: ([(0, params["count"])], True),
    "VECTOR": lambda params: (_evenly(params), True),
    "HVECTOR": lambda params: (_evenly(params), False),
    "INDEXED": lambda params: (_each(params), True),
    "HINDEXED": lambda params: (_each(params), False),
    "INDEXED_BLOCK": lambda params: (_alike(params), True),
    "HINDEXED_BLOCK": lambda params: (_alike(params), False),
    "SUBARRAY": lambda params: (None, True),
    "DARRAY": lambda params: (None, True),
}


def _extent(datatype: Any) -> int:
    return int(MPI.Datatype.Get_extent(datatype)[1])


def _merged(runs: Iterable[Run]) -> list[Run]:
    merged: list[Run] = []
    start = end = -1
    for offset, length in runs:
        if offset == end:
            end += length
        elif length:
            if end > start:
                merged.append((start, end - start))
            start, end = offset, offset + length
    if end > start:
        merged.append((start, end - start))
    return merged


def _placed(runs: Sequence[Run], at: int) -> Iterator[Run]:
    return ((offset + at, length) for offset, length in runs)


def _stepped(runs: Sequence[Run], count: int, step: int) -> list[Run]:
    if len(runs) == 1 and runs[0][1] == step:
        return [(runs[0][0], count * step)] if count else []
    return _merged(run for index in range(count) for run in _placed(runs, index * step))


def _repeated(datatype: Any, count: int) -> list[Run]:
    return _stepped(runs_of(datatype), count, _extent(datatype))


def _dimensions(combiner: str, params: dict[str, Any]) -> tuple[list[int], list[list[Run]]]:
    """An array's sizes, and of each dimension what is chosen (from where, how many), the fastest first."""
    if combiner == "SUBARRAY":
        sizes = params["sizes"]
        chosen = [[each] for each in zip(params["starts"], params["subsizes"], strict=True)]
    else:
        sizes = params["gsizes"]
        places = _place_in_grid(params["rank"], params["psizes"])
        of_each = zip(sizes, params["distribs"], params["dargs"], params["psizes"], places, strict=True)
        chosen = [_share(*each) for each in of_each]
    return (sizes[::-1], chosen[::-1]) if params["order"] == MPI.ORDER_C else (sizes, chosen)


def _place_in_grid(rank: int, sizes: Sequence[int]) -> list[int]:
    place = []
    for size in reversed(sizes):  # processes are in C's order, whatever the array's is
        rank, coordinate = divmod(rank, size)
        place.append(coordinate)
    return place[::-1]


def _share(size: int, how: int, block: int, processes: int, place: int) -> list[Run]:
    """What of one dimension belongs to a process."""
    if how == MPI.DISTRIBUTE_NONE:
        return [(0, size)]
    if how == MPI.DISTRIBUTE_BLOCK:
        block = -(-size // processes) if block == MPI.DISTRIBUTE_DFLT_DARG else block
        starts = range(place * block, min(place * block + 1, size))
    else:
        block = 1 if block == MPI.DISTRIBUTE_DFLT_DARG else block
        starts = range(place * block, size, processes * block)
    return [(start, min(block, size - start)) for start in starts]


def _grid(base: Any, sizes: Sequence[int], chosen: Sequence[Sequence[Run]]) -> list[Run]:
    runs, step = runs_of(base), _extent(base)
    for size, parts in zip(sizes, chosen, strict=True):
        runs = _merged(run for at, count in parts for run in _placed(_stepped(runs, count, step), at * step))
        step *= size
    return runs


def _marked(datatype: Any) -> list[Run]:
    """Of a type that is not taken apart: MPI itself marks its bytes. Such types are small."""
    size = MPI.Datatype.Get_size(datatype)
    first, extent = MPI.Datatype.Get_true_extent(datatype)
    if size == extent:
        return [(first, size)] if size else []
    marks = bytearray(first + extent)
    MPI.Datatype.Unpack(datatype, _MARK * size, 0, marks, world.own)
    runs, end = [], 0
    while (start := marks.find(_MARK, end)) >= 0:
        end = marks.find(b"\0", start)
        end = len(marks) if end < 0 else end
        runs.append((start, end - start))
    return runs
