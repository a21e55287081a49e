"""Loggers: there is one of each name, which gets its level back."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from nbcr.objects.kinds.base import Kind, Reduction

if TYPE_CHECKING:
    from nbcr.objects.pickling import UnitPickler
    from nbcr.objects.sharing import Survey


class Loggers(Kind):
    """logging.Logger, also the root."""

    types = ("logging.Logger",)

    def parts(self, obj: logging.Logger, survey: Survey) -> Iterable[Any]:
        return ()

    def shares(self, obj: logging.Logger) -> bool:
        return False

    def reduce(self, obj: logging.Logger, pickler: UnitPickler) -> Reduction:
        if obj.handlers and obj.parent is not None:
            pickler.remarks.add("its logger comes back without the handlers it had")
        if obj.filters:
            pickler.remarks.add("its logger comes back without the filters it had")
        name = obj.name if obj.parent is not None else ""
        return find_logger, (name, obj.level, obj.propagate, obj.disabled)


def find_logger(name: str, level: int, propagate: bool, disabled: bool) -> logging.Logger:
    """The logger of this name, with its settings."""
    logger = logging.getLogger(name)
    logger.setLevel(level)
    logger.propagate, logger.disabled = propagate, disabled
    return logger


KINDS: tuple[Kind, ...] = (Loggers(),)
