"""Writing an image: files first, the inventory last, the folder put in its place by one rename.

What a crash leaves behind is a folder with a temporary name and no inventory: recognisable garbage.
"""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

import msgspec
from blake3 import blake3

from kernel_backend.errors import ImageCorrupt, ImageExists, NoRoom, ResourceUnsupported
from kernel_backend.image import limits, texts, validation
from kernel_backend.image.entries import ImageFile, Inventory
from kernel_backend.stages import Stage, reach

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
        _clean_garbage(folder)
        self.folder = folder.parent / f".{folder.name}.{os.urandom(6).hex()}.tmp"
        self.folder.mkdir(mode=0o700)
        self._lock = _lock(self.folder)
        self._published = False

    def __enter__(self) -> ImageWriter:
        return self

    def __exit__(self, *_: object) -> None:
        if not self._published:
            _remove(self.folder)
        if self._lock >= 0:
            os.close(self._lock)

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
        reach(Stage.DUMP_RECORD)
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
        reach(Stage.DUMP_INVENTORY)
        texts.pack(inventory)
        raw = msgspec.json.encode(inventory)
        texts.unpack(inventory)
        _check_readable(raw)
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
        reach(Stage.DUMP_RENAME)
        self.folder.rename(self.final)
        self.folder = self.final  # which is taken back if it cannot be made durable
        reach(Stage.DUMP_RENAMED)
        if durable:
            sync_folder(self.final.parent)
        self._published = True


def _check_readable(raw: bytes) -> None:
    """What a reader would refuse must not be written: then the fault is ours, and it is not too late."""
    if len(raw) > limits.MAX_INVENTORY_BYTES:
        raise ResourceUnsupported(f"an inventory of {len(raw) >> 20} MiB is more than an image may have")
    try:
        inventory = msgspec.json.decode(raw, type=Inventory)
        texts.unpack(inventory)
        validation.check(inventory, "the inventory")
    except (msgspec.DecodeError, ImageCorrupt) as error:
        raise ResourceUnsupported(f"something does not fit into an image: {error}") from error


def _lock(folder: Path) -> int:
    """A lock that tells that the writer lives; -1 on a file system without."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(fd)
        return -1
    return fd


def _clean_garbage(final: Path) -> None:
    """Remove what writers of the same image that were killed have left."""
    for name in os.listdir(final.parent):
        if not (name.startswith(f".{final.name}.") and name.endswith(".tmp")):
            continue
        folder = final.parent / name
        try:
            lock = _lock(folder)
        except OSError:
            continue  # somebody else's, or just removed by another
        if lock >= 0:
            _remove(folder)
            os.close(lock)


def _remove(folder: Path) -> None:
    import shutil  # here: most images are published, and loading it takes as long as writing a small one

    shutil.rmtree(folder, ignore_errors=True)


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
