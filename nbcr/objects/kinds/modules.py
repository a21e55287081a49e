"""Modules are imported again; only those that no import finds are saved."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterable
from types import ModuleType
from typing import TYPE_CHECKING, Any

from nbcr.objects.kinds.base import CannotSave, Kind, Reduction

if TYPE_CHECKING:
    from nbcr.objects.pickling import UnitPickler
    from nbcr.objects.sharing import Survey


def is_importable(module: ModuleType) -> bool:
    """Whether an import of its name gives this very module, also in another process."""
    return sys.modules.get(module.__name__) is module and not is_made_by_hand(module.__name__)


def is_made_by_hand(name: str) -> bool:
    """Whether imports find the module in this process alone: nobody knows where it came from.

    What a package makes when it is imported, ``six.moves`` for one, has no source either, and is made again.
    """
    if name == "__main__" or "." in name or name in sys.builtin_module_names:
        return False
    module = sys.modules.get(name)
    return module is not None and not (getattr(module, "__spec__", None) or getattr(module, "__file__", None))


def refuse_made_by_hand(name: str) -> None:
    """Raise CannotSave for what is in a module that imports find in this process alone."""
    if is_made_by_hand(name):
        raise CannotSave(f"the module {name} was made by hand: no other process finds it")


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
        if sys.modules.get(obj.__name__) is obj:
            refuse_made_by_hand(obj.__name__)
        return ModuleType, (obj.__name__, obj.__doc__), (contents,), None, None, fill_module


def fill_module(module: ModuleType, state: tuple[dict[str, Any]]) -> None:
    """Give a module that no import finds what was in it."""
    vars(module).update(state[0])


KINDS: tuple[Kind, ...] = (Modules(),)
