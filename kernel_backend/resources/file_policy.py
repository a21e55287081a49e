"""What becomes of files that are open for writing, which others see too: the policy of a dump, or of its restore.

keep      they stay as they are, and offsets come back; what does not fit any more is named in a warning
rewind    one that has only grown since is cut back to the length it had
save      their contents are in the image (those of up to SAVE_MOST_BYTES) and are put back

Scratch files, directly in a folder for temporary files, are removed by their program when it ends: the contents of a
small one are in the image under any policy, and it is made again should it be gone.

Files are changed last, when the new processes stand and nothing can fail any more, and each change is told. One that
somebody else has open for writing by then (a log that several share, the terminal's recording) is not only ours to
change: it stays as it is, with a warning.
"""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Collection
from pathlib import Path

from kernel_backend.abi import linux
from kernel_backend.errors import HostUnsupported
from kernel_backend.host import proc
from kernel_backend.image.descriptions import RegularFile, unpack_path
from kernel_backend.resources import contents
from kernel_backend.resources.descriptors import CaptureTables, Look, RebuildTables

POLICIES = ("keep", "rewind", "save")
SAVE_MOST_BYTES = 64 << 20  # it is copied while everything stands still
_SCRATCH_MOST_BYTES = 1 << 20


def is_written(entry: RegularFile) -> bool:
    """Whether a description is of a file with a path that it may write to."""
    writes = entry.flags & os.O_ACCMODE != os.O_RDONLY and not entry.flags & linux.O_PATH
    return writes and stat.S_ISREG(entry.mode) and not entry.deleted and not entry.shared


def is_scratch(entry: RegularFile) -> bool:
    """Whether a description looks like one by mkstemp(3) of a small file."""
    if not is_written(entry) or entry.flags & os.O_ACCMODE != os.O_RDWR or entry.size > _SCRATCH_MOST_BYTES:
        return False
    return str(Path(unpack_path(entry.path)).parent) in ("/tmp", "/var/tmp", tempfile.gettempdir())


def save(look: Look, entry: RegularFile, tables: CaptureTables) -> None:
    """Under `save`, and for scratch files: take the contents into the image."""
    if not is_scratch(entry) and (tables.files != "save" or not is_written(entry)):
        return
    if entry.size > SAVE_MOST_BYTES:
        tables.warnings.append(
            f"{look.link}, which {look.holder} has open for writing, is not saved: its {entry.size >> 20} MiB are more "
            f"than {SAVE_MOST_BYTES >> 20}; it stays as it is"
        )
        return
    contents.save(look, entry, tables)
    entry.saved = True


def check(tables: RebuildTables) -> None:
    """Raise HostUnsupported when contents are asked for that the image has not."""
    if tables.files == "save" and tables.files_then != "save":
        raise HostUnsupported(
            "the image holds no contents of files that were being written",
            hint="take the checkpoint with --files save, or restart with --files keep or rewind",
        )


def judge(index: int, entry: RegularFile, found: os.stat_result, tables: RebuildTables) -> None:
    """Before anything is touched: warn of a file that does not fit what the memory believes."""
    if not stat.S_ISREG(found.st_mode) or entry.flags & linux.O_PATH or will_be_put_back(entry, tables):
        return
    path, who = unpack_path(entry.path), tables.who(index)
    if (found.st_dev, found.st_ino) != (entry.device, entry.inode):
        tables.warn(f"{path}, which {who} had open, is another file now")
    if found.st_size < min(entry.pos, entry.size):
        tables.warn(f"{path} is only {found.st_size} bytes long now; {who} stands at byte {entry.pos}")
    elif found.st_size < entry.size:
        tables.warn(f"{path}, which {who} had open, is only {found.st_size} bytes long now, of {entry.size}")
    elif found.st_size > entry.size and is_written(entry) and tables.files != "rewind":
        if not entry.flags & os.O_APPEND and entry.pos < found.st_size:
            tables.warn(
                f"{path} has grown by {found.st_size - entry.size} bytes since, which {who} may overwrite: "
                f"it stands at byte {entry.pos}"
            )
    elif found.st_size == entry.size and found.st_mtime_ns != entry.mtime_ns:
        tables.warn(f"{path}, which {who} had open, was changed since")


