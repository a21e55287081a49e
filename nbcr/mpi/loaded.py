"""A shared library as it is loaded here: its text, its own data, its tables (ELF; System V ABI, chapter 5).

Its data is what its program headers say. Where it ends, /proc/self/maps does not tell: memory of anybody's that follows
directly after a library's zeroed data is one area with it, and may be gone in the next moment.
"""

from __future__ import annotations

import ctypes
import mmap
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_PROGRAM_HEADER = struct.Struct("<IIQQQQQQ")
_DYNAMIC = struct.Struct("<qQ")  # Elf64_Dyn
_PT_LOAD, _PT_DYNAMIC = 1, 2
_PF_W = 2


@dataclass(frozen=True)
class Library:
    """Addresses of a library."""

    text: range  # the area of the function that it was found by
    writable: tuple[range, ...]  # its data that may be written to; what is read-only since it was loaded is not in it
    bias: int  # what is added to the addresses in its file
    dynamic: range  # its dynamic section; empty when it has none

    @classmethod
    def of(cls, function: int) -> Library | None:
        """That which has `function`, an address. None when no file is mapped there."""
        mapped = list(areas(Path("/proc/self/maps").read_text()))
        text, path = next(((area, path) for area, path, _ in mapped if function in area), (range(0), ""))
        if not path.startswith("/"):
            return None
        base = min(area.start for area, name, _ in mapped if name == path)
        headers = list(_program_headers(base))
        lowest = min((address for kind, _, address, _ in headers if kind == _PT_LOAD), default=0)
        bias = base - (lowest & -mmap.PAGESIZE)
        free = [area for area, _, rights in mapped if rights.startswith("rw")]
        writable, dynamic = [], range(0)
        for kind, flags, address, size in headers:
            segment = range(bias + address, bias + address + size)
            if kind == _PT_LOAD and flags & _PF_W:
                writable += [common for area in free if (common := _common(area, segment))]
            elif kind == _PT_DYNAMIC:
                dynamic = segment
        return cls(text, tuple(writable), bias, dynamic)

    def contents(self) -> list[tuple[int, bytes]]:
        """Its writable data, by address."""
        return [(area.start, ctypes.string_at(area.start, len(area))) for area in self.writable]

    def tables(self) -> dict[int, int]:
        """Its dynamic section: tag → value. glibc has made addresses of offsets."""
        return dict(_DYNAMIC.iter_unpack(ctypes.string_at(self.dynamic.start, len(self.dynamic))))


def areas(maps: str) -> Iterator[tuple[range, str, str]]:
    """Addresses, file and rights of each line of /proc/self/maps."""
    for line in maps.splitlines():
        addresses, rights, _, _, _, *path = line.split(maxsplit=5)
        start, end = (int(each, 16) for each in addresses.split("-"))
        yield range(start, end), path[0] if path else "", rights


def _program_headers(base: int) -> Iterator[tuple[int, int, int, int]]:
    """Kind, flags, address in the file, and size in memory of each segment of what is loaded at `base`."""
    header = ctypes.string_at(base, 64)
    if header[:5] != b"\x7fELF\x02":
        return
    (start,) = struct.unpack_from("<Q", header, 32)
    size, count = struct.unpack_from("<HH", header, 54)
    for kind, flags, _, address, _, _, length, _ in _PROGRAM_HEADER.iter_unpack(
        ctypes.string_at(base + start, size * count)
    ):
        yield kind, flags, address, length


def _common(one: range, other: range) -> range:
    return range(max(one.start, other.start), min(one.stop, other.stop))
