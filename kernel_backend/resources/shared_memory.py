"""Objects behind MAP_SHARED mappings: anonymous, memfd, POSIX shared memory, deleted files.

A fork does not copy them, so their bytes are read while everything is stopped, once per object however many processes
map it. They come back as memfds (or, for a file that still has its path in /dev/shm, as that file) which the new
processes map. Anonymous shared memory has no other way to be shared by processes that do not fork from each other;
a program sees no difference but the name in /proc/PID/maps.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from kernel_backend.abi import linux
from kernel_backend.errors import FileChanged, NoRoom
from kernel_backend.host import fds, libc
from kernel_backend.host.guardian import Guardian
from kernel_backend.host.identity import as_ourselves
from kernel_backend.image.entries import PageRun, SharedMemoryEntry
from kernel_backend.image.writer import ImageWriter, no_room
from kernel_backend.resources import mapped_files, sysv, unshown
from kernel_backend.resources.memory import Layout
from kernel_backend.tracee.inject import SCRATCH_DATA_BYTES
from kernel_backend.tracee.process import Process

_COPY_BYTES = 4 << 20
_DELETED = " (deleted)"
_SHM = "/dev/shm"
_HUGETLBFS_MAGIC = 0x958458F6  # linux/magic.h


class _Object(msgspec.Struct):
    key: str
    path: str
    spans: list[tuple[int, int, int, Process]]  # offset in the object, address, size, process
    huge_page_bytes: int = 0

    @property
    def extent(self) -> int:
        """Bytes that mappings show."""
        return max(offset + size for offset, _, size, _ in self.spans)


def capture(
    layouts: dict[int, Layout],
    processes: dict[int, Process],
    fds: dict[str, int],
    writer: ImageWriter,
    warnings: list[str],
) -> list[SharedMemoryEntry]:
    """Save every shared object of the tree. `fds`: our duplicates of descriptors of such objects, by key."""
    objects: dict[str, _Object] = {}
    for pid, layout in layouts.items():
        for vma, live in zip(layout.vmas, layout.live, strict=True):
            if vma.kind in ("shared", "sysv"):
                found = objects.setdefault(vma.shared, _Object(vma.shared, _named(live.path, vma.shared), []))
                found.huge_page_bytes = vma.huge_page_bytes
                found.spans.append((vma.offset, vma.start, vma.end - vma.start, processes[pid]))
        for index, key in layout.views.items():
            if key in fds:
                objects.setdefault(key, _Object(key, layout.live[index].path, []))
    return [_save_whole(i, found, fds.get(found.key, -1), writer, warnings) for i, found in enumerate(objects.values())]


def _save_whole(index: int, found: _Object, fd: int, writer: ImageWriter, warnings: list[str]) -> SharedMemoryEntry:
    """Also what no mapping shows of an object that nobody has open any more."""
    if fd >= 0 or _kind(found.path) not in ("memfd", "anon"):
        return _save(index, found, fd, writer)
    _, start, size, process = found.spans[0]
    try:
        fd = os.open(f"/proc/{process.view}/map_files/{start:x}-{start + size:x}", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:  # it takes CAP_CHECKPOINT_RESTORE
        return _save_as_shown(index, found, writer, warnings)
    try:
        return _save(index, found, fd, writer)
    finally:
        os.close(fd)


def _save_as_shown(index: int, found: _Object, writer: ImageWriter, warnings: list[str]) -> SharedMemoryEntry:
    if found.huge_page_bytes:
        return _save(index, found, -1, writer)
    with unshown.whole(found.spans) as spans:
        if spans is None:
            warnings.append(
                f"what process {found.spans[0][3].pid} does not map of {found.path}, which nobody has open any more, "
                "cannot be read by this user: should it be there, it is not in the image"
            )
        else:
            found.spans = spans
        return _save(index, found, -1, writer)


def _save(index: int, found: _Object, fd: int, writer: ImageWriter) -> SharedMemoryEntry:
    name = f"shared-{index}.img"
    out = writer.create(name)
    try:
        if fd >= 0:
            size = os.fstat(fd).st_size
            runs = save_descriptor(fd, out)
        else:
            size = found.extent
            runs = _save_mappings(found, out)
    except OSError as error:
        raise no_room(error) from error
    finally:
        os.close(out)
    entry = SharedMemoryEntry(
        key=found.key, kind=_kind(found.path), size=size, name=_name(found.path), runs=runs, pages=name
    )
    entry.huge_page_bytes = found.huge_page_bytes
    if entry.kind == "file":
        entry.mode = _mode(found.path)
    if entry.kind == "sysv":
        sysv.describe(entry, found.spans[0][3].view)
    if fd >= 0 and entry.kind == "memfd":
        entry.seals = _seals(fd)
    return entry


def _named(path: str, key: str) -> str:
    """The path of an object in memory, which may have another name than the one that its mappings show.

    The C library makes a named semaphore under a name of its own, maps it, links it to the name that others know, and
    takes the first one away (sem_open in glibc). Were it taken for an object without a name, those who open it later
    would find another one than the restored processes have.
    """
    return (path.startswith(f"{_SHM}/") and mapped_files.present_path(path, key)) or path


def _kind(path: str) -> str:
    if path.startswith("/memfd:"):
        return "memfd"
    if path.startswith("/SYSV"):
        return "sysv"
    if path.startswith("/dev/zero") or path.endswith(_DELETED):
        return "anon"
    return "file"


def _name(path: str) -> str:
    return path.removesuffix(_DELETED).removeprefix("/memfd:")


def _mode(path: str) -> int:
    try:
        return stat.S_IMODE(os.lstat(path).st_mode) & 0o777
    except OSError:
        return 0o600


def _seals(fd: int) -> int:
    try:
        return fcntl.fcntl(fd, linux.F_GET_SEALS)
    except OSError:
        return 0


def save_descriptor(fd: int, out: int) -> list[PageRun]:
    """Copy the parts of a file that hold data to `out`, packed; where each belongs."""
    runs: list[PageRun] = []
    to = 0
    source = _open_to_read(fd)
    try:
        for start, end in _data(source):
            length = _pages(end - start)
            copy_part(source, start, out, to, length)
            runs.append(PageRun(start, length, to))
            to += length
    finally:
        os.close(source)
    return runs


def _open_to_read(fd: int) -> int:
    """An offset of our own; one's own file whose mode forbids to read it is readable while we open it."""
    path = f"/proc/self/fd/{fd}"
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except PermissionError:
        found = os.fstat(fd)
        if found.st_uid != libc.syscall("setfsuid", 0xFFFFFFFF):
            raise
    mode = stat.S_IMODE(found.st_mode)
    os.fchmod(fd, mode | stat.S_IRUSR)
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.fchmod(fd, mode)


