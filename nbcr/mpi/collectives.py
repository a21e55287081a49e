"""Collective calls behind the gate: counted for each communicator, held beyond the target while a checkpoint begins."""

from __future__ import annotations

from typing import Any

from nbcr.mpi.gate import Count, gate
from nbcr.mpi.requests import GatedRequest, outstanding
from nbcr.mpi.world import MPI

SUM = MPI.SUM

_NAMES = (
    "Barrier Bcast Gather Gatherv Scatter Scatterv Allgather Allgatherv Alltoall Alltoallv Alltoallw Reduce Allreduce "
    "Reduce_scatter_block Reduce_scatter Scan Exscan Neighbor_allgather Neighbor_allgatherv Neighbor_alltoall "
    "Neighbor_alltoallv Neighbor_alltoallw"
).split()
BLOCKING = frozenset(_NAMES)
NONBLOCKING = frozenset("I" + name.lower() for name in _NAMES)


def begin(comm: Any) -> None:
    """Count a collective of `comm`, and wait until it may begin. The caller is a call that `passes`."""
    comm._begun += 1
    if gate.alert:
        gate.await_turn(comm)


def begin_keyed(key: str, members: tuple[int, ...]) -> int:
    """The same for one that only `members` of a communicator call; how many there were with this one."""
    count = gate.counts.setdefault(key, Count(key, members))
    begin(count)
    return count._begun


def blocking(base: Any) -> Any:
    """A collective that returns when this rank's part is done."""

    @gate.passes
    def call(self: Any, *args: Any, **named: Any) -> Any:
        self._begun += 1
        if gate.alert:
            gate.await_turn(self)
        return base(self, *args, **named)

    return call


def barrier(base: Any) -> Any:
    """As `blocking`, for those that iterations wait for: without the price of calls with any arguments."""

    @gate.passes
    def call(self: Any) -> None:
        self._begun += 1
        if gate.alert:
            gate.await_turn(self)
        base(self)

    return call


def allreduce(base: Any) -> Any:
    """The same."""

    @gate.passes
    def call(self: Any, sendbuf: Any, recvbuf: Any, op: Any = SUM) -> None:
        self._begun += 1
        if gate.alert:
            gate.await_turn(self)
        base(self, sendbuf, recvbuf, op)

    return call


def nonblocking(base: Any) -> Any:
    """One that returns a request."""

    @gate.passes
    def call(self: Any, *args: Any, **named: Any) -> GatedRequest:
        begin(self)
        return outstanding.add(GatedRequest(base(self, *args, **named), self))

    return call
