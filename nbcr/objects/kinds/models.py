"""Models of libraries that calculate while they are pickled, with threads which a forked child does not have."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING, Any

from nbcr.objects.kinds.base import Kind, Reduction

if TYPE_CHECKING:
    from nbcr.objects.pickling import UnitPickler


class Boosters(Kind):
    """LightGBM's, which would wait for these threads for ever: there it gets along with the one that there is."""

    types = ("lightgbm.basic.Booster",)

    def reduce(self, obj: Any, pickler: UnitPickler) -> Reduction:
        if pickler.context.forked:
            with contextlib.suppress(AttributeError):  # another version: the child stands still, and is given up
                sys.modules["lightgbm.basic"]._LIB.LGBM_SetMaxThreads(1)
        return NotImplemented


KINDS: tuple[Kind, ...] = (Boosters(),)
