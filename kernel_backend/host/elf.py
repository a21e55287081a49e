"""What we read of ELF files: the build-id note (elf(5))."""

from __future__ import annotations

import struct
from pathlib import Path

_PT_NOTE = 4
_NT_GNU_BUILD_ID = 3
_MAX_NOTE_BYTES = 65536


def build_id(path: str) -> str:
    """The GNU build-id of a 64-bit ELF file in hex; empty when it has none or is no ELF file."""
    try:
        with Path(path).open("rb") as file:
            head = file.read(64)
            if len(head) < 64 or head[:5] != b"\x7fELF\x02":
                return ""
            offset, size, count = struct.unpack_from("<Q", head, 32)[0], *struct.unpack_from("<HH", head, 54)
            file.seek(offset)
            table = file.read(size * min(count, 128))
            for i in range(0, len(table) - 55, size):
                kind, _, where, _, _, length = struct.unpack_from("<IIQQQQ", table, i)
                if kind == _PT_NOTE and length <= _MAX_NOTE_BYTES:
                    file.seek(where)
                    found = _note_build_id(file.read(length))
                    if found:
                        return found
    except OSError:
        return ""
    return ""


def _note_build_id(notes: bytes) -> str:
    at = 0
    while at + 12 <= len(notes):
        name_size, size, kind = struct.unpack_from("<III", notes, at)
        name_at = at + 12
        data_at = name_at + (name_size + 3) // 4 * 4
        if kind == _NT_GNU_BUILD_ID and notes[name_at : name_at + 4] == b"GNU\0":
            return notes[data_at : data_at + size].hex()
        at = data_at + (size + 3) // 4 * 4
    return ""
