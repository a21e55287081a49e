"""Weak references and what is made of them.

What they point to is saved with them, and lives on if anything else holds it.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from nbcr.objects.kinds.base import Kind, Reduction

if TYPE_CHECKING:
    from nbcr.objects.pickling import UnitPickler
    from nbcr.objects.sharing import Survey


class References(Kind):
    """weakref.ref and WeakMethod."""

    types = ("weakref.ReferenceType",)

    def parts(self, obj: Any, survey: Survey) -> Iterable[Any]:
        return (obj(),)

    def reduce(self, obj: Any, pickler: UnitPickler) -> Reduction:
        if obj.__callback__ is not None and type(obj) is weakref.ref:
            pickler.remarks.add("its weak reference comes back without a callback")
        target = obj()
        if target is None:
            return dead_reference, ()
        if isinstance(obj, weakref.WeakMethod):
            return weakref.WeakMethod, (target,)
        return weakref.ref, (target,)


class _Mortal:
    """Something to die at once."""


def dead_reference() -> Any:
    """A weak reference to what is gone."""
    return weakref.ref(_Mortal())


class Proxies(Kind):
    """weakref.proxy."""

    types = ("weakref.ProxyType", "weakref.CallableProxyType")

    def parts(self, obj: Any, survey: Survey) -> Iterable[Any]:
        return (_behind(obj),)

    def reduce(self, obj: Any, pickler: UnitPickler) -> Reduction:
        target = _behind(obj)
        if target is None:
            return dead_proxy, (type(obj) is weakref.CallableProxyType,)
        return weakref.proxy, (target,)


class _MortalFunction(_Mortal):
    """The same, to be called."""

    def __call__(self) -> None:
        """Nothing."""


def dead_proxy(is_callable: bool) -> Any:
    """A proxy of what is gone."""
    return weakref.proxy(_MortalFunction() if is_callable else _Mortal())


def _behind(proxy: Any) -> Any:
    try:
        return proxy.__repr__.__self__
    except ReferenceError:
        return None


class WeakMappings(Kind):
    """WeakValueDictionary and WeakKeyDictionary: filled after they are made, by what is still alive."""

    types = ("weakref.WeakValueDictionary", "weakref.WeakKeyDictionary")

    def parts(self, obj: Any, survey: Survey) -> Iterable[Any]:
        return [part for item in list(obj.items()) for part in item]

    def reduce(self, obj: Any, pickler: UnitPickler) -> Reduction:
        if type(obj) not in (weakref.WeakValueDictionary, weakref.WeakKeyDictionary):
            return NotImplemented
        return type(obj), (), None, None, iter(list(obj.items()))


class WeakSets(Kind):
    """WeakSet."""

    types = ("_weakrefset.WeakSet",)

    def parts(self, obj: Any, survey: Survey) -> Iterable[Any]:
        return list(obj)

    def reduce(self, obj: Any, pickler: UnitPickler) -> Reduction:
        return type(obj), (), (list(obj),), None, None, fill_weak_set


def fill_weak_set(made: Any, state: tuple[list[Any]]) -> None:
    """Put the members into a weak set."""
    made.update(state[0])


KINDS: tuple[Kind, ...] = (References(), Proxies(), WeakMappings(), WeakSets())
