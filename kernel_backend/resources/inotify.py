"""inotify: watches are added again by path.

The OS kernel tells the watched inode and a file handle, not the path: watched_paths.py looks for it. A watch whose path
is not found is left out with a warning, and so are events that were not read yet (they cannot be read without taking
them away).

The watches come back last (`watch_again`), when nobody opens, reads or changes any file for the restore any more: what
is watched may be open in the tree, and a watch would tell of that, or, with IN_ONESHOT, be used up by it.

A user may have so many (128, usually). In place those of the present count, too, as long as that is there: what there
is no room for is made when it is gone (`finish`).

Watch numbers are given out in order, so any number comes up by adding and removing watches until it is its turn.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import struct
from collections.abc import Iterator
from typing import NamedTuple

from kernel_backend.abi import linux
from kernel_backend.host import fds
from kernel_backend.image.descriptions import Description, Inotify, InotifyWatch, pack_path, unpack_path
from kernel_backend.resources.descriptors import (
    CaptureTables,
    Kind,
    Look,
    RebuildTables,
    restore_owner,
    set_status_flags,
)
from kernel_backend.resources.pidfd import passed_on
from kernel_backend.resources.watched_paths import Watched, path_of, watched_of
from kernel_backend.tracee.inject import Workshop

_LINK = "anon_inode:inotify"
_LINE = re.compile(r"inotify wd:([0-9a-f]+) ino:[0-9a-f]+ sdev:[0-9a-f]+ mask:([0-9a-f]+) ")
_IN_USER_MASK = 0xFFF | 1 << 24 | 1 << 25 | 1 << 26 | 1 << 30 | 1 << 31
_IN_DONT_FOLLOW = 0x02000000
_MAX_TURNS = 100_000


class _Watch(NamedTuple):
    wd: int
    mask: int
    watched: Watched


class InotifyKind(Kind):
    """inotify_init(2)."""

    entry = Inotify
    every_process = True

    def matches(self, look: Look) -> bool:
        return look.link == _LINK

    def capture(self, look: Look, tables: CaptureTables) -> Description:
        entry = Inotify()
        unread = struct.unpack("<i", fcntl.ioctl(look.own, linux.FIONREAD, bytes(4)))[0]
        if unread:
            tables.warnings.append(f"{look.holder}, an inotify, has unread events, which a restored process won't see")
        for wd, mask, watched in _watches(look):
            path = path_of(watched, look, tables)
            if path:
                entry.watches.append(InotifyWatch(wd=wd, path=pack_path(path), mask=mask))
            else:
                tables.warnings.append(
                    f"{look.holder}, an inotify, watches inode {watched.inode}, whose path cannot be found; "
                    f"the watch is left out"
                )
        return entry

    def rebuild(self, index: int, entry: Inotify, tables: RebuildTables) -> None:
        try:
            fd = tables.own[index] = fds.inotify_init(os.O_CLOEXEC)
        except OSError as error:
            late: set[int] = tables.cache.setdefault("late inotifies", set())
            if error.errno != errno.EMFILE or len(late) >= len(_of_present(tables)):
                raise
            late.add(index)
            tables.own[index] = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)  # until `finish`
        else:
            set_status_flags(fd, entry.flags)

    def finish(self, index: int, entry: Inotify, tables: RebuildTables, workshop: Workshop, pid: int, fd: int) -> None:
        if is_late(index, tables) and not passed_on(index, tables, workshop, pid):
            self._make_late(index, entry, tables)
            passed_on(index, tables, workshop, pid)
        restore_owner(entry, tables, workshop, fd)

    def _make_late(self, index: int, entry: Inotify, tables: RebuildTables) -> None:
        for number in _of_present(tables):
            os.close(tables.live.pop(number))
        try:
            made = fds.inotify_init(os.O_CLOEXEC)
        except OSError as error:
            tables.warn(f"the inotify at {tables.who(index)} is lost: {error.strerror}")
            tables.cache.setdefault("lost inotifies", set()).add(index)
            return
        os.dup2(made, tables.own[index], inheritable=False)
        os.close(made)
        set_status_flags(tables.own[index], entry.flags)
        tables.cache.setdefault("made inside", set()).add(index)


def watch_again(tables: RebuildTables) -> None:
    """Add all watches. What cannot be watched any more is told in a warning."""
    for index, entry in enumerate(tables.descriptions):
        if isinstance(entry, Inotify) and index not in tables.cache.get("lost inotifies", ()):
            _add_watches(tables.own[index], index, entry, tables)


def _add_watches(fd: int, index: int, entry: Inotify, tables: RebuildTables) -> None:
    reached, left = 0, _MAX_TURNS
    for watch in sorted(entry.watches, key=lambda watch: watch.wd):
        left -= max(watch.wd - reached, 1)
        if left < 0:
            tables.warn(f"watch {watch.wd} of {tables.who(index)} has too high a number to be made again")
            break
        try:
            reached = _add_at(fd, watch, reached)
        except OSError as error:
            tables.warn(f"{unpack_path(watch.path)}, watched by {tables.who(index)}, is gone: {error.strerror}")


def is_late(index: int, tables: RebuildTables) -> bool:
    """Whether this one is made only when the present is gone."""
    return index in tables.cache.get("late inotifies", ())


def _of_present(tables: RebuildTables) -> list[int]:
    """Under which numbers the present has one, as far as we have duplicates of them."""
    return [number for number, fd in tables.live.items() if os.readlink(f"/proc/self/fd/{fd}") == _LINK]


def _watches(look: Look) -> Iterator[_Watch]:
    for line in look.info.lines:
        found = _LINE.match(line)
        if found:
            wd, mask = int(found.group(1), 16), int(found.group(2), 16)
            yield _Watch(wd, mask & _IN_USER_MASK, watched_of(line))


def _add_at(fd: int, watch: InotifyWatch, reached: int) -> int:
    """Add a watch at its number, burning those before it; the highest number given out so far."""
    path = unpack_path(watch.path)
    while True:
        wd = fds.inotify_add_watch(fd, path, watch.mask | _IN_DONT_FOLLOW)
        if wd >= watch.wd or wd <= reached:
            return max(wd, reached)
        fds.inotify_rm_watch(fd, wd)
        os.read(fd, 4096)  # its IN_IGNORED


KINDS: list[Kind] = [InotifyKind()]
