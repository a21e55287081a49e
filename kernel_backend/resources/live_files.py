"""Files taken from the present process in a restore in place.

Two kinds: one that cannot be opened again by its path, and one that the present shares with who started it. The latter
is a log, as a rule: a server's, into which the Jupyter kernels that it starts write, too. The offset is common to all
of them; a description of our own would write over what the others have written.
"""

from __future__ import annotations

import os
import stat
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import suppress

from kernel_backend.abi import linux
from kernel_backend.host import fds, libc, proc
from kernel_backend.image.descriptions import RegularFile
from kernel_backend.resources.descriptors import RebuildTables

_TAKEN = "files taken from the present"
_ByFile = dict[tuple[int, int], list[int]]  # descriptors by device and inode


def same_file(entry: RegularFile, tables: RebuildTables) -> int:
    """The present's descriptor of the same file in the same mode, or -1."""
    return next(iter(_same_files(entry, tables)), -1)


def common(entry: RegularFile, tables: RebuildTables) -> int:
    """The present's descriptor of the same file in the same mode that its parent has open, too, or -1."""
    if not tables.present_pid or not stat.S_ISREG(entry.mode) or not _is_for_writing(entry):
        return -1
    parent = proc.stat(tables.present_pid).ppid
    theirs = _parents(parent, tables).get((entry.device, entry.inode), [])
    return next((fd for fd in _same_files(entry, tables) if _is_shared(fd, parent, theirs)), -1)


def take(index: int, fd: int, tables: RebuildTables, *, rewind: bool) -> int:
    """A duplicate for the image's description, whose offset and flags come back in the end if they are to `rewind`."""
    if rewind:
        tables.cache.setdefault(_TAKEN, set()).add(index)
    return os.dup(fd)


def to_rewind(index: int, tables: RebuildTables) -> bool:
    """Whether a description was the present's until now, and its offset and flags have to be put back."""
    return index in tables.cache.get(_TAKEN, ())


def _same_files(entry: RegularFile, tables: RebuildTables) -> Iterator[int]:
    for number in _ours(tables).get((entry.device, entry.inode), ()):
        fd = tables.live.get(number, -1)
        if fd >= 0 and fds.status_flags(fd) & os.O_ACCMODE == entry.flags & os.O_ACCMODE:
            yield fd


def _ours(tables: RebuildTables) -> _ByFile:
    """The present's descriptors by what they lead to, read once: there may be thousands of one file."""
    if not tables.live:
        return {}  # a fresh restore, or they are not taken yet
    known: _ByFile | None = tables.cache.get("the present's descriptors by file")
    if known is None:
        known = _by_file((number, os.fstat(fd)) for number, fd in tables.live.items())
        tables.cache["the present's descriptors by file"] = known
    return known


def _parents(parent: int, tables: RebuildTables) -> _ByFile:
    """The same of its parent; none, where we may not look."""
    known: _ByFile | None = tables.cache.get("the parent's descriptors by file")
    if known is None:
        known = tables.cache["the parent's descriptors by file"] = _by_file(_looked_at(parent))
    return known


def _looked_at(pid: int) -> Iterator[tuple[int, os.stat_result]]:
    with suppress(OSError):
        for number in proc.fd_numbers(pid):
            with suppress(OSError):  # closed meanwhile
                yield number, os.stat(f"/proc/{pid}/fd/{number}")


def _by_file(found: Iterable[tuple[int, os.stat_result]]) -> _ByFile:
    numbers: _ByFile = defaultdict(list)
    for number, what in found:
        numbers[what.st_dev, what.st_ino].append(number)
    return numbers


def _is_for_writing(entry: RegularFile) -> bool:
    return entry.flags & os.O_ACCMODE != os.O_RDONLY and not entry.flags & linux.O_PATH


def _is_shared(fd: int, parent: int, theirs: Iterable[int]) -> bool:
    """Whether a process has the description of our descriptor as one of `theirs`; no, where we may not look."""
    with suppress(OSError):
        return any(libc.kcmp(os.getpid(), parent, linux.KCMP_FILE, fd, number) == 0 for number in theirs)
    return False
