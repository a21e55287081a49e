"""Objects that pickle saves by their name alone: what is called so when they are loaded is what comes back.

With an importable module that is right. In a notebook, the name may mean something else by then, or nothing: what
has only been named there is made again from what it consists of.
"""

from __future__ import annotations

import copyreg
import gc
import sys
import typing
from typing import TYPE_CHECKING, Any

from cloudpickle import cloudpickle

from nbcr.objects.kinds.base import Kind, Reduction

if TYPE_CHECKING:
    from nbcr.objects.pickling import UnitPickler

PROTOCOL = 5
HOOKS = ("__reduce__", "__reduce_ex__", "__getnewargs__", "__getnewargs_ex__")
CONTENTS = ("__iter__", "items")
_OPTIONS = ("bound", "covariant", "contravariant")


def _is_found(obj: Any, name: str) -> bool:
    """Whether an import finds `obj` under `name` in the module it says it is of."""
    module = sys.modules.get(getattr(obj, "__module__", None) or "")
    return module is not None and module.__name__ != "__main__" and getattr(module, name, None) is obj


class ParameterSpecs(Kind):
    """typing.ParamSpec and TypeVarTuple."""

    types = ("typing.ParamSpec", "typing.TypeVarTuple")

    def reduce(self, obj: Any, pickler: UnitPickler) -> Reduction:
        if _is_found(obj, obj.__name__):
            return NotImplemented
        options = {name: value for name in _OPTIONS if (value := getattr(obj, f"__{name}__", None))}
        return make_parameter, (_number_of(obj), type(obj).__name__, obj.__name__, options, obj.__module__)


def make_parameter(number: str, kind: str, name: str, options: dict[str, Any], module: Any) -> Any:
    """The one with this number when it is alive, else another that says the same."""
    made: Any = getattr(typing, kind)(name, **options)
    made.__module__ = module
    return cloudpickle._lookup_class_or_track(number, made)


class NewTypes(Kind):
    """typing.NewType."""

    types = ("typing.NewType",)

    def reduce(self, obj: Any, pickler: UnitPickler) -> Reduction:
        if _is_found(obj, obj.__qualname__):
            return NotImplemented
        return make_new_type, (_number_of(obj), obj.__qualname__, obj.__supertype__, obj.__module__)


def make_new_type(number: str, name: str, supertype: Any, module: Any) -> Any:
    """The one with this number when it is alive, else another for the same type."""
    made: Any = typing.NewType(name, supertype)  # type: ignore[misc]
    made.__module__ = module
    return cloudpickle._lookup_class_or_track(number, made)


def _number_of(obj: Any) -> str:
    number: str = cloudpickle._get_or_create_tracker_id(obj)
    return number


NUMBERED = (type, typing.TypeVar, typing.ParamSpec, typing.TypeVarTuple, typing.NewType)


class DictViews(Kind):
    """keys(), values(), items(): windows into a dictionary, which they go on to show."""

    types = ("builtins.dict_keys", "builtins.dict_values", "builtins.dict_items")

    def reduce(self, obj: Any, pickler: UnitPickler) -> Reduction:
        owner = next((part for part in gc.get_referents(obj) if isinstance(part, dict)), None)
        return NotImplemented if owner is None else (make_dict_view, (type(obj).__name__.rpartition("_")[2], owner))


def make_dict_view(name: str, owner: dict[Any, Any]) -> Any:
    """A window into `owner`."""
    return getattr(owner, name)()


class Named(Kind):
    """Objects of the notebook's classes that say how they are pickled, which may be by a name. No home of types."""

    def reduce(self, obj: Any, pickler: UnitPickler) -> Reduction:
        reduction = _reduced(obj)
        if not isinstance(reduction, str) or _is_found(obj, reduction):
            return reduction
        return copyreg.__newobj__, (type(obj),), object.__getstate__(obj)  # type: ignore[attr-defined]


def _reduced(obj: Any) -> Any:
    """What it says; not of what it contains: a ``__iter__`` or ``items`` of its own may tell anything, for ever."""
    cls = type(obj)
    if not issubclass(cls, list | dict) or any(hook in vars(base) for base in own_bases(cls) for hook in HOOKS):
        return cls.__reduce_ex__(obj, PROTOCOL)  # type: ignore[call-arg]
    members = list.__iter__(obj) if issubclass(cls, list) else None
    items = iter(list(dict.items(obj))) if issubclass(cls, dict) else None
    return copyreg.__newobj__, (cls,), object.__getstate__(obj), members, items  # type: ignore[attr-defined]


def own_bases(cls: type) -> list[type]:
    """The classes of the notebook among those that `cls` is made of."""
    return [base for base in cls.__mro__ if base.__module__ == "__main__"]


NAMED = Named()
KINDS: tuple[Kind, ...] = (ParameterSpecs(), NewTypes(), DictViews())
