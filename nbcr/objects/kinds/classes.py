"""Classes that no import finds: those of the notebook.

cloudpickle gives each such class a number that this process remembers: a class that is alive keeps its
identity when a snapshot is loaded, and the attributes it had come back. So two names may be saved apart
although both use one class, unless the class itself holds something that can change.
"""

from __future__ import annotations

import contextlib
import sys
import types
from collections.abc import Iterable, Iterator, Mapping
from types import CellType, FunctionType, GetSetDescriptorType, MemberDescriptorType
from typing import TYPE_CHECKING, Any

from cloudpickle import cloudpickle

from nbcr.objects.kinds.base import CannotSave, Kind, Reduction
from nbcr.objects.kinds.enums import make_enum, reduce_enum, set_member_state
from nbcr.objects.kinds.functions import importable
from nbcr.objects.kinds.generated import is_named_tuple, reduce_named_tuple, without_generated
from nbcr.objects.kinds.made_classes import is_made_for_a_cell, make_in_module, set_state_of_made, told_by_library
from nbcr.objects.kinds.modules import refuse_made_by_hand
from nbcr.objects.kinds.named import NUMBERED
from nbcr.objects.names import is_a

if TYPE_CHECKING:
    from nbcr.objects.pickling import UnitPickler
    from nbcr.objects.sharing import Survey

_HARMLESS = (
    int, float, complex, bool, str, bytes, type(None), type, property, type(object.__init__), type(str.join),
    GetSetDescriptorType, MemberDescriptorType,
)  # fmt: skip


_HOOK = "__init_subclass__"


class Classes(Kind):
    """Classes, also those with a metaclass; enumerations."""

    types = ("builtins.type",)

    def parts(self, obj: type, survey: Survey) -> Iterable[Any]:
        if _is_imported(obj):
            return ()
        inside = () if _is_stateless(obj) else vars(obj).values()
        return [*inside, *obj.__bases__, type(obj)]

    def shares(self, obj: type) -> bool:
        return not _is_imported(obj) and not _is_stateless(obj)

    def reduce(self, obj: type, pickler: UnitPickler) -> Reduction:
        if is_named_tuple(obj) and importable(obj) is None:
            return reduce_named_tuple(obj)
        reduction = cloudpickle._class_reduce(obj)
        home: tuple[str, ...] = ()
        if reduction is NotImplemented or len(reduction) == 2:
            refuse_made_by_hand(obj.__module__)
            pickler.note_package(obj.__module__)
            if not is_made_for_a_cell(obj):
                return reduction
            if (told := told_by_library(obj)) is not None:
                return told
            home, reduction = (obj.__module__, obj.__qualname__), cloudpickle._dynamic_class_reduce(obj)
        maker, arguments, state = reduction[:3]
        is_enum = maker is cloudpickle._make_skeleton_enum
        if is_enum:
            arguments, state = reduce_enum(obj, arguments, state)
        elif "__slots__" in vars(obj):
            arguments, state = _with_slots(obj, arguments, state)
        arguments = (is_enum, *arguments)
        if home:
            return make_in_module, (*home, *arguments), state, None, None, set_state_of_made
        return make_class, arguments, state, None, None, set_class_state


def _with_slots(cls: type, arguments: Any, state: Any) -> tuple[Any, Any]:
    """A reduction which makes the slots with the class: its instances have no place for anything else.

    Of the class as it is, as ``__slots__`` itself may be an iterator, or have been changed since.
    """
    slots = [name for name, value in vars(cls).items() if _is_slot(value) and value.__objclass__ is cls]
    slots += [name for name in ("__dict__", "__weakref__") if isinstance(vars(cls).get(name), GetSetDescriptorType)]
    maker, name, bases, keywords, *more = arguments
    members = {name: value for name, value in state[0].items() if name not in slots}
    return (maker, name, bases, {**keywords, "__slots__": tuple(slots)}, *more), (members, *state[1:])


def _is_slot(value: Any) -> bool:
    """Whether an attribute of a class is a slot of its instances."""
    return isinstance(value, MemberDescriptorType)


def _is_imported(obj: type) -> bool:
    return obj.__module__ == "builtins" or importable(obj) is not None


def _is_stateless(obj: type) -> bool:
    """Whether saving the class twice makes no difference: nothing but methods and constants in it."""
    return all(
        _is_fixed(value)
        for name, value in vars(obj).items()
        if isinstance(value, FunctionType) or not _is_special(name)
    )


def _is_special(name: str) -> bool:
    return (name.startswith("__") and name.endswith("__")) or name.startswith("_abc")


