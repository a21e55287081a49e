"""System calls about BPF maps and who uses them (bpf(2)), as plain functions that raise OSError."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from kernel_backend.abi import linux
from kernel_backend.host import libc

_INFO = struct.Struct("<6I16s2I2Q4IQ")  # struct bpf_map_info, as far as `Facts` goes
_PROGRAM_INFO = struct.Struct("<52xIQ")  # of struct bpf_prog_info: number and place of its maps' ids
_MOST_MAPS = 64  # of one program (MAX_USED_MAPS)
_PART = 4096  # entries that are read at once


class Facts(NamedTuple):
    """What the OS kernel tells of a map."""

    type: int
    id: int
    key_size: int
    value_size: int
    max_entries: int
    flags: int
    name: str
    device: int  # of the network device that holds it; 0: the OS kernel does
    has_types: bool  # it was made with type information (BTF)
    extra: int


def _call(command: int, attributes: bytes) -> tuple[int, bytes]:
    """(result, what the attributes are afterwards)."""
    room = ctypes.create_string_buffer(attributes, len(attributes))
    return libc.syscall("bpf", command, room, len(attributes)), room.raw


def facts(fd: int) -> Facts:
    """BPF_OBJ_GET_INFO_BY_FD of a map."""
    found = _INFO.unpack(_info(fd, bytes(_INFO.size)))
    kind, number, key, value, entries, flags, name, device, type_of_value, *_, btf, key_type, value_type, _, extra = (
        found
    )
    has_types = any((type_of_value, btf, key_type, value_type))
    text = name.split(b"\0")[0].decode("ascii", "replace")
    return Facts(kind, number, key, value, entries, flags, text, device, has_types, extra)


def _info(fd: int, room: bytes) -> bytes:
    info = ctypes.create_string_buffer(room, len(room))
    _call(linux.BPF_OBJ_GET_INFO_BY_FD, struct.pack("<IIQ", fd, len(room), ctypes.addressof(info)))
    return info.raw


def possible_processors() -> int:
    """How many values a key of a map per processor has."""
    text = Path("/sys/devices/system/cpu/possible").read_text()
    return sum(int(last or first) - int(first) + 1 for first, last in re.findall(r"(\d+)(?:-(\d+))?", text))


# --- making and filling -----------------------------------------------------------------------------------------------


def create(kind: int, key_size: int, value_size: int, max_entries: int, flags: int, name: str) -> int:
    """A new map."""
    return _call(
        linux.BPF_MAP_CREATE,
        struct.pack("<5I2I16sII", kind, key_size, value_size, max_entries, flags, 0, 0, name.encode("ascii"), 0, 0),
    )[0]


def by_id(number: int, flags: int) -> int:
    """A new description of a map, with flags of its own (BPF_F_RDONLY, BPF_F_WRONLY)."""
    return _call(linux.BPF_MAP_GET_FD_BY_ID, struct.pack("<3I", number, 0, flags))[0]


def freeze(fd: int) -> None:
    """From now on nobody changes it by system calls."""
    _call(linux.BPF_MAP_FREEZE, struct.pack("<I", fd))


def read(fd: int, key_size: int, value_size: int, most: int) -> tuple[bytes, bytes]:
    """All keys and all values, one behind the other; `value_size`: as it is copied, `most`: entries of the map."""
    keys, values = [], []
    place = b""
    part = min(_PART, most)
    while True:
        room = ctypes.create_string_buffer(key_size * part), ctypes.create_string_buffer(value_size * part)
        count, after, status = _read_part(fd, place, *room, part)
        if status == errno.ENOSPC and part < most:  # of a hash: one of its buckets alone has more
            part = min(2 * part, most)
            continue
        keys.append(room[0].raw[: count * key_size])
        values.append(room[1].raw[: count * value_size])
        place = after
        if status == errno.ENOENT:
            return b"".join(keys), b"".join(values)
        if status:
            raise OSError(status, "a BPF map holds more than it may")


def _read_part(
    fd: int, place: bytes, keys: ctypes.Array[ctypes.c_char], values: ctypes.Array[ctypes.c_char], most: int
) -> tuple[int, bytes, int]:
    """(entries read, where to go on, the error that says whether there are more)."""
    before = ctypes.create_string_buffer(place, 8) if place else None
    after = ctypes.create_string_buffer(8)
    attributes = ctypes.create_string_buffer(
        _batch(fd, keys, values, most, ctypes.addressof(before) if before else 0, ctypes.addressof(after)), _BATCH.size
    )
    status = 0
    try:
        libc.syscall("bpf", linux.BPF_MAP_LOOKUP_BATCH, attributes, _BATCH.size)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOSPC):
            raise
        status = error.errno
    return _BATCH.unpack(attributes.raw)[4], after.raw, status


_BATCH = struct.Struct("<4QIIQQ")


def _batch(
    fd: int, keys: ctypes.Array[ctypes.c_char], values: ctypes.Array[ctypes.c_char], count: int, before: int, after: int
) -> bytes:
    return _BATCH.pack(before, after, ctypes.addressof(keys), ctypes.addressof(values), count, fd, 0, 0)


def write(fd: int, keys: bytes, values: bytes, count: int) -> None:
    """Put entries in."""
    if count:
        places = ctypes.create_string_buffer(keys, len(keys)), ctypes.create_string_buffer(values, len(values))
        _call(linux.BPF_MAP_UPDATE_BATCH, _batch(fd, *places, count, 0, 0))


# --- who uses them ----------------------------------------------------------------------------------------------------


def used_by_programs() -> dict[int, int]:
    """Ids of maps that loaded programs use, each with the id of such a program. Takes CAP_SYS_ADMIN."""
    found: dict[int, int] = {}
    for program in _programs():
        with contextlib.suppress(FileNotFoundError):  # it was unloaded meanwhile
            fd = _call(linux.BPF_PROG_GET_FD_BY_ID, struct.pack("<3I", program, 0, 0))[0]
            try:
                found.update(dict.fromkeys(_maps_of(fd), program))
            finally:
                os.close(fd)
    return found


def _programs() -> Iterator[int]:
    program = 0
    while True:
        try:
            answer = _call(linux.BPF_PROG_GET_NEXT_ID, struct.pack("<3I", program, 0, 0))[1]
        except FileNotFoundError:
            return
        program = struct.unpack_from("<I", answer, 4)[0]
        yield program


def _maps_of(program: int) -> list[int]:
    ids = (ctypes.c_uint32 * _MOST_MAPS)()
    answer = _info(program, _PROGRAM_INFO.pack(_MOST_MAPS, ctypes.addressof(ids)))
    return list(ids[: min(_PROGRAM_INFO.unpack(answer)[0], _MOST_MAPS)])


def pinned_at(path: str) -> int:
    """The id of the map that a file of a BPF file system stands for; 0: it stands for something else."""
    name = ctypes.create_string_buffer(os.fsencode(path))
    try:
        fd = _call(linux.BPF_OBJ_GET, struct.pack("<QII", ctypes.addressof(name), 0, linux.BPF_F_RDONLY))[0]
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.ENOENT):  # what only a map may be asked; it was removed meanwhile
            return 0
        raise
    try:
        return facts(fd).id if os.readlink(f"/proc/self/fd/{fd}") == "anon_inode:bpf-map" else 0
    finally:
        os.close(fd)
