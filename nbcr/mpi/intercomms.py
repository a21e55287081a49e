"""Communicators between two groups: made by a conversation of the groups' leaders that may be interrupted, and their
collective calls that carry pickled objects.
"""

from __future__ import annotations

import threading
from array import array
from collections.abc import Callable, Sequence
from typing import Any

from nbcr.mpi import collectives, combining
from nbcr.mpi.communicators import OURS, Gated, GatedIntracomm, adopt, fill
from nbcr.mpi.gate import gate
from nbcr.mpi.guarding import guarded_call
from nbcr.mpi.handles import GuardedGroup
from nbcr.mpi.pickled import cut, dumps, gated_collective, joined, loads, places, zeros
from nbcr.mpi.world import BYTE, MPI, Comm, Intracomm

_SIZES = MPI.INT64_T
_TAGS = 30_000


class _Leaders:
    """A communicator of all ranks that the program does not know."""

    comm: Any = None


def begin(comm: Any) -> None:
    """By which leaders of groups talk."""
    _Leaders.comm = comm


@gated_collective
def bcast(self: Any, obj: Any = None, root: int = 0) -> Any:
    data = dumps(obj) if root == MPI.ROOT else b""
    size = array("q", [len(data)])
    Comm.Bcast(self, [size, _SIZES], root)
    room = data if root < 0 else bytearray(size[0])
    Comm.Bcast(self, [room, BYTE], root)
    return None if root < 0 else loads(room)


@gated_collective
def gather(self: Any, sendobj: Any, root: int = 0) -> list[Any] | None:
    if root >= 0:
        data = dumps(sendobj)
        Comm.Gather(self, [array("q", [len(data)]), _SIZES], None, root)
        Comm.Gatherv(self, [data, BYTE], None, root)
        return None
    if root == MPI.PROC_NULL:
        Comm.Gather(self, None, None, root)
        Comm.Gatherv(self, None, None, root)
        return None
    sizes = zeros(len(self._peers))
    Comm.Gather(self, None, [sizes, _SIZES], root)
    room = bytearray(sum(sizes))
    Comm.Gatherv(self, None, [room, list(sizes), places(sizes), BYTE], root)
    return cut(room, sizes)


@gated_collective
def scatter(self: Any, sendobj: Any = None, root: int = 0) -> Any:
    if root >= 0:
        size = zeros(1)
        Comm.Scatter(self, None, [size, _SIZES], root)
        room = bytearray(size[0])
        Comm.Scatterv(self, None, [room, BYTE], root)
        return loads(room)
    if root == MPI.PROC_NULL:
        Comm.Scatter(self, None, None, root)
        Comm.Scatterv(self, None, None, root)
        return None
    data, sizes = joined(sendobj, len(self._peers))
    Comm.Scatter(self, [sizes, _SIZES], None, root)
    Comm.Scatterv(self, [data, list(sizes), places(sizes), BYTE], None, root)
    return None


def _others(comm: Any, pieces: Sequence[bytes]) -> list[Any]:
    """Give each of the other group a piece; what they gave."""
    sizes, theirs = array("q", map(len, pieces)), zeros(len(comm._peers))
    Comm.Alltoall(comm, [sizes, _SIZES], [theirs, _SIZES])
    room = bytearray(sum(theirs))
    Comm.Alltoallv(
        comm, [b"".join(pieces), list(sizes), places(sizes), BYTE], [room, list(theirs), places(theirs), BYTE]
    )
    return cut(room, theirs)


@gated_collective
def allgather(self: Any, sendobj: Any) -> list[Any]:
    return _others(self, [dumps(sendobj)] * len(self._peers))


@gated_collective
def alltoall(self: Any, sendobj: Sequence[Any]) -> list[Any]:
    sendobj = [None] * len(self._peers) if sendobj is None else list(sendobj)
    if len(sendobj) != len(self._peers):
        raise ValueError(f"expecting {len(self._peers)} items, got {len(sendobj)}")
    return _others(self, [dumps(obj) for obj in sendobj])


@gated_collective
def allreduce(self: Any, sendobj: Any, op: Callable[[Any, Any], Any] = MPI.SUM) -> Any:
    return combining.everything(op, _others(self, [dumps(sendobj)] * len(self._peers)))


@gated_collective
def reduce(self: Any, sendobj: Any, op: Callable[[Any, Any], Any] = MPI.SUM, root: int = 0) -> Any:
    if root not in (MPI.ROOT, MPI.PROC_NULL) and not 0 <= root < len(self._peers):
        raise MPI.Exception(MPI.ERR_ROOT)
    given = gather.__wrapped__(self, sendobj, root)
    return combining.everything(op, given) if given is not None else None


class GatedIntercomm(Gated, MPI.Intercomm):
    """A communicator of the program, to another group."""

    bcast, gather, scatter, allgather, alltoall = bcast, gather, scatter, allgather, alltoall
    allreduce, reduce = allreduce, reduce

    def Get_remote_size(self) -> int:
        return len(self._peers) or int(guarded_call(MPI.Intercomm.Get_remote_size, self))

    remote_size = property(Get_remote_size)

    def Get_remote_group(self) -> Any:
        return GuardedGroup(guarded_call(MPI.Intercomm.Get_remote_group, self))

    remote_group = property(Get_remote_group)


def create_intercomm(self: Any, local_leader: int, peer_comm: Any, remote_leader: int, tag: int = 0) -> Any:
    """All know both groups before any begins the call that cannot be interrupted."""
    theirs = None
    if self._rank == local_leader:
        peer = peer_comm._peers[remote_leader]
        number = tag % _TAGS
        theirs = _Leaders.comm.sendrecv(self._members, peer, number, None, peer, number)
    theirs = self.bcast(theirs, local_leader)
    first, second = sorted([self._members, theirs])
    key = f"i{tag}:{','.join(map(str, first))}:{','.join(map(str, second))}"
    return _create(key, (*first, *second), (self, local_leader, peer_comm, remote_leader, tag))


@gate.passes
def _create(key: str, members: tuple[int, ...], args: tuple[Any, ...]) -> Any:
    begun = collectives.begin_keyed(key, members)
    return adopt(Intracomm.Create_intercomm(*args), f"{key}.{begun}")


# --- contexts: duplicates for what mpi4py does by itself --------------------------------------------------------------


def context(comm: Any) -> tuple[Any, int]:
    """A communicator of mpi4py.util's own beside `comm`, and a tag for one collective."""
    if comm._context is None:
        comm._context = [comm.Dup(), 0]
    comm._context[1] = (comm._context[1] + 1) % _TAGS
    return comm._context[0], comm._context[1]


def context_between(comm: Any) -> tuple[Any, int, Any, bool]:
    """The same for two groups; the communicator of this one, and whether it is the first."""
    beside, tag = context(comm)
    is_first = min(comm._members[: comm._size]) < min(comm._peers)
    if len(comm._context) == 2:
        merged = comm.Merge(high=not is_first)
        comm._context.append(merged.Split(int(is_first), comm._rank))
        merged.Free()
    return beside, tag, comm._context[2], is_first


def lock(comm: Any, key: Any = None) -> Any:
    """One by which threads take turns at a communicator."""
    return lock_table(comm).setdefault(key, threading.Lock())


def lock_table(comm: Any) -> Any:
    """All of a communicator's."""
    return comm.__dict__.setdefault("_locks", {})


GatedIntracomm.Create_intercomm = create_intercomm
OURS[MPI.Intercomm] = GatedIntercomm
fill(GatedIntercomm, MPI.Intercomm)
