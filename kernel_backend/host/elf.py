"""What we read of ELF files (elf(5)): the build-id note, and where their contents are loaded."""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from blake3 import blake3

_PT_LOAD, _PT_NOTE = 1, 4
_NT_GNU_BUILD_ID = 3
_MAX_NOTE_BYTES = 65536
_MAX_HEADERS = 128
_HEADER = struct.Struct(
    "<IIQQQQQQ"
)  # type, flags, offset, address, physical address, bytes in the file, in memory, align


class Build(NamedTuple):
    """What tells one build of a program or library from another."""

    build_id: str = ""  # hex; empty when there is none
    segments: str = ""  # digest of what is loaded from where to where; empty of what is no 64-bit ELF file


def build_of(path: str) -> Build:
    """The build of a file; stripping it of debug sections leaves both parts as they are."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return Build()
    with os.fdopen(fd, "rb") as file:
        try:
            return _read(file) if stat.S_ISREG(os.fstat(fd).st_mode) else Build()
        except (OSError, struct.error):
            return Build()


def is_program(path: str) -> bool:
    """Whether it is a 64-bit ELF file that we may run."""
    return os.access(path, os.X_OK) and Path(path).is_file() and bool(build_of(path).segments)


def _read(file: BinaryIO) -> Build:
    headers = list(_headers(file))
    loaded = b"".join(_HEADER.pack(*header) for header in headers if header[0] == _PT_LOAD)
    build_id = ""
    for kind, _, offset, _, _, size, _, _ in headers:
        if kind == _PT_NOTE and size <= _MAX_NOTE_BYTES and not build_id:
            file.seek(offset)
            build_id = _note_build_id(file.read(size))
    return Build(build_id, blake3(loaded).hexdigest() if headers else "")


def _headers(file: BinaryIO) -> Iterator[tuple[int, ...]]:
    """The program headers."""
    head = file.read(64)
    if len(head) < 64 or head[:5] != b"\x7fELF\x02":
        return
    offset, size, count = struct.unpack_from("<Q", head, 32)[0], *struct.unpack_from("<HH", head, 54)
    if size != _HEADER.size or offset >= 1 << 62:
        return
    file.seek(offset)
    table = file.read(size * min(count, _MAX_HEADERS))
    yield from _HEADER.iter_unpack(table[: len(table) - len(table) % size])


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
