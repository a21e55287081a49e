"""Quantities and units of pint, which belong to the registry that made them.

pint pickles them without it, and makes them again with the registry of the application: those of any other are then
of no use with those of their own, and what the session has defined is not known to it.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from nbcr.objects.kinds.base import Kind, Reduction
from nbcr.objects.kinds.instances import make_instance, set_instance_state

if TYPE_CHECKING:
    from nbcr.objects.pickling import UnitPickler


class Quantities(Kind):
    """By their class, of which each registry has one of its own; those of the application's registry know that.

    They are made again with the application's, but where that is a variable of the notebook's: then they come with it.
    """

    types = ("pint.util.SharedRegistryObject",)

    def reduce(self, obj: Any, pickler: UnitPickler) -> Reduction:
        registry = vars(obj).get("_REGISTRY", getattr(type(obj), "_REGISTRY", None))
        if registry is None or ("_REGISTRY" in vars(obj) and not name_of(registry)):
            return NotImplemented
        return make_instance, (type(obj),), vars(obj), None, None, set_instance_state


def name_of(registry: Any) -> str:
    """What the notebook calls a registry of units; empty: it has no name for it."""
    notebook = vars(sys.modules["__main__"]).items()
    return next((name for name, value in notebook if value is registry and not name.startswith("_")), "")


KINDS: tuple[Kind, ...] = (Quantities(),)
