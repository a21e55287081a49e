"""Messages from one rank to another: sends, receives and probes behind the gate."""

from __future__ import annotations

import warnings
from typing import Any

from nbcr.mpi.gate import SPINS as _SPINS
from nbcr.mpi.gate import gate, holder
from nbcr.mpi.messages import GatedMessage, Matched, about, deliver
from nbcr.mpi.requests import GatedRequest, outstanding
from nbcr.mpi.world import ANY_SOURCE, ANY_TAG, MPI, Comm, Status, status_of

_Send, _Ssend, _Rsend, _send, _ssend = Comm.Send, Comm.Ssend, Comm.Rsend, Comm.send, Comm.ssend
_Recv, _recv, _Iprobe = Comm.Recv, Comm.recv, Comm.Iprobe
_Improbe, _improbe = Comm.Improbe, Comm.improbe
_enter, _leave, _pass_in, _pass_out = gate.enter, gate.leave, gate.pass_in, gate.pass_out


def sending(base: Any) -> Any:
    @holder
    def send(self: Any, buf: Any, dest: int, tag: int = 0) -> None:
        _pass_in(None)
        if gate.closed:
            gate.admit_passing()
        try:
            base(self, buf, dest, tag)
        finally:
            _pass_out()

    return send


def posting(base: Any) -> Any:
    @holder
    def post(self: Any, buf: Any, dest: int, tag: int = 0) -> GatedRequest:
        _enter(None)
        if gate.closed:
            gate.admit()
        try:
            return outstanding.add(GatedRequest(base(self, buf, dest, tag), self))
        finally:
            _leave()

    return post


def _receive_pickled(message: Any, buf: Any, status: Any) -> Any:
    return MPI.Message.recv(message, status)


@holder
def Recv(self: Any, buf: Any, source: int = ANY_SOURCE, tag: int = ANY_TAG, status: Any = None) -> None:
    """As `recv`, with the fewest steps for a thread that is alone and a message that has come."""
    _enter(None)
    if gate.closed:
        gate.admit()
    if self._looking or self._queue:
        _leave()
        _look_for(self, buf, source, tag, status)
        return
    self._looking = True
    try:
        polls = 0
        while not _Iprobe(self, source, tag):
            polls += 1
            if polls > _SPINS:
                gate.relax(polls)
            if gate.closed:
                gate.admit()
            if self._queue and (drained := self._queue.take(source, tag)) is not None:
                deliver(_Recv, buf, drained, status)
                return
        _Recv(self, buf, source, tag, status)
    finally:
        self._looking = False
        _leave()


def _looking_for(receive: Any) -> Any:
    probe, receive_matched = _BY_MATCHING[receive]
    takes_buffers = receive is _Recv

    @holder
    def recv(self: Any, buf: Any = None, source: int = ANY_SOURCE, tag: int = ANY_TAG, status: Any = None) -> Any:
        """Another thread may be looking for the same message: what is matched is nobody else's."""
        _enter(None)
        if gate.closed:
            gate.admit()
        if buf is not None and not takes_buffers:
            warnings.warn("the argument buf of recv has no effect", UserWarning, stacklevel=2)
        try:
            polls = 0
            while True:
                if self._queue and (drained := self._queue.take(source, tag)) is not None:
                    return deliver(receive, buf, drained, status)
                message = probe(self, source, tag)
                if message is not None:
                    return receive_matched(message, buf, status)
                polls += 1
                if gate.closed:
                    gate.admit()
                if polls > _SPINS:
                    gate.relax(polls)
        finally:
            _leave()

    return recv


_BY_MATCHING = {_Recv: (_Improbe, MPI.Message.Recv), _recv: (_improbe, _receive_pickled)}
_look_for, recv = _looking_for(_Recv), _looking_for(_recv)


def posting_receive(base: Any) -> Any:
    @holder
    def irecv(self: Any, buf: Any = None, source: int = ANY_SOURCE, tag: int = ANY_TAG) -> GatedRequest:
        _enter(None)
        if gate.closed:
            gate.admit()
        try:
            request = GatedRequest(None, self, (base, buf, source, tag))
            request.post()
            return outstanding.add(request)
        finally:
            _leave()

    return irecv


def probing(blocking: bool) -> Any:
    @holder
    def probe(self: Any, source: int = ANY_SOURCE, tag: int = ANY_TAG, status: Any = None) -> bool:
        _enter(None)
        if gate.closed:
            gate.admit()
        try:
            polls = 0
            while True:
                drained = self._queue.look(source, tag) if self._queue else None
                if drained is not None:
                    status_of(drained.source, drained.tag, len(drained.data), status)
                    return True
                if _Iprobe(self, source, tag, status):
                    return True
                if not blocking:
                    return False
                polls += 1
                if gate.closed:
                    gate.admit()
                gate.relax(polls)
        finally:
            _leave()

    return probe


def matching(blocking: bool, base: Any) -> Any:
    @holder
    def mprobe(self: Any, source: int = ANY_SOURCE, tag: int = ANY_TAG, status: Any = None) -> Any:
        _enter(None)
        if gate.closed:
            gate.admit()
        try:
            polls = 0
            while True:
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
                if gate.closed:
                    gate.admit()
                gate.relax(polls)
        finally:
            _leave()

    return mprobe
