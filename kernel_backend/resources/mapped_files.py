"""Files that memory depends on: programs, libraries, data that is mapped privately.

Of such memory an image holds only the pages that were written to; all others come from the file. So the file must
still be the one that was mapped, and "the same" is decided by what the OS kernel would load:

- A file that nobody has touched (same inode, size, times) is the same. The ctime is among them, which no user can set
  back, and so is nothing read in the usual case.
- Else its bytes decide: of an ELF file those that are loaded, with where they are loaded (elf.py), of others all. So a
  file that was copied back, stripped, built again to the same result or given to somebody else is the same one, and
  one that was patched without a change of its build id is not.
- What is too large to be read for that (elf.MOST_HASHED_BYTES) is the same when its build id and its segments are, or
  its size and date.
"""

from __future__ import annotations

import contextlib
import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path

from kernel_backend.abi import linux
from kernel_backend.errors import FileChanged
from kernel_backend.host import elf
from kernel_backend.image.entries import FileIdentity, ProcessEntry, VmaEntry
from kernel_backend.resources.descriptors import open_path

_DELETED = " (deleted)"
_identities: dict[tuple[str, int, int, int, int, int], FileIdentity] = {}


def identify(path: str) -> FileIdentity:
    """A file's identity as an image records it, without the digest of its contents. Raises OSError."""
    found = os.stat(path)
    key = (path, found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
    if key not in _identities:
        build = elf.build_of(path)
        _identities[key] = FileIdentity(
            path=path, size=found.st_size, mtime_ns=found.st_mtime_ns, ctime_ns=found.st_ctime_ns,
            device=found.st_dev, inode=found.st_ino, build_id=build.build_id, segments=build.segments,
        )  # fmt: skip
    return _identities[key]


def key_of_stat(found: os.stat_result) -> str:
    """The key of an object from a descriptor's stat: as /proc/PID/maps shows device and inode."""
    return f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}:{found.st_ino}"


def present_path(path: str, key: str) -> str:
    """Where the file of a mapping is, which /proc/PID/maps shows as deleted; empty where it has no name (any more).

    Its name may end so by itself, and the file may have another name in its folder (link(2)).
    """
    if not path.endswith(_DELETED):
        return path
    with contextlib.suppress(OSError):
        if key_of_stat(os.lstat(path)) == key:
            return path
    inode = int(key.rpartition(":")[2])
    with contextlib.suppress(OSError), os.scandir(Path(path).parent) as found:
        for other in found:
            if other.inode() == inode and key_of_stat(other.stat(follow_symlinks=False)) == key:
                return other.path
    return ""


_IN_MEMORY = ("/dev/zero", "/memfd:", "/dev/shm/")


def is_in_memory(path: str) -> bool:
    """Whether what a shared mapping shows is memory by its nature, whatever names there are."""
    return path.startswith(_IN_MEMORY)


def is_object(path: str, key: str) -> bool:
    """Whether what a shared mapping shows has to be brought back by the image: memory, a file without a name."""
    return is_in_memory(path) or not present_path(path, key)


def begin_contents(entries: list[ProcessEntry]) -> None:
    """Begin `add_contents` in a thread, while the processes' own memory is written: a session maps 200 MB of files."""
    threading.Thread(target=add_contents, args=(entries,), name="nbcr-digests", daemon=True).start()


_one_at_a_time = threading.Lock()


def add_contents(entries: list[ProcessEntry]) -> None:
    """Complete the identities of what processes map with digests, those that are not complete yet.

    A file that has changed since the processes were looked at is left without: nothing fits it any more.
    """
    with _one_at_a_time:
        _add_contents(entries)


def _add_contents(entries: list[ProcessEntry]) -> None:
    for entry in entries:
        for index, file in enumerate((*entry.files, entry.exe)):
            if file.contents or (index < len(entry.files) and _is_shared(entry, index)):
                continue
            digest = elf.contents_of(file.path)
            try:
                file.contents = digest if _untouched(file, os.stat(file.path)) else ""
            except OSError:
                continue


def _is_shared(entry: ProcessEntry, index: int) -> bool:
    """Whether what the file holds now is what the process is to see, whatever it was."""
    return any(vma.file == index and not vma.private for vma in entry.vmas)


# --- validation -------------------------------------------------------------------------------------------------------


