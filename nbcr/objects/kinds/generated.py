"""Classes whose methods are generated: named tuples and dataclasses.
 Nobody has the source of generated code, so another Python could not compile it. A named tuple is made again
from its fields; of a dataclass the generated methods are left to the decorator wherever their byte code is
another Python's.
"""

from __future__ import annotations

import collections
import dataclasses
from types import FunctionType
from typing import TYPE_CHECKING, Any

from cloudpickle import cloudpickle

from nbcr.objects import absent
from nbcr.objects.kinds.base import Kind, Reduction

if TYPE_CHECKING:
    from nbcr.objects.pickling import UnitPickler

_MADE_BY_NAMEDTUPLE = frozenset(vars(collections.namedtuple("_Any", ""))) | {"__orig_bases__", "__static_attributes__"}
_FIELD_OPTIONS = ("default", "default_factory", "init", "repr", "hash", "compare", "metadata", "kw_only")
_NEEDS_THE_CLASS_ITSELF = ("slots", "weakref_slot")


# --- named tuples -------------------------------------------------------------------------------------------


def is_named_tuple(cls: type) -> bool:
    """Whether `cls` is what collections.namedtuple or typing.NamedTuple made."""
    own = vars(cls)
    return cls.__bases__ == (tuple,) and "_fields" in own and "_field_defaults" in own and "_make" in own


def reduce_named_tuple(cls: Any) -> Reduction:
    """As its fields, and what was added to them."""
    fields = cls._fields
    added = {name: value for name, value in vars(cls).items() if name not in _MADE_BY_NAMEDTUPLE and name not in fields}
    if "__annotations__" in vars(cls):
        added["__annotations__"] = cls.__annotations__
    number = cloudpickle._get_or_create_tracker_id(cls)
    arguments = (number, cls.__name__, fields, cls._field_defaults, cls.__module__, cls.__qualname__, cls.__doc__)
    return make_named_tuple, arguments, added, None, None, add_to_named_tuple


def make_named_tuple(
    number: str, name: str, fields: tuple[str, ...], defaults: dict[str, Any], module: str, qualname: str, doc: str
) -> Any:
    """The class with this number when it is alive, else a new one."""
    alive = cloudpickle._DYNAMIC_CLASS_TRACKER_BY_ID.get(number)
    if alive is not None:
        return alive
    made: Any = collections.namedtuple(name, fields, defaults=[*defaults.values()], module=module)  # type: ignore[misc]
    made.__qualname__, made.__doc__ = qualname, doc
    return cloudpickle._lookup_class_or_track(number, made)


def add_to_named_tuple(cls: type, added: dict[str, Any]) -> None:
    """Give it methods and annotations."""
    for name, value in added.items():
        setattr(cls, name, value)


# --- dataclasses --------------------------------------------------------------------------------------------


class Parameters(Kind):
    """What the decorator was told; each Python knows a few options more."""

    types = ("dataclasses._DataclassParams",)

    def reduce(self, obj: Any, pickler: UnitPickler) -> Reduction:
        return make_parameters, (_slots_of(obj),)


def make_parameters(options: dict[str, Any]) -> Any:
    """The same, as far as this Python knows it."""
    made = object.__new__(dataclasses._DataclassParams)  # type: ignore[attr-defined]
    return _with_slots(made, {name: options.get(name, False) for name in type(made).__slots__})


class Fields(Kind):
    """dataclasses.Field."""

    types = ("dataclasses.Field",)

    def reduce(self, obj: Any, pickler: UnitPickler) -> Reduction:
        return make_field, (), _slots_of(obj), None, None, set_field


def make_field() -> Any:
    """A field that is still to be filled."""
    return object.__new__(dataclasses.Field)


def set_field(field: Any, state: dict[str, Any]) -> None:
    """Fill it, as far as this Python knows what is there."""
    _with_slots(field, {name: state.get(name) for name in type(field).__slots__})


def _slots_of(obj: Any) -> dict[str, Any]:
    return {name: getattr(obj, name) for name in type(obj).__slots__ if hasattr(obj, name)}


def _with_slots(made: Any, values: dict[str, Any]) -> Any:
    for name, value in values.items():
        setattr(made, name, dict(value) if name == "metadata" else value)
    return made


def _is_absent(value: Any) -> bool:
    """Whether it did not come back: itself, or what it wraps, as the decorator's ``__repr__`` does."""
    inner = getattr(value, "__wrapped__", None) if isinstance(value, FunctionType) else None
    return absent.reason_of(value) is not None or absent.reason_of(inner) is not None


def without_generated(cls: type, state: dict[str, Any]) -> dict[str, Any]:
    """The attributes of a class, but for what another Python generated: the decorator makes that again."""
    lost = [name for name, value in state.items() if _is_absent(value)]
    parameters = state.get("__dataclass_params__")
    if not lost or parameters is None or any(getattr(parameters, name, False) for name in _NEEDS_THE_CLASS_ITSELF):
        return state
    kept = {name: value for name, value in state.items() if name not in lost}
    for name in lost:
        if name in vars(cls):  # it was generated before, for another name that uses the class
            delattr(cls, name)
    for name, value in kept.items():
        if isinstance(value, FunctionType) or not (name.startswith("__dataclass") or name == "__dict__"):
            setattr(cls, name, value)
    for field in state["__dataclass_fields__"].values():
        if field.name in kept.get("__annotations__", {}) and field._field_type is not dataclasses._FIELD_CLASSVAR:  # type: ignore[attr-defined]
            options = {option: getattr(field, option) for option in _FIELD_OPTIONS}
            setattr(cls, field.name, dataclasses.field(**options))
    chosen = {name: value for name, value in _slots_of(parameters).items() if name not in _NEEDS_THE_CLASS_ITSELF}
    dataclasses.dataclass(**chosen)(cls)
    return {}


KINDS: tuple[Kind, ...] = (Parameters(), Fields())
