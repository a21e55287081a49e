"""memfd_create(2): one object, however many descriptions and mappings show it."""

from __future__ import annotations

import fcntl
import os
import stat

from kernel_backend.abi import linux
from kernel_backend.image.descriptions import Description, MemoryFile, pack_path, unpack_path
from kernel_backend.resources import contents
from kernel_backend.resources.descriptors import CaptureTables, Kind, Look, RebuildTables, restore_owner
from kernel_backend.tracee.inject import Workshop

_MFD_ALLOW_SEALING, _MFD_HUGETLB, _MFD_NOEXEC_SEAL, _MFD_EXEC = 2, 4, 8, 16
_F_SEAL_SEAL = 1
_F_SEAL_EXEC = 0x20


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
            seals=fcntl.fcntl(look.own, linux.F_GET_SEALS),
            huge_page_size=page if page > linux.PAGE_SIZE else 0,
            shared=contents.memory_key(look, tables),
        )
        if not entry.shared:
            contents.save(look, entry, tables)
        return entry

    def rebuild(self, index: int, entry: MemoryFile, tables: RebuildTables) -> None:
        made = contents.made_object(entry, tables, lambda: _make(entry))
        fd = tables.own[index] = contents.reopen(made, entry.flags)
        if entry.pos:
            os.lseek(fd, entry.pos, os.SEEK_SET)

    def finish(
        self, index: int, entry: MemoryFile, tables: RebuildTables, workshop: Workshop, pid: int, fd: int
    ) -> None:
        restore_owner(entry, tables, workshop, fd)
        made = contents.made_object(entry, tables, lambda: _make(entry))  # `fd` may be of a description that only reads
        if stat.S_IMODE(os.fstat(made).st_mode) != entry.mode:
            os.fchmod(made, entry.mode)
        missing = entry.seals & ~fcntl.fcntl(made, linux.F_GET_SEALS)
        if missing:
            fcntl.fcntl(made, linux.F_ADD_SEALS, missing)


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
