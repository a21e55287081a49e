"""Requests of the program: each stands for one of MPI's, which may be another one in the next life.

A receive that has not been matched is cancelled for an image, and posted again after it. Whatever else was under way is
brought to its end, and its result is kept until the program asks for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from nbcr.mpi import messages
from nbcr.mpi.gate import gate
from nbcr.mpi.guarding import guarded_call
from nbcr.mpi.handles import GuardedStatus
from nbcr.mpi.queue import Drained
from nbcr.mpi.world import BYTE, MPI, Comm, Request, Status, copy_status, world

_Test, _test, _Get_status = Request.Test, Request.test, Request.Get_status
_MANY = 512  # requests outstanding, from which on it pays to look for those that have ended
_UNDEFINED = MPI.UNDEFINED


class GatedRequest(Request):
    """The program's request."""

    _real: Any
    _comm: Any
    _receive: tuple[Any, Any, int, int] | None
    _over = False  # the program has seen its end
    _result: tuple[Any, Any] | None = None  # status and object, once it has ended
    _drained: Drained | None = None  # the message that this receive got, and MPI brings from ourselves
    _sent: Any = None
    _cancelled = False
    _beside: GatedRequest | None = None  # what must have ended too
    when_ended: Any = None  # a call
    is_forgotten = False  # the program has freed it
    error: Exception | None = None  # by which it ended

    def __new__(
        cls, real: Any = None, comm: Any = None, receive: tuple[Any, Any, int, int] | None = None
    ) -> GatedRequest:
        """`receive`: how it is posted (Comm.Irecv or Comm.irecv, buffer, source, tag), for receives."""
        if isinstance(real, GatedRequest):
            if not real:
                real = None
            elif isinstance(real, cls):  # another name for the same
                return real
            else:  # of a class of the program's
                shared: GatedRequest = Request.__new__(cls)
                shared.__dict__ = real.__dict__
                return shared
        if real is not None and not isinstance(real, Request):
            raise TypeError(f"expecting a Request, got {type(real).__name__}")
        self: GatedRequest = Request.__new__(cls)
        self._real, self._comm, self._receive = real, comm, receive
        if real is None and receive is None:
            self._over = True
        return self

    def __init__(self, *args: Any) -> None:
        pass

    @classmethod
    def of_result(cls, status: Any, obj: Any) -> GatedRequest:
        """One that has ended already."""
        self = cls()
        self._over, self._result = False, (status, obj)
        return self

    def together_with(self, other: GatedRequest) -> GatedRequest:
        """This one, which ends when `other` has ended too."""
        self._beside = other
        return self

    @property
    def is_active(self) -> bool:
        """Whether there is something to wait for."""
        return not self._over

    # Receives

    def post(self) -> None:
        """Post the receive, in whichever life: to be matched by a drained message, or by one that comes."""
        assert self._receive is not None
        base, buf, source, tag = self._receive
        drained = self._comm._queue.take(source, tag) if self._comm._queue else None
        if drained is None:
            self._real = base(self._comm, buf, source, tag)
        elif len(drained.data) > messages.room_of(base, buf):
            self.error, self._result = MPI.Exception(MPI.ERR_TRUNCATE), (Status(), None)
        else:
            own_tag = world.next_tag()
            self._drained, self._sent = drained, Comm.Isend(world.own, [drained.data, BYTE], 0, own_tag)
            self._real = base(world.own, buf, 0, own_tag)

    def withdraw(self) -> None:
        """Cancel the receive, unless it has been matched; then it ends."""
        if self._real is None or self._receive is None or self.try_to_end() or self._real is None:
            return  # at the last, it has ended, and what it goes together with has not
        Request.Cancel(self._real)
        seen = Status()
        polls = 0
        while not _Get_status(self._real, seen):
            polls += 1
            gate.relax(polls)
        if Status.Is_cancelled(seen):
            _Test(self._real)
            self._real = None
        else:
            self.try_to_end()

    # Its end

    def try_to_end(self) -> bool:
        """Whether it has ended; its result is kept."""
        if self._over:
            return True
        if self._result is not None:
            return self._beside is None or self._beside.try_to_end()
        if self._real is None:
            return False
        seen = Status()
        try:
            flag, obj = (_Test(self._real, seen), None) if self._cancelled else _test(self._real, seen)
        except Exception as error:  # it is the program's, whoever found it out
            flag, obj, self.error = True, None, error
        if not flag:
            return False
        self._real = None
        if self._drained is not None:
            Request.Wait(self._sent)
            seen.Set_source(self._drained.source)
            seen.Set_tag(self._drained.tag)
            self._sent = self._drained = None
        self._result = (seen, obj)
        if self.when_ended is not None:
            self.when_ended()
        return self._beside is None or self._beside.try_to_end()

    def _seen(self, status: Any) -> Any:
        """The program hears of the end; the object."""
        self._over = True
        outstanding.remove(self)
        if self._beside is not None:
            outstanding.remove(self._beside)
        if self.error is not None:
            raise self.error
        if self._result is None:
            copy_status(Status(), status)
            return None
        (seen, obj), self._result = self._result, None
        copy_status(seen, status)
        return obj

    # What the program calls

    def Test(self, status: Any = None) -> bool:
        return self._tested(status)[0]

    def test(self, status: Any = None) -> tuple[bool, Any]:
        return self._tested(status)

    def Wait(self, status: Any = None) -> bool:
        self._waited(status)
        return True

    def wait(self, status: Any = None) -> Any:
        return self._waited(status)

    # No call of the program's stands on another: it may have others in their place

    @gate.matches
    def _tested(self, status: Any) -> tuple[bool, Any]:
        if gate.closed:
            gate.stay_out()
        return (True, self._seen(status)) if self.try_to_end() else (False, None)

    @gate.matches
    def _waited(self, status: Any) -> Any:
        polls = 0
        while True:
            if gate.closed:
                gate.stay_out()
            if self.try_to_end():
                return self._seen(status)
            polls += 1
            gate.relax(polls)

    @gate.matches
    def Get_status(self, status: Any = None) -> bool:
        if gate.closed:
            gate.stay_out()
        ended = self.try_to_end()
        if ended:
            copy_status(Status() if self._result is None else self._result[0], status)
        return ended

    get_status = Get_status

    @gate.matches
    def Cancel(self) -> None:
        """Only receives can be cancelled (MPI-5 3.8.4 deprecates the rest)."""
        if gate.closed:
            gate.stay_out()
        if self._over:
            raise MPI.Exception(MPI.ERR_REQUEST)
        if self._real is not None:
            self._cancelled = True
            Request.Cancel(self._real)

    cancel = Cancel

    def Free(self) -> None:
        """The program does not care when it ends; we do."""
        if self._over:
            raise MPI.Exception(MPI.ERR_REQUEST)
        guarded_call(self._let_go)

    def free(self) -> None:
        """Free it, unless it is null."""
        if self:
            self.Free()

    def _let_go(self) -> None:
        kept = GatedRequest()
        kept.__dict__.update(self.__dict__, is_forgotten=True)
        outstanding.replace(self, kept)
        self._over, self._real, self._receive, self._result = True, None, None, None

    def __bool__(self) -> bool:
        return not self._over

    def __eq__(self, other: object) -> bool:
        if isinstance(other, GatedRequest):
            return self is other or (self._over and other._over)
        return self._over and not other if isinstance(other, Request) else NotImplemented

    def __ne__(self, other: object) -> bool:  # theirs knows handles only
        equal = self.__eq__(other)
        return equal if equal is NotImplemented else not equal

    __hash__ = None  # type: ignore[assignment]  # as theirs

    # Several

    @classmethod
    def Waitall(cls, requests: Sequence[Any], statuses: list[Any] | None = None) -> bool:
        cls.waitall(requests, statuses)
        return True

    @classmethod
    def waitall(cls, requests: Sequence[Any], statuses: list[Any] | None = None) -> list[Any]:
        with _statuses(requests, statuses) as into:
            return [request.wait(status) for request, status in zip(requests, into, strict=True)]

    @classmethod
    def Testall(cls, requests: Sequence[Any], statuses: list[Any] | None = None) -> bool:
        return cls.testall(requests, statuses)[0]

    @classmethod
    def testall(cls, requests: Sequence[Any], statuses: list[Any] | None = None) -> tuple[bool, list[Any] | None]:
        if not all([request.Get_status() for request in requests]):
            return False, None
        return True, cls.waitall(requests, statuses)

    @classmethod
    def Get_status_all(cls, requests: Sequence[Any], statuses: list[Any] | None = None) -> bool:
        with _statuses(requests, statuses) as into:
            return all([request.Get_status(status) for request, status in zip(requests, into, strict=True)])

    get_status_all = Get_status_all

    @classmethod
    def Get_status_any(cls, requests: Sequence[Any], status: Any = None) -> tuple[int, bool]:
        if not any(map(_is_active, requests)):
            copy_status(Status(), status)
            return _UNDEFINED, True
        for index, request in enumerate(requests):
            if _is_active(request) and request.Get_status(status):
                return index, True
        return _UNDEFINED, False

    get_status_any = Get_status_any

    @classmethod
    def Get_status_some(cls, requests: Sequence[Any], statuses: list[Any] | None = None) -> list[int] | None:
        if not any(map(_is_active, requests)):
            return None
        ended: dict[int, Any] = {}
        for index, request in enumerate(requests):
            seen = GuardedStatus()
            if _is_active(request) and request.Get_status(seen):
                ended[index] = seen
        for position, seen in enumerate(ended.values()):
            _fill(statuses, position, seen)
        return list(ended)

    get_status_some = Get_status_some

    @classmethod
    def Waitany(cls, requests: Sequence[Any], status: Any = None) -> int:
        return cls.waitany(requests, status)[0]

    @classmethod
    def waitany(cls, requests: Sequence[Any], status: Any = None) -> tuple[int, Any]:
        found: tuple[int, Any] = _poll(lambda: _any(requests, status))
        return found

    @classmethod
    def Testany(cls, requests: Sequence[Any], status: Any = None) -> tuple[int, bool]:
        index, flag, _ = cls.testany(requests, status)
        return index, flag

    @classmethod
    def testany(cls, requests: Sequence[Any], status: Any = None) -> tuple[int, bool, Any]:
        found = _any(requests, status)
        return (_UNDEFINED, False, None) if found is None else (found[0], True, found[1])

    @classmethod
    def Waitsome(cls, requests: Sequence[Any], statuses: list[Any] | None = None) -> list[int] | None:
        return cls.waitsome(requests, statuses)[0]

    @classmethod
    def waitsome(cls, requests: Sequence[Any], statuses: list[Any] | None = None) -> tuple[list[int] | None, Any]:
        return _poll(lambda: _some(requests, statuses) or None) if any(map(_is_active, requests)) else (None, None)

    @classmethod
    def Testsome(cls, requests: Sequence[Any], statuses: list[Any] | None = None) -> list[int] | None:
        return cls.testsome(requests, statuses)[0]

    @classmethod
    def testsome(cls, requests: Sequence[Any], statuses: list[Any] | None = None) -> tuple[list[int] | None, Any]:
        return (_some(requests, statuses) or ([], [])) if any(map(_is_active, requests)) else (None, None)


