"""Writing an image: files first, the inventory last, the folder put in its place by one rename.

What a crash leaves behind is a folder with a temporary name and no inventory: recognisable garbage.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

import msgspec
from blake3 import blake3

from kernel_backend.errors import ImageExists, NoRoom
from kernel_backend.image.entries import ImageFile, Inventory

INVENTORY = "inventory.json"


class Envelope(msgspec.Struct, forbid_unknown_fields=True):
    """The inventory and the digest of its bytes."""

    blake3: str
    inventory: msgspec.Raw


class ImageWriter:
    """An image in the making. Use as a context manager: left without `publish`, everything is removed again."""

    def __init__(self, folder: Path) -> None:
        self.final = folder
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise ImageExists(f"{folder} exists and is not empty", path=str(folder))
        folder.parent.mkdir(parents=True, exist_ok=True)
        self.folder = folder.parent / f".{folder.name}.{os.urandom(6).hex()}.tmp"
        self.folder.mkdir(mode=0o700)
        self._published = False

    def __enter__(self) -> ImageWriter:
        return self

    def __exit__(self, *_: object) -> None:
        if not self._published:
            import shutil  # here: most images are published, and loading it takes as long as writing a small one

            shutil.rmtree(self.folder, ignore_errors=True)

    def create(self, name: str) -> int:
        """A new file, 0600, open for reading and writing; the caller closes the descriptor."""
        return os.open(self.folder / name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)

    def check_room(self, size: int) -> None:
        """Refuse early what cannot fit."""
        found = os.statvfs(self.folder)
        free = found.f_bavail * found.f_frsize
        if size > free:
            raise NoRoom(
                f"the image needs {size / 2**20:.0f} MiB, {self.folder.parent} has {free / 2**20:.0f} MiB left",
                needed=size, free=free,
            )  # fmt: skip

    def record(self, digests: dict[str, str], *, durable: bool) -> dict[str, ImageFile]:
        """What the inventory says of each file; `digests` are known ones, the rest are computed."""
        files = {}
        for path in sorted(self.folder.iterdir()):
            with path.open("rb") as file:
                if durable:
                    os.fsync(file.fileno())
                found = os.fstat(file.fileno())
            digest = digests.get(path.name) or file_digest(path)
            files[path.name] = ImageFile(
                size=found.st_size, blake3=digest, inode=found.st_ino, ctime_ns=found.st_ctime_ns
            )
        return files

    def publish(self, inventory: Inventory, *, durable: bool) -> None:
        """Write the inventory and put the folder in its place; the image exists from here on."""
        raw = msgspec.json.encode(inventory)
        content = msgspec.json.encode(Envelope(blake3(raw).hexdigest(), msgspec.Raw(raw)))
        fd = self.create(INVENTORY)
        try:
            write_all(fd, content)
            if durable:
                os.fsync(fd)
        finally:
            os.close(fd)
        if durable:
            sync_folder(self.folder)
        self.folder.rename(self.final)
        self._published = True
        if durable:
            sync_folder(self.final.parent)


def write_all(fd: int, content: bytes) -> None:
    """Write all of it. Raises NoRoom on a full disk."""
    view = memoryview(content)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except OSError as error:
            raise no_room(error) from error


def resize(fd: int, size: int) -> None:
    """Give a file its length. Raises NoRoom where a limit forbids it."""
    try:
        os.ftruncate(fd, size)
    except OSError as error:
        raise no_room(error) from error


def no_room(error: OSError) -> Exception:
    """The error to raise for a failed write: NoRoom where that is what it was."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return NoRoom(f"writing the image failed: {error.strerror}", errno=error.errno)
    return error


def sync_folder(folder: Path) -> None:
    """Make a rename durable."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def file_digest(path: Path) -> str:
    """BLAKE3 of a file, hex, on all processors."""
    if path.stat().st_size == 0:
        return blake3(b"").hexdigest()
    return blake3(max_threads=blake3.AUTO).update_mmap(path).hexdigest()
