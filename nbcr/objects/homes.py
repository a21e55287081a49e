"""Values that a module keeps itself, under a name of its own: `from scipy.stats import norm`, `from M import registry`.

A pickle makes another one of them, and what later cells do to that is not seen by the library that looks into its own.
By reference alone, what the session has put into it would be gone. So both are saved; where they are loaded, the name
is bound to the module's own one if that holds the very same, and to the copy otherwise, which is told.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Collection, Iterable, Mapping
from types import BuiltinFunctionType, BuiltinMethodType, FunctionType, MethodType, ModuleType
from typing import Any

from nbcr.objects.kinds.base import dotted_name
from nbcr.objects.kinds.functions import attribute, importable
from nbcr.objects.kinds.modules import is_made_by_hand
from nbcr.objects.kinds.table import KindTable, Rule
from nbcr.objects.names import is_a
from nbcr.objects.pickling import Context, UnitPickler
from nbcr.objects.unpickling import unpickled

_OWN_REFERENCES = 6  # of the namespace, two dictionaries of a save, and who asks: nobody else has it
_NOBODYS = (ModuleType, FunctionType, BuiltinFunctionType, BuiltinMethodType, MethodType, tuple, frozenset)
_VALUES = {"numpy.ndarray", "matplotlib.colors.Colormap", "sympy.core.basic.Basic"}
"""Of which it matters little who has which: one is as good as another, whatever it has calculated since."""
_NOT_ASKED = ("__main__", "builtins", "nbcr", "IPython", "ipykernel")
_LARGEST = 4 << 20  # bytes of a pickle that are compared


def homes_of(values: Mapping[str, Any], kinds: KindTable, standing: Iterable[Any] = ()) -> dict[str, str]:
    """name: "module:name in it", for those that a module which can be imported keeps. Runs nobody's code.

    What is `standing` is everybody's own in any case.
    """
    everybodys = set(map(id, standing))
    wanted: dict[int, list[str]] = {}
    for name, value in values.items():
        if sys.getrefcount(value) <= _OWN_REFERENCES or id(value) in everybodys or "." in name:
            continue
        if _may_be_somebodys(value, kinds):
            wanted.setdefault(id(value), []).append(name)
    found: dict[int, list[tuple[bool, int, str]]] = {}
    for module_name, module in list(sys.modules.items()) if wanted else ():
        if not is_a(module, ModuleType) or module_name.partition(".")[0] in _NOT_ASKED or is_made_by_hand(module_name):
            continue
        held = object.__getattribute__(module, "__dict__").copy()
        if not wanted.keys().isdisjoint(map(id, held.values())):
            for name, value in held.items():
                if id(value) in wanted and type(name) is str:
                    home = f"{module_name}:{name}"
                    found.setdefault(id(value), []).append((home.startswith("_") or "._" in home, len(home), home))
    chosen = {name: min(homes)[-1] for key, homes in found.items() for name in wanted[key]}
    # What is saved as a global that was changed is put there again, and is what the name is bound to.
    return {name: home for name, home in chosen.items() if home.replace(":", ".") not in values}


def _may_be_somebodys(value: Any, kinds: KindTable) -> bool:
    cls = type(value)
    if is_a(value, type):  # which is saved by value only where no import finds it by its own name
        return value.__module__ != "__main__" and importable(value) is None
    if is_a(value, *_NOBODYS) or cls.__module__ == "__main__" or kinds.rule_for(cls) is Rule.LEAF:
        return False
    return not _VALUES.intersection(map(dotted_name, cls.__mro__))


def brought_home(
    homes: Mapping[str, str], values: Mapping[str, Any], unit: Collection[str], namespace: dict[str, Any], size: int
) -> tuple[dict[str, Any], dict[str, str]]:
    """The modules' own ones in the place of copies that hold the same; and remarks about those that stay copies.

    `values` are the names of one unit, or some of them; `homes` tells of those that have one, `unit` has all names.
    """
    own = {name: found for name, home in homes.items() if (found := _own(home)) is not values[name]}
    here = {name: found for name, found in own.items() if found is not _NOTHING}
    others = set(unit) - homes.keys()  # which may reach parts of the copies
    if len(here) == len(own) and not others and size <= _LARGEST:
        context = Context(namespace)
        if all(_hold_the_same(found, values[name], context) for name, found in here.items()):
            return here, {}
    return {}, {name: f"it is a copy, and no longer {homes[name].replace(':', '.')}" for name in here}


def in_its_place(home: str) -> tuple[Any] | None:
    """The module's own one, for want of a copy that can be made; None: it is not here."""
    found = _own(home) if home else _NOTHING
    return None if found is _NOTHING else (found,)


def _own(home: str) -> Any:
    try:
        return attribute(*home.split(":"))
    except Exception:  # another version of it, or none
        return _NOTHING


_NOTHING = object()


def _hold_the_same(own: Any, copy: Any, context: Context) -> bool:
    """Whether a copy of the module's own one would be pickled as this copy is."""
    if type(own) is not type(copy):
        return False
    try:
        stream, buffers = _pickled(own, context)
        again = unpickled(stream, [memoryview(buffer) for buffer in buffers], context.standing)
        return _pickled(again, context) == _pickled(copy, context)
    except Exception:
        return False


def _pickled(obj: Any, context: Context) -> tuple[bytes, list[bytes]]:
    stream, buffers = io.BytesIO(), list[bytes]()
    UnitPickler(stream, context, lambda buffer: buffers.append(buffer.tobytes())).dump(obj)
    return stream.getvalue(), buffers
