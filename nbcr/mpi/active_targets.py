"""RMA's generalized active target: Post and Wait where the memory is, Start and Complete at those who reach it.

MPICH's own epochs of this kind cannot be ended and begun again by somebody else than the program. Here the epoch of an
origin is a shared lock of each of its targets, which is given back for an image and taken again; nobody contends for
it, since a window must not be locked and exposed at once. That a target has posted, and that an origin has completed,
is said by messages without contents on the window's own communicator, which go through a checkpoint as all do.
"""

from __future__ import annotations

from typing import Any

from nbcr.mpi.gate import gate
from nbcr.mpi.guarding import guarded_call
from nbcr.mpi.world import MPI, Comm

_Win: Any = MPI.Win
_POSTED, _COMPLETED = 1, 2  # tags; there are no other messages on that communicator
_NOTHING = b""
_Room = bytearray


class ActiveTarget:
    """One window's epochs of this kind."""

    def __init__(self, comm: Any, shared: dict[int, int]) -> None:
        """`shared`: the locks that are to be taken again after a checkpoint, with their assertions."""
        self._comm, self._shared = comm, shared
        self._targets: list[int] | None = None  # of the open access epoch
        self._exposure: list[Any] | None = None  # what its origins say at their end

    def ensure_none(self) -> None:
        """Raise the error of a lock while an access epoch is open."""
        if self._targets is not None:
            raise MPI.Exception(MPI.ERR_RMA_SYNC)

    def post(self, group: Any, assertion: int) -> None:
        """Expose the memory to the ranks of `group`."""
        if self._exposure is not None:
            raise MPI.Exception(MPI.ERR_RMA_SYNC)
        origins = guarded_call(self._ranks_of, group)
        self._exposure = [self._comm.Irecv(_Room(), origin, _COMPLETED) for origin in origins]
        if not assertion & MPI.MODE_NOCHECK:
            for origin in origins:
                self._comm.Send(_NOTHING, origin, _POSTED)

    def start(self, win: Any, group: Any, assertion: int) -> None:
        """Begin to reach the memory of the ranks of `group`, when they have posted."""
        if self._targets is not None or self._shared:
            raise MPI.Exception(MPI.ERR_RMA_SYNC)
        targets = guarded_call(self._ranks_of, group)
        if not assertion & MPI.MODE_NOCHECK:
            for target in targets:
                self._comm.Recv(_Room(), target, _POSTED)
        self._begin(win, targets)

    @gate.passes
    def _begin(self, win: Any, targets: list[int]) -> None:
        if gate.closed:
            gate.stay_out()
        for target in targets:
            _Win.Lock(win, target, MPI.LOCK_SHARED, MPI.MODE_NOCHECK)
            self._shared[target] = MPI.MODE_NOCHECK
        self._targets = targets

    @gate.passes
    def complete(self, win: Any) -> None:
        """All has been done; the targets hear of it."""
        if gate.closed:
            gate.stay_out()
        if self._targets is None:
            raise MPI.Exception(MPI.ERR_RMA_SYNC)
        targets, self._targets = self._targets, None
        for target in targets:
            _Win.Unlock(win, target)
            del self._shared[target]
        for target in targets:
            Comm.Send(self._comm, _NOTHING, target, _COMPLETED)

    def wait(self) -> None:
        """Until all origins have completed."""
        if self._exposure is None:
            raise MPI.Exception(MPI.ERR_RMA_SYNC)
        for request in self._exposure:
            request.Wait()
        self._exposure = None

    def test(self) -> bool:
        """Whether they have."""
        if self._exposure is None:
            raise MPI.Exception(MPI.ERR_RMA_SYNC)
        if not all([request.Test() for request in self._exposure]):
            return False
        self._exposure = None
        return True

    def _ranks_of(self, group: Any) -> list[int]:
        """What its members are in the window."""
        everybody = Comm.Get_group(self._comm)
        ranks = MPI.Group.Translate_ranks(group, None, everybody)
        MPI.Group.Free(everybody)
        if MPI.UNDEFINED in ranks:
            raise MPI.Exception(MPI.ERR_GROUP)
        return list(ranks)
