"""Models of libraries that calculate while they are pickled, with threads which a forked child does not have.

They would wait for these for ever: there they get along with the one thread that there is.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from nbcr.objects.kinds.base import Kind, Reduction

if TYPE_CHECKING:
    from nbcr.objects.pickling import UnitPickler


class Boosters(Kind):
    """Models that pickle themselves, once their library has been told of the child."""

    def __init__(self, type_: str, use_one_thread: Callable[[Any], None]) -> None:
        self.types = (type_,)
        self._module = type_.rpartition(".")[0]
        self._use_one_thread = use_one_thread

    def reduce(self, obj: Any, pickler: UnitPickler) -> Reduction:
        if pickler.context.forked:
            with contextlib.suppress(Exception):  # another version: the child stands still, and is given up
                self._use_one_thread(sys.modules[self._module])
        return NotImplemented


def _lightgbm(basic: Any) -> None:
    basic._LIB.LGBM_SetMaxThreads(1)


def _xgboost(core: Any) -> None:
    sys.modules["xgboost"].set_config(nthread=1)


KINDS: tuple[Kind, ...] = (
    Boosters("lightgbm.basic.Booster", _lightgbm),
    Boosters("xgboost.core.Booster", _xgboost),
)
