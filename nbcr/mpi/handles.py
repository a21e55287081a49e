"""Datatypes, groups, operations and statuses of the program: guarded, and noted so that they can be made again.

mpi4py makes derived objects with the class of the object or of the type that was asked, so that classes of ours, put
into its module before the program runs, see all of them.
"""

from __future__ import annotations

import ctypes
import traceback
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import mpi4py

from nbcr.mpi.attributes import Attributes, create_keyval, free_keyval
from nbcr.mpi.gate import gate
from nbcr.mpi.support import unsupported
from nbcr.mpi.world import MPI, reseat, world


@gate.matches
def guarded_call(base: Any, *args: Any, **named: Any) -> Any:
    """A local call of MPI: nobody may be in one while it is torn down."""
    if gate.closed:
        gate.stay_out()
    return base(*args, **named)


def guarded(descriptor: Any) -> Any:
    """A method, classmethod, staticmethod or property of mpi4py's, as ours."""
    call: Any
    if isinstance(descriptor, classmethod):
        call = classmethod(lambda cls, *args, **named: guarded_call(descriptor.__get__(None, cls), *args, **named))
        return _called_as(descriptor.__func__.__name__, call, call.__func__)
    if isinstance(descriptor, staticmethod):
        return staticmethod(lambda *args, **named: guarded_call(descriptor.__get__(None, object), *args, **named))
    if callable(descriptor):
        call = lambda self, *args, **named: guarded_call(descriptor, self, *args, **named)  # noqa: E731
        return _called_as(getattr(descriptor, "__name__", ""), call, call)
    return property(
        lambda self: guarded_call(descriptor.__get__, self),
        lambda self, value: guarded_call(descriptor.__set__, self, value),
    )


def _called_as(name: str, call: Any, function: Any) -> Any:
    if name:
        function.__name__ = function.__qualname__ = name
    return call


def _guard(ours: type, theirs: type) -> None:
    for name, descriptor in theirs.__dict__.items():
        if not name.startswith("_") and name not in ours.__dict__ and name != "free":
            setattr(ours, name, _found(descriptor) if name in _FINDERS else guarded(descriptor))


_FINDERS = ("fromhandle", "fromint", "f2py")


def _found(descriptor: Any) -> Any:
    """What finds the object for a number; mpi4py gives one of its own class."""

    def find(cls: Any, number: int) -> Any:
        return cls(guarded_call(descriptor.__get__(None, cls), number))

    return classmethod(_called_as(descriptor.__func__.__name__, find, find))


class _Freed:
    """What all handles of the program have that are no communicators."""

    is_constant = False  # of mpi4py's module

    def free(self: Any) -> None:
        """Free it, unless it is null; what is predefined stays, but for the object that stood for it."""
        if not self or self.is_constant:
            return
        try:
            self.Free()
        except MPI.Exception:
            reseat(self, type(self)(), type(self)())


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


_datatypes, _groups, _operations, _infos, _errhandlers = _Noted(), _Noted(), _Noted(), _Noted(), _Noted()


class GuardedStatus(MPI.Status):
    """Counts of a status are told by MPI."""


def _world_ranks(group: Any) -> list[int]:
    if group == MPI.GROUP_EMPTY:
        return []
    if group == MPI.GROUP_NULL:
        raise MPI.Exception(MPI.ERR_GROUP)
    return list(guarded_call(lambda: MPI.Group.Translate_ranks(group, None, world.group)))


class GuardedGroup(_Freed, MPI.Group):
    """The program's group."""

    def __new__(cls, group: Any = None) -> GuardedGroup:
        self: GuardedGroup = super().__new__(cls, group)
        _groups.add(self)
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


class GuardedDatatype(_Freed, MPI.Datatype):
    """The program's datatype; predefined ones too, so that those derived from them are ours."""

    _committed = False
    _attributes: Attributes

    def __new__(cls, datatype: Any = None) -> GuardedDatatype:
        self: GuardedDatatype = super().__new__(cls, datatype)
        self._attributes = Attributes()
        _datatypes.add(self)
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
        if isinstance(datatype, GuardedDatatype) or _is_predefined(datatype):
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


