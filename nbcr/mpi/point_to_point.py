"""Messages from one rank to another: sends, receives and probes behind the gate."""

from __future__ import annotations

import warnings
from itertools import starmap
from typing import Any

from nbcr.mpi.gate import SPINS as _SPINS
from nbcr.mpi.gate import gate
from nbcr.mpi.messages import GatedMessage, Matched, about, contents, deliver
from nbcr.mpi.queue import Drained
from nbcr.mpi.requests import GatedRequest, outstanding
from nbcr.mpi.world import ANY_SOURCE, ANY_TAG, MPI, Comm, Request, Status, copy_status, status_of

_Send, _Ssend, _Rsend, _send, _ssend = Comm.Send, Comm.Ssend, Comm.Rsend, Comm.send, Comm.ssend
_Recv, _recv, _Irecv, _Iprobe, _improbe = Comm.Recv, Comm.recv, Comm.Irecv, Comm.Iprobe, Comm.improbe
_Test, _receive_matched = Request.Test, MPI.Message.recv


def sending(base: Any) -> Any:
    @gate.passes
    def send(self: Any, buf: Any, dest: int, tag: int = 0) -> None:
        if gate.closed:
            gate.stay_out()
        base(self, buf, dest, tag)

    return send


def sending_pickled(base: Any) -> Any:
    """The same with the name that mpi4py gives to what is sent: programs may call it by that."""

    @gate.passes
    def send(self: Any, obj: Any, dest: int, tag: int = 0) -> None:
        if gate.closed:
            gate.stay_out()
        base(self, obj, dest, tag)

    return send


def posting(base: Any) -> Any:
    @gate.matches
    def post(self: Any, buf: Any, dest: int, tag: int = 0) -> GatedRequest:
        if gate.closed:
            gate.stay_out()
        return outstanding.add(GatedRequest(base(self, buf, dest, tag), self))

    return post


def posting_pickled(base: Any) -> Any:
    """The same, as `sending_pickled`."""

    @gate.matches
    def post(self: Any, obj: Any, dest: int, tag: int = 0) -> GatedRequest:
        if gate.closed:
            gate.stay_out()
        return outstanding.add(GatedRequest(base(self, obj, dest, tag), self))

    return post


@gate.matches
def Recv(self: Any, buf: Any, source: int = ANY_SOURCE, tag: int = ANY_TAG, status: Any = None) -> None:
    """Posted, so that MPI is ready for the message when it comes, and withdrawn when the gate closes.

    Rejected: probing, and receiving what has come. It takes half as long again as mpi4py's own; this does not take
    longer.
    """
    while True:
        if gate.closed:
            gate.stay_out()
        if self._queue and (drained := self._queue.take(source, tag)) is not None:
            deliver(_Recv, buf, drained, status)
            return
        (request,) = starmap(_Irecv, ((self, buf, source, tag),))  # in one step: no handler of a signal gets between
        try:
            polls = 0
            while not _Test(request, status):
                polls += 1
                if polls > _SPINS:
                    gate.relax(polls)
                if gate.closed and gate.keeps_out():
                    if (seen := _withdrawn(request)) is not None:
                        copy_status(seen, status)
                        return
                    break
            else:
                return
        except BaseException:  # of a signal's handler, for one: the program may go on, and receive the message then
            if request and (seen := _withdrawn(request)) is not None:
                self._queue.put_back(_received(buf, seen))
            raise


def _withdrawn(request: Any) -> Any:
    """Cancel a receive; its status, should the message have been there already."""
    Request.Cancel(request)
    seen = Status()
    polls = 0
    while not _Test(request, seen):
        polls += 1
        gate.relax(polls)
    return None if Status.Is_cancelled(seen) else seen


def _received(buf: Any, seen: Any) -> Drained:
    """A message out of the program's buffer again."""
    of = about(seen)
    return Drained(of.source, of.tag, bytes(contents(buf)[: of.size_bytes]))


@gate.matches
def recv(self: Any, buf: Any = None, source: int = ANY_SOURCE, tag: int = ANY_TAG, status: Any = None) -> Any:
    """Another thread may be looking for the same message: what is matched is nobody else's."""
    if buf is not None:
        warnings.warn("the argument buf of recv has no effect", UserWarning, stacklevel=2)
    polls = 0
    while True:
        if gate.closed:
            gate.stay_out()
        if self._queue and (drained := self._queue.take(source, tag)) is not None:
            return deliver(_recv, buf, drained, status)
        message = _improbe(self, source, tag)
        if message is not None:
            return _receive_matched(message, status)
        polls += 1
        if polls > _SPINS:
            gate.relax(polls)


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