def _is_fixed(value: Any) -> bool:
    if isinstance(value, staticmethod | classmethod):
        value = value.__func__
    if isinstance(value, FunctionType):
        cells = [_contents(cell) for cell in value.__closure__ or ()]
        return not value.__dict__ and all(isinstance(held, _HARMLESS) for held in (*cells, *(value.__defaults__ or ())))
    if isinstance(value, tuple):
        return all(_is_fixed(member) for member in value)
    return isinstance(value, _HARMLESS)


def _contents(cell: CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        return None


def make_class(is_enum: bool, *arguments: Any) -> type:
    """The class with this number when it is alive, else a new one, to be filled by `set_class_state`."""
    number = arguments[5] if is_enum else arguments[4]
    alive: type | None = cloudpickle._DYNAMIC_CLASS_TRACKER_BY_ID.get(number)
    if alive is not None:
        return alive
    if is_enum:
        enumeration: type = make_enum(*arguments)
        return enumeration
    metaclass, name, bases, contents, *_ = arguments
    made: type = cloudpickle._lookup_class_or_track(number, _bare_class(metaclass, name, bases, contents))
    return made


def _bare_class(metaclass: Any, name: str, bases: tuple[Any, ...], contents: Mapping[str, Any]) -> type:
    """A class that is still to be filled, as types.new_class makes it, but for the notebook's own hooks.

    What these did when the class was new is part of what is saved: a registry that they kept would know it twice. And
    what they need may not be there yet.
    """
    inner = {sys.intern(key): value for key, value in contents.items()}
    resolved = types.resolve_bases(bases)
    with _unhooked(resolved):
        if _is_imported(metaclass):
            return types.new_class(name, bases, {"metaclass": metaclass}, lambda body: body.update(inner))
        if resolved is not bases:
            inner["__orig_bases__"] = bases
        maker = next(base for base in metaclass.__mro__ if _is_imported(base))
        made: type = maker.__new__(metaclass, name, resolved, inner)
        maker.__init__(made, name, resolved, inner)
        return made


@contextlib.contextmanager
def _unhooked(bases: Iterable[type]) -> Iterator[None]:
    """In the block no class of the notebook hears of a new subclass."""
    above = dict.fromkeys(cls for base in bases for cls in base.__mro__)
    hooks = {cls: vars(cls)[_HOOK] for cls in above if _HOOK in vars(cls) and not _is_imported(cls)}
    for cls in hooks:
        type.__delattr__(cls, _HOOK)
    try:
        yield
    finally:
        for cls, hook in hooks.items():
            type.__setattr__(cls, _HOOK, hook)


def set_class_state(cls: type, state: Any) -> None:
    """Give a class its attributes, and take away those that came since."""
    saved = state[0]
    own_of_members = state[2] if len(state) > 2 else {}
    state = (without_generated(cls, saved), state[1])
    for name in [name for name in vars(cls) if name not in saved and not name.startswith("_")]:
        if not _belongs_to_the_type(cls, name):
            delattr(cls, name)
    cloudpickle._class_setstate(cls, state)
    set_member_state(cls, own_of_members)


def _belongs_to_the_type(cls: type, name: str) -> bool:
    """Slots and members of enumerations are made with the class, not set afterwards."""
    return name in getattr(cls, "__members__", ()) or _is_slot(vars(cls)[name])


def number_classes(namespace: Iterable[Any]) -> None:
    """Let this process remember the numbers of the namespace's own classes, and of what annotations are made of.

    What a forked child remembers is forgotten.
    """
    for value in namespace:
        if is_a(value, *NUMBERED) and value.__module__ == "__main__":
            cloudpickle._get_or_create_tracker_id(value)


class Supers(Kind):
    """What super() returns. It would have whatever it stands before say how that is pickled, and come back as that."""

    types = ("builtins.super",)

    def reduce(self, obj: Any, pickler: UnitPickler) -> Reduction:
        cls, bound = (vars(super)[name].__get__(obj) for name in ("__thisclass__", "__self__"))
        return super, (cls,) if bound is None else (cls, bound)


class Descriptors(Kind):
    """Attributes that C code gave a class, as the class has them. Asked for them, some classes give a value instead."""

    types = ("builtins.getset_descriptor", "builtins.member_descriptor")

    def reduce(self, obj: Any, pickler: UnitPickler) -> Reduction:
        cls, name = obj.__objclass__, obj.__name__
        if vars(cls).get(name) is not obj:
            raise CannotSave(f"it is no attribute of {cls.__qualname__} any more")
        return own_attribute, (cls, name)


def own_attribute(cls: type, name: str) -> Any:
    """What the class itself has under this name."""
    return vars(cls)[name]


CLASSES = Classes()
KINDS: tuple[Kind, ...] = (CLASSES, Supers(), Descriptors())
