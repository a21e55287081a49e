"""Matched messages (Mprobe), and messages that were drained: how they reach the buffer that they are meant for.

A drained message is bytes. MPI itself puts it into the program's buffer, whatever its datatype: as a message of this
rank to itself.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass, replace
from typing import Any

import mpi4py

from nbcr.mpi.gate import gate
from nbcr.mpi.queue import Drained
from nbcr.mpi.world import ANY_TAG, BYTE, MPI, PROC_NULL, Comm, Message, Request, Status, world


@dataclass(frozen=True)
class Matched:
    """What a matched message is apart from MPI: where it comes from, how large it is, and all of it once drained."""

    source: int
    tag: int
    size_bytes: int
    drained: Drained | None = None


def deliver(receive: Any, buf: Any, drained: Drained, status: Any) -> Any:
    """Receive a drained message as `receive` (Comm.Recv, Comm.recv) would have."""
    if receive is Comm.Recv and len(drained.data) > len(contents(buf)):
        raise MPI.Exception(MPI.ERR_TRUNCATE)
    tag, seen = world.next_tag(), Status()
    sent = Comm.Isend(world.own, [drained.data, BYTE], 0, tag)
    try:
        return receive(world.own, buf, 0, tag, seen)
    finally:
        Request.Wait(sent)
        seen.Set_source(drained.source)
        seen.Set_tag(drained.tag)
        if status is not None:
            status.tomemory()[:] = seen.tomemory()


def contents(buf: Any) -> bytearray:
    """What a message of the program's buffer would carry; None is for nobody."""
    if buf is None:
        return bytearray()
    tag, seen = world.next_tag(), Status()
    sent = Comm.Isend(world.own, buf, 0, tag)
    message = Comm.Mprobe(world.own, 0, tag, seen)
    data = bytearray(Status.Get_count(seen, BYTE))
    Message.Recv(message, [data, BYTE])
    Request.Wait(sent)
    return data


def room_of(receive: Any, buf: Any) -> int:
    """How many bytes a posted receive (Comm.Irecv, Comm.irecv) takes. MPICH would end the job over more of them from
    ourselves: errors of messages to oneself belong to no communicator."""
    if receive is Comm.Irecv:
        return len(contents(buf))
    if buf is None:
        return int(mpi4py.rc.irecv_bufsz)
    return buf if isinstance(buf, int) else int(MPI.buffer(buf).nbytes)


def drain(message: Any, about: Matched) -> Drained:
    """Take a matched message out of MPI."""
    data = bytearray(about.size_bytes)
    Message.Recv(message, [data, BYTE])
    return Drained(about.source, about.tag, bytes(data))


def about(status: Any) -> Matched:
    """What the status of a probe says."""
    return Matched(Status.Get_source(status), Status.Get_tag(status), Status.Get_count(status, BYTE))


class GatedMessage(Message):
    """The program's matched message."""

    _real: Any
    _apart: Matched | None
    is_constant = False  # of mpi4py's module

    @classmethod
    def nobodys(cls, real: Any) -> GatedMessage:
        """MESSAGE_NO_PROC, which stays what it is when it is received."""
        self: GatedMessage = super().__new__(cls, real)
        self._real, self._apart = real, Matched(PROC_NULL, ANY_TAG, 0)
        return self

    def __new__(cls, real: Any = None, apart: Matched | None = None) -> GatedMessage:
        """`real` is MPI's, None when it was drained; or one of ours, for which this is another name."""
        if real is not None and not isinstance(real, Message):
            raise TypeError(f"expecting a Message, got {type(real).__name__}")
        self: GatedMessage = super().__new__(cls)
        if isinstance(real, GatedMessage):
            self.__dict__ = {**real.__dict__, "is_constant": False} if real.is_nobodys else real.__dict__
            if self._real is not None and not self.is_nobodys:
                matched[id(self)] = weakref.ref(self)
            return self
        self._real, self._apart = real, apart
        if real is not None and not self.is_nobodys:
            matched[id(self)] = weakref.ref(self)
        return self

    def __init__(self, *args: Any) -> None:
        pass

    @gate.matches
    def _received(self, upper: bool, buf: Any, status: Any) -> Any:
        if gate.closed:
            gate.stay_out()
        try:
            matched.pop(id(self), None)
            if self._real is None and self._apart is not None and self._apart.drained is not None:
                return deliver(Comm.Recv if upper else Comm.recv, buf, self._apart.drained, status)
            return Message.Recv(self._real, buf, status) if upper else Message.recv(self._real, status)
        finally:
            if not self.is_constant:
                self._real = self._apart = None

    def Recv(self, buf: Any, status: Any = None) -> None:
        self._received(True, buf, status)

    def recv(self, status: Any = None) -> Any:
        return self._received(False, None, status)

    def Irecv(self, buf: Any) -> Any:
        """As Recv: what was matched is there, or on its way."""
        from nbcr.mpi.requests import GatedRequest

        status = Status()
        self.Recv(buf, status)
        return GatedRequest.of_result(status, None)

    def irecv(self) -> Any:
        from nbcr.mpi.requests import GatedRequest

        status = Status()
        return GatedRequest.of_result(status, self.recv(status))

    def free(self) -> None:
        """Forget it, without receiving it."""
        if not self.is_constant:
            matched.pop(id(self), None)
            self._real = self._apart = None

    def __bool__(self) -> bool:
        return self._apart is not None

    @property
    def is_nobodys(self) -> bool:
        """Whether it is what comes from PROC_NULL."""
        return self._apart is not None and self._apart.source == PROC_NULL

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, GatedMessage):
            return NotImplemented
        same = self.__dict__ is other.__dict__
        return same or (not self and not other) or (self.is_nobodys and other.is_nobodys)

    def __ne__(self, other: object) -> bool:  # theirs knows handles only
        equal = self.__eq__(other)
        return equal if equal is NotImplemented else not equal

    __hash__ = None  # type: ignore[assignment]  # as theirs

    @classmethod
    def Probe(cls, comm: Any, *args: Any, **named: Any) -> Any:
        return comm.Mprobe(*args, **named)

    @classmethod
    def Iprobe(cls, comm: Any, *args: Any, **named: Any) -> Any:
        return comm.Improbe(*args, **named)

    @classmethod
    def probe(cls, comm: Any, *args: Any, **named: Any) -> Any:
        return comm.mprobe(*args, **named)

    @classmethod
    def iprobe(cls, comm: Any, *args: Any, **named: Any) -> Any:
        return comm.improbe(*args, **named)


matched: dict[int, weakref.ref[GatedMessage]] = {}


def drain_matched() -> None:
    """All messages that the program has matched and not received. Nobody is at the gate."""
    for reference in list(matched.values()):
        message = reference()
        if message is not None and message._real is not None and message._apart is not None:
            message._apart = replace(message._apart, drained=drain(message._real, message._apart))
            message._real = None
    matched.clear()
