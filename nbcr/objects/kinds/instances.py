"""Instances that pickle would save, and nobody could load.

pickle makes them by ``cls.__new__(cls)``, and then asks them for their ``__setstate__``. A ``__new__`` that wants to be
told more, or a ``__getattr__`` that looks into an attribute which is not there yet, fails then. These are made and
filled without either.
"""

from __future__ import annotations

import copyreg
import inspect
import sys
from types import BuiltinFunctionType, FunctionType
from typing import TYPE_CHECKING, Any

from cloudpickle import cloudpickle

from nbcr.objects.kinds.base import Kind, Reduction

if TYPE_CHECKING:
    from nbcr.objects.pickling import UnitPickler

_PROTOCOL = 5
_WITH_A_VALUE = (int, float, complex, str, bytes, tuple)  # which their ``__getnewargs__`` gives to ``__new__``
_ASKED = ("__getattr__", "__getattribute__")


def is_awkward(cls: type) -> bool:
    """Whether instances of this class have to be made or filled without asking it."""
    if any(getattr(cls, name) is not getattr(object, name) for name in ("__reduce__", "__reduce_ex__")):
        return False
    if cls in copyreg.dispatch_table or cls in cloudpickle.Pickler.dispatch_table:
        return False
    return _cannot_be_made(cls) or _answers_for_others(cls)


def _cannot_be_made(cls: type) -> bool:
    """Whether ``__new__`` takes more than pickle gives it."""
    new: Any = cls.__new__
    if not isinstance(new, FunctionType) or any(
        isinstance(getattr(cls, name, None), FunctionType) for name in ("__getnewargs__", "__getnewargs_ex__")
    ):
        return False
    try:
        inspect.signature(new).bind(cls, *[None] * issubclass(cls, _WITH_A_VALUE))
    except TypeError:
        return True
    return False


def _answers_for_others(cls: type) -> bool:
    """Whether it has no ``__setstate__``, but code of its own which would be asked for one."""
    return not hasattr(cls, "__setstate__") and any(
        isinstance(getattr(cls, name, None), FunctionType) for name in _ASKED
    )


class Awkward(Kind):
    """Of any class that is. No home of types."""

    def reduce(self, obj: Any, pickler: UnitPickler) -> Reduction:
        cls = type(obj)
        reduction: Any = object.__reduce_ex__(obj, _PROTOCOL)
        maker, arguments, *more = reduction  # more: state, members, items
        if maker is not copyreg.__newobj__:  # type: ignore[attr-defined]
            return (maker, arguments, *more)
        if _cannot_be_made(cls):
            maker = make_instance
        if _answers_for_others(cls) and more[0] is not None:
            more.append(set_instance_state)
        return (maker, arguments, *more)


def make_instance(cls: type, *arguments: Any) -> Any:
    """A new one, by the ``__new__`` of what the class is made of, not by its own."""
    base: Any = next(base for base in cls.__mro__ if isinstance(vars(base).get("__new__"), BuiltinFunctionType))
    return base.__new__(cls, *arguments)


def set_instance_state(obj: Any, state: Any) -> None:
    """Fill it as pickle does, without asking it for anything."""
    attributes, slots = state if isinstance(state, tuple) and len(state) == 2 else (state, None)
    if attributes:
        own: dict[str, Any] = object.__getattribute__(obj, "__dict__")
        own.update((sys.intern(name) if type(name) is str else name, value) for name, value in attributes.items())
    for name, value in (slots or {}).items():
        object.__setattr__(obj, name, value)


class SystemRandoms(Kind):
    """random.SystemRandom, which has no state, and says so when it is asked for it."""

    types = ("random.SystemRandom",)

    def reduce(self, obj: Any, pickler: UnitPickler) -> Reduction:
        return copyreg.__newobj__, (type(obj),), vars(obj), None, None, set_instance_state  # type: ignore[attr-defined]


AWKWARD = Awkward()
KINDS: tuple[Kind, ...] = (SystemRandoms(),)
