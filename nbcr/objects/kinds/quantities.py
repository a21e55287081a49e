"""Quantities and units of pint, which belong to the registry that made them.

pint pickles them without it, and makes them again with the registry of the application: those of any other are then
of no use with those of their own, and what the session has defined is not known to it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nbcr.objects.kinds.base import Kind, Reduction
from nbcr.objects.kinds.instances import make_instance, set_instance_state

if TYPE_CHECKING:
    from nbcr.objects.pickling import UnitPickler


class Quantities(Kind):
    """By their class, of which each registry has one of its own; those of the application's registry have none."""

    types = ("pint.util.SharedRegistryObject",)

    def reduce(self, obj: Any, pickler: UnitPickler) -> Reduction:
        if "_REGISTRY" in vars(obj) or not hasattr(type(obj), "_REGISTRY"):
            return NotImplemented
        return make_instance, (type(obj),), vars(obj), None, None, set_instance_state


KINDS: tuple[Kind, ...] = (Quantities(),)
