"""mpi4py's communicators behind the gate: which calls they have, and which communicators there are.

A communicator is known by its key, on which its members agree without talking: that of its parent, how many collectives
of the parent had begun when it was made, and the world rank of its first member.
"""

from __future__ import annotations

import weakref
from typing import Any

from nbcr.errors import NotPossible
from nbcr.mpi import buffered, collectives, leaving, persistent, pickled, point_to_point
from nbcr.mpi.attributes import PREDEFINED, Attributes, create_keyval, free_keyval
from nbcr.mpi.errhandlers import GuardedErrhandler
from nbcr.mpi.gate import Count, gate
from nbcr.mpi.guarding import guarded, guarded_call
from nbcr.mpi.handles import GuardedGroup, GuardedInfo
from nbcr.mpi.messages import contents
from nbcr.mpi.queue import Queue
from nbcr.mpi.requests import GatedRequest, outstanding
from nbcr.mpi.support import noted_call, refused, unsupported
from nbcr.mpi.world import ANY_SOURCE, ANY_TAG, BYTE, COMM_NULL, MPI, Comm, Intracomm, reseat, world

live: dict[str, Any] = {}  # key → communicator, until it is freed: what has to be made again


class Gated(Comm):
    """What all communicators of the program have; mixed into mpi4py's classes."""

    _key: str = ""
    _members: tuple[int, ...] = ()  # world ranks of all who take part in its collectives
    _peers: tuple[int, ...] = ()  # world ranks of those whom messages address
    _begun = 0  # collectives
    _rank: int = MPI.UNDEFINED
    _size = 0
    _queue: Queue
    _attributes: Attributes
    _context: list[Any] | None = None  # see `intercomms.context`
    _hints: dict[str, str] | None = None  # that the program has set
    _seats: list[weakref.ref[Any]]  # the objects that stand for it, more than one after `MPI.Intracomm(comm)`

    def __new__(cls, comm: Any = None) -> Gated:
        if isinstance(comm, Gated) and comm:
            next(each for each in cls.__mro__ if each in OURS)(comm)  # raises TypeError should it be of another kind
        self: Gated = Comm.__new__(cls, comm)
        if isinstance(comm, Gated) and comm._key:
            self.__dict__ = comm.__dict__
            self._seats.append(weakref.ref(self))
        return self

    Send, Ssend, Rsend = map(point_to_point.sending, (Comm.Send, Comm.Ssend, Comm.Rsend))
    send, ssend = map(point_to_point.sending_pickled, (Comm.send, Comm.ssend))
    Isend, Issend, Irsend = map(point_to_point.posting, (Comm.Isend, Comm.Issend, Comm.Irsend))
    isend, issend = map(point_to_point.posting_pickled, (Comm.isend, Comm.issend))
    Bsend, bsend, Ibsend, ibsend = buffered.Bsend, buffered.bsend, buffered.Ibsend, buffered.ibsend
    Attach_buffer, Detach_buffer = buffered.Attach_buffer, buffered.Detach_buffer
    Flush_buffer, Iflush_buffer = buffered.Flush_buffer, buffered.Iflush_buffer
    Send_init, Ssend_init, Rsend_init, Bsend_init = (
        persistent.sending(name) for name in ("Isend", "Issend", "Irsend", "Ibsend")
    )
    Recv_init = persistent.receiving
    Psend_init, Precv_init = persistent.partitioned_sending, persistent.partitioned_receiving
    Recv, recv = point_to_point.Recv, point_to_point.recv
    Irecv, irecv = point_to_point.posting_receive(Comm.Irecv), point_to_point.posting_receive(Comm.irecv)

    def Abort(self, errorcode: int = 0) -> None:
        if self._is_given and self._size == world.size:
            leaving.abort(self, errorcode)
        else:
            guarded_call(Comm.Abort, self, errorcode)

    Probe, Iprobe = point_to_point.probing(True), point_to_point.probing(False)
    probe, iprobe = Probe, Iprobe
    Mprobe, Improbe = point_to_point.matching(True, Comm.Improbe), point_to_point.matching(False, Comm.Improbe)
    mprobe, improbe = point_to_point.matching(True, Comm.improbe), point_to_point.matching(False, Comm.improbe)

    def Sendrecv(
        self, sendbuf: Any, dest: int, sendtag: int = 0, recvbuf: Any = None, source: int = ANY_SOURCE,
        recvtag: int = ANY_TAG, status: Any = None,
    ) -> None:  # fmt: skip
        self.Isendrecv(sendbuf, dest, sendtag, recvbuf, source, recvtag).Wait(status)

    def Isendrecv(
        self, sendbuf: Any, dest: int, sendtag: int = 0, recvbuf: Any = None, source: int = ANY_SOURCE,
        recvtag: int = ANY_TAG,
    ) -> Any:  # fmt: skip
        """Nothing is sent to anybody when one of the two buffers is none that mpi4py knows."""
        received = self.Irecv(recvbuf, source, recvtag)
        try:
            return received.together_with(self.Isend(sendbuf, dest, sendtag))
        except BaseException:
            received.Cancel()
            received.Wait()
            raise

    def Isendrecv_replace(
        self, buf: Any, dest: int, sendtag: int = 0, source: int = ANY_SOURCE, recvtag: int = ANY_TAG
    ) -> Any:
        sent = self.Isend([guarded_call(contents, buf), BYTE], dest, sendtag)
        return self.Irecv(buf, source, recvtag).together_with(sent)

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
        return self._size

    rank = property(Get_rank)
    size = property(Get_size)

    def Get_group(self) -> Any:
        return GuardedGroup(guarded_call(Comm.Get_group, self))

    group = property(Get_group)

    def Get_info(self) -> Any:
        return GuardedInfo(guarded_call(Comm.Get_info, self))

    def Set_info(self, info: Any) -> None:
        guarded_call(Comm.Set_info, self, info)
        self._hints = {**(self._hints or {}), **dict(info.items())}

    info = property(Get_info, Set_info)

    # Attributes never leave this process: MPI need not know them

    def Get_attr(self, keyval: int) -> Any:
        if keyval == MPI.TAG_UB:
            return world.marker_tag - 1
        if keyval in PREDEFINED:
            return guarded_call(Comm.Get_attr, world.comm, keyval)
        return self._attributes.get(keyval)

    def Set_attr(self, keyval: int, attrval: Any) -> None:
        self._attributes.set(self, keyval, attrval)

    def Delete_attr(self, keyval: int) -> None:
        self._attributes.delete(self, keyval)

    Create_keyval = staticmethod(create_keyval)
    Free_keyval = staticmethod(free_keyval)

    # What errors do

    @classmethod
    def Create_errhandler(cls, errhandler_fn: Any) -> Any:
        return GuardedErrhandler.of_function(errhandler_fn)

    def Get_errhandler(self) -> Any:
        return GuardedErrhandler.of_handle(guarded_call(Comm.Get_errhandler, self))

    # Communicators from this one

    @classmethod
    def Get_parent(cls) -> Any:
        """No rank of a job that we can checkpoint was spawned by another job."""
        return OURS[MPI.Intercomm](COMM_NULL)

    # By a number: noted, since nobody knows where it goes; what comes back stands behind the gate

    @classmethod
    def fromhandle(cls, handle: int) -> Any:
        return known(noted_call("Comm.fromhandle", Comm.fromhandle, handle))

    @classmethod
    def fromint(cls, arg: int) -> Any:
        return known(noted_call("Comm.fromint", Comm.fromint, arg))

    @classmethod
    def f2py(cls, arg: int) -> Any:
        return known(noted_call("Comm.f2py", Comm.f2py, arg))

    def Clone(self) -> Any:
        return self.Dup()

    @gate.passes
    def Free(self) -> None:
        if self._is_given:
            raise MPI.Exception(MPI.ERR_COMM)
        self._attributes.clear(self)
        context, self._context = self._context, None
        for each in (context[0], *context[2:]) if context else ():
            each.Free()
        collectives.begin(self)
        Comm.Free(self)
        gate.counts[self._key] = Count(self._key, self._members, self._begun, is_over=True)
        live.pop(self._key, None)
        become_null(self)

    Disconnect = Free

    def free(self) -> None:
        """Free it, unless it is null or the program's from its beginning; copies of those are null then."""
        if self and not self._is_given:
            self.Free()
        elif self and self._seats[0]() is not self:
            self.__dict__ = {}
            reseat(self, Comm(COMM_NULL), COMM_NULL)
            become_null(self)

    @property
    def _is_given(self) -> bool:
        """Whether it is COMM_WORLD or COMM_SELF."""
        return "." not in self._key


