"""memfd_create(2): one object, however many descriptions and mappings show it."""

from __future__ import annotations

import fcntl
import os
import stat

from kernel_backend.abi import linux
from kernel_backend.image.descriptions import Description, MemoryFile, pack_path, unpack_path
from kernel_backend.resources import contents
from kernel_backend.resources.descriptors import CaptureTables, Kind, Look, RebuildTables, open_flags, restore_owner
from kernel_backend.tracee.inject import Workshop

_MFD_ALLOW_SEALING, _MFD_HUGETLB, _MFD_NOEXEC_SEAL, _MFD_EXEC = 2, 4, 8, 16
_F_SEAL_SEAL = 1
_F_SEAL_EXEC = 0x20
_SETTABLE = os.O_APPEND | os.O_NONBLOCK | os.O_NOATIME | os.O_DIRECT  # by fcntl(2), F_SETFL


class MemoryFileKind(Kind):
    """A memfd. Its mode and its seals come last (`finish`): they may forbid opening, filling and mapping it."""

    entry = MemoryFile

    def matches(self, look: Look) -> bool:
        return look.link.startswith("/memfd:") and stat.S_ISREG(look.stat.st_mode)

    def capture(self, look: Look, tables: CaptureTables) -> Description:
        page = look.stat.st_blksize
        entry = MemoryFile(
            name=pack_path(look.link.removesuffix(" (deleted)").removeprefix("/memfd:")),
            device=look.stat.st_dev,
            inode=look.stat.st_ino,
            pos=look.info.pos,
            size=look.stat.st_size,
            mode=stat.S_IMODE(look.stat.st_mode),
            mtime_ns=look.stat.st_mtime_ns,
            atime_ns=look.stat.st_atime_ns,
            xattrs=contents.xattrs(look.own),
            seals=fcntl.fcntl(look.own, linux.F_GET_SEALS),
            write_hint=contents.write_hint(look.own),
            uid=look.stat.st_uid,
            gid=look.stat.st_gid,
            huge_page_size=page if page > linux.PAGE_SIZE else 0,
            shared=contents.memory_key(look, tables, nameless=page <= linux.PAGE_SIZE),
        )
        if not entry.shared:
            contents.save(look, entry, tables)
        return entry

    def rebuild(self, index: int, entry: MemoryFile, tables: RebuildTables) -> None:
        made = contents.made_object(entry, tables, lambda: _make(entry))
        fd = tables.own[index] = _description(made, entry, tables)
        if entry.pos:
            os.lseek(fd, entry.pos, os.SEEK_SET)

    def finish(
        self, index: int, entry: MemoryFile, tables: RebuildTables, workshop: Workshop, pid: int, fd: int
    ) -> None:
        restore_owner(entry, tables, workshop, fd)
        made = contents.made_object(entry, tables, lambda: _make(entry))  # `fd` may be of a description that only reads
        _give_to_its_owner(made, entry, index, tables)
        _dress(made, entry, index, tables)
        if stat.S_IMODE(os.fstat(made).st_mode) != entry.mode:
            os.fchmod(made, entry.mode)
        contents.set_write_hint(made, entry.write_hint)
        missing = entry.seals & ~fcntl.fcntl(made, linux.F_GET_SEALS)
        if missing:
            fcntl.fcntl(made, linux.F_ADD_SEALS, missing)


def _give_to_its_owner(made: int, entry: MemoryFile, index: int, tables: RebuildTables) -> None:
    """Images from before the format fields say nothing of owners."""
    found = os.fstat(made)
    if entry.uid < 0 or (found.st_uid, found.st_gid) == (entry.uid, entry.gid):
        return
    try:
        os.fchown(made, entry.uid, entry.gid)
    except OSError as error:
        tables.warn(f"the memfd at {tables.who(index)} does not come back to its owner {entry.uid}: {error.strerror}")


def _dress(made: int, entry: MemoryFile, index: int, tables: RebuildTables) -> None:
    """Extended attributes, and when it was read and written to, before its mode and its seals forbid that."""
    dressed: set[tuple[int, int]] = tables.cache.setdefault("memfds dressed", set())
    if (entry.device, entry.inode) in dressed:
        return
    dressed.add((entry.device, entry.inode))
    if entry.mtime_ns:
        os.utime(made, ns=(entry.atime_ns or os.fstat(made).st_atime_ns, entry.mtime_ns))
    for name, value in entry.xattrs.items():
        try:
            os.setxattr(made, name, value)
        except OSError as error:
            tables.warn(f"the memfd at {tables.who(index)} comes back without its {name}: {error.strerror}")


def _description(made: int, entry: MemoryFile, tables: RebuildTables) -> int:
    """The first that reads and writes is the one that memfd_create(2) gave.

    Others count as writers of the file, which cannot be executed then (execveat(2), ETXTBSY).
    """
    given: set[int] = tables.cache.setdefault("memfds given", set())
    reopened = entry.flags & os.O_ACCMODE != os.O_RDWR or entry.flags & (os.O_SYNC | os.O_DSYNC)
    if made in given or reopened:
        return contents.reopen(made, entry.flags)
    given.add(made)
    fd = os.dup(made)
    fcntl.fcntl(fd, fcntl.F_SETFL, open_flags(entry.flags) & _SETTABLE)
    return fd


def _make(entry: MemoryFile) -> int:
    flags = os.MFD_CLOEXEC | (0 if entry.seals == _F_SEAL_SEAL else _MFD_ALLOW_SEALING)
    if entry.huge_page_size:
        flags |= _MFD_HUGETLB | (entry.huge_page_size.bit_length() - 1) << 26
    elif entry.seals & _F_SEAL_EXEC:
        flags |= _MFD_NOEXEC_SEAL
    fd = os.memfd_create(unpack_path(entry.name), flags)
    os.ftruncate(fd, entry.size)
    return fd


KINDS: list[Kind] = [MemoryFileKind()]
