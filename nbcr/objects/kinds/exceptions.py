"""Exceptions keep their cause and context; tracebacks hold frames, which cannot be copied."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from nbcr.objects.kinds.base import Kind, Reduction

if TYPE_CHECKING:
    from nbcr.objects.pickling import UnitPickler
    from nbcr.objects.sharing import Survey


class Exceptions(Kind):
    """BaseException and everything below it."""

    types = ("builtins.BaseException",)

    def parts(self, obj: BaseException, survey: Survey) -> Iterable[Any]:
        return (obj.args, getattr(obj, "__dict__", None), obj.__cause__, obj.__context__)

    def reduce(self, obj: BaseException, pickler: UnitPickler) -> Reduction:
        reduction = obj.__reduce_ex__(5)
        if not isinstance(reduction, tuple) or len(reduction) > 3:
            return reduction
        if obj.__traceback__ is not None:
            pickler.remarks.add("its exception comes back without the traceback")
        own = reduction[2] if len(reduction) == 3 else None
        state = (own, obj.__cause__, obj.__context__, obj.__suppress_context__)
        maker, arguments = reduction[0], reduction[1]
        if maker is type(obj) and arguments and _is_made_otherwise(maker):
            maker, arguments = make_exception, (maker, arguments)
        return maker, arguments, state, None, None, set_exception_state


def _is_made_otherwise(cls: type) -> bool:
    """Whether the class takes other arguments than those which the exception keeps: nobody knows which."""
    return "__init__" in vars(cls) or cls.__init__ is not _builtin_of(cls).__init__  # type: ignore[misc]


def _builtin_of(cls: type) -> Any:
    return next(base for base in cls.__mro__ if base.__module__ == "builtins")


def make_exception(cls: Any, arguments: tuple[Any, ...]) -> BaseException:
    """An exception with what it keeps, without asking the ``__init__`` of its class: its attributes are set next."""
    made: BaseException = cls.__new__(cls, *arguments)
    _builtin_of(cls).__init__(made, *arguments)
    return made


def set_exception_state(made: BaseException, state: tuple[Any, ...]) -> None:
    """Give an exception its attributes and what it came from."""
    own, made.__cause__, made.__context__, made.__suppress_context__ = state
    if own is not None:
        made.__setstate__(own)


KINDS: tuple[Kind, ...] = (Exceptions(),)