def will_be_put_back(entry: RegularFile, tables: RebuildTables) -> bool:
    """Whether the file gets the image's contents."""
    return entry.saved and tables.files == "save"


def make_missing(entry: RegularFile, tables: RebuildTables) -> None:
    """A file that is gone and whose contents are in the image, in its place; empty when they are put back later."""
    path = Path(unpack_path(entry.path))
    if not entry.saved or os.path.lexists(path):
        return
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, stat.S_IMODE(entry.mode))
    try:
        if not will_be_put_back(entry, tables):
            contents.refill(fd, entry, tables.folder)
    finally:
        os.close(fd)
    tables.guardian.file(path)


def apply(tables: RebuildTables, ours: Collection[int]) -> None:
    """Change the files, when everything else is done; `ours` are the pids of the tree that is being restored."""
    if tables.files == "keep":
        return
    done: set[tuple[int, int]] = set()
    others = _writers_beside({os.getpid(), *ours})
    for index, entry in enumerate(tables.descriptions):
        if not isinstance(entry, RegularFile) or not is_written(entry) or index not in tables.own:
            continue
        found = os.fstat(tables.own[index])
        if (found.st_dev, found.st_ino) in done:
            continue
        done.add((found.st_dev, found.st_ino))
        if writer := others.get((found.st_dev, found.st_ino)):
            tables.warn(f"{unpack_path(entry.path)} stays as it is: process {writer} has it open for writing, too")
            continue
        try:
            if will_be_put_back(entry, tables):
                _put_back(entry, found, tables, tables.own[index])
            elif tables.files == "rewind":
                _cut_back(entry, found, tables, tables.own[index])
        except OSError as error:
            tables.warn(f"{unpack_path(entry.path)} could not be made what it was: {error.strerror}")


def _writers_beside(ours: Collection[int]) -> dict[tuple[int, int], int]:
    """(device, inode) of the files that other processes may write to just now → one of those, as far as we may look."""
    found: dict[tuple[int, int], int] = {}
    for pid in proc.pids():
        if pid in ours:
            continue
        for fd in _numbers(pid):
            try:
                at = os.stat(f"/proc/{pid}/fd/{fd}")
                if stat.S_ISREG(at.st_mode) and proc.fdinfo(pid, fd).flags & os.O_ACCMODE != os.O_RDONLY:
                    found[at.st_dev, at.st_ino] = pid
            except OSError:
                continue  # closed meanwhile, or not ours to see
    return found


def _numbers(pid: int) -> list[int]:
    try:
        return proc.fd_numbers(pid)
    except OSError:
        return []


def _cut_back(entry: RegularFile, found: os.stat_result, tables: RebuildTables, fd: int) -> None:
    same = (found.st_dev, found.st_ino) == (entry.device, entry.inode)
    if same and found.st_size > entry.size:
        os.ftruncate(fd, entry.size)
        tables.warn(f"{unpack_path(entry.path)} was cut back from {found.st_size} to {entry.size} bytes")


def _put_back(entry: RegularFile, found: os.stat_result, tables: RebuildTables, fd: int) -> None:
    same = (found.st_dev, found.st_ino) == (entry.device, entry.inode)
    if same and (found.st_size, found.st_mtime_ns) == (entry.size, entry.mtime_ns):
        return
    if found.st_size:
        tables.warn(f"{unpack_path(entry.path)} has changed since: the contents that it had were put back")
    writing = os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_CLOEXEC)  # without O_APPEND
    try:
        os.ftruncate(writing, 0)
        contents.refill(writing, entry, tables.folder)
    finally:
        os.close(writing)
