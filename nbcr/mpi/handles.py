"""Datatypes, groups, operations, hints and statuses of the program: guarded, and noted so that they can be made again
(see `recipes`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from nbcr.mpi.attributes import Attributes, create_keyval, free_keyval
from nbcr.mpi.guarding import Freed, Noted, guard, guarded_call
from nbcr.mpi.support import unsupported
from nbcr.mpi.world import MPI, reseat, world

datatypes, groups, operations, infos = Noted(), Noted(), Noted(), Noted()


class GuardedStatus(MPI.Status):
    """Counts of a status are told by MPI."""


def _world_ranks(group: Any) -> list[int]:
    if group == MPI.GROUP_EMPTY:
        return []
    if group == MPI.GROUP_NULL:
        raise MPI.Exception(MPI.ERR_GROUP)
    return list(guarded_call(lambda: MPI.Group.Translate_ranks(group, None, world.group)))


class GuardedGroup(Freed, MPI.Group):
    """The program's group."""

    def __new__(cls, group: Any = None) -> GuardedGroup:
        self: GuardedGroup = super().__new__(cls, group)
        groups.add(self)
        return self

    # By world ranks: MPICH ends the job over GROUP_EMPTY, which belongs to no session, beside a group that does

    @classmethod
    def Union(cls, group1: Any, group2: Any) -> Any:
        first, second = _world_ranks(group1), _world_ranks(group2)
        return cls._of([*first, *(rank for rank in second if rank not in first)])

    @classmethod
    def Intersection(cls, group1: Any, group2: Any) -> Any:
        second = _world_ranks(group2)
        return cls._of([rank for rank in _world_ranks(group1) if rank in second])

    Intersect = Intersection

    @classmethod
    def Difference(cls, group1: Any, group2: Any) -> Any:
        second = _world_ranks(group2)
        return cls._of([rank for rank in _world_ranks(group1) if rank not in second])

    def Dup(self) -> Any:
        return type(self)(self) if self in (MPI.GROUP_EMPTY, MPI.GROUP_NULL) else self._of(_world_ranks(self))

    def Compare(self, group: Any) -> int:
        first, second = _world_ranks(self), _world_ranks(group)
        same = MPI.IDENT if first == second else MPI.SIMILAR if sorted(first) == sorted(second) else MPI.UNEQUAL
        return int(same)

    def Translate_ranks(self, ranks: Any = None, group: Any = None) -> Any:
        if MPI.GROUP_EMPTY in (self, group):
            return [MPI.UNDEFINED] * (len(ranks) if ranks is not None else self.Get_size())
        return guarded_call(MPI.Group.Translate_ranks, self, ranks, group)

    @classmethod
    def _of(cls, ranks: list[int]) -> Any:
        return cls(guarded_call(lambda: world.group.Incl(ranks)))


_KINDS_OF_F90 = {MPI.COMBINER_F90_INTEGER: "i", MPI.COMBINER_F90_REAL: "f", MPI.COMBINER_F90_COMPLEX: "c"}
_KINDS_OF_FORTRAN = (
    (MPI.LOGICAL, "i"), (MPI.INTEGER, "i"), (MPI.REAL, "f"), (MPI.DOUBLE_PRECISION, "f"), (MPI.COMPLEX, "c"),
    (MPI.DOUBLE_COMPLEX, "c"),
)  # fmt: skip


