"""Matches of regular expressions, and compiled formats: made again from what they were made of."""

from __future__ import annotations

import re
import struct
from typing import TYPE_CHECKING, Any

from nbcr.objects.kinds.base import CannotSave, Kind, Reduction

if TYPE_CHECKING:
    from nbcr.objects.pickling import UnitPickler

_WAYS = ("match", "search", "fullmatch", "finditer")


class Matches(Kind):
    """What a search has found. The same is searched for again; how it was is in no match, and so found out first."""

    types = ("re.Match",)

    def reduce(self, obj: Any, pickler: UnitPickler) -> Reduction:
        for way in _WAYS:
            arguments = obj.re, obj.string, obj.pos, obj.endpos, way, obj.regs
            if find_match(*arguments) is not None:
                return find_match, arguments
        raise CannotSave("its text has changed since it was searched")


def find_match(
    pattern: re.Pattern[Any], text: Any, start: int, end: int, way: str, regions: tuple[tuple[int, int], ...]
) -> Any:
    """What `way` finds in `text` at exactly these `regions`; None: nothing."""
    found = getattr(pattern, way)(text, start, end)
    candidates = found if way == "finditer" else [found]
    return next((match for match in candidates if match is not None and match.regs == regions), None)


class Formats(Kind):
    """struct.Struct."""

    types = ("_struct.Struct",)

    def reduce(self, obj: Any, pickler: UnitPickler) -> Reduction:
        return struct.Struct, (obj.format,)


KINDS: tuple[Kind, ...] = (Matches(), Formats())