def _pages(size: int) -> int:
    return -(-size // linux.PAGE_SIZE) * linux.PAGE_SIZE


def _data(source: int) -> Iterator[tuple[int, int]]:
    """[start, end) of what is no hole."""
    found = os.fstat(source)
    if found.st_blksize > linux.PAGE_SIZE and fds.filesystem_magic(f"/proc/self/fd/{source}") == _HUGETLBFS_MAGIC:
        yield from _data_of_huge(source, found.st_size, found.st_blksize)
        return
    size, at = found.st_size, 0
    while at < size:
        try:
            start = os.lseek(source, at, os.SEEK_DATA) & ~(linux.PAGE_SIZE - 1)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return
            raise
        at = os.lseek(source, start, os.SEEK_HOLE)
        yield start, at


def _data_of_huge(source: int, size: int, page: int) -> Iterator[tuple[int, int]]:
    """The same for huge pages, whose file system knows no holes: one that is all zeros may be none.

    Were it taken for a page, a file that nobody has written to would need memory that it never had.
    """
    nothing = bytes(page)
    start = -1
    for at in range(0, size, page) if os.fstat(source).st_blocks else ():
        if os.pread(source, page, at) != nothing:
            start = at if start < 0 else start
        elif start >= 0:
            yield start, at
            start = -1
    if start >= 0:
        yield start, size


def copy_part(source: int, start: int, out: int, to: int, length: int) -> None:
    """Copy `length` bytes, which may reach beyond the end of `source`: what is missing there is zeros."""
    done = 0
    while done < length:
        data = os.pread(source, min(_COPY_BYTES, length - done), start + done)
        data = data or bytes(min(_COPY_BYTES, length - done))
        os.pwrite(out, data, to + done)
        done += len(data)
    os.ftruncate(out, to + length)


def _save_mappings(found: _Object, out: int) -> list[PageRun]:
    """Through the mappings: pages that the object has (mincore), read by address."""
    runs: list[PageRun] = []
    covered: set[int] = set()
    to = 0
    for offset, address, size, process in found.spans:
        # of huge pages mincore(2) tells only which are in this process's page tables
        every = range(0, size, linux.PAGE_SIZE)
        for at in every if found.huge_page_bytes else _resident(process, address, size):
            if offset + at in covered:
                continue
            covered.add(offset + at)
            os.pwrite(out, unshown.read_page(process, address + at), to)
            if runs and runs[-1].address + runs[-1].length == offset + at:
                runs[-1].length += linux.PAGE_SIZE
            else:
                runs.append(PageRun(offset + at, linux.PAGE_SIZE, to))
            to += linux.PAGE_SIZE
    return runs


def _resident(process: Process, address: int, size: int) -> list[int]:
    """Offsets of pages that exist, asked with mincore(2) in the process itself; reading a hole would fill it."""
    step = SCRATCH_DATA_BYTES * linux.PAGE_SIZE
    found: list[int] = []
    with process.borrow() as borrowed:
        for at in range(0, size, step):
            length = min(step, size - at)
            borrowed.call("mincore", address + at, length, borrowed.data)
            vector = borrowed.get(-(-length // linux.PAGE_SIZE))
            found += [at + i * linux.PAGE_SIZE for i, present in enumerate(vector) if present & 1]
    return found


# --- coming back ------------------------------------------------------------------------------------------------------


def rebuild(entry: SharedMemoryEntry, folder: Path, guardian: Guardian) -> tuple[int, bool]:
    """(our descriptor of the object, whether it is new). A new one has the image's contents.

    One that was there is not touched: others may have it open, the present among them. See `refill`.
    """
    fd, new = _reopen(entry, guardian) if entry.kind == "file" else (_memfd(entry), True)
    try:
        if new:
            refill(fd, entry, folder)
        else:
            _check_room(fd, entry)
    except BaseException:
        os.close(fd)
        raise
    return fd, new


def refill(fd: int, entry: SharedMemoryEntry, folder: Path) -> None:
    """Give an object the image's size and contents."""
    os.ftruncate(fd, 0)
    os.ftruncate(fd, entry.size)
    fill(fd, folder / entry.pages, entry.runs, entry.size, huge=entry.huge_page_bytes > 0)


def _memfd(entry: SharedMemoryEntry) -> int:
    name = entry.name if entry.kind == "memfd" else "nbcr-shared"
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    if entry.huge_page_bytes:
        flags |= os.MFD_HUGETLB | linux.huge_page_flag(entry.huge_page_bytes)
    return os.memfd_create(name, flags)


def _reopen(entry: SharedMemoryEntry, guardian: Guardian) -> tuple[int, bool]:
    """The object of that name, made anew when it is gone."""
    flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    path = Path(entry.name)
    with _folder(path, guardian) as folder:
        try:
            fd = os.open(path.name, flags, dir_fd=folder)
        except FileNotFoundError:
            fd = os.open(path.name, flags | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=folder)
            guardian.file(entry.name)
            os.fchmod(fd, entry.mode)
            return fd, True
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise FileChanged(f"{entry.name}, shared memory of the image, is a thing of another kind now", path=entry.name)
    return fd, False


@contextmanager
def _folder(path: Path, guardian: Guardian) -> Iterator[int]:
    """The folder below /dev/shm of a file, made anew where it is gone; no link on the way leads us elsewhere."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    at = Path(_SHM)
    found = os.open(at, flags & ~os.O_NOFOLLOW)
    try:
        for name in path.parent.relative_to(_SHM).parts:
            at /= name
            try:
                inner = os.open(name, flags, dir_fd=found)
            except FileNotFoundError:
                os.mkdir(name, 0o700, dir_fd=found)
                guardian.tell("folder", str(at))
                inner = os.open(name, flags, dir_fd=found)
            os.close(found)
            found = inner
        yield found
    finally:
        os.close(found)


def _check_room(fd: int, entry: SharedMemoryEntry) -> None:
    """Whether an object that is there can take the image's contents later."""
    place = os.fstatvfs(fd)
    needed = sum(run.length for run in entry.runs) - os.fstat(fd).st_blocks * 512
    free = place.f_bavail * place.f_frsize
    if needed > free:
        raise NoRoom(
            f"{entry.name}, shared memory of the image, needs {needed} bytes more; there are {free} left",
            needed=needed, free=free,
        )  # fmt: skip


def fill(fd: int, saved: Path, runs: list[PageRun], size: int, *, huge: bool) -> None:
    """Write saved parts to their places in an object of `size` bytes; huge pages take no write(2)."""
    if not huge:
        _fill(saved, runs, size, lambda data, at: os.pwrite(fd, data, at))
        return
    for run in runs:  # not all at once: what is mapped is reserved
        _fill_huge(fd, saved, run, size)


def _fill_huge(fd: int, saved: Path, run: PageRun, size: int) -> None:
    page = os.fstat(fd).st_blksize
    low, high = run.address // page * page, -(-min(run.address + run.length, size) // page) * page
    if low < high:
        with mmap.mmap(fd, high - low, offset=low) as view:
            _fill(saved, [run], size, lambda data, at: view.__setitem__(slice(at - low, at - low + len(data)), data))


def _fill(saved: Path, runs: list[PageRun], size: int, write: Callable[[bytes, int], object]) -> None:
    with as_ourselves():
        source = os.open(saved, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        for run in runs:
            done = 0
            while done < run.length:
                data = os.pread(source, min(_COPY_BYTES, run.length - done), run.offset + done)
                if not data:
                    raise EOFError(f"{saved} ends too early")
                write(data[: max(0, size - run.address - done)], run.address + done)
                done += len(data)
    finally:
        os.close(source)
