"""Messages from one rank to another: sends, receives and probes behind the gate."""

from __future__ import annotations

import warnings
from typing import Any

from nbcr.mpi.gate import SPINS as _SPINS
from nbcr.mpi.gate import gate
from nbcr.mpi.messages import GatedMessage, Matched, about, deliver
from nbcr.mpi.requests import GatedRequest, outstanding
from nbcr.mpi.world import ANY_SOURCE, ANY_TAG, MPI, Comm, Status, status_of

_Send, _Ssend, _Rsend, _send, _ssend = Comm.Send, Comm.Ssend, Comm.Rsend, Comm.send, Comm.ssend
_Recv, _recv, _Iprobe = Comm.Recv, Comm.recv, Comm.Iprobe
_Improbe, _improbe = Comm.Improbe, Comm.improbe


def sending(base: Any) -> Any:
    @gate.passes
    def send(self: Any, buf: Any, dest: int, tag: int = 0) -> None:
        if gate.closed:
            gate.stay_out()
        base(self, buf, dest, tag)

    return send


def posting(base: Any) -> Any:
    @gate.matches
    def post(self: Any, buf: Any, dest: int, tag: int = 0) -> GatedRequest:
        if gate.closed:
            gate.stay_out()
        return outstanding.add(GatedRequest(base(self, buf, dest, tag), self))

    return post


def _receive_pickled(message: Any, buf: Any, status: Any) -> Any:
    return MPI.Message.recv(message, status)


@gate.matches
def Recv(self: Any, buf: Any, source: int = ANY_SOURCE, tag: int = ANY_TAG, status: Any = None) -> None:
    """As `recv`, with the fewest steps for a thread that is alone and a message that has come."""
    if gate.closed:
        gate.stay_out()
    if self._looking or self._queue:
        _look_for(self, _Recv, buf, source, tag, status)
        return
    self._looking = True
    try:
        polls = 0
        while not _Iprobe(self, source, tag):
            polls += 1
            if polls > _SPINS:
                gate.relax(polls)
            if gate.closed:
                gate.stay_out()
            if self._queue and (drained := self._queue.take(source, tag)) is not None:
                deliver(_Recv, buf, drained, status)
                return
        _Recv(self, buf, source, tag, status)
    finally:
        self._looking = False


@gate.matches
def recv(self: Any, buf: Any = None, source: int = ANY_SOURCE, tag: int = ANY_TAG, status: Any = None) -> Any:
    if buf is not None:
        warnings.warn("the argument buf of recv has no effect", UserWarning, stacklevel=2)
    return _look_for(self, _recv, buf, source, tag, status)


def _look_for(self: Any, receive: Any, buf: Any, source: int, tag: int, status: Any) -> Any:
    """Another thread may be looking for the same message: what is matched is nobody else's."""
    probe, receive_matched = _BY_MATCHING[receive]
    polls = 0
    while True:
        if gate.closed:
            gate.stay_out(1)
        if self._queue and (drained := self._queue.take(source, tag)) is not None:
            return deliver(receive, buf, drained, status)
        message = probe(self, source, tag)
        if message is not None:
            return receive_matched(message, buf, status)
        polls += 1
        if polls > _SPINS:
            gate.relax(polls)


_BY_MATCHING = {_Recv: (_Improbe, MPI.Message.Recv), _recv: (_improbe, _receive_pickled)}


def posting_receive(base: Any) -> Any:
    @gate.matches
    def irecv(self: Any, buf: Any = None, source: int = ANY_SOURCE, tag: int = ANY_TAG) -> GatedRequest:
        if gate.closed:
            gate.stay_out()
        request = GatedRequest(None, self, (base, buf, source, tag))
        request.post()
        return outstanding.add(request)

    return irecv


def probing(blocking: bool) -> Any:
    @gate.matches
    def probe(self: Any, source: int = ANY_SOURCE, tag: int = ANY_TAG, status: Any = None) -> bool:
        polls = 0
        while True:
            if gate.closed:
                gate.stay_out()
            drained = self._queue.look(source, tag) if self._queue else None
            if drained is not None:
                status_of(drained.source, drained.tag, len(drained.data), status)
                return True
            if _Iprobe(self, source, tag, status):
                return True
            if not blocking:
                return False
            polls += 1
            gate.relax(polls)

    return probe


def matching(blocking: bool, base: Any) -> Any:
    @gate.matches
    def mprobe(self: Any, source: int = ANY_SOURCE, tag: int = ANY_TAG, status: Any = None) -> Any:
        polls = 0
        while True:
            if gate.closed:
                gate.stay_out()
            drained = self._queue.take(source, tag) if self._queue else None
            if drained is not None:
                status_of(drained.source, drained.tag, len(drained.data), status)
                return GatedMessage(None, Matched(drained.source, drained.tag, len(drained.data), drained))
            seen = Status()
            message = base(self, source, tag, seen)
            if message is not None:
                if status is not None:
                    status.tomemory()[:] = seen.tomemory()
                return GatedMessage(message, about(seen))
            if not blocking:
                return None
            polls += 1
            gate.relax(polls)

    return mprobe
