"""Local calls of MPI, behind the gate: what mpi4py's classes have, as ours; and which objects the program has.

mpi4py makes derived objects with the class of the object or of the type that was asked, so that classes of ours, put
into its module before the program runs, see all of them.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from typing import Any

from nbcr.mpi.gate import gate
from nbcr.mpi.world import MPI, reseat


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


def guard(ours: type, theirs: type) -> None:
    """Every method of mpi4py's class stands behind the gate, but for those that ours has."""
    for name, descriptor in theirs.__dict__.items():
        if not name.startswith("_") and name not in ours.__dict__ and name != "free":
            setattr(ours, name, _found(descriptor) if name in _FINDERS else guarded(descriptor))


_FINDERS = ("fromhandle", "fromint", "f2py")


def _found(descriptor: Any) -> Any:
    """What finds the object for a number; mpi4py gives one of its own class."""

    def find(cls: Any, arg: int) -> Any:
        return cls(guarded_call(descriptor.__get__(None, cls), arg))

    def find_handle(cls: Any, handle: int) -> Any:
        return find(cls, handle)

    name = descriptor.__func__.__name__
    finder = find_handle if name == "fromhandle" else find  # by the names that mpi4py has for it
    return classmethod(_called_as(name, finder, finder))


class Freed:
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


class Noted:
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
