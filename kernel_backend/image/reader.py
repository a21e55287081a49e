"""Reading an image: nothing of it is believed before its digests, its schema and its numbers have been checked."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import msgspec
from blake3 import blake3

from kernel_backend.errors import ImageCorrupt, ImageDenied, ImageMissing, ImageVersion
from kernel_backend.image import texts, validation
from kernel_backend.image.entries import FORMAT_VERSION, ImageFile, Inventory
from kernel_backend.image.limits import MAX_INVENTORY_BYTES
from kernel_backend.image.writer import INVENTORY, Envelope, file_digest


class _Head(msgspec.Struct):
    format: int


def read_inventory(folder: Path) -> Inventory:
    """The root record of an image, checked against its own digest. Raises ImageMissing, ImageCorrupt, ImageVersion."""
    path = folder / INVENTORY
    try:
        content = _read(path)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ImageMissing(f"{folder} holds no image", path=str(folder)) from error
    except OSError as error:
        raise ImageMissing(f"{path} cannot be read: {error.strerror}", path=str(path)) from error
    try:
        envelope = msgspec.json.decode(content, type=Envelope)
        if blake3(envelope.inventory).hexdigest() != envelope.blake3:
            raise ImageCorrupt(f"{path} is damaged: its digest does not match", path=str(path))
        head = msgspec.json.decode(envelope.inventory, type=_Head)
        if head.format != FORMAT_VERSION:
            raise ImageVersion(
                f"{folder} is of image format {head.format}, this program reads {FORMAT_VERSION}", found=head.format
            )
        inventory = msgspec.json.decode(envelope.inventory, type=Inventory)
        if texts.MARK in content:
            texts.unpack(inventory)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise ImageCorrupt(f"{path} is damaged: {error}", path=str(path)) from error
    validation.check(inventory, str(path))
    return inventory


def _read(path: Path) -> bytes:
    """The file's content, unless it is something else, or larger than any inventory."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    with os.fdopen(fd, "rb") as file:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            raise ImageCorrupt(f"{path} is no file", path=str(path))
        if found.st_size > MAX_INVENTORY_BYTES:
            raise ImageCorrupt(f"{path} is larger than any inventory", path=str(path))
        return file.read(MAX_INVENTORY_BYTES)


def verify_files(folder: Path, inventory: Inventory, *, trust_untouched: bool = False) -> None:
    """Every file is there with its size and digest.

    With `trust_untouched`, a file that the file system says nobody has changed since we wrote it (same inode, same
    ctime, which no user can set back) is not read again. A restore asks for that when the image was written since the
    host booted, or when it is to be lazy; after a reboot, from a copy, or after any write to it all is read and proved.
    """
    owner = (folder / INVENTORY).stat(follow_symlinks=False).st_uid
    for name, recorded in inventory.files.items():
        path = folder / name
        try:
            found = path.stat(follow_symlinks=False)
        except OSError as error:
            raise ImageCorrupt(f"{path} is missing from the image", path=str(path)) from error
        if not stat.S_ISREG(found.st_mode):
            raise ImageCorrupt(f"{path} is no file", path=str(path))
        if found.st_uid != owner:  # a hard link to what the owner may not read, for whoever may
            raise ImageDenied(f"{path} belongs to user {found.st_uid}, the image to user {owner}", path=str(path))
        if found.st_size != recorded.size:
            raise ImageCorrupt(f"{path} is damaged: {found.st_size} bytes instead of {recorded.size}", path=str(path))
        if trust_untouched and _untouched(recorded, found.st_ino, found.st_ctime_ns):
            continue
        if file_digest(path) != recorded.blake3:
            raise ImageCorrupt(f"{path} is damaged: its digest does not match", path=str(path))


def _untouched(recorded: ImageFile, inode: int, ctime_ns: int) -> bool:
    return recorded.inode == inode and recorded.ctime_ns == ctime_ns
