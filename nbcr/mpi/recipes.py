"""How to make the program's handles again, in another life of MPI."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from nbcr.mpi import errhandlers
from nbcr.mpi.handles import datatypes, groups, infos, is_predefined, operations
from nbcr.mpi.world import MPI, reseat, world

_PREDEFINED_INFOS = (MPI.INFO_NULL, MPI.INFO_ENV)


class Recipes:
    """How to make the program's handles again; taken while MPI is there."""

    def __init__(self) -> None:
        self._types = [
            (made, _recipe(made[0])) for made in _by_handle(datatypes, MPI.DATATYPE_NULL) if not is_predefined(made[0])
        ]
        self._groups = [
            (made, list(MPI.Group.Translate_ranks(made[0], None, world.group)))
            for made in _by_handle(groups, MPI.GROUP_NULL, MPI.GROUP_EMPTY)
        ]
        self._operations = [made for made in operations if made._made is not None and made != MPI.OP_NULL]
        self._names = [(made[0], MPI.Datatype.Get_name(made[0])) for made, _ in self._types]
        self._infos = [(made, dict(MPI.Info.items(made[0]))) for made in _by_handle(infos, *_PREDEFINED_INFOS)]
        self._errhandlers, self._released = errhandlers.of_the_program(), list(errhandlers.released)

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


def _recipe(datatype: Any) -> tuple[Any, ...]:
    if is_predefined(datatype):
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


def give_hints(comm: Any, hints: dict[str, str]) -> None:
    """Set a communicator's hints. For the thread that has closed the gate."""
    info = MPI.Info.Create(hints)
    MPI.Comm.Set_info(comm, info)
    info.Free()
