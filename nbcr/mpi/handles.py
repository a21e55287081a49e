"""Datatypes, groups, operations and statuses of the program: guarded, and noted so that they can be made again.

mpi4py makes derived objects with the class of the object or of the type that was asked, so that classes of ours, put
into its module before the program runs, see all of them.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from typing import Any

from nbcr.mpi.gate import gate, holder
from nbcr.mpi.world import MPI, reseat, world

_enter, _leave = gate.enter, gate.leave


@holder
def guarded_call(base: Any, *args: Any, **named: Any) -> Any:
    """A local call of MPI: nobody may be in one while it is torn down."""
    _enter(None)
    if gate.closed:
        gate.admit()
    try:
        return base(*args, **named)
    finally:
        _leave()


def guarded(descriptor: Any) -> Any:
    """A method, classmethod, staticmethod or property of mpi4py's, as ours."""
    if isinstance(descriptor, classmethod):
        return classmethod(lambda cls, *args, **named: guarded_call(descriptor.__get__(None, cls), *args, **named))
    if isinstance(descriptor, staticmethod):
        return staticmethod(lambda *args, **named: guarded_call(descriptor.__get__(None, object), *args, **named))
    if callable(descriptor):
        return lambda self, *args, **named: guarded_call(descriptor, self, *args, **named)
    return property(
        lambda self: guarded_call(descriptor.__get__, self),
        lambda self, value: guarded_call(descriptor.__set__, self, value),
    )


def _guard(ours: type, theirs: type) -> None:
    for name, descriptor in theirs.__dict__.items():
        if not name.startswith("_") and name not in ours.__dict__:
            setattr(ours, name, guarded(descriptor))


class _Noted:
    """Objects of one sort, as long as the program has them."""

    def __init__(self) -> None:
        self._references: dict[int, weakref.ref[Any]] = {}

    def add(self, made: Any) -> None:
        self._references[id(made)] = weakref.ref(made, self._forgetting(id(made)))

    def _forgetting(self, number: int) -> Callable[[Any], None]:
        def forget(reference: Any) -> None:
            self._references.pop(number, None)

        return forget

    def __iter__(self) -> Iterator[Any]:
        return iter([made for reference in list(self._references.values()) if (made := reference()) is not None])


_datatypes, _groups, _operations = _Noted(), _Noted(), _Noted()


class GuardedStatus(MPI.Status):
    """Counts of a status are told by MPI."""


class GuardedGroup(MPI.Group):
    """The program's group."""

    def __new__(cls, group: Any = None) -> GuardedGroup:
        self: GuardedGroup = super().__new__(cls, group)
        _groups.add(self)
        return self


class GuardedDatatype(MPI.Datatype):
    """The program's datatype; predefined ones too, so that those derived from them are ours."""

    _committed = False

    def __new__(cls, datatype: Any = None) -> GuardedDatatype:
        self: GuardedDatatype = super().__new__(cls, datatype)
        _datatypes.add(self)
        return self

    def Commit(self) -> GuardedDatatype:
        guarded_call(MPI.Datatype.Commit, self)
        self._committed = True
        return self


class GuardedOperation(MPI.Op):
    """The program's operation; MPI knows a function of Python by a number only."""

    _made: tuple[Any, bool] | None = None

    def __new__(cls, operation: Any = None) -> GuardedOperation:
        self: GuardedOperation = super().__new__(cls, operation)
        _operations.add(self)
        return self

    @classmethod
    def Create(cls, function: Any, commute: bool = False) -> GuardedOperation:
        self: GuardedOperation = guarded_call(_create_op, cls, function, commute)
        self._made = (function, commute)
        return self


def _create_op(cls: type, function: Any, commute: bool) -> Any:
    return MPI.Op.__dict__["Create"].__get__(None, cls)(function, commute)


_guard(GuardedStatus, MPI.Status)
_guard(GuardedGroup, MPI.Group)
_guard(GuardedDatatype, MPI.Datatype)
_guard(GuardedOperation, MPI.Op)


# --- torn down and made again -----------------------------------------------------------------------------------------


class Recipes:
    """How to make the program's handles again; taken while MPI is there."""

    def __init__(self) -> None:
        self._types = [
            (made, _recipe(made)) for made in _datatypes if made != MPI.DATATYPE_NULL and not _is_predefined(made)
        ]
        self._groups = [
            (made, list(MPI.Group.Translate_ranks(made, None, world.group)))
            for made in _groups
            if made not in (MPI.GROUP_NULL, MPI.GROUP_EMPTY)
        ]
        self._operations = [made for made in _operations if made._made is not None and made != MPI.OP_NULL]

    def free(self) -> None:
        """Free what MPI knows of them; the program's objects stay."""
        for made, _ in self._types:
            _freed(MPI.Datatype(made))
        for group, _ in self._groups:
            _freed(MPI.Group(group))
        for operation in self._operations:
            _freed(MPI.Op(operation))

    def make(self) -> None:
        """Make them again."""
        for made, recipe in self._types:
            new = _cook(recipe)
            if made._committed:
                new.Commit()
            reseat(made, new, MPI.DATATYPE_NULL)
        for group, ranks in self._groups:
            reseat(group, MPI.Group.Incl(world.group, ranks), MPI.GROUP_NULL)
        for operation in self._operations:
            assert operation._made is not None
            reseat(operation, MPI.Op.Create(*operation._made), MPI.OP_NULL)


def _freed(alias: Any) -> None:
    """Free a handle by another object for it: the program's keeps its value, stale until it is seated again."""
    alias.Free()


def _is_predefined(made: Any) -> bool:
    return bool(MPI.Datatype.is_predefined.__get__(made))


def _recipe(datatype: Any) -> tuple[Any, ...]:
    if _is_predefined(datatype):
        return ("NAMED", datatype)
    base, combiner, params = MPI.Datatype.decode(datatype)
    params = dict(params)
    if combiner == "STRUCT":
        params["datatypes"] = [_recipe(each) for each in params["datatypes"]]
        return (combiner, None, params)
    return (combiner, _recipe(base), params)


def _cook(recipe: tuple[Any, ...]) -> Any:
    """The datatype; what it is made of is freed on the way, which MPI allows."""
    combiner, base, *rest = recipe
    if combiner == "NAMED":
        return base
    params = dict(rest[0])
    make = "Create_" + combiner.lower()
    if combiner == "STRUCT":
        parts = [_cook(each) for each in params.pop("datatypes")]
        made = MPI.Datatype.Create_struct(datatypes=parts, **params)
    elif combiner == "DUP":
        parts = [_cook(base)]
        made = MPI.Datatype.Dup(parts[0])
    else:
        parts = [_cook(base)]
        made = getattr(MPI.Datatype, make)(parts[0], **params)
    for part, origin in zip(parts, rest[0].get("datatypes", [base]), strict=True):
        if origin[0] != "NAMED":
            MPI.Datatype.Free(part)
    return made
