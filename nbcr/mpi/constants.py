"""What mpi4py's module holds, as objects of our classes; and how pickles name them."""

from __future__ import annotations

from typing import Any

from nbcr.mpi.guarding import guarded_call
from nbcr.mpi.world import MPI

MODULE = "mpi4py.MPI"

_constants: dict[str, Any] = {}  # by name
_classes: dict[Any, Any] = {}  # theirs → ours


def put(module: Any, classes: dict[Any, Any]) -> None:
    """Put our classes into mpi4py's module, and what is there of theirs as objects of ours: `isinstance` holds."""
    _classes.update(classes)
    for name, made in list(vars(module).items()):
        if isinstance(made, type):
            if made in classes and name == made.__name__:
                setattr(module, name, _as_theirs(classes[made], made))
        elif name in ("REQUEST_NULL", "MESSAGE_NULL"):
            given(module, name, classes[type(made)]())
        elif name == "MESSAGE_NO_PROC":
            given(module, name, classes[type(made)].nobodys(made))
        elif type(made) in classes and name not in ("COMM_WORLD", "COMM_SELF"):
            given(module, name, classes[type(made)](made))
        elif isinstance(made, dict):  # of datatypes by their codes: mpi4py looks into it too
            made.update({code: classes[type(each)](each) for code, each in made.items() if type(each) in classes})


def given(module: Any, name: str, made: Any) -> None:
    """A constant of the module."""
    made.is_constant = True
    _constants[name] = made
    setattr(module, name, made)


def _as_theirs(ours: Any, theirs: Any) -> Any:
    """`ours`, called and explained as `theirs`, and pickled in its name."""

    def reduce_(self: Any) -> Any:
        for name, constant in _constants.items():
            if constant is self:
                return name
        for name, constant in _constants.items():
            if isinstance(constant, theirs) and constant == self:
                return _like_constant, (type(self), name)
        if self and isinstance(self, MPI.Request | MPI.Message):
            raise ValueError(f"a {theirs.__name__} that is under way cannot be pickled")
        return _ours(guarded_call(theirs.__reduce__, self))

    ours.__module__, ours.__name__, ours.__qualname__ = MODULE, theirs.__name__, theirs.__name__
    if "Status" not in theirs.__name__:
        reduce_.__name__ = reduce_.__qualname__ = "__reduce__"
        ours.__reduce__ = reduce_
    _explain(ours, theirs)
    return ours


def _explain(ours: Any, theirs: Any) -> None:
    """What `help(comm.Bcast)` shows is what mpi4py says."""
    ours.__doc__ = theirs.__doc__
    for name, made in vars(ours).items():
        explained = getattr(theirs, name, None) if not name.startswith("_") else None
        made = getattr(made, "__func__", made)
        if explained is not None and explained.__doc__ and hasattr(made, "__doc__"):
            made.__doc__ = explained.__doc__


def _like_constant(kind: Any, name: str) -> Any:
    from mpi4py import MPI

    return kind(getattr(MPI, name))


def _ours(value: Any) -> Any:
    """What a pickle says, with our classes and constants for theirs."""
    if isinstance(value, tuple | list):
        return type(value)(map(_ours, value))
    if isinstance(value, dict):
        return {key: _ours(each) for key, each in value.items()}
    if isinstance(value, type):
        return _classes.get(value, value)
    if type(value) in _classes and not isinstance(value, MPI.Request | MPI.Message):
        return _classes[type(value)](value)
    return value
