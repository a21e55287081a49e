"""Objects that mean something by being the only one, such as ``dataclasses.MISSING``: the sentinels of modules."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from nbcr.objects.kinds.base import Kind, Reduction
from nbcr.objects.kinds.functions import attribute

if TYPE_CHECKING:
    from nbcr.objects.pickling import UnitPickler


class Sentinels(Kind):
    """What pickle would make another one of. Those of the notebook's own are saved like any object."""

    types: tuple[str, ...] = (
        "dataclasses._MISSING_TYPE", "dataclasses._KW_ONLY_TYPE", "dataclasses._HAS_DEFAULT_FACTORY_CLASS",
        "inspect._empty", "scipy.special._multiufuncs.MultiUFunc",
    )  # fmt: skip

    def shares(self, obj: Any) -> bool:
        return _home_of(obj) is None

    def reduce(self, obj: Any, pickler: UnitPickler) -> Reduction:
        home = _home_of(obj)
        return NotImplemented if home is None else (attribute, home)


class BareObjects(Sentinels):
    """``object()`` itself: nothing but an identity. Asked about by the exact type: everything else is one as well."""

    types = ()


def _home_of(obj: Any) -> tuple[str, str] | None:
    """The module that keeps this very object, and its name there."""
    own = type(obj).__module__
    names = [own] if own != "builtins" else list(sys.modules)
    for name in names:
        module = sys.modules.get(name)
        for attribute_name, value in list(getattr(module, "__dict__", {}).items()) if name != "__main__" else ():
            if value is obj:
                return name, attribute_name
    return None


BARE_OBJECTS = BareObjects()
KINDS: tuple[Kind, ...] = (Sentinels(),)
