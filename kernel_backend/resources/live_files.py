"""Files taken from the present process in a restore in place.

Two kinds: one that cannot be opened again by its path, and one that the present shares with who started it. The latter
is a log, as a rule: a server's, into which the Jupyter kernels that it starts write, too. The offset is common to all
of them; a description of our own would write over what the others have written.
"""

from __future__ import annotations

import os
import stat

from kernel_backend.abi import linux
from kernel_backend.host import fds, libc, proc
from kernel_backend.image.descriptions import RegularFile
from kernel_backend.resources.descriptors import RebuildTables

_TAKEN = "files taken from the present"


def same_file(entry: RegularFile, tables: RebuildTables) -> int:
    """The present's descriptor of the same file in the same mode, or -1."""
    return next(iter(_same_files(entry, tables)), -1)


def common(entry: RegularFile, tables: RebuildTables) -> int:
    """The present's descriptor of the same file in the same mode that its parent has open, too, or -1."""
    if not tables.present_pid or not stat.S_ISREG(entry.mode) or not _is_for_writing(entry):
        return -1
    parent = proc.stat(tables.present_pid).ppid
    return next((fd for fd in _same_files(entry, tables) if _is_shared(fd, parent)), -1)


def take(index: int, fd: int, tables: RebuildTables, *, rewind: bool) -> int:
    """A duplicate for the image's description, whose offset and flags come back in the end if they are to `rewind`."""
    if rewind:
        tables.cache.setdefault(_TAKEN, set()).add(index)
    return os.dup(fd)


def to_rewind(index: int, tables: RebuildTables) -> bool:
    """Whether a description was the present's until now, and its offset and flags have to be put back."""
    return index in tables.cache.get(_TAKEN, ())


def _same_files(entry: RegularFile, tables: RebuildTables) -> list[int]:
    return [fd for fd in tables.live.values() if _is_same(fd, entry)]


def _is_same(fd: int, entry: RegularFile) -> bool:
    found = os.fstat(fd)
    same = (found.st_dev, found.st_ino) == (entry.device, entry.inode)
    return same and fds.status_flags(fd) & os.O_ACCMODE == entry.flags & os.O_ACCMODE


def _is_for_writing(entry: RegularFile) -> bool:
    return entry.flags & os.O_ACCMODE != os.O_RDONLY and not entry.flags & linux.O_PATH


def _is_shared(fd: int, parent: int) -> bool:
    """Whether a process has the description of our descriptor; no, where we may not look."""
    try:
        ours = os.fstat(fd)
        for number in proc.fd_numbers(parent):
            found = os.stat(f"/proc/{parent}/fd/{number}")
            if os.path.samestat(found, ours) and libc.kcmp(os.getpid(), parent, linux.KCMP_FILE, fd, number) == 0:
                return True
    except OSError:
        return False
    return False
