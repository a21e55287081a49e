"""Reading an image: nothing of it is believed before its digests, its schema and its numbers have been checked."""

from __future__ import annotations

from pathlib import Path

import msgspec
from blake3 import blake3

from kernel_backend.errors import ImageCorrupt, ImageMissing, ImageVersion
from kernel_backend.image.entries import FORMAT_VERSION, ImageFile, Inventory
from kernel_backend.image.writer import INVENTORY, Envelope, file_digest

MAX_INVENTORY_BYTES = 1 << 30


class _Head(msgspec.Struct):
    format: int


def read_inventory(folder: Path) -> Inventory:
    """The root record of an image, checked against its own digest. Raises ImageMissing, ImageCorrupt, ImageVersion."""
    path = folder / INVENTORY
    try:
        if path.stat().st_size > MAX_INVENTORY_BYTES:
            raise ImageCorrupt(f"{path} is larger than any inventory", path=str(path))
        content = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ImageMissing(f"{folder} holds no image", path=str(folder)) from error
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
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ImageCorrupt(f"{path} is damaged: {error}", path=str(path)) from error
    _check_numbers(inventory, path)
    return inventory


def _check_numbers(inventory: Inventory, path: Path) -> None:
    """References and runs must stay inside their tables, whoever wrote the image."""

    def fail(what: str) -> None:
        raise ImageCorrupt(f"{path} is inconsistent: {what}", path=str(path))

    for process in inventory.processes:
        if not process.threads or process.threads[0].tid != process.pid:
            fail(f"process {process.pid} has no leading thread")
        for row in process.descriptors:
            if not 0 <= row.description < len(inventory.descriptions):
                fail(f"descriptor {row.fd} of process {process.pid} has no description")
        for vma in process.vmas:
            if vma.start >= vma.end or vma.start % 4096 or vma.end % 4096 or vma.file >= len(process.files):
                fail(f"mapping at {vma.start:#x} of process {process.pid}")
        for run in process.pagemap:
            if run.length <= 0 or (run.address | run.length | run.offset) % 4096 or run.offset < 0:
                fail(f"page run at {run.address:#x} of process {process.pid}")
    if inventory.root_pid not in {process.pid for process in inventory.processes}:
        fail("the root process is missing")
    for name in inventory.files:
        if "/" in name or name in (".", ".."):
            fail(f"file name {name!r}")


def verify_files(folder: Path, inventory: Inventory, *, trust_untouched: bool = False) -> None:
    """Every file is there with its size and digest.

    With `trust_untouched`, a file that the file system says nobody has changed since we wrote it (same inode, same
    ctime, which no user can set back) is not read again. A restore asks for that when the image was written since the
    host booted, or when it is to be lazy; after a reboot, from a copy, or after any write to it all is read and proved.
    """
    for name, recorded in inventory.files.items():
        path = folder / name
        try:
            found = path.stat(follow_symlinks=False)
        except OSError as error:
            raise ImageCorrupt(f"{path} is missing from the image", path=str(path)) from error
        if found.st_size != recorded.size:
            raise ImageCorrupt(f"{path} is damaged: {found.st_size} bytes instead of {recorded.size}", path=str(path))
        if trust_untouched and _untouched(recorded, found.st_ino, found.st_ctime_ns):
            continue
        if file_digest(path) != recorded.blake3:
            raise ImageCorrupt(f"{path} is damaged: its digest does not match", path=str(path))


def _untouched(recorded: ImageFile, inode: int, ctime_ns: int) -> bool:
    return recorded.inode == inode and recorded.ctime_ns == ctime_ns
