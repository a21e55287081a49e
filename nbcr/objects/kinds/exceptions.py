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
        return reduction[0], reduction[1], state, None, None, set_exception_state


def set_exception_state(made: BaseException, state: tuple[Any, ...]) -> None:
    """Give an exception its attributes and what it came from."""
    own, made.__cause__, made.__context__, made.__suppress_context__ = state
    if own is not None:
        made.__setstate__(own)


KINDS: tuple[Kind, ...] = (Exceptions(),)
