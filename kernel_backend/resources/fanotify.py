"""fanotify: a group with the same flags, and its marks by path.

/proc shows the flags of a group and its marks (OS kernel: fs/notify/fdinfo.c): of an inode, a mount, a file system, a
mount namespace; watched_paths.py finds the path of an inode. Marks come back last (`mark_again`), as inotify's watches
do, and events that were not read are left out with a warning like its own: they hold descriptors, or handles of files
that may be others by then.

A group of an ordinary user is another thing than root's: it hears of other processes without their pids, and may mark
inodes only. /proc does not tell them apart; an attempt that cannot succeed does (`_is_privileged`).

Marks with which the program decides who may open or read what (FAN_OPEN_PERM …) are refused before anything is
stopped: we may be one who asks, and it cannot answer while we hold it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import stat
import struct
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from kernel_backend.abi import linux
from kernel_backend.errors import HostUnsupported, ResourceUnsupported
from kernel_backend.host import fds, proc
from kernel_backend.host.identity import without_capabilities, without_capability
from kernel_backend.image.descriptions import Description, Fanotify, FanotifyMark, pack_path, unpack_path
from kernel_backend.resources.descriptors import CaptureTables, Kind, Look, RebuildTables, set_status_flags
from kernel_backend.resources.watched_paths import device_of, mount_points, path_of, watched_of

_LINK = "anon_inode:[fanotify]"
_GROUP = re.compile(r"fanotify flags:([0-9a-f]+) event-flags:([0-9a-f]+)")
_MARK = re.compile(
    r"fanotify (?:ino|mnt_id|sdev|mnt_ns):.*\bmflags:([0-9a-f]+) mask:([0-9a-f]+) ignored_mask:([0-9a-f]+)"
)
_PLACE = re.compile(r"fanotify (ino|mnt_id|sdev|mnt_ns):([0-9a-f]+)")
_OBJECT = {"ino": "inode", "mnt_id": "mount", "sdev": "filesystem", "mnt_ns": "namespace"}

# include/uapi/linux/fanotify.h
_FOR_ADMIN = 0x4 | 0x8 | 0x10 | 0x20 | 0x40 | 0x80 | 0x100 | 0x2000  # classes, UNLIMITED_*, audit, pidfds, tids
_WITH_HANDLES = 0x200 | 0x400  # FAN_REPORT_FID, FAN_REPORT_DIR_FID
_EVENT_ON_CHILD = 0x08000000
_OPEN = 0x20
_MARK_ADD, _MARK_REMOVE, _MARK_DONT_FOLLOW = 1, 2, 4
_MARK_IGNORED_MASK, _MARK_EVICTABLE, _MARK_IGNORE = 0x20, 0x200, 0x400
_KIND = {"inode": 0, "mount": 0x10, "filesystem": 0x100, "namespace": 0x110}
_OWN_NAMESPACE = "/proc/self/ns/mnt"


class FanotifyKind(Kind):
    """fanotify_init(2)."""

    entry = Fanotify

    def matches(self, look: Look) -> bool:
        return look.link == _LINK

    def capture(self, look: Look, tables: CaptureTables) -> Description:
        _check_marks(look.holder, look.info.lines)
        if struct.unpack("<i", fcntl.ioctl(look.own, linux.FIONREAD, bytes(4)))[0]:
            tables.warnings.append(f"{look.holder}, a fanotify, has unread events, which a restored process won't see")
        group = next(found for line in look.info.lines if (found := _GROUP.match(line)))
        entry = Fanotify(init_flags=int(group.group(1), 16), event_flags=int(group.group(2), 16))
        entry.marks = list(_marks(look, tables))
        entry.privileged = _needs_privilege(entry) or _is_privileged(look.own)
        return entry

    def validate(self, index: int, entry: Fanotify, tables: RebuildTables) -> None:
        fd = _make(entry, tables.who(index))
        try:
            if entry.privileged and not _is_privileged(fd):
                if _needs_privilege(entry):
                    raise _unprivileged(tables.who(index))
                tables.warn(
                    f"{tables.who(index)}, a fanotify, was root's: pids of other processes it is not told any more"
                )
        finally:
            os.close(fd)

    def rebuild(self, index: int, entry: Fanotify, tables: RebuildTables) -> None:
        fd = tables.own[index] = _make(entry, tables.who(index))
        set_status_flags(fd, entry.flags)


def check_running(pids: Iterable[int]) -> None:
    """Refuse processes that decide about accesses of others before they are stopped: we might wait for them."""
    for pid in pids:
        with contextlib.suppress(OSError):  # the freeze will say so
            for fd in proc.fd_numbers(proc.view(pid)):
                if proc.fd_link(proc.view(pid), fd) == _LINK:
                    _check_marks(f"descriptor {fd} of process {pid}", proc.fdinfo(proc.view(pid), fd).lines)


def mark_again(tables: RebuildTables) -> None:
    """Add all marks. What cannot be marked any more is told in a warning."""
    for index, entry in enumerate(tables.descriptions):
        if isinstance(entry, Fanotify):
            for mark in entry.marks:
                _add(tables.own[index], mark, tables, index)


def _check_marks(holder: str, lines: Iterable[str]) -> None:
    for line in lines:
        found = _MARK.match(line)
        if found and int(found.group(2), 16) & linux.FAN_PERMISSION_EVENTS:
            raise ResourceUnsupported(
                f"{holder} is a fanotify group that decides who may open or read files, which cannot be captured",
                hint="remove its marks for permission events (FAN_OPEN_PERM and the like), and checkpoint again",
            )


def _needs_privilege(entry: Fanotify) -> bool:
    """Whether only root can have a group like this (fanotify_init(2), "Unprivileged")."""
    beyond = entry.init_flags & _FOR_ADMIN or not entry.init_flags & _WITH_HANDLES
    return bool(beyond) or any(mark.object != "inode" for mark in entry.marks)


def _is_privileged(fd: int) -> bool:
    """Whether a group was made by root; False, too, if we are not.

    Whether it may mark file systems is looked at before what the path, which nobody has, is.
    """
    try:
        fds.fanotify_mark(fd, _MARK_REMOVE | _KIND["filesystem"], _OPEN, "")
    except OSError as error:
        return error.errno != errno.EPERM
    return True


def _make(entry: Fanotify, who: str) -> int:
    """A new group without marks. Raises HostUnsupported where we may not have it."""
    lower: AbstractContextManager[None] = nullcontext() if entry.privileged else without_capability(linux.CAP_SYS_ADMIN)
    with without_capabilities(), lower:
        try:
            fd = fds.fanotify_init(entry.init_flags, entry.event_flags)
        except OSError as error:
            if error.errno == errno.EPERM:
                raise _unprivileged(who) from error
            raise HostUnsupported(
                f"the fanotify group at {who} cannot be made here: {error.strerror}",
                hint="fs.fanotify.max_user_groups says how many a user may have" if error.errno == errno.EMFILE else "",
            ) from error
    os.set_inheritable(fd, False)
    return fd


def _unprivileged(who: str) -> HostUnsupported:
    return HostUnsupported(f"the fanotify group at {who} takes CAP_SYS_ADMIN", hint="restore it as root")


# --- marks ------------------------------------------------------------------------------------------------------------


def _marks(look: Look, tables: CaptureTables) -> Iterator[FanotifyMark]:
    for line in look.info.lines:
        place, found = _PLACE.match(line), _MARK.match(line)
        if not place or not found:
            continue
        flags, mask, ignored = (int(word, 16) for word in found.groups())
        path = _path(place.group(1), place.group(2), line, look, tables)
        if path:
            made = FanotifyMark(_OBJECT[place.group(1)], pack_path(path), flags=flags, mask=mask, ignored=ignored)
            yield made
        else:
            tables.warnings.append(
                f"{look.holder}, a fanotify, has marked {place.group(1)} {place.group(2)}, whose path cannot be found; "
                f"the mark is left out"
            )


def _path(what: str, number: str, line: str, look: Look, tables: CaptureTables) -> str:
    """Where an object can be marked again; empty: nobody knows."""
    if what == "ino":
        return path_of(watched_of(line), look, tables)
    if what == "sdev":
        return mount_points(tables).get(device_of(int(number, 16)), "")
    if what == "mnt_id":
        return _mount_point(int(number, 16))
    own = str(os.stat(_OWN_NAMESPACE).st_ino)  # shown in decimal figures
    return _OWN_NAMESPACE if number == own else ""


def _mount_point(number: int) -> str:
    """Of one mount; empty where another one is on top of it."""
    for line in Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines():
        words = line.split()
        if int(words[0]) != number:
            continue
        path = words[4].encode().decode("unicode_escape")
        with contextlib.suppress(OSError):
            fd = os.open(path, linux.O_PATH | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                return path if proc.fdinfo(os.getpid(), fd).mnt_id == number else ""
            finally:
                os.close(fd)
    return ""


def _add(fd: int, mark: FanotifyMark, tables: RebuildTables, index: int) -> None:
    path = unpack_path(mark.path)
    follow = 0 if mark.object == "namespace" else _MARK_DONT_FOLLOW
    flags = _MARK_ADD | _KIND[mark.object] | mark.flags & _MARK_EVICTABLE | follow
    # what the OS kernel notes besides of whatever is no folder, and refuses to be told
    surplus = 0 if mark.object == "inode" and _is_folder(path) else _EVENT_ON_CHILD
    ignoring = mark.flags & ~_MARK_EVICTABLE | (0 if mark.flags & _MARK_IGNORE else _MARK_IGNORED_MASK)
    try:
        with without_capabilities():
            if mark.mask & ~surplus:
                fds.fanotify_mark(fd, flags, mark.mask & ~surplus, path)
            if mark.ignored & ~surplus:
                fds.fanotify_mark(fd, flags | ignoring, mark.ignored & ~surplus, path)
    except OSError as error:
        tables.warn(f"{path}, marked by {tables.who(index)}, is not marked any more: {error.strerror}")


def _is_folder(path: str) -> bool:
    with contextlib.suppress(OSError):
        return stat.S_ISDIR(os.lstat(path).st_mode)
    return False


KINDS: list[Kind] = [FanotifyKind()]
