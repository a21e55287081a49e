"""Taking everything in flight out of MPI, tearing MPI down, and the way back. In the rank's own thread; the gate is
locked.

What is in flight is found by markers: when no rank looks for messages any more, and nothing of this rank's is under
way, it sends one to every member of every communicator, itself included. Messages do not overtake each other, so
behind a marker nothing comes. Posted receives are withdrawn before that, the last posted first, so that none of them
takes what was meant for an earlier one; from then on all that comes goes to one queue, in order, and what was posted
is matched in order against it afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from nbcr.mpi import errhandlers, file_shared, messages, recipes, windows
from nbcr.mpi.communicators import live
from nbcr.mpi.gate import gate, waited
from nbcr.mpi.recipes import Recipes
from nbcr.mpi.requests import outstanding
from nbcr.mpi.world import (
    ANY_SOURCE,
    ANY_TAG,
    BYTE,
    COMM_NULL,
    MPI,
    Comm,
    Intracomm,
    Message,
    Request,
    Status,
    reseat,
    world,
)

_SWEEP_TIMEOUT_S = 5.0


class Torn:
    """MPI as it was, to be made again."""

    def __init__(self) -> None:
        self._errhandlers = {key: errhandlers.errhandler_of(comm) for key, comm in live.items()}
        errhandlers.forget_released(self._errhandlers.values())
        self._recipes = Recipes()
        self._file_pointers = file_shared.remembered()
        self._topologies = {key: _topology(comm) for key, comm in live.items()}
        self._names = {key: Comm.Get_name(comm) for key, comm in live.items()}

    def down(self) -> None:
        """Finalise MPI. No rank may be in it any more, and nothing in flight."""
        windows.take_down()
        self._recipes.free()
        for comm in live.values():
            Comm.Free(Comm(comm))
        world.tear_down()

    def up(self) -> None:
        """Initialise it, maybe under another mpiexec, and give the program's objects their meaning again."""
        for pointer, text in self._file_pointers:
            pointer.restore(text)
        world.set_up()  # for which all must come: nobody uses a file before
        self._recipes.make()
        for key in sorted(live):  # in the same order everywhere: making one needs all its members
            self._make(key)
        self._recipes.finish()
        windows.put_up()

    def _make(self, key: str) -> None:
        comm = live[key]
        new = _intercomm(comm) if isinstance(comm, MPI.Intercomm) else _plain(comm._members)
        topology = self._topologies[key]
        if topology is not None:
            make, args = topology
            plain, new = new, make(new, *args)
            Comm.Free(plain)
        if self._names[key]:
            Comm.Set_name(new, self._names[key])
        if comm._hints:
            recipes.give_hints(new, comm._hints)
        if self._errhandlers[key] is not None:
            Comm.Set_errhandler(new, self._errhandlers[key])
        for seat in comm._seats:
            if (seated := seat()) is not None and seated is not comm:
                reseat(seated, Comm(new), COMM_NULL)
        reseat(comm, new, COMM_NULL)


def _plain(members: tuple[int, ...]) -> Any:
    group = MPI.Group.Incl(world.group, list(members))
    new = Intracomm.Create_group(world.comm, group)
    MPI.Group.Free(group)
    return new


def _intercomm(comm: Any) -> Any:
    local = _plain(comm._members[: comm._size])
    new = Intracomm.Create_intercomm(local, 0, world.comm, comm._peers[0])
    Comm.Free(local)
    return new


def _topology(comm: Any) -> tuple[Any, tuple[Any, ...]] | None:
    """How a communicator's topology is made of a plain one with the same ranks."""
    if isinstance(comm, MPI.Cartcomm):
        dims, periods, _ = MPI.Cartcomm.Get_topo(comm)
        return Intracomm.Create_cart, (dims, periods, False)
    if isinstance(comm, MPI.Graphcomm):
        return Intracomm.Create_graph, (*MPI.Graphcomm.Get_topo(comm), False)
    if isinstance(comm, MPI.Distgraphcomm):
        sources, destinations, weights = MPI.Distgraphcomm.Get_dist_neighbors(comm)
        given = weights if weights else (MPI.UNWEIGHTED, MPI.UNWEIGHTED)
        return Intracomm.Create_dist_graph_adjacent, (sources, destinations, *given, MPI.INFO_NULL, False)
    return None


