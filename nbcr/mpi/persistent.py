"""Persistent and partitioned requests: how to begin, kept; each start begins a request as any other.

Persistent collectives of a communicator must be started in the same order by all its members.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from nbcr.mpi import collectives
from nbcr.mpi.gate import gate
from nbcr.mpi.requests import GatedRequest
from nbcr.mpi.world import ANY_SOURCE, ANY_TAG, MPI, Status, copy_status

COLLECTIVES = {name[1:].capitalize() + "_init": name for name in collectives.NONBLOCKING if "eighbor" not in name}
COLLECTIVES |= {f"Neighbor_{name[10:]}_init": name for name in collectives.NONBLOCKING if "eighbor" in name}


class GatedPrequest(GatedRequest, MPI.Prequest):
    """The program's persistent request."""

    _begin: Callable[[], Any]
    _under_way: Any = None

    @classmethod
    def beginning(cls, begin: Callable[[], Any]) -> GatedPrequest:
        """One that is begun by `begin`, which gives a request."""
        self = cls()
        self._over, self._begin, self._under_way = False, begin, None
        return self

    def Start(self) -> None:
        if self._over or self.is_active:
            raise MPI.Exception(MPI.ERR_REQUEST)
        self._under_way = self._begin()

    @classmethod
    def Startall(cls, requests: Iterable[Any]) -> None:
        for request in requests:
            request.Start()

    @property
    def is_active(self) -> bool:
        return self._under_way is not None

    def try_to_end(self) -> bool:
        return not self.is_active or bool(self._under_way.try_to_end())

    def _tested(self, status: Any) -> tuple[bool, Any]:
        if not self.is_active:
            copy_status(Status(), status)
            return True, None
        ended, obj = self._under_way.test(status)
        if ended:
            self._under_way = None
        return ended, obj

    def _waited(self, status: Any) -> Any:
        if not self.is_active:
            copy_status(Status(), status)
            return None
        obj = self._under_way.wait(status)
        self._under_way = None
        return obj

    def Get_status(self, status: Any = None) -> bool:
        if self.is_active:
            return bool(self._under_way.Get_status(status))
        copy_status(Status(), status)
        return True

    get_status = Get_status

    def Cancel(self) -> None:
        if self.is_active:
            self._under_way.Cancel()

    cancel = Cancel

    def Free(self) -> None:
        if self._over:
            raise MPI.Exception(MPI.ERR_REQUEST)
        if self.is_active:
            self._under_way.Free()
        self._over, self._under_way = True, None

    # Partitioned ones

    def Pready(self, partition: int) -> None:
        self._under_way.ready([partition])

    def Pready_range(self, partition_low: int, partition_high: int) -> None:
        self._under_way.ready(range(partition_low, partition_high + 1))

    def Pready_list(self, partitions: Any) -> None:
        self._under_way.ready(list(partitions))

    def Parrived(self, partition: int) -> bool:
        return self.Get_status()


class _Partitioned:
    """A send under way, that begins when all its partitions are ready."""

    def __init__(self, partitions: int, begin: Callable[[], Any]) -> None:
        self._missing, self._begin, self._request = set(range(partitions)), begin, None

    def ready(self, partitions: Iterable[int]) -> None:
        self._missing.difference_update(partitions)
        if not self._missing and self._request is None:
            self._request = self._begin()

    def try_to_end(self) -> bool:
        return self._request is not None and bool(self._request.try_to_end())

    def test(self, status: Any) -> tuple[bool, Any]:
        return (False, None) if self._request is None else self._request.test(status)

    def wait(self, status: Any) -> Any:
        polls = 0
        while self._request is None:  # another thread may be at it
            polls += 1
            gate.relax(polls)
        return self._request.wait(status)

    def Get_status(self, status: Any) -> bool:
        return self._request is not None and bool(self._request.Get_status(status))

    def Cancel(self) -> None:
        raise MPI.Exception(MPI.ERR_REQUEST)

    def Free(self) -> None:
        if self._request is not None:
            self._request.Free()


def sending(name: str) -> Any:
    """Send_init and its like; `name` is the call that begins it."""

    def init(self: Any, buf: Any, dest: int, tag: int = 0) -> GatedPrequest:
        return GatedPrequest.beginning(lambda: getattr(self, name)(buf, dest, tag))

    return init


def receiving(self: Any, buf: Any, source: int = ANY_SOURCE, tag: int = ANY_TAG) -> GatedPrequest:
    return GatedPrequest.beginning(lambda: self.Irecv(buf, source, tag))


def partitioned_sending(
    self: Any, buf: Any, partitions: int, dest: int, tag: int = 0, info: Any = None
) -> GatedPrequest:
    return GatedPrequest.beginning(lambda: _Partitioned(partitions, lambda: self.Isend(buf, dest, tag)))


def partitioned_receiving(
    self: Any, buf: Any, partitions: int, source: int = ANY_SOURCE, tag: int = ANY_TAG, info: Any = None
) -> GatedPrequest:
    return GatedPrequest.beginning(lambda: self.Irecv(buf, source, tag))


def collective(name: str) -> Any:
    """`name` is that of the call which makes the request."""
    begin = COLLECTIVES[name]

    def init(self: Any, *args: Any, info: Any = None, **named: Any) -> GatedPrequest:
        if args and isinstance(args[-1], MPI.Info):
            args = args[:-1]
        return GatedPrequest.beginning(lambda: getattr(self, begin)(*args, **named))

    return init
