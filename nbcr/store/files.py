"""Durable file operations: everything the store's promises rest on."""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path

from nbcr.errors import StoreRefused


def fsync_path(path: Path) -> None:
    """Force `path` (file or folder) to the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def fsync_tree(root: Path) -> None:
    """Force every regular file and folder under `root` to the disk, folders after what they hold."""
    for folder, _, names in os.walk(root, topdown=False):
        for name in names:
            path = Path(folder, name)
            if path.is_file() and not path.is_symlink():
                fsync_path(path)
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


def tree_size_bytes(root: Path) -> int:
    """Bytes on disk of all files under `root` (allocated blocks: images are sparse)."""
    total = 0
    for folder, _, names in os.walk(root):
        for name in names:
            total += Path(folder, name).lstat().st_blocks * 512
    return total


def remove_tree(root: Path) -> None:
    """Delete `root` and all it holds; harmless when it is not there."""
    import shutil

    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(root)


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
