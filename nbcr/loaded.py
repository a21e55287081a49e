"""A shared library as it is loaded here: its text, its own data, what it imports (ELF; System V ABI, chapter 5).

Where it begins, the dynamic linker tells (dladdr(3)): its file may be mapped a second time, by who reads it.
Its data is what its program headers say. Where it ends, /proc/self/maps does not tell: memory of anybody's that follows
directly after a library's zeroed data is one area with it, and may be gone in the next moment.

All is read from memory, never from the file, which may have been replaced since. (The engine, which must not be
imported here, reads files of programs that may not even run: kernel_backend/host/elf.py.)
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
_RELOCATION = struct.Struct("<QQq")  # Elf64_Rela
_SYMBOL_BYTES = 24  # Elf64_Sym, which begins with where its name is in the table of strings
_libc = ctypes.CDLL(None)
_libc.dladdr.argtypes = [ctypes.c_void_p, ctypes.c_void_p]
_PT_LOAD, _PT_DYNAMIC = 1, 2
_PF_W = 2
_DT_PLTRELSZ, _DT_STRTAB, _DT_SYMTAB, _DT_RELA, _DT_RELASZ, _DT_JMPREL = 2, 5, 6, 7, 8, 23
_R_X86_64_GLOB_DAT, _R_X86_64_JUMP_SLOT = 6, 7


@dataclass(frozen=True)
class Library:
    """Addresses of a library."""

    text: range  # the area of the function that it was found by
    writable: tuple[range, ...]  # its data that may be written to; what is read-only since it was loaded is not in it
    bias: int  # what is added to the addresses in its file
    dynamic: range  # its dynamic section; empty when it has none

    @classmethod
    def of(cls, function: int) -> Library | None:
        """That which has `function`, an address. None when none is loaded there."""
        mapped = list(areas(Path("/proc/self/maps").read_text()))
        text, path = next(((area, path) for area, path, _ in mapped if function in area), (range(0), ""))
        if not path.startswith("/"):
            return None
        base = _base(function)
        if not base:
            return None
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

    def import_slots(self, symbol: str) -> Iterator[int]:
        """Where it keeps the addresses by which it calls the function `symbol` of another library, or its own (x86-64).

        Some may be read-only since it was loaded.
        """
        tables = dict(_DYNAMIC.iter_unpack(ctypes.string_at(self.dynamic.start, len(self.dynamic))))
        if not {_DT_STRTAB, _DT_SYMTAB} <= tables.keys():
            return
        symbols, strings = self._address(tables[_DT_SYMTAB]), self._address(tables[_DT_STRTAB])
        for table, size in ((_DT_JMPREL, _DT_PLTRELSZ), (_DT_RELA, _DT_RELASZ)):
            if not {table, size} <= tables.keys():
                continue
            content = ctypes.string_at(self._address(tables[table]), tables[size])
            for where, info, _ in _RELOCATION.iter_unpack(content):
                if info & 0xFFFFFFFF in (_R_X86_64_GLOB_DAT, _R_X86_64_JUMP_SLOT):
                    name = ctypes.c_uint32.from_address(symbols + (info >> 32) * _SYMBOL_BYTES).value
                    if ctypes.string_at(strings + name) == symbol.encode():
                        yield self.bias + where

    def _address(self, value: int) -> int:
        """Of a table in the dynamic section: glibc has made an address of it, musl has left what is in the file."""
        return value if value >= self.bias else self.bias + value


class _Found(ctypes.Structure):
    """Dl_info."""

    _fields_ = (
        ("path", ctypes.c_char_p),
        ("base", ctypes.c_void_p),
        ("symbol", ctypes.c_char_p),
        ("address", ctypes.c_void_p),
    )


def _base(function: int) -> int:
    """Where the library begins that has this address; 0 for none."""
    found = _Found()
    _libc.dladdr(function, ctypes.byref(found))
    return found.base or 0


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
