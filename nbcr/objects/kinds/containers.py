"""Containers of a class of one's own: dictionaries, lists, sets and deques with methods and attributes beside.

pickle makes them by calling their class with what Python's own one would be given, and tells them of each member
(``append``, ``__setitem__``) before they have their attributes. Where their ``__init__`` or these methods are others,
that fails, or makes something else; a Counter loses its attributes in any case. They are made and filled as Python's
own are, without being asked or told.
"""

from __future__ import annotations

import copyreg
from collections import Counter, OrderedDict, defaultdict, deque
from types import FunctionType
from typing import TYPE_CHECKING, Any

from cloudpickle import cloudpickle

from nbcr.objects.kinds.base import Kind, Reduction
from nbcr.objects.kinds.instances import set_instance_state

if TYPE_CHECKING:
    from nbcr.objects.pickling import UnitPickler

_CALLED: tuple[Any, ...] = (OrderedDict, defaultdict, Counter, deque, set, frozenset)
_TOLD: tuple[tuple[Any, tuple[str, ...]], ...] = ((dict, ("__setitem__", "__init__")), (list, ("append", "extend")))

_FACTORY: Any = vars(defaultdict)["default_factory"]


def base_of(cls: Any) -> Any:
    """Which of Python's containers `cls` is made of, if pickle would ask or tell it anything; None: no need."""
    if cls in copyreg.dispatch_table or cls in cloudpickle.Pickler.dispatch_table:
        return None
    called = next((base for base in _CALLED if issubclass(cls, base)), None)
    base = called or next((base for base, told in _TOLD if issubclass(cls, base) and _has_own(cls, *told)), None)
    if base is None or cls is base or not _is_pickled_as(cls, base):
        return None
    return base if called in (None, Counter) or _has_own(cls, "__init__", "__new__") else None


def _has_own(cls: Any, *names: str) -> bool:
    return any(isinstance(getattr(cls, name), FunctionType) for name in names)


def _is_pickled_as(cls: Any, base: Any) -> bool:
    """Whether the class has nothing to say about how it is pickled."""
    hooks = ("__reduce__", "__reduce_ex__", "__getstate__", "__getnewargs__", "__getnewargs_ex__", "__setstate__")
    return all(getattr(cls, hook, None) is getattr(base, hook, None) for hook in hooks)


class Containers(Kind):
    """Of any class that has such a base. No home of types."""

    def reduce(self, obj: Any, pickler: UnitPickler) -> Reduction:
        base = base_of(type(obj))
        attributes = _attributes_of(obj)
        if base is frozenset:
            made = base, type(obj), tuple(frozenset.__iter__(obj))
            return make_container, made, (attributes, None, None), None, None, fill_container
        members = list(base.items(obj)) if issubclass(base, dict) else list(base.__iter__(obj))
        option = _FACTORY.__get__(obj) if base is defaultdict else obj.maxlen if base is deque else None
        return make_container, (base, type(obj)), (attributes, members, option), None, None, fill_container


def _attributes_of(obj: Any) -> Any:
    """As pickle takes them; `obj` itself where its items are its attributes (``self.__dict__ = self``)."""
    try:
        return obj if object.__getattribute__(obj, "__dict__") is obj else object.__getstate__(obj)
    except AttributeError:
        return object.__getstate__(obj)


def make_container(base: Any, cls: Any, *members: Any) -> Any:
    """An empty one, or a frozen one."""
    return base.__new__(cls, *members)


def fill_container(obj: Any, state: tuple[Any, Any, Any]) -> None:
    """Give it attributes and members, as Python's own would be."""
    attributes, members, option = state
    if attributes is obj:
        object.__setattr__(obj, "__dict__", obj)
    elif attributes is not None:
        set_instance_state(obj, attributes)
    if isinstance(obj, deque):
        deque.__init__(obj, members, option)
    elif isinstance(obj, set):
        set.update(obj, members)
    elif isinstance(obj, list):
        list.extend(obj, members)
    elif isinstance(obj, dict):
        if isinstance(obj, defaultdict):
            _FACTORY.__set__(obj, option)
        put: Any = OrderedDict.__setitem__ if isinstance(obj, OrderedDict) else dict.__setitem__
        for key, value in members:
            put(obj, key, value)


CONTAINERS = Containers()
KINDS: tuple[Kind, ...] = ()