def _making(base: Any) -> Any:
    duplicates = base in (Comm.Dup, Comm.Dup_with_info)

    @gate.passes
    def make(self: Any, *args: Any, **named: Any) -> Any:
        collectives.begin(self)
        made = adopt(base(self, *args, **named), f"{self._key}.{self._begun}")
        if duplicates:
            self._attributes.copy(self, made)
        return made

    return make


def _making_later(base: Any) -> Any:
    """Idup: the communicator is there when its request has ended."""

    @gate.passes
    def make(self: Any, *args: Any, **named: Any) -> Any:
        collectives.begin(self)
        made, real = base(self, *args, **named)
        made = as_ours(made)
        made.__dict__.update(
            _key=f"{self._key}.{self._begun}/d", _members=self._members, _peers=self._peers, _rank=self._rank,
            _size=self._size, **_fresh(made),
        )  # fmt: skip
        request = outstanding.add(GatedRequest(real, self))
        request.when_ended = lambda: live.__setitem__(made._key, made)
        self._attributes.copy(self, made)
        return made, request

    return make


def as_ours(comm: Any) -> Any:
    """A communicator of mpi4py's, as an object of our class."""
    return comm if isinstance(comm, Gated) else OURS[type(comm)](comm)


def become_null(comm: Any) -> None:
    """Its calls raise from now on: MPICH would end the job, for without a world it knows no communicator whose error
    handler says otherwise."""
    comm.__dict__.update(dict.fromkeys(_NEED_A_COMMUNICATOR, _raise_null))