class _statuses:  # noqa: N801
    """A status for each request; what the program gave is filled up to that many, as mpi4py does."""

    def __init__(self, requests: Sequence[Any], statuses: list[Any] | None) -> None:
        if isinstance(statuses, list):
            statuses.extend(GuardedStatus() for _ in range(len(requests) - len(statuses)))
        self._into = [*(statuses or ()), *[None] * len(requests)][: len(requests)]

    def __enter__(self) -> list[Any]:
        return self._into

    def __exit__(self, *exc: object) -> None:
        pass


def _is_active(request: Any) -> bool:
    return request.is_active if isinstance(request, GatedRequest) else bool(request)


def _fill(statuses: Any, position: int, status: Any) -> None:
    """The program's status at `position` becomes this one; a list that is too short grows."""
    if statuses is None:
        return
    if position < len(statuses):
        copy_status(status, statuses[position])
    else:
        statuses.append(status)


def _poll(look: Callable[[], Any]) -> Any:
    polls = 0
    while (found := look()) is None:
        polls += 1
        gate.relax(polls)
    return found


def _any(requests: Sequence[Any], status: Any) -> tuple[int, Any] | None:
    """Index and object of one that has ended; None when none has."""
    if not any(map(_is_active, requests)):
        copy_status(Status(), status)
        return _UNDEFINED, None
    for index, request in enumerate(requests):
        if _is_active(request) and (flag_and_obj := request.test(status))[0]:
            return index, flag_and_obj[1]
    return None