def check_files(entry: ProcessEntry) -> None:
    """Every file that memory depends on is still the one that was mapped. Raises FileChanged naming it."""
    for index, file in enumerate(entry.files):
        check_file(file, file.path, content_matters=not _is_shared(entry, index))
    check_file(entry.exe, entry.exe.path)
    if not elf.is_program(entry.exe.path) or not os.access(entry.exe.path, os.X_OK, effective_ids=True):
        raise FileChanged(
            f"{entry.exe.path}, the program of process {entry.pid}, cannot be run by this user",
            hint="give this user the right to run it, then restart", path=entry.exe.path,
        )  # fmt: skip


def check_file(file: FileIdentity, at: str, *, content_matters: bool = True) -> None:
    """What stands at a path is what was mapped; anything else would run into a crash later. Raises FileChanged."""
    try:
        found = os.stat(at)
    except OSError as error:
        raise FileChanged(f"{file.path}, which the image maps, is gone ({error.strerror})", path=file.path) from error
    if not _can_be_mapped(found):
        raise FileChanged(f"{file.path}, which the image maps, is no file any more", path=file.path)
    if not content_matters or _untouched(file, found):
        return
    build = elf.build_of(at)
    same_build = (build.build_id, build.segments) == (file.build_id, file.segments)
    if file.contents:
        if build.segments == file.segments and elf.contents_of(at) == file.contents:
            return
        what = "other contents" if not file.segments or same_build else "another build"
    else:
        if (found.st_size, found.st_mtime_ns) == (file.size, file.mtime_ns) or (file.build_id and same_build):
            return
        what = "another build" if file.segments else "another size or date"
    raise FileChanged(f"{file.path} was replaced since the checkpoint ({what})", path=file.path)


_ZERO_DEVICE = os.makedev(1, 5)


def _can_be_mapped(found: os.stat_result) -> bool:
    """A file, or /dev/zero: of other devices no mapping is captured, and opening them may set something off."""
    return stat.S_ISREG(found.st_mode) or (stat.S_ISCHR(found.st_mode) and found.st_rdev == _ZERO_DEVICE)


def _untouched(file: FileIdentity, found: os.stat_result) -> bool:
    """Nobody can have written to it since. Images from before format field `ctime_ns` are content with less."""
    if not file.ctime_ns:
        return (found.st_size, found.st_mtime_ns) == (file.size, file.mtime_ns)
    now = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
    return now == (file.device, file.inode, file.size, file.mtime_ns, file.ctime_ns)


# --- coming back ------------------------------------------------------------------------------------------------------


def open_files(entry: ProcessEntry, ours: dict[tuple[str, bool], int], warn: Callable[[str], None]) -> None:
    """Open what a process maps, once for each file and mode, and check what was opened: that cannot change any more.

    Raises FileChanged, while there still is a way back.
    """
    for index, writes in file_views(entry):
        file = entry.files[index]
        if (file.path, writes) in ours:
            continue
        try:
            fd = ours[file.path, writes] = _open_view(entry, index, writes, warn)
        except OSError as error:
            raise FileChanged(
                f"{file.path}, which process {entry.pid} maps, cannot be opened: {error.strerror}",
                hint="give this user access to it", path=file.path,
            ) from error  # fmt: skip
        check_file(file, f"/proc/self/fd/{fd}", content_matters=not _is_shared(entry, index))


def _open_view(entry: ProcessEntry, index: int, writes: bool, warn: Callable[[str], None]) -> int:
    path = entry.files[index].path
    try:
        return open_path(path, os.O_RDWR if writes else os.O_RDONLY, _can_be_mapped)
    except OSError:
        if not writes or any(v.file == index and not v.private and v.prot & linux.PROT_WRITE for v in entry.vmas):
            raise
    fd = open_path(path, os.O_RDONLY, _can_be_mapped)
    warn(f"what process {entry.pid} maps of {path} cannot be made writable any more: this user may not write to it")
    return fd


def file_views(entry: ProcessEntry) -> list[tuple[int, bool]]:
    """(index of a file, whether a mapping may write to it): a descriptor for each is what the mappings need.

    A shared mapping can later be made writable (mprotect(2)) only if its descriptor was.
    """
    return sorted({file_view(vma) for vma in entry.vmas if vma.kind == "file"})


def file_view(vma: VmaEntry) -> tuple[int, bool]:
    """Which of `file_views` a mapping is made from."""
    return vma.file, not vma.private and may_write(vma)


def may_write(vma: VmaEntry) -> bool:
    """Whether a shared mapping is writable, or may be made so."""
    return bool(vma.prot & linux.PROT_WRITE) or vma.may_write is True
