"""Contents of files that have no path any more: saved into the image folder, and made again.

Several descriptions may belong to one such file; they do so again: the object is made once, and each description
opens it through /proc/self/fd, which gives a description of its own.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import stat
from collections.abc import Callable
from functools import partial
from pathlib import Path

from kernel_backend.abi import linux
from kernel_backend.abi.linux import PAGE_SIZE
from kernel_backend.errors import ImageCorrupt, NoRoom
from kernel_backend.host import proc
from kernel_backend.image.descriptions import MemoryFile, PageRun, RegularFile, unpack_path
from kernel_backend.resources.descriptors import CaptureTables, Look, RebuildTables, open_flags
from kernel_backend.resources.mapped_files import is_in_memory, is_object, key_of_stat, present_path
from kernel_backend.resources.shared_memory import copy_part, fill, save_descriptor

_NAME = re.compile(r"content-\d+\.img")
_BLOCK_BYTES = 512  # of st_blocks, whatever the file system


def _mapped_keys(tables: CaptureTables) -> set[str]:
    """Keys of the objects that some process maps MAP_SHARED and whose bytes the memory room saves."""
    known: set[str] | None = tables.cache.get("mapped keys")
    if known is None:
        known = {key for path, key in _shown(tables) if is_object(path, key)} - other_names(tables).keys()
        tables.cache["mapped keys"] = known
    return known


def _shown(tables: CaptureTables) -> set[tuple[str, str]]:
    every = (mapping for process in tables.processes.values() for mapping in process.shared_mappings)
    return {(mapping.path, f"{mapping.device}:{mapping.inode}") for mapping in every if mapping.path}


def other_names(tables: CaptureTables) -> dict[str, str]:
    """Paths, by key, of files that are mapped MAP_SHARED by a name that is gone, and open by one in another folder.

    Were they taken for files without a name, memory and descriptor would not be of the same file any more.
    """
    known: dict[str, str] | None = tables.cache.get("other names")
    if known is None:
        lost = {key for path, key in _shown(tables) if _is_lost_file(path, key)}
        known = tables.cache["other names"] = _names_of(lost, tables) if lost else {}
    return known


def _is_lost_file(path: str, key: str) -> bool:
    return not is_in_memory(path) and not path.startswith(("/SYSV", "/[aio]")) and is_object(path, key)


def _names_of(keys: set[str], tables: CaptureTables) -> dict[str, str]:
    found = {}
    for process in tables.processes.values():
        for fd in proc.fd_numbers(process.view):
            at = f"/proc/{process.view}/fd/{fd}"
            key = key_of_stat(os.stat(at))
            if key in keys:
                name = present_path(os.readlink(at), key)
                with contextlib.suppress(OSError):
                    if key_of_stat(os.lstat(name)) == key:
                        found[key] = name
    return found


def _viewed_keys(tables: CaptureTables) -> set[str]:
    """Keys of the objects without a name that some process maps MAP_PRIVATE."""
    known: set[str] | None = tables.cache.get("viewed keys")
    if known is None:
        every = (mapping for process in tables.processes.values() for mapping in process.private_views)
        known = tables.cache["viewed keys"] = {f"{m.device}:{m.inode}" for m in every}
    return known


def memory_key(look: Look, tables: CaptureTables, *, nameless: bool = False) -> str:
    """The key of the shared memory entry that holds this file's bytes; empty when there is none.

    `nameless`: nothing but the image can bring the file back, so that private mappings of it need it there, too.
    """
    key = key_of_stat(look.stat)
    if key not in _mapped_keys(tables) and not (nameless and key in _viewed_keys(tables)):
        return ""
    if look.in_flight and key not in tables.mapped_in_flight:
        tables.mapped_in_flight[key] = os.dup(look.own)  # the one in flight is soon closed
    return key


def save(look: Look, entry: RegularFile | MemoryFile, tables: CaptureTables) -> None:
    """Copy a file's bytes, packed, into the image folder, once for all its descriptions. Raises NoRoom."""
    saved: dict[tuple[int, int], tuple[str, list[PageRun]]] = tables.cache.setdefault("saved contents", {})
    if look.inode not in saved:
        name = f"content-{len(saved)}.img"
        _check_room(look, tables.folder)
        target = os.open(tables.folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            saved[look.inode] = name, _copy(look, target, tables)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise NoRoom(f"no room to save {look.link}, which {look.holder} has open") from error
            raise
        finally:
            os.close(target)
    entry.content, entry.content_runs = saved[look.inode]


def _copy(look: Look, target: int, tables: CaptureTables) -> list[PageRun]:
    """Copy by the process's own descriptor; by one of our own where there are holes, if this user may open the file.

    Who watches its folder (inotify(7)) hears of it when a file is opened.
    """
    readable = look.flags & os.O_ACCMODE != os.O_WRONLY
    if readable and not look.flags & os.O_DIRECT and look.stat.st_blocks * _BLOCK_BYTES >= look.stat.st_size:
        return _copy_all(look.own, target)
    try:
        return save_descriptor(look.own, target)
    except PermissionError:
        if readable:
            return _copy_all(look.own, target)
    tables.warnings.append(
        f"{look.holder} writes to the deleted file {look.link}, which this user may not read: "
        "what it wrote until now is not in the image"
    )
    return []


def _copy_all(source: int, target: int) -> list[PageRun]:
    """Copy without moving the offset of `source`, which is the process's own: so without finding holes."""
    pages = -(-os.fstat(source).st_size // PAGE_SIZE)
    copy_part(source, 0, target, 0, pages * PAGE_SIZE)
    return [PageRun(0, pages * PAGE_SIZE, 0)] if pages else []


def _check_room(look: Look, folder: Path) -> None:
    room = os.statvfs(folder)
    needed, free = look.stat.st_blocks * 512, room.f_bavail * room.f_frsize
    if needed > free:
        raise NoRoom(
            f"{look.holder} has {look.link} of {needed} bytes open; the image's disk has {free} left",
            needed=needed, free=free,
        )  # fmt: skip


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
            refill(fd, entry, tables.folder)
    return objects[key]


def close_made(tables: RebuildTables) -> None:
    """Close our descriptors of the objects that were made, when every description has its own."""
    objects: dict[tuple[int, int], int] = tables.cache.pop("objects", {})
    for fd in objects.values():
        tables.to_close.remove(fd)
        os.close(fd)


def note_inode(look: Look, entry: RegularFile) -> None:
    """What else belongs to a file that is to be made again: owner, times, how long it lives, extended attributes."""
    entry.uid, entry.gid = look.stat.st_uid, look.stat.st_gid
    entry.atime_ns = look.stat.st_atime_ns
    entry.write_hint = write_hint(look.own)
    entry.xattrs = xattrs(look.own)


def xattrs(fd: int) -> dict[str, bytes]:
    """The extended attributes of a file, as far as we may read them (xattr(7))."""
    found = {}
    with contextlib.suppress(OSError):  # a file system without them
        for name in os.listxattr(fd):
            with contextlib.suppress(OSError):  # one that we may not read
                found[name] = os.getxattr(fd, name)
    return found


def write_hint(fd: int) -> int:
    """How long what is written to a file is going to live (fcntl(2)); 0: nobody has said so."""
    try:
        return int.from_bytes(fcntl.fcntl(fd, linux.F_GET_RW_HINT, bytes(8)), "little")
    except OSError:
        return 0  # a file system, or an OS kernel, without it


def set_write_hint(fd: int, hint: int) -> None:
    """Say it again; it is no more than a hint."""
    if hint:
        with contextlib.suppress(OSError):
            fcntl.fcntl(fd, linux.F_SET_RW_HINT, hint.to_bytes(8, "little"))


def dress(fd: int, entry: RegularFile, tables: RebuildTables) -> None:
    """Give a file that was made anew all that; once everybody has it open, which its mode may forbid."""
    dressed: set[tuple[int, int]] = tables.cache.setdefault("dressed files", set())
    if entry.uid < 0 or (entry.device, entry.inode) in dressed:
        return
    dressed.add((entry.device, entry.inode))
    set_write_hint(fd, entry.write_hint)
    found, lost = os.fstat(fd), []
    steps: list[tuple[str, Callable[[], None]]] = [
        ("owner", lambda: os.fchown(fd, entry.uid, entry.gid)),
        *((name, partial(os.setxattr, fd, name, value)) for name, value in entry.xattrs.items()),
        ("mode", lambda: os.fchmod(fd, stat.S_IMODE(entry.mode))),  # which may forbid to write them
        ("time", lambda: os.utime(fd, ns=(entry.atime_ns or found.st_atime_ns, entry.mtime_ns))),
    ]
    if (found.st_uid, found.st_gid) == (entry.uid, entry.gid):
        del steps[0]
    for what, step in steps:
        try:
            step()
        except OSError:
            lost.append(what)
    if lost:
        tables.warn(f"{unpack_path(entry.path)}, which has no name, comes back without its {', '.join(lost)}")


def refill(fd: int, entry: RegularFile | MemoryFile, folder: Path) -> None:
    """Write a saved content back."""
    if not _NAME.fullmatch(entry.content):
        raise ImageCorrupt(f"the image names a content file {entry.content!r}", name=entry.content)
    huge = isinstance(entry, MemoryFile) and entry.huge_page_size > 0
    os.ftruncate(fd, entry.size)
    fill(fd, folder / entry.content, entry.content_runs, entry.size, huge=huge)


def reopen(fd: int, flags: int) -> int:
    """A new description of an object that we have open."""
    unfit = os.O_NOFOLLOW | os.O_DIRECTORY  # the second is left from O_TMPFILE
    return os.open(f"/proc/self/fd/{fd}", (open_flags(flags) | os.O_CLOEXEC | os.O_NOCTTY) & ~unfit)
