"""Collective calls that carry pickled objects.

mpi4py's own need an attribute on MPI_COMM_SELF, which does not exist under sessions (the program would be aborted).
These do the same with two collectives each: sizes, then bytes.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any

from nbcr.mpi import collectives, combining
from nbcr.mpi.gate import gate
from nbcr.mpi.world import BYTE, MPI, Comm, Intracomm

_SIZES = MPI.INT64_T


def gated_collective(call: Any) -> Any:
    @gate.passes
    def gated(self: Any, *args: Any, **named: Any) -> Any:
        collectives.begin(self)
        return call(self, *args, **named)

    gated.__name__ = call.__name__
    gated.__dict__["__wrapped__"] = call
    return gated


def dumps(obj: Any) -> bytes:
    return MPI.pickle.dumps(obj)  # type: ignore[no-any-return]


def loads(data: bytes | bytearray | memoryview) -> Any:
    return MPI.pickle.loads(data) if len(data) else None


def zeros(count: int) -> array[int]:
    return array("q", bytes(8 * count))


def places(sizes: Sequence[int]) -> list[int]:
    return [0, *accumulate(sizes)][:-1]


def cut(data: bytearray, sizes: Sequence[int]) -> list[Any]:
    view = memoryview(data)
    return [loads(view[at : at + size]) for at, size in zip(places(sizes), sizes, strict=True)]


def joined(objects: Sequence[Any] | None, count: int) -> tuple[bytes, array[int]]:
    objects = [None] * count if objects is None else list(objects)
    if len(objects) != count:
        raise ValueError(f"expecting {count} items, got {len(objects)}")
    pieces = [dumps(obj) for obj in objects]
    return b"".join(pieces), array("q", map(len, pieces))


def _everybodys(comm: Any, obj: Any) -> list[Any]:
    data, sizes = dumps(obj), zeros(comm._size)
    Comm.Allgather(comm, [array("q", [len(data)]), _SIZES], [sizes, _SIZES])
    room = bytearray(sum(sizes))
    Comm.Allgatherv(comm, [data, BYTE], [room, list(sizes), places(sizes), BYTE])
    return cut(room, sizes)


@gated_collective
def barrier(self: Any) -> None:
    Comm.Barrier(self)


@gated_collective
def bcast(self: Any, obj: Any = None, root: int = 0) -> Any:
    mine = self._rank == root
    data: bytes | bytearray = dumps(obj) if mine else b""
    size = array("q", [len(data)])
    Comm.Bcast(self, [size, _SIZES], root)
    if not mine:
        data = bytearray(size[0])
    Comm.Bcast(self, [data, BYTE], root)
    return obj if mine else loads(data)


@gated_collective
def gather(self: Any, sendobj: Any, root: int = 0) -> list[Any] | None:
    data, mine = dumps(sendobj), self._rank == root
    sizes = zeros(self._size) if mine else None
    Comm.Gather(self, [array("q", [len(data)]), _SIZES], [sizes, _SIZES] if mine else None, root)
    if sizes is None:
        Comm.Gatherv(self, [data, BYTE], None, root)
        return None
    room = bytearray(sum(sizes))
    Comm.Gatherv(self, [data, BYTE], [room, list(sizes), places(sizes), BYTE], root)
    return cut(room, sizes)


@gated_collective
def scatter(self: Any, sendobj: Any = None, root: int = 0) -> Any:
    size, mine = zeros(1), self._rank == root
    if mine:
        data, sizes = joined(sendobj, self._size)
        Comm.Scatter(self, [sizes, _SIZES], [size, _SIZES], root)
        room = bytearray(size[0])
        Comm.Scatterv(self, [data, list(sizes), places(sizes), BYTE], [room, BYTE], root)
    else:
        Comm.Scatter(self, None, [size, _SIZES], root)
        room = bytearray(size[0])
        Comm.Scatterv(self, None, [room, BYTE], root)
    return loads(room)


@gated_collective
def allgather(self: Any, sendobj: Any) -> list[Any]:
    return _everybodys(self, sendobj)


@gated_collective
def alltoall(self: Any, sendobj: Sequence[Any]) -> list[Any]:
    data, sizes = joined(sendobj, self._size)
    theirs = zeros(len(sizes))
    Comm.Alltoall(self, [sizes, _SIZES], [theirs, _SIZES])
    room = bytearray(sum(theirs))
    Comm.Alltoallv(self, [data, list(sizes), places(sizes), BYTE], [room, list(theirs), places(theirs), BYTE])
    return cut(room, theirs)


@gated_collective
def reduce(self: Any, sendobj: Any, op: Callable[[Any, Any], Any] = MPI.SUM, root: int = 0) -> Any:
    if not 0 <= root < self._size:
        raise MPI.Exception(MPI.ERR_ROOT)
    every = _everybodys(self, sendobj)
    return combining.everything(op, every) if self._rank == root else None


@gated_collective
def allreduce(self: Any, sendobj: Any, op: Callable[[Any, Any], Any] = MPI.SUM) -> Any:
    return combining.everything(op, _everybodys(self, sendobj))


@gated_collective
def scan(self: Any, sendobj: Any, op: Callable[[Any, Any], Any] = MPI.SUM) -> Any:
    return combining.up_to(op, _everybodys(self, sendobj), self._rank)


@gated_collective
def exscan(self: Any, sendobj: Any, op: Callable[[Any, Any], Any] = MPI.SUM) -> Any:
    return combining.below(op, _everybodys(self, sendobj), self._rank)


@gated_collective
def neighbor_allgather(self: Any, sendobj: Any) -> list[Any]:
    data, sizes = dumps(sendobj), zeros(MPI.Topocomm.indegree.__get__(self))
    MPI.Topocomm.Neighbor_allgather(self, [array("q", [len(data)]), _SIZES], [sizes, _SIZES])
    room = bytearray(sum(sizes))
    MPI.Topocomm.Neighbor_allgatherv(self, [data, BYTE], [room, list(sizes), places(sizes), BYTE])
    return cut(room, sizes)


@gated_collective
def neighbor_alltoall(self: Any, sendobj: Sequence[Any]) -> list[Any]:
    data, sizes = joined(sendobj, MPI.Topocomm.outdegree.__get__(self))
    theirs = zeros(MPI.Topocomm.indegree.__get__(self))
    MPI.Topocomm.Neighbor_alltoall(self, [sizes, _SIZES], [theirs, _SIZES])
    room = bytearray(sum(theirs))
    MPI.Topocomm.Neighbor_alltoallv(
        self, [data, list(sizes), places(sizes), BYTE], [room, list(theirs), places(theirs), BYTE]
    )
    return cut(room, theirs)


CALLS = {
    call.__name__: call
    for call in (
        barrier, bcast, gather, scatter, allgather, alltoall, reduce, allreduce, scan, exscan, neighbor_allgather,
        neighbor_alltoall,
    )
}  # fmt: skip
assert set(CALLS) <= set(dir(Intracomm)) | set(dir(MPI.Topocomm))
