"""Context variables: name, default, and the value they have where they are saved."""

from __future__ import annotations

from collections.abc import Iterable
from contextvars import Context, ContextVar
from typing import TYPE_CHECKING, Any

from nbcr.objects.kinds.base import Kind, Reduction

if TYPE_CHECKING:
    from nbcr.objects.pickling import UnitPickler
    from nbcr.objects.sharing import Survey


class Variables(Kind):
    """contextvars.ContextVar."""

    types = ("_contextvars.ContextVar",)

    def parts(self, obj: ContextVar[Any], survey: Survey) -> Iterable[Any]:
        return [*_default(obj), *_value(obj)]

    def reduce(self, obj: ContextVar[Any], pickler: UnitPickler) -> Reduction:
        return make_variable, (obj.name, _default(obj)), (_value(obj),), None, None, set_variable


def _default(variable: ContextVar[Any]) -> tuple[Any, ...]:
    try:
        return (Context().run(variable.get),)  # in an empty context nothing was set
    except LookupError:
        return ()


def _value(variable: ContextVar[Any]) -> tuple[Any, ...]:
    unset = object()
    value = variable.get(unset)
    return () if value is unset else (value,)


def make_variable(name: str, default: tuple[Any, ...]) -> ContextVar[Any]:
    """A new context variable."""
    return ContextVar(name, default=default[0]) if default else ContextVar(name)


def set_variable(variable: ContextVar[Any], state: tuple[tuple[Any, ...]]) -> None:
    """Set it in the present context."""
    if state[0]:
        variable.set(state[0][0])


KINDS: tuple[Kind, ...] = (Variables(),)