class GivenUp(Exception):
    """Somebody else could not be drained."""


class Drain:
    """One draining."""

    def __init__(self, deadline_s: float, given_up: Callable[[], bool]) -> None:
        """`given_up` is asked while we wait: whether there is no need to."""
        self._deadline_s = deadline_s
        self._given_up = given_up
        self.has_marked = False
        self._awaited: dict[str, set[int]] = {}  # from whom no marker has come; communicators may still be made
        self.messages = 0
        self.size_bytes = 0

    def begin(self) -> None:
        """Until nobody of this rank can match a message any more. Raises TimeoutError, GivenUp."""
        self._wait(lambda: not gate.matching, "a call that looks for messages does not leave MPI")
        for request in reversed(list(outstanding)):
            request.withdraw()
        messages.drain_matched()

    def await_word(self) -> None:
        """Until the launcher says something. Others may need what we send, or room for what they send."""
        self._take_all()
        polls = 0
        while not self._given_up():
            self._take_all()
            polls += 1
            gate.relax(polls)

    def finish(self) -> None:
        """Until nothing is in flight; all ranks have begun. Raises TimeoutError, GivenUp."""
        self._wait(self._nothing_under_way, "a send or collective does not come to its end")
        markers = self._send_markers()
        self._wait(self._all_heard, "not every rank has said that nothing of it is in flight")
        Request.Waitall(markers)

    def _wait(self, condition: Any, otherwise: str) -> None:
        if not waited(lambda: condition() or self._given_up(), self._deadline_s):
            raise TimeoutError(otherwise)
        if self._given_up():
            raise GivenUp

    def _nothing_under_way(self) -> bool:
        self._take_all()
        ended = all([request.try_to_end() for request in outstanding if request._receive is None])
        return ended and not gate.passing

    def sweep(self, marked: Collection[int]) -> bool:
        """Take the markers of a draining that came to nothing, all that world ranks `marked` have sent; they are on
        their way. Whether they came."""
        self._awaited = {
            key: {peer for peer in self._awaited.get(key, range(len(comm._peers))) if comm._peers[peer] in marked}
            for key, comm in live.items()
        }
        return waited(self._all_markers_taken, _SWEEP_TIMEOUT_S)

    def _all_markers_taken(self) -> bool:
        for request in outstanding:  # one for any tag may have got it
            if request._receive is not None and request.try_to_end() and request._result is not None:
                status = request._result[0]
                key = request._comm._key
                if Status.Get_tag(status) == world.marker_tag:
                    request._result = None
                    self._awaited.get(key, set()).discard(Status.Get_source(status))
        for key, peers in self._awaited.items():
            for peer in list(peers):
                message = Comm.Improbe(live[key], peer, world.marker_tag)
                if message is not None:
                    Message.Recv(message, [bytearray(), 0, BYTE])
                    peers.discard(peer)
        return not any(self._awaited.values())

    def _send_markers(self) -> list[Any]:
        self.has_marked = True
        return [
            Comm.Isend(comm, [b"", 0, BYTE], peer, world.marker_tag)
            for comm in live.values()
            for peer in range(len(comm._peers))
        ]

    def _all_heard(self) -> bool:
        self._take_all()
        return not any(self._awaited.values())

    def _take_all(self) -> None:
        """Everything that has come."""
        for key, comm in list(live.items()):
            seen = Status()
            awaited = self._awaited.setdefault(key, set(range(len(comm._peers))))
            while awaited and (message := Comm.Improbe(comm, ANY_SOURCE, ANY_TAG, seen)) is not None:
                about = messages.about(seen)
                drained = messages.drain(message, about)
                if about.tag == world.marker_tag and not about.size_bytes:
                    awaited.discard(about.source)
                else:
                    comm._queue.add(drained)
                    self.messages += 1
                    self.size_bytes += about.size_bytes


def post_again() -> None:
    """The receives that were withdrawn, in the order in which they had been posted."""
    for request in outstanding:
        if request._receive is not None and request._real is None and request._result is None:
            request.post()
