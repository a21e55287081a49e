"""mpi4py's communicators behind the gate: point-to-point calls, and which communicators there are.

A communicator is known by its key, on which its members agree without talking: that of its parent, how many collectives
of the parent had begun when it was made, and the world rank of its first member.
"""

from __future__ import annotations

from typing import Any

from nbcr.mpi import collectives, pickled
from nbcr.mpi.gate import SPINS as _SPINS
from nbcr.mpi.gate import gate, holder
from nbcr.mpi.handles import GuardedGroup, guarded_call
from nbcr.mpi.messages import GatedMessage, Matched, about, contents, deliver
from nbcr.mpi.queue import Queue
from nbcr.mpi.requests import GatedRequest, outstanding
from nbcr.mpi.support import unsupported
from nbcr.mpi.world import ANY_SOURCE, ANY_TAG, BYTE, COMM_NULL, MPI, Comm, Intracomm, Status, status_of, world

_Send, _Ssend, _Rsend, _send, _ssend = Comm.Send, Comm.Ssend, Comm.Rsend, Comm.send, Comm.ssend
_Recv, _recv, _Iprobe = Comm.Recv, Comm.recv, Comm.Iprobe
_Improbe, _improbe = Comm.Improbe, Comm.improbe
_enter, _leave, _pass_in, _pass_out = gate.enter, gate.leave, gate.pass_in, gate.pass_out

live: dict[str, Any] = {}  # key → communicator, until it is freed: what has to be made again


def _sending(base: Any) -> Any:
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


def _posting(base: Any) -> Any:
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


_BY_MATCHING = {_Recv: (_Improbe, MPI.Message.Recv), _recv: (_improbe, _receive_pickled)}


def _receiving(receive: Any) -> Any:
    probe, receive_matched = _BY_MATCHING[receive]
    buffers = receive is _Recv

    @holder
    def recv(self: Any, buf: Any = None, source: int = ANY_SOURCE, tag: int = ANY_TAG, status: Any = None) -> Any:
        _enter(None)
        if gate.closed:
            gate.admit()
        alone = buffers and not self._looking
        if alone:
            self._looking = True
        try:
            polls = 0
            while True:
                if self._queue:
                    drained = self._queue.take(source, tag)
                    if drained is not None:
                        return deliver(receive, buf, drained, status)
                if alone:
                    if _Iprobe(self, source, tag):
                        return _Recv(self, buf, source, tag, status)
                else:  # another thread may be looking for the same message: what is matched is nobody else's
                    message = probe(self, source, tag)
                    if message is not None:
                        return receive_matched(message, buf, status)
                polls += 1
                if gate.closed:
                    gate.admit()
                if polls > _SPINS:
                    gate.relax(polls)
        finally:
            if alone:
                self._looking = False
            _leave()

    return recv


def _posting_receive(base: Any) -> Any:
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


def _probing(blocking: bool) -> Any:
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


def _matching(blocking: bool, base: Any) -> Any:
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


class Gated:
    """What all communicators of the program have; mixed into mpi4py's classes."""

    _key: str = ""
    _members: tuple[int, ...] = ()  # world ranks
    _begun = 0  # collectives
    _rank: int = MPI.UNDEFINED
    _looking = False  # a thread waits in Recv
    _queue: Queue

    Send, Ssend, Rsend, send, ssend = (_sending(base) for base in (_Send, _Ssend, _Rsend, _send, _ssend))
    Isend, Issend, Irsend, isend, issend = (
        _posting(base) for base in (Comm.Isend, Comm.Issend, Comm.Irsend, Comm.isend, Comm.issend)
    )
    Recv, recv = _receiving(_Recv), _receiving(_recv)
    Irecv, irecv = _posting_receive(Comm.Irecv), _posting_receive(Comm.irecv)
    Probe, Iprobe = _probing(True), _probing(False)
    probe, iprobe = Probe, Iprobe
    Mprobe, Improbe = _matching(True, _Improbe), _matching(False, _Improbe)
    mprobe, improbe = _matching(True, _improbe), _matching(False, _improbe)

    def Sendrecv(
        self, sendbuf: Any, dest: int, sendtag: int = 0, recvbuf: Any = None, source: int = ANY_SOURCE,
        recvtag: int = ANY_TAG, status: Any = None,
    ) -> None:  # fmt: skip
        sent = self.Isend(sendbuf, dest, sendtag)
        self.Recv(recvbuf, source, recvtag, status)
        sent.Wait()

    def sendrecv(
        self, sendobj: Any, dest: int, sendtag: int = 0, recvbuf: Any = None, source: int = ANY_SOURCE,
        recvtag: int = ANY_TAG, status: Any = None,
    ) -> Any:  # fmt: skip
        sent = self.isend(sendobj, dest, sendtag)
        received = self.recv(recvbuf, source, recvtag, status)
        sent.wait()
        return received

    def Sendrecv_replace(
        self, buf: Any, dest: int, sendtag: int = 0, source: int = ANY_SOURCE, recvtag: int = ANY_TAG,
        status: Any = None,
    ) -> None:  # fmt: skip
        sent = self.Isend([guarded_call(contents, buf), BYTE], dest, sendtag)
        self.Recv(buf, source, recvtag, status)
        sent.Wait()

    # What is known without MPI

    def Get_rank(self) -> int:
        return self._rank

    def Get_size(self) -> int:
        return len(self._members)

    rank = property(Get_rank)
    size = property(Get_size)

    def Get_group(self) -> Any:
        return GuardedGroup(guarded_call(Comm.Get_group, self))

    group = property(Get_group)

    # Communicators from this one

    def Clone(self) -> Any:
        return self.Dup()  # type: ignore[attr-defined]

    @holder
    def Create_group(self, group: Any, tag: int = 0) -> Any:
        members = tuple(MPI.Group.Translate_ranks(group, None, world.group))
        key = f"{self._key}:{tag}:{','.join(map(str, members))}"
        begun = collectives.begin_keyed(key, members)
        try:
            return adopt(Intracomm.Create_group(self, group, tag), f"{key}.{begun}")
        finally:
            _pass_out()

    @holder
    def Free(self) -> None:
        collectives.begin(self)
        try:
            Comm.Free(self)
            gate.counts[self._key] = (self._begun, self._members)
            live.pop(self._key, None)
        finally:
            _pass_out()

    Disconnect = Free
    free = Free


