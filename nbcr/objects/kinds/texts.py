"""Matches of regular expressions, compiled formats, csv: made again from what they were made of."""

from __future__ import annotations

import csv
import gc
import itertools
import re
import struct
from types import SimpleNamespace
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


class Readers(Kind):
    """csv.reader: what it reads from, and how many lines it has read."""

    types = ("_csv.reader",)

    def reduce(self, obj: Any, pickler: UnitPickler) -> Reduction:
        (lines,) = [part for part in gc.get_referents(obj) if hasattr(part, "__next__") and not isinstance(part, type)]
        return make_csv_reader, (lines, _dialect_of(obj), obj.line_num)


def make_csv_reader(lines: Any, dialect: dict[str, Any], read: int) -> Any:
    """A reader that believes to have read this many lines."""
    reader = csv.reader(itertools.chain(itertools.repeat("", read), lines), **dialect)
    next(itertools.islice(reader, read, read), None)
    return reader


class Writers(Kind):
    """csv.writer: the function by which it writes."""

    types = ("_csv.writer",)

    def reduce(self, obj: Any, pickler: UnitPickler) -> Reduction:
        (write,) = [part for part in gc.get_referents(obj) if callable(part) and not isinstance(part, type)]
        return make_csv_writer, (write, _dialect_of(obj))


def make_csv_writer(write: Any, dialect: dict[str, Any]) -> Any:
    """A writer that writes by this function."""
    return csv.writer(SimpleNamespace(write=write), **dialect)


_DIALECT = "delimiter doublequote escapechar lineterminator quotechar quoting skipinitialspace strict".split()


def _dialect_of(obj: Any) -> dict[str, Any]:
    return {name: getattr(obj.dialect, name) for name in _DIALECT}


KINDS: tuple[Kind, ...] = (Matches(), Formats(), Readers(), Writers())
