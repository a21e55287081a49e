"""What we read of ELF files (elf(5)): the build-id note, where their contents are loaded, and those contents.

A debugger's sections are no part of any of it, nor is the table that lists sections: a file may be stripped meanwhile.
"""

from __future__ import annotations

import errno
import os
import stat
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from blake3 import blake3

from kernel_backend.abi import linux

_PT_LOAD, _PT_NOTE = 1, 4
_NT_GNU_BUILD_ID = 3
_MAX_NOTE_BYTES = 65536
_MAX_HEADERS = 128
_HEADER = struct.Struct(
    "<IIQQQQQQ"
)  # type, flags, offset, address, physical address, bytes in the file, in memory, align
# Of the file's own header: where the table of sections is; how large its rows are, how many, which holds their names
_SECTIONS = ((40, 48), (58, 64))
_PIECE_BYTES = 1 << 20
# Hashing takes a millisecond for every few megabytes, reading them from a disk far longer. What is larger is mostly a
# library, whose build id tells its contents too.
MOST_HASHED_BYTES = 128 << 20


class Build(NamedTuple):
    """What tells one build of a program or library from another."""

    build_id: str = ""  # hex; empty when there is none
    segments: str = ""  # digest of what is loaded from where to where; empty of what is no 64-bit ELF file


def build_of(path: str) -> Build:
    """The build of a file; stripping it of debug sections leaves both parts as they are."""
    try:
        with _open_regular(path) as file:
            return _read(file)
    except (OSError, struct.error):
        return Build()


def contents_of(path: str) -> str:
    """Digest of the bytes of a file that a process may have mapped: of an ELF file what is loaded, of others all.

    Empty when that is more than MOST_HASHED_BYTES, or cannot be read.
    """
    try:
        with _open_regular(path) as file:
            spans = [(header[2], header[5]) for header in _headers(file) if header[0] == _PT_LOAD]
            whole = os.fstat(file.fileno()).st_size
            parts = spans or [(0, whole)]
            if sum(length for _, length in parts) > MOST_HASHED_BYTES:
                return ""
            return _digest(file, parts, _SECTIONS if spans else ())
    except (OSError, struct.error):
        return ""


def _digest(file: BinaryIO, parts: list[tuple[int, int]], blanks: tuple[tuple[int, int], ...]) -> str:
    """Of `parts` (offset, length) of a file, with zeros at `blanks` [start, end), which lie in its first bytes."""
    digest = blake3()
    blank_end = max((end for _, end in blanks), default=0)
    for offset, length in parts:
        at, end = offset, offset + length
        while at < end and (data := os.pread(file.fileno(), min(_PIECE_BYTES, end - at), at)):
            digest.update(_blanked(data, at, blanks) if at < blank_end else data)
            at += len(data)
    return digest.hexdigest()


def _blanked(data: bytes, offset: int, blanks: tuple[tuple[int, int], ...]) -> bytes:
    changed = bytearray(data)
    for start, end in blanks:
        low, high = max(start - offset, 0), min(end - offset, len(data))
        changed[low:high] = bytes(max(high - low, 0))
    return bytes(changed)


def _open_regular(path: str) -> BinaryIO:
    """Open a file to read it. Nothing else is opened: a FIFO would wait, a device may act. Raises OSError."""
    place = os.open(path, linux.O_PATH | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(place).st_mode):
            raise OSError(errno.EINVAL, "no regular file", path)
        return Path(f"/proc/self/fd/{place}").open("rb", buffering=0)
    finally:
        os.close(place)


def is_program(path: str) -> bool:
    """Whether it is a 64-bit ELF file."""
    return bool(build_of(path).segments)


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