def _some(requests: Sequence[Any], statuses: list[Any] | None) -> tuple[list[int], list[Any]] | None:
    """Indices and objects of all that have ended; None when none has."""
    indices: list[int] = []
    objects: list[Any] = []
    for index, request in enumerate(requests):
        status = GuardedStatus()
        if _is_active(request) and (flag_and_obj := request.test(status))[0]:
            _fill(statuses, len(indices), status)
            indices.append(index)
            objects.append(flag_and_obj[1])
    return (indices, objects) if indices else None


class Outstanding:
    """Requests that have not ended, in the order in which they were begun. Several objects may stand for one: what is
    known of it they have in common."""

    def __init__(self) -> None:
        self._requests: dict[int, GatedRequest] = {}
        self._sweep_at = _MANY

    def add(self, request: GatedRequest) -> GatedRequest:
        """Note it until the program has seen its end. Of sends that nobody asks for, the end is looked for here."""
        self._requests[id(request.__dict__)] = request
        if len(self._requests) > self._sweep_at:
            for each in list(self._requests.values()):
                if (each._receive is None or each.is_forgotten) and each.try_to_end():
                    self.remove(each)
            self._sweep_at = max(_MANY, 2 * len(self._requests))
        return request

    def replace(self, request: GatedRequest, other: GatedRequest) -> None:
        """`other` takes its place."""
        replaced = id(request.__dict__)
        self._requests = {
            id(other.__dict__) if number == replaced else number: other if number == replaced else each
            for number, each in self._requests.items()
        }

    def remove(self, request: GatedRequest) -> None:
        """It has ended."""
        self._requests.pop(id(request.__dict__), None)

    def __iter__(self) -> Iterator[GatedRequest]:
        return iter(list(self._requests.values()))


outstanding = Outstanding()
