"""Classes that a library has made for a cell, and keeps in a module of its own: ``creator.create("Individual", list)``.

An import finds them in this process and in no other, so they are saved by value like those of the notebook. What loads
them leaves alone a class that its module has under that name already, and puts the one it makes into the module.
"""

from __future__ import annotations

import copyreg
import functools
import importlib
import sys
import weakref
from collections.abc import Callable, Iterator
from importlib.machinery import SourceFileLoader
from types import CodeType, FunctionType
from typing import Any

from nbcr.objects.kinds.base import Reduction
from nbcr.objects.names import is_a

_DYNAMIC = {"globals", "vars", "locals", "setattr", "exec", "eval", "__getattr__"}
"""By what code binds names that are not in it: what the body of a module binds so, nobody can tell."""


def is_made_for_a_cell(cls: type) -> bool:
    """Whether the module that has `cls` does not make it when it is imported, as far as its code tells."""
    name, module = cls.__qualname__, sys.modules.get(cls.__module__ or "")
    if "." in name or module is None or vars(module).get(name) is not cls:
        return False
    members = [value for value in vars(cls).values() if is_a(value, FunctionType)]
    if any(member.__qualname__.startswith(f"{name}.") for member in members):  # of a class statement
        return False
    names = _names_in(module.__name__)
    return name not in names and not names.isdisjoint(_DYNAMIC)  # else somebody else has put it there


@functools.lru_cache(maxsize=1024)
def _names_in(module: str) -> frozenset[str]:
    """All names in the code of an imported module, and texts that could be names; empty: it cannot be told."""
    loader = getattr(sys.modules[module], "__loader__", None)
    if not isinstance(loader, SourceFileLoader):
        return frozenset()
    try:
        code = loader.get_code(module)
    except Exception:  # its file is gone, or was replaced by what is no source
        return frozenset()
    if code is None or not _DYNAMIC.isdisjoint(code.co_names) or ("*",) in code.co_consts:
        return frozenset()
    return frozenset(_names(code))


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)
        else:
            words = constant if isinstance(constant, tuple) else (constant,)  # … of what is imported from somewhere
            yield from (word for word in words if isinstance(word, str))


def told_by_library(cls: type) -> Reduction | None:
    """How its library says that a class is made again: by `copyreg`, for a metaclass whose calls are not as usual."""
    reducer: Any = copyreg.dispatch_table.get(type(cls))
    told = None if reducer is None else reducer(cls)
    if not isinstance(told, tuple) or len(told) != 2:
        return None
    return make_by_library, (cls.__module__, cls.__qualname__, *told)


def make_by_library(module: str, name: str, maker: Callable[..., type], arguments: tuple[Any, ...]) -> type:
    """The class that the module has under this name, else what `maker` makes, there."""
    home = importlib.import_module(module)
    there = vars(home).get(name)
    if isinstance(there, type):
        return there
    made = maker(*arguments)
    setattr(home, name, made)
    return made


_unfilled: weakref.WeakSet[type] = weakref.WeakSet()


def make_in_module(module: str, name: str, *arguments: Any) -> type:
    """The class that the module has under this name, else a new one there, to be filled by `set_state_of_made`."""
    from nbcr.objects.kinds.classes import make_class  # which asks us what to save by value

    home = importlib.import_module(module)
    there = vars(home).get(name)
    if isinstance(there, type):
        return there
    made = make_class(*arguments)
    setattr(home, name, made)
    _unfilled.add(made)
    return made


def set_state_of_made(cls: type, state: Any) -> None:
    """Give a class its attributes if `make_in_module` has made it."""
    from nbcr.objects.kinds.classes import set_class_state

    if cls in _unfilled:
        _unfilled.discard(cls)
        set_class_state(cls, state)
