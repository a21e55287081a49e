"""Context variables: name, default, and the value they have where they are saved. Contexts of decimal numbers."""

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


class DecimalContexts(Kind):
    """decimal.Context: the one by which the session calculates is that again (``context = decimal.getcontext()``)."""

    types = ("decimal.Context",)

    def reduce(self, obj: Any, pickler: UnitPickler) -> Reduction:
        import decimal

        return (make_current, (obj.copy(),)) if obj is decimal.getcontext() else NotImplemented


_current: list[Any] = []  # the context that a variable had, while its snapshot is being loaded


def make_current(context: Any) -> Any:
    """What `set_current` will make the session calculate by, where the whole of a snapshot is loaded."""
    _current[:] = [context]
    return context


def forget_current(_decimal: Any, _nothing: object) -> None:
    """Nothing of this snapshot has come back yet."""
    _current.clear()


def set_current(decimal: Any, context: Any) -> None:
    """Calculate by the context of a variable, if one had it; by `context` otherwise. Their settings are equal."""
    decimal.setcontext(_current.pop() if _current else context)


KINDS: tuple[Kind, ...] = (Variables(), DecimalContexts())
