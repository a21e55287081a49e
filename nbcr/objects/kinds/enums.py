"""Enumerations: all names of their members, also second ones, and what a member's own ``__init__`` gave it."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Any

from cloudpickle import cloudpickle

from nbcr.objects.kinds.base import Kind, Reduction

if TYPE_CHECKING:
    from nbcr.objects.pickling import UnitPickler

_MADE_WITH_THE_MEMBER = frozenset({"_value_", "_name_", "__objclass__", "_sort_order_"})


def reduce_enum(cls: type[enum.Enum], arguments: tuple[Any, ...], state: Any) -> tuple[tuple[Any, ...], Any]:
    """What cloudpickle says of `cls`, with what it leaves out."""
    members = {name: member.value for name, member in cls.__members__.items()}
    own = {name: attributes for name, member in cls.__members__.items() if (attributes := _attributes_of(member))}
    attributes = {name: value for name, value in state[0].items() if name not in members}
    return (*arguments[:3], members, *arguments[4:]), (attributes, state[1], own)


def _attributes_of(member: Any) -> dict[str, Any]:
    return {name: value for name, value in vars(member).items() if name not in _MADE_WITH_THE_MEMBER}


def make_enum(*arguments: Any) -> type:
    """The class with its members. What would be taken for a method is said to be one."""
    members = {name: _as_member(value) for name, value in arguments[3].items()}
    made: type = cloudpickle._make_skeleton_enum(*arguments[:3], members, *arguments[4:])
    return made


def _as_member(value: Any) -> Any:
    return enum.member(value) if hasattr(type(value), "__get__") or isinstance(value, type) else value


def set_member_state(cls: Any, own: dict[str, dict[str, Any]]) -> None:
    """Give members what their ``__init__`` had given them."""
    for name, attributes in own.items():
        member = cls.__members__.get(name)
        if member is not None:
            vars(member).update(attributes)


class Members(Kind):
    """Members of the notebook's enumerations, by their names: not every value is equal to its copy."""

    types = ("enum.Enum",)

    def reduce(self, obj: Any, pickler: UnitPickler) -> Reduction:
        cls = type(obj)
        plain: Any = enum.Enum.__reduce_ex__
        own = cls.__reduce_ex__ is not plain or cls.__module__ != "__main__"
        name = vars(obj).get("_name_")
        if own or cls.__members__.get(name) is not obj:  # a combination of flags has no member
            return NotImplemented
        return member_of, (cls, name)


def member_of(cls: Any, name: str) -> Any:
    """The member of that name."""
    return cls.__members__[name]


KINDS: tuple[Kind, ...] = (Members(),)
