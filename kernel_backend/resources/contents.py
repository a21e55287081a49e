"""Contents of files that have no path any more: saved into the image folder, and made again.

Several descriptions may belong to one such file; they do so again: the object is made once, and each description
opens it through /proc/self/fd, which gives a description of its own.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable
from pathlib import Path

from kernel_backend.errors import ImageCorrupt, NoRoom
from kernel_backend.host import proc
from kernel_backend.image.descriptions import MemoryFile, RegularFile
from kernel_backend.resources.descriptors import CaptureTables, Look, RebuildTables, open_flags
from kernel_backend.resources.shared_memory import key_of_stat

_COPY_BYTES = 4 << 20
_NAME = re.compile(r"content-\d+\.img")


def _mapped_keys(tables: CaptureTables) -> set[str]:
    """Keys of the objects that some process maps MAP_SHARED and whose bytes the memory room saves."""
    known: set[str] | None = tables.cache.get("mapped keys")
    if known is None:
        every = (mapping for process in tables.processes.values() for mapping in process.mappings)
        known = {f"{m.device}:{m.inode}" for m in every if m.shared and _is_saved_with_memory(m)}
        tables.cache["mapped keys"] = known
    return known


def _is_saved_with_memory(mapping: proc.Mapping) -> bool:
    path = mapping.path
    return path.endswith(" (deleted)") or path.startswith(("/memfd:", "/dev/shm/"))


def memory_key(look: Look, tables: CaptureTables) -> str:
    """The key of the shared memory entry that holds this file's bytes; empty when there is none."""
    key = key_of_stat(look.stat)
    return key if key in _mapped_keys(tables) else ""


def save(look: Look, tables: CaptureTables) -> str:
    """Copy a file's bytes, holes kept, into the image folder; the file's name there. Raises NoRoom."""
    saved: dict[tuple[int, int], str] = tables.cache.setdefault("saved contents", {})
    if look.inode not in saved:
        name = f"content-{len(saved)}.img"
        _check_room(look, tables.folder)
        target = os.open(tables.folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            _copy(look, target, tables)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise NoRoom(f"no room to save {look.link}, which {look.holder} has open") from error
            raise
        finally:
            os.close(target)
        saved[look.inode] = name
    return saved[look.inode]


def _copy(look: Look, target: int, tables: CaptureTables) -> None:
    """Copy by a descriptor of our own, or, where this user may not open the file, by the process's own."""
    try:
        source = os.open(f"/proc/self/fd/{look.own}", os.O_RDONLY | os.O_CLOEXEC)  # an offset of our own
    except PermissionError:
        if look.flags & os.O_ACCMODE != os.O_WRONLY:
            _copy_in_order(look.own, target)
            return
        os.ftruncate(target, look.stat.st_size)
        tables.warnings.append(
            f"{look.holder} writes to the deleted file {look.link}, which this user may not read: "
            "what it wrote until now is not in the image"
        )
        return
    try:
        copy_sparse(source, target)
    finally:
        os.close(source)


def _copy_in_order(source: int, target: int) -> None:
    """Copy without moving the offset of `source`, which is the process's own."""
    size, at = os.fstat(source).st_size, 0
    while at < size:
        data = os.pread(source, 1 << 20, at)
        if not data:
            break
        os.pwrite(target, data, at)
        at += len(data)
    os.ftruncate(target, size)


def _check_room(look: Look, folder: Path) -> None:
    room = os.statvfs(folder)
    needed, free = look.stat.st_blocks * 512, room.f_bavail * room.f_frsize
    if needed > free:
        raise NoRoom(
            f"{look.holder} has the deleted file {look.link} of {needed} bytes open; the image's disk has {free} left",
            needed=needed, free=free,
        )  # fmt: skip


def copy_sparse(source: int, target: int) -> None:
    """Copy a whole file from its beginning, keeping its holes."""
    size, at = os.fstat(source).st_size, 0
    os.ftruncate(target, size)
    while at < size:
        try:
            at = os.lseek(source, at, os.SEEK_DATA)
            end = os.lseek(source, at, os.SEEK_HOLE)
        except OSError as error:
            if error.errno == errno.ENXIO:  # nothing but a hole is left
                return
            raise
        while at < end:
            data = os.pread(source, min(_COPY_BYTES, end - at), at)
            if not data:
                return
            at += os.pwrite(target, data, at)


def made_object(entry: RegularFile | MemoryFile, tables: RebuildTables, make: Callable[[], int]) -> int:
    """Our descriptor of the object behind an entry: the memory room's, one made already, or a new one by `make`."""
    if entry.shared in tables.shared:
        return tables.shared[entry.shared]
    objects: dict[tuple[int, int], int] = tables.cache.setdefault("objects", {})
    key = (entry.device, entry.inode)
    if key not in objects:
        fd = make()
        objects[key] = fd
        tables.to_close.append(fd)
        if entry.content:
            fill(fd, entry.content, tables.folder)
    return objects[key]


def fill(fd: int, name: str, folder: Path) -> None:
    """Write a saved content back."""
    if not _NAME.fullmatch(name):
        raise ImageCorrupt(f"the image names a content file {name!r}", name=name)
    source = os.open(folder / name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        copy_sparse(source, fd)
    finally:
        os.close(source)


def reopen(fd: int, flags: int) -> int:
    """A new description of an object that we have open."""
    unfit = os.O_NOFOLLOW | os.O_DIRECTORY  # the second is left from O_TMPFILE
    return os.open(f"/proc/self/fd/{fd}", (open_flags(flags) | os.O_CLOEXEC | os.O_NOCTTY) & ~unfit)