class GuardedOperation(_Freed, MPI.Op):
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


class GuardedInfo(_Freed, MPI.Info):
    """The program's hints."""

    def __new__(cls, info: Any = None) -> GuardedInfo:
        self: GuardedInfo = super().__new__(cls, info)
        _infos.add(self)
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


class GuardedErrhandler(_Freed, MPI.Errhandler):
    """The program's function that is called on errors.

    MPI is given a function of ours for it, and the same one in each life: mpi4py has room for 32, and gives none back.
    """

    _function: Any = None
    _callback: Any = None

    def __new__(cls, errhandler: Any = None) -> GuardedErrhandler:
        self: GuardedErrhandler = super().__new__(cls, errhandler)
        _errhandlers.add(self)
        return self

    @classmethod
    def of_function(cls, function: Any) -> GuardedErrhandler:
        """One for communicators, kept as mpi4py keeps functions: MPI calls it, whoever has it."""
        self = cls()
        self._function, self._callback = function, _callback_of(function)
        guarded_call(self.make)
        _kept.append(self)
        return self

    def make(self) -> None:
        """Make it known to MPI. Raises MPI.Exception."""
        create = ctypes.CDLL(mpi4py.MPI.__file__).MPI_Comm_create_errhandler
        code = create(self._callback, ctypes.c_void_p(MPI._addressof(self)))
        if code != MPI.SUCCESS:
            raise MPI.Exception(code)

    @classmethod
    def of_handle(cls, errhandler: Any) -> GuardedErrhandler:
        """What MPI says is one that the program has made, or predefined."""
        self = cls(errhandler)
        ours = _made_for(self)
        if ours is not None:
            self._function, self._callback = ours._function, ours._callback
        return self

    def Free(self) -> None:
        """Communicators that have it keep it."""
        if self._function is not None and self:
            _released.append(self.of_handle(self))
        guarded_call(MPI.Errhandler.Free, self)
        _kept[:] = [each for each in _kept if each is not self]


_kept: list[GuardedErrhandler] = []  # until they are freed: communicators may have them when the program has not
_released: list[GuardedErrhandler] = []  # which the program has freed, and communicators may have


def _made_for(errhandler: Any) -> Any:
    """The program's errhandler that is the same; None: it is predefined."""
    candidates = (*_of_the_program(), *reversed(_released))
    return next((each for each in candidates if each._function is not None and each == errhandler), None)


def _of_the_program() -> list[GuardedErrhandler]:
    released = set(map(id, _released))
    return [each for each in _errhandlers if id(each) not in released]


_HANDLE = ctypes.c_uint32 if MPI._sizeof(MPI.Comm) == ctypes.sizeof(ctypes.c_uint32) else ctypes.c_uint64
_ON_ERROR = ctypes.CFUNCTYPE(None, ctypes.POINTER(_HANDLE), ctypes.POINTER(ctypes.c_int))


def _callback_of(function: Any) -> Any:
    """What MPI calls. As mpi4py has it, an error in the program's function ends the job."""

    def call(comm: Any, code: Any) -> None:
        from nbcr.mpi.communicators import known

        try:
            function(known(MPI.Comm.fromhandle(comm[0])), code[0])
        except BaseException:
            traceback.print_exc()
            world.comm.Abort(1)

    return _ON_ERROR(call)


def errhandler_of(comm: Any) -> Any:
    """What is to be set again when `comm` has been made again; None for what all have from their beginning."""
    errhandler = MPI.Comm.Get_errhandler(comm)
    if errhandler == MPI.ERRORS_RETURN:
        return None
    return _made_for(errhandler) or errhandler


def forget_released(in_use: Iterable[Any]) -> None:
    """But for these, which communicators have."""
    used = set(map(id, in_use))
    _released[:] = [each for each in _released if id(each) in used]