def _making(base: Any) -> Any:
    @holder
    def make(self: Any, *args: Any, **named: Any) -> Any:
        collectives.begin(self)
        try:
            return adopt(base(self, *args, **named), f"{self._key}.{self._begun}")
        finally:
            _pass_out()

    return make


def adopt(comm: Any, beginning: str) -> Any:
    """The program's own object for a communicator that was made just now."""
    if comm == COMM_NULL:
        return COMM_NULL
    if not isinstance(comm, Gated):
        comm = _OURS[type(comm)](comm)
    group = Comm.Get_group(comm)
    comm._members = tuple(MPI.Group.Translate_ranks(group, None, world.group))
    MPI.Group.Free(group)
    comm._key = f"{beginning}/{comm._members[0]}"
    comm._rank = Comm.Get_rank(comm)
    comm._queue = Queue()
    live[comm._key] = comm
    return comm


class GatedIntracomm(Gated, Intracomm):
    """A communicator of the program."""


class GatedCartcomm(Gated, MPI.Cartcomm):
    """… with a grid."""


class GatedGraphcomm(Gated, MPI.Graphcomm):
    """… with a graph."""


class GatedDistgraphcomm(Gated, MPI.Distgraphcomm):
    """… with a distributed graph."""


_OURS = {
    Intracomm: GatedIntracomm,
    MPI.Cartcomm: GatedCartcomm,
    MPI.Graphcomm: GatedGraphcomm,
    MPI.Distgraphcomm: GatedDistgraphcomm,
}
_MAKERS = "Dup Dup_with_info Create Split Split_type Create_cart Create_graph Create_dist_graph_adjacent "
"Create_dist_graph Sub"
_LOCAL = (
    "Compare Is_inter Is_intra Get_topology Get_name Set_name Get_info Get_attr Cart_map Graph_map "
    "Get_errhandler name info "
    "topology is_inter is_intra is_topo Abort "
    "degrees indegree outdegree inoutedges inedges outedges Get_dim Get_topo Get_cart_rank Get_coords Shift dim "
    "ndim topo "
    "dims periods coords Get_dims Get_neighbors_count Get_neighbors nnodes nedges index edges nneighbors neighbors "
    "Get_dist_neighbors_count Get_dist_neighbors"
)


def _fill(ours: type, theirs: type) -> None:
    """Every method of mpi4py's class stands behind the gate: none slips by."""
    from nbcr.mpi.handles import guarded

    makers, local = _MAKERS.split(), _LOCAL.split()
    named = dict.fromkeys(name for each in theirs.__mro__ for name in each.__dict__ if not name.startswith("__"))
    for name in named:
        if name in Gated.__dict__:
            continue
        base = getattr(theirs, name)
        if name in makers:
            setattr(ours, name, _making(base))
        elif name == "Allreduce":
            setattr(ours, name, collectives.allreduce(base))
        elif name in collectives.BLOCKING:
            setattr(ours, name, collectives.blocking(base))
        elif name in collectives.NONBLOCKING:
            setattr(ours, name, collectives.nonblocking(base))
        elif name in pickled.CALLS:
            setattr(ours, name, pickled.CALLS[name])
        elif name in local:
            setattr(ours, name, guarded(_descriptor(theirs, name)))
        else:
            setattr(ours, name, unsupported(f"{theirs.__name__}.{name}", _descriptor(theirs, name)))


def _descriptor(theirs: type, name: str) -> Any:
    return next(each for each in theirs.__mro__ if name in each.__dict__).__dict__[name]


for _theirs, _ours in _OURS.items():
    _fill(_ours, _theirs)
