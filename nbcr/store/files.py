"""Durable file operations: everything the store's promises rest on."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from nbcr.errors import StoreRefused

NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
_MOUNTS = Path("/proc/self/mountinfo")
_REMOVE_S = 5.0
_NETWORK = (
    "nfs",
    "cifs",
    "smb",
    "fuse",
    "9p",
    "afs",
    "ceph",
    "glusterfs",
    "lustre",
    "gpfs",
    "beegfs",
    "ocfs",
    "virtiofs",
)


def fsync_path(path: Path) -> None:
    """Force `path` (file or folder) to the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def fsync_tree(root: Path, *, in_use: bool = False) -> None:
    """Force every regular file and folder under `root` to the disk, folders after what they hold.

    `in_use`: others may be removing some of them; what is gone needs no disk.
    """
    gone = (FileNotFoundError,) if in_use else ()
    for folder, _, names in os.walk(root, topdown=False):
        for path in (Path(folder, name) for name in names):
            with contextlib.suppress(*gone):
                if path.is_file() and not path.is_symlink():
                    fsync_path(path)
        with contextlib.suppress(*gone):
            fsync_path(Path(folder))


def write_atomically(path: Path, data: bytes, *, durable: bool = True) -> None:
    """Write `data` to `path`, 0600: the old contents are there or the new ones; if `durable` also after a power cut."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    if durable:
        fsync_path(path.parent)


def write_new(path: Path, blocks: Iterable[bytes], *, durable: bool = True) -> None:
    """Write a file that must not be there yet, 0600, and force it to the disk; what failed leaves nothing."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(descriptor, "wb", buffering=0) as file:
            for block in blocks:
                view = memoryview(block)
                while view:
                    view = view[file.write(view) :]
            if durable:
                os.fsync(file.fileno())
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def random_suffix() -> str:
    """What makes a temporary name nobody else's."""
    return os.urandom(6).hex()


@dataclass(frozen=True)
class Look:
    """What was in a folder at a moment of its file server."""

    names: list[str]
    now_s: float

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)


def look(folder: Path) -> Look:
    """What is in `folder` now, also where an NFS client remembers what was there before.

    A change of our own makes the client ask the server again, and shows the server's clock: a file that comes and goes,
    or on a full disk the folder's own time. A folder that is not there is empty.
    """
    probe = folder / f".look-{random_suffix()}"
    try:
        descriptor = os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileNotFoundError:
        return Look([], time.time())
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        if not folder.is_dir():
            return Look([], time.time())
        os.utime(folder)
        now_s = folder.stat().st_mtime
    else:
        try:
            now_s = os.fstat(descriptor).st_mtime
        finally:
            os.close(descriptor)
            probe.unlink(missing_ok=True)
    try:
        names = os.listdir(folder)
    except FileNotFoundError:  # it was removed meanwhile
        names = []
    for name in names:
        if name.startswith(".look-"):
            _remove_old(folder / name, now_s)
    return Look([name for name in names if not name.startswith(".look-")], now_s)


def _remove_old(probe: Path, now_s: float) -> None:
    """Remove the probe of somebody who died."""
    with contextlib.suppress(OSError):
        if now_s - probe.stat().st_mtime > 3600:
            probe.unlink()


@contextlib.contextmanager
def locked_folder(folder: Path, *, shared: bool = False, patience_s: float = 5.0) -> Iterator[None]:
    """Hold a lock on a folder for a moment; where there are no such locks, or its holder sleeps, go on without it.

    So it must only spare others trouble, and never be what keeps data safe.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        deadline = time.monotonic() + patience_s
        while time.monotonic() < deadline:
            try:
                fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                time.sleep(0.005)
            except OSError:
                break
        yield
    finally:
        os.close(descriptor)


def kind_of(folder: Path) -> str:
    """The kind of file system that `folder` is on; empty where it is not told."""
    try:
        device = folder.stat().st_dev
        lines = _MOUNTS.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    wanted = f"{os.major(device)}:{os.minor(device)}"
    kinds = [kind.split()[0] for mount, _, kind in (line.partition(" - ") for line in lines) if wanted in mount.split()]
    return kinds[-1] if kinds else "local"  # subvolumes have devices of their own


def is_network(folder: Path) -> bool:
    """Whether other hosts may see `folder` too."""
    return (kind_of(folder) or "nfs").startswith(_NETWORK)


def tree_size_bytes(root: Path) -> int:
    """Bytes on disk of all files under `root` (allocated blocks: images are sparse)."""
    total = 0
    for folder, _, names in os.walk(root):
        for name in names:
            with contextlib.suppress(FileNotFoundError):  # somebody removes what we count
                total += Path(folder, name).lstat().st_blocks * 512
    return total


def remove_tree(root: Path) -> None:
    """Delete `root` and all it holds; harmless when it is not there, when somebody else deletes it too, or when
    somebody who has been told to stop still adds to it: for at most `_REMOVE_S`, then OSError is raised.
    """
    import shutil

    def failed(function: object, path: str, error: BaseException) -> None:
        if not isinstance(error, FileNotFoundError):
            raise error

    end = time.monotonic() + _REMOVE_S
    while True:
        try:
            if sys.version_info >= (3, 12):
                shutil.rmtree(root, onexc=failed)
            else:
                shutil.rmtree(root, onerror=lambda function, path, info: failed(function, path, info[1]))
            return
        except OSError as error:
            if error.errno != errno.ENOTEMPTY or time.monotonic() > end:
                raise
            time.sleep(0.01)


def check_private(folder: Path, *, what: str) -> None:
    """Raise StoreRefused unless `folder` is ours and nobody else can write to it."""
    status = folder.stat()
    if not stat.S_ISDIR(status.st_mode):
        raise StoreRefused(f"{what} {folder} is not a folder", hint="choose another with --store or NBCR_STORE")
    if status.st_uid != os.geteuid():
        raise StoreRefused(
            f"{what} {folder} belongs to user {status.st_uid}, not to you (user {os.geteuid()})",
            hint="choose a folder of your own with --store or NBCR_STORE",
        )
    if status.st_mode & 0o022:
        raise StoreRefused(
            f"{what} {folder} can be written by others (mode {stat.S_IMODE(status.st_mode):04o})",
            hint=f"chmod go-w {folder}, or choose another with --store or NBCR_STORE",
        )


def is_ours(path: Path) -> bool:
    """Whether `path` itself (no link followed) belongs to us and others cannot write to it."""
    status = path.lstat()
    return status.st_uid == os.geteuid() and not status.st_mode & 0o022 and not stat.S_ISLNK(status.st_mode)