def _raise_null(*args: Any, **named: Any) -> Any:
    raise MPI.Exception(MPI.ERR_COMM)


def known(comm: Any) -> Any:
    """The program's object for a communicator of mpi4py's."""
    return next((type(each)(each) for each in live.values() if each == comm), comm)


def _fresh(comm: Any) -> dict[str, Any]:
    return {"_queue": Queue(), "_attributes": Attributes(), "_seats": [weakref.ref(comm)]}


def adopt(comm: Any, beginning: str) -> Any:
    """The program's own object for a communicator that was made just now."""
    comm = as_ours(comm)
    if comm == COMM_NULL:
        become_null(comm)
        return comm
    comm._members = comm._peers = _world_ranks(Comm.Get_group(comm))
    comm._size = len(comm._members)
    if isinstance(comm, MPI.Intercomm):
        comm._peers = _world_ranks(MPI.Intercomm.Get_remote_group(comm))
        comm._members = (*comm._members, *comm._peers)
        comm._key = f"{beginning}/{min(comm._members)}"
    else:
        comm._key = f"{beginning}/{comm._members[0]}"
    comm._rank = Comm.Get_rank(comm)
    comm.__dict__.update(_fresh(comm))
    live[comm._key] = comm
    return comm


def _world_ranks(group: Any) -> tuple[int, ...]:
    ranks = tuple(MPI.Group.Translate_ranks(group, None, world.group))
    MPI.Group.Free(group)
    return ranks


class GatedIntracomm(Gated, Intracomm):
    """A communicator of the program."""

    @gate.passes
    def Create_group(self, group: Any, tag: int = 0) -> Any:
        members = tuple(MPI.Group.Translate_ranks(group, None, world.group))
        key = f"{self._key}:{tag}:{','.join(map(str, members))}"
        begun = collectives.begin_keyed(key, members)
        return adopt(Intracomm.Create_group(self, group, tag), f"{key}.{begun}")

    @classmethod
    def Create_from_group(cls, group: Any, *args: Any, **named: Any) -> Any:
        """Of the program's own session: noted, as no checkpoint brings that back. Ours, as mpi4py's pickled collectives
        are not possible under sessions."""
        made = noted_call("Intracomm.Create_from_group", Intracomm.Create_from_group, group, *args, **named)
        return guarded_call(adopt, made, "g.0")

    def Create_cart(self, dims: Any, periods: Any = None, reorder: bool = False) -> Any:
        dims = [dims] if isinstance(dims, int) else list(dims)
        _refuse_points(bool(dims))
        return _create_cart(self, dims, periods, reorder)


