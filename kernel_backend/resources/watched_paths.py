"""Where a watched inode is: inotify and fanotify tell the inode and a file handle, not the path.

With CAP_DAC_READ_SEARCH the handle opens the file; without, its inode is looked for in the places a program is likely
to watch: its working folder, the folders of its open files and what they hold, and the folders above.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from kernel_backend.abi import linux
from kernel_backend.host import fds
from kernel_backend.resources.descriptors import CaptureTables, Look

_INODE = re.compile(r" ino:([0-9a-f]+) sdev:([0-9a-f]+) ")
_HANDLE = re.compile(r" fhandle-bytes:[0-9a-f]+ fhandle-type:([0-9a-f]+) f_handle:([0-9a-f]*)")
_MAX_SEARCHED = 20_000


class Watched(NamedTuple):
    """A watched inode, as a line of fdinfo shows it (OS kernel: fs/notify/fdinfo.c)."""

    inode: int
    device: int
    handle_type: int = 0
    handle: bytes = b""


def watched_of(line: str) -> Watched:
    """What a line of fdinfo is about. A file system without file handles shows none."""
    about = _INODE.search(line)
    assert about is not None
    watched = Watched(int(about.group(1), 16), device_of(int(about.group(2), 16)))
    if found := _HANDLE.search(line):
        return watched._replace(handle_type=int(found.group(1), 16), handle=bytes.fromhex(found.group(2)))
    return watched


def device_of(sdev: int) -> int:
    """A device number as stat(2) has it, from one of the OS kernel's own."""
    return os.makedev(sdev >> 20, sdev & 0xFFFFF)


def path_of(watched: Watched, look: Look, tables: CaptureTables) -> str:
    """The path of what is watched; empty: it was not found."""
    return _path_by_handle(watched, tables) or _path_by_search(watched, look)


def _path_by_handle(watched: Watched, tables: CaptureTables) -> str:
    mount = mount_points(tables).get(watched.device)
    if mount is None:
        return ""
    try:
        mount_fd = os.open(mount, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        fd = fds.open_by_handle(mount_fd, watched.handle_type, watched.handle, linux.O_PATH | os.O_CLOEXEC)
    except (OSError, ValueError):
        return ""
    finally:
        os.close(mount_fd)
    try:
        path = os.readlink(f"/proc/self/fd/{fd}")
    finally:
        os.close(fd)
    return path if _is_it(path, watched) else ""


def mount_points(tables: CaptureTables) -> dict[int, str]:
    """One mount point for every file system."""
    known: dict[int, str] | None = tables.cache.get("mount points")
    if known is None:
        known = tables.cache["mount points"] = {}
        for line in Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines():
            words = line.split()
            major, minor = map(int, words[2].split(":"))
            known.setdefault(os.makedev(major, minor), words[4].encode().decode("unicode_escape"))
    return known


def _is_it(path: str, watched: Watched) -> bool:
    try:
        found = os.lstat(path)
    except OSError:
        return False
    return (found.st_dev, found.st_ino) == (watched.device, watched.inode)


def _path_by_search(watched: Watched, look: Look) -> str:
    seen: set[str] = set()
    for folder in _likely_folders(look):
        for path in (folder, *_entries(folder)):
            if path not in seen and _is_it(path, watched):
                return path
            seen.add(path)
            if len(seen) > _MAX_SEARCHED:
                return ""
    return ""


def _likely_folders(look: Look) -> Iterator[str]:
    process = Path(f"/proc/{look.process.pid}")
    places = [process / "cwd", *(process / "fd").iterdir()]
    for place in places:
        try:
            target = os.readlink(place)
        except OSError:
            continue
        if target.startswith("/"):
            yield target
            yield from map(str, Path(target).parents)
    yield str(Path("~").expanduser())


def _entries(folder: str) -> Iterator[str]:
    try:
        with os.scandir(folder) as found:
            yield from (item.path for item in found)
    except OSError:
        return