class GuardedDatatype(Freed, MPI.Datatype):
    """The program's datatype; predefined ones too, so that those derived from them are ours."""

    _committed = False
    _attributes: Attributes

    def __new__(cls, datatype: Any = None) -> GuardedDatatype:
        self: GuardedDatatype = super().__new__(cls, datatype)
        self._attributes = Attributes()
        datatypes.add(self)
        return self

    def Dup(self) -> Any:
        duplicate = guarded_call(MPI.Datatype.Dup, self)
        duplicate._committed = self._committed
        self._attributes.copy(self, duplicate)
        return duplicate

    Create_dup = Dup

    def Free(self) -> None:
        self._attributes.clear(self)
        guarded_call(MPI.Datatype.Free, self)

    # What a datatype is made of: mpi4py gives objects of its own class, whose types it frees with them

    def decode(self) -> Any:
        base, combiner, params = guarded_call(MPI.Datatype.decode, self)
        if "datatypes" in params:
            params = {**params, "datatypes": list(map(self._taken_over, params["datatypes"]))}
        return self if base is self else self._taken_over(base), combiner, params

    def Get_contents(self) -> Any:
        *numbers, datatypes = guarded_call(MPI.Datatype.Get_contents, self)
        return *numbers, list(map(self._taken_over, datatypes))

    contents = property(Get_contents)

    @classmethod
    def _taken_over(cls, datatype: Any) -> GuardedDatatype:
        """Rejected: leaving it to mpi4py, which would free in another life what stands there under the same number."""
        if isinstance(datatype, GuardedDatatype) or is_predefined(datatype):
            return cls(datatype)
        made = cls()
        reseat(made, datatype, MPI.DATATYPE_NULL)
        made._committed = True
        return made

    # MPICH 5.0.2 keeps a list of these, and would give those of another life again

    Create_f90_integer, Create_f90_real, Create_f90_complex = (
        unsupported(f"datatypes of Fortran 90 ({name})", MPI.Datatype.__dict__[name])
        for name in ("Create_f90_integer", "Create_f90_real", "Create_f90_complex")
    )

    # How types of Python call it: mpi4py looks into duplicates, and asks for sizes, where it has set MPI up itself only

    def tocode(self) -> str:
        return str(MPI.Datatype.tocode(self.like()))

    @property
    def typechar(self) -> str:
        return str(MPI.Datatype.typechar.__get__(self.like()))

    @property
    def typestr(self) -> str:
        found = str(MPI.Datatype.typestr.__get__(self.like()))
        return f"V{self.extent}" if found == "V0" else found

    def like(self) -> Any:
        """The predefined datatype that has the same values; without one, the datatype itself."""
        if not self:
            return self
        combiner = guarded_call(MPI.Datatype.Get_envelope, self)[-1]
        if combiner == MPI.COMBINER_DUP:
            return self._taken_over(guarded_call(MPI.Datatype.decode, self)[0]).like()
        kind = _KINDS_OF_F90.get(combiner) or next((kind for each, kind in _KINDS_OF_FORTRAN if each == self), None)
        return MPI.Datatype.fromcode(f"{kind}{self.size}") if kind else self

    def Get_attr(self, keyval: int) -> Any:
        return self._attributes.get(keyval)

    def Set_attr(self, keyval: int, attrval: Any) -> None:
        self._attributes.set(self, keyval, attrval)

    def Delete_attr(self, keyval: int) -> None:
        self._attributes.delete(self, keyval)

    Create_keyval = staticmethod(create_keyval)
    Free_keyval = staticmethod(free_keyval)

    def Commit(self) -> GuardedDatatype:
        guarded_call(MPI.Datatype.Commit, self)
        self._committed = True
        return self


class GuardedOperation(Freed, MPI.Op):
    """The program's operation; MPI knows a function of Python by a number only."""

    _made: tuple[Any, bool] | None = None

    def __new__(cls, operation: Any = None) -> GuardedOperation:
        self: GuardedOperation = super().__new__(cls, operation)
        operations.add(self)
        return self

    @classmethod
    def Create(cls, function: Any, commute: bool = False) -> GuardedOperation:
        self: GuardedOperation = guarded_call(_create_op, cls, function, commute)
        self._made = (function, commute)
        return self


class GuardedInfo(Freed, MPI.Info):
    """The program's hints."""

    def __new__(cls, info: Any = None) -> GuardedInfo:
        self: GuardedInfo = super().__new__(cls, info)
        infos.add(self)
        return self

    def __len__(self) -> int:
        return int(guarded_call(MPI.Info.__len__, self))

    def __iter__(self) -> Iterator[str]:
        return iter(guarded_call(MPI.Info.keys, self))

    def __getitem__(self, item: str) -> str:
        return str(guarded_call(MPI.Info.__getitem__, self, item))

    def __setitem__(self, item: str, value: str) -> None:
        guarded_call(MPI.Info.__setitem__, self, item, value)

    def __delitem__(self, item: str) -> None:
        guarded_call(MPI.Info.__delitem__, self, item)

    def __contains__(self, value: object) -> bool:
        return bool(guarded_call(MPI.Info.__contains__, self, value))


def is_predefined(made: Any) -> bool:
    """Whether a datatype is MPI's from the beginning."""
    return bool(MPI.Datatype.is_predefined.__get__(made))


def _create_op(cls: type, function: Any, commute: bool) -> Any:
    return MPI.Op.__dict__["Create"].__get__(None, cls)(function, commute)


guard(GuardedStatus, MPI.Status)
guard(GuardedGroup, MPI.Group)
guard(GuardedDatatype, MPI.Datatype)
guard(GuardedOperation, MPI.Op)
guard(GuardedInfo, MPI.Info)