def give_hints(comm: Any, hints: dict[str, str]) -> None:
    """Set a communicator's hints. For the thread that has closed the gate."""
    info = MPI.Info.Create(hints)
    MPI.Comm.Set_info(comm, info)
    info.Free()


def _create_op(cls: type, function: Any, commute: bool) -> Any:
    return MPI.Op.__dict__["Create"].__get__(None, cls)(function, commute)


_guard(GuardedStatus, MPI.Status)
_guard(GuardedGroup, MPI.Group)
_guard(GuardedDatatype, MPI.Datatype)
_guard(GuardedOperation, MPI.Op)
_guard(GuardedInfo, MPI.Info)
_guard(GuardedErrhandler, MPI.Errhandler)


# --- torn down and made again -----------------------------------------------------------------------------------------


_PREDEFINED_INFOS = (MPI.INFO_NULL, MPI.INFO_ENV)


class Recipes:
    """How to make the program's handles again; taken while MPI is there."""

    def __init__(self) -> None:
        self._types = [
            (made, _recipe(made[0]))
            for made in _by_handle(_datatypes, MPI.DATATYPE_NULL)
            if not _is_predefined(made[0])
        ]
        self._groups = [
            (made, list(MPI.Group.Translate_ranks(made[0], None, world.group)))
            for made in _by_handle(_groups, MPI.GROUP_NULL, MPI.GROUP_EMPTY)
        ]
        self._operations = [made for made in _operations if made._made is not None and made != MPI.OP_NULL]
        self._names = [(made[0], MPI.Datatype.Get_name(made[0])) for made, _ in self._types]
        self._infos = [(made, dict(MPI.Info.items(made[0]))) for made in _by_handle(_infos, *_PREDEFINED_INFOS)]
        own = [made for made in _of_the_program() if made._function is not None and made != MPI.ERRHANDLER_NULL]
        self._errhandlers, self._released = own, list(_released)

    def free(self) -> None:
        """Free what MPI knows of them; the program's objects stay."""
        for made, _ in self._types:
            _freed(MPI.Datatype(made[0]))
        for group, _ in self._groups:
            _freed(MPI.Group(group[0]))
        for operation in self._operations:
            _freed(MPI.Op(operation))
        for info, _ in self._infos:
            _freed(MPI.Info(info[0]))
        for errhandler in self._errhandlers:
            _freed(MPI.Errhandler(errhandler))

    def make(self) -> None:
        """Make them again."""
        for made, recipe in self._types:
            new = _cook(recipe)
            if any(each._committed for each in made):
                new.Commit()
            _seat(made, new, MPI.Datatype)
        for group, ranks in self._groups:
            _seat(group, MPI.Group.Incl(world.group, ranks), MPI.Group)
        for operation in self._operations:
            assert operation._made is not None
            reseat(operation, MPI.Op.Create(*operation._made), MPI.OP_NULL)
        for made, name in self._names:
            if name:
                MPI.Datatype.Set_name(made, name)
        for info, items in self._infos:
            _seat(info, MPI.Info.Create(items), MPI.Info)
        for errhandler in (*self._errhandlers, *self._released):
            errhandler.make()

    def finish(self) -> None:
        """Communicators have been made again: what the program has freed is theirs alone."""
        for errhandler in self._released:
            _freed(MPI.Errhandler(errhandler))


def _by_handle(noted: Iterable[Any], *but: Any) -> list[list[Any]]:
    """The program's objects, those together that stand for the same (`MPI.Info(info)`)."""
    found: dict[int, list[Any]] = {}
    for made in noted:
        if made not in but:
            found.setdefault(int(MPI._handleof(made)), []).append(made)
    return list(found.values())


def _seat(objects: list[Any], new: Any, kind: Any) -> None:
    """Let all of them stand for `new`."""
    for each in objects[1:]:
        reseat(each, kind(new), kind())
    reseat(objects[0], new, kind())


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
