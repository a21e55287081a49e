"""Modules are imported again; only those that no import finds are saved."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterable
from types import ModuleType
from typing import TYPE_CHECKING, Any

from nbcr.objects.kinds.base import Kind, Reduction

if TYPE_CHECKING:
    from nbcr.objects.pickling import UnitPickler
    from nbcr.objects.sharing import Survey


def is_importable(module: ModuleType) -> bool:
    """Whether an import of its name gives this very module."""
    return sys.modules.get(module.__name__) is module


class Modules(Kind):
    """Modules, wherever they turn up."""

    types = ("builtins.module",)

    def parts(self, obj: ModuleType, survey: Survey) -> Iterable[Any]:
        return () if is_importable(obj) else (vars(obj),)

    def shares(self, obj: ModuleType) -> bool:
        return not is_importable(obj)

    def reduce(self, obj: ModuleType, pickler: UnitPickler) -> Reduction:
        if is_importable(obj):
            pickler.note_package(obj.__name__)
            return importlib.import_module, (obj.__name__,)
        contents = {
            name: value for name, value in vars(obj).items() if name not in ("__builtins__", "__loader__", "__spec__")
        }
        return ModuleType, (obj.__name__, obj.__doc__), (contents,), None, None, fill_module


def fill_module(module: ModuleType, state: tuple[dict[str, Any]]) -> None:
    """Give a module that no import finds what was in it."""
    vars(module).update(state[0])


KINDS: tuple[Kind, ...] = (Modules(),)
