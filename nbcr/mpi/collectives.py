"""Collective calls behind the gate: counted for each communicator, held beyond the target while a checkpoint begins."""

from __future__ import annotations

from typing import Any

from nbcr.mpi.gate import gate, holder
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

_ticket, _pass_in, _pass_out, _arrive = gate.ticket, gate.pass_in, gate.pass_out, gate.arrive


def begin(comm: Any) -> None:
    """Count a collective of `comm`, when it may begin. The caller then calls ``gate.pass_out``, on any way out."""
    _ticket(None)
    _pass_in(None)
    if gate.alert:
        gate.admit_collective(comm._key, comm._begun)
    comm._begun += 1
    _arrive()


def begin_keyed(key: str, members: tuple[int, ...]) -> int:
    """The same for one that only `members` of a communicator call; how many there were with this one."""
    _ticket(None)
    _pass_in(None)
    begun = gate.counts.get(key, (0, ()))[0]
    if gate.alert:
        gate.admit_collective(key, begun)
    gate.counts[key] = (begun + 1, members)
    _arrive()
    return begun + 1


def blocking(base: Any) -> Any:
    """A collective that returns when this rank's part is done."""

    @holder
    def call(self: Any, *args: Any, **named: Any) -> Any:
        _ticket(None)
        _pass_in(None)
        if gate.alert:
            gate.admit_collective(self._key, self._begun)
        self._begun += 1
        _arrive()
        try:
            return base(self, *args, **named)
        finally:
            _pass_out()

    return call


def barrier(base: Any) -> Any:
    """As `blocking`, for those that iterations wait for: without the price of calls with any arguments."""

    @holder
    def call(self: Any) -> None:
        _ticket(None)
        _pass_in(None)
        if gate.alert:
            gate.admit_collective(self._key, self._begun)
        self._begun += 1
        _arrive()
        try:
            base(self)
        finally:
            _pass_out()

    return call


def allreduce(base: Any) -> Any:
    """The same."""

    @holder
    def call(self: Any, sendbuf: Any, recvbuf: Any, op: Any = SUM) -> None:
        _ticket(None)
        _pass_in(None)
        if gate.alert:
            gate.admit_collective(self._key, self._begun)
        self._begun += 1
        _arrive()
        try:
            base(self, sendbuf, recvbuf, op)
        finally:
            _pass_out()

    return call


def nonblocking(base: Any) -> Any:
    """One that returns a request."""

    @holder
    def call(self: Any, *args: Any, **named: Any) -> GatedRequest:
        begin(self)
        try:
            return outstanding.add(GatedRequest(base(self, *args, **named), self))
        finally:
            _pass_out()

    return call