_create_cart = _making(Intracomm.Create_cart)


def _refuse_points(has_dims: bool) -> None:
    if not has_dims:
        raise NotPossible(
            "a grid without dimensions is not possible in a job that nbcr runs: MPICH lacks it where MPI can be set up "
            "again",
            hint="use MPI.COMM_SELF in its place, or start the job without `nbcr run`",
        )


class GatedTopocomm(GatedIntracomm, MPI.Topocomm):
    """… with a topology."""


class GatedCartcomm(GatedTopocomm, MPI.Cartcomm):
    """… with a grid."""

    def Sub(self, remain_dims: Any) -> Any:
        remain_dims = list(remain_dims)
        _refuse_points(any(remain_dims))
        return _sub(self, remain_dims)


_sub = _making(MPI.Cartcomm.Sub)


class GatedGraphcomm(GatedTopocomm, MPI.Graphcomm):
    """… with a graph."""


class GatedDistgraphcomm(GatedTopocomm, MPI.Distgraphcomm):
    """… with a distributed graph."""


OURS: dict[Any, Any] = {
    Comm: Gated,
    Intracomm: GatedIntracomm,
    MPI.Topocomm: GatedTopocomm,
    MPI.Cartcomm: GatedCartcomm,
    MPI.Graphcomm: GatedGraphcomm,
    MPI.Distgraphcomm: GatedDistgraphcomm,
}
_MAKERS = (
    "Dup Dup_with_info Create Split Split_type Create_graph Create_dist_graph_adjacent Create_dist_graph Merge"
).split()
_LOCAL = (
    "Compare Is_inter Is_intra Get_topology Get_name Set_name Cart_map Graph_map Set_errhandler Call_errhandler "
    "name topology is_inter is_intra is_topo Get_remote_size remote_size Is_revoked "
    "degrees indegree outdegree inoutedges inedges outedges Get_dim Get_topo Get_cart_rank Get_coords Shift dim "
    "ndim topo "
    "dims periods coords Get_dims Get_neighbors_count Get_neighbors nnodes nedges index edges nneighbors neighbors "
    "Get_dist_neighbors_count Get_dist_neighbors"
).split()
_DYNAMIC = ("Spawn", "Spawn_multiple", "Connect", "Accept", "Join")


def fill(ours: type, theirs: type) -> None:
    """Every method of mpi4py's class stands behind the gate: none slips by."""
    for name, descriptor in theirs.__dict__.items():
        if not name.startswith("__") and name not in ours.__dict__:
            setattr(ours, name, _behind_the_gate(theirs, name, descriptor))


def _behind_the_gate(theirs: type, name: str, descriptor: Any) -> Any:
    base = getattr(theirs, name)
    if name in _MAKERS:
        return _making(base)
    if name in ("Idup", "Idup_with_info"):
        return _making_later(base)
    if name == "Barrier":
        return collectives.barrier(base)
    if name == "Allreduce":
        return collectives.allreduce(base)
    if name in collectives.BLOCKING:
        return collectives.blocking(base)
    if name in collectives.NONBLOCKING:
        return collectives.nonblocking(base)
    if name in persistent.COLLECTIVES:
        return persistent.collective(name)
    if name in pickled.CALLS:
        return pickled.CALLS[name]
    if name in _LOCAL:
        return guarded(descriptor)
    if name in _DYNAMIC:
        return refused(f"{theirs.__name__}.{name}", descriptor)
    return unsupported(f"{theirs.__name__}.{name}", descriptor)


for _theirs, _ours in OURS.items():
    fill(_ours, _theirs)
_NEED_A_COMMUNICATOR = frozenset(
    name
    for each in (Intracomm, MPI.Topocomm, MPI.Cartcomm, MPI.Graphcomm, MPI.Distgraphcomm, MPI.Intercomm, Comm)
    for name, made in each.__dict__.items()
    if not name.startswith("_") and callable(made) and name not in ("free", "Compare", "Get_name", "toint", "py2f")
)
