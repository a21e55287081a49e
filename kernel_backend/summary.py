"""Looking into an image without bringing it back."""

from __future__ import annotations

from pathlib import Path

import msgspec

from kernel_backend.image.entries import Inventory
from kernel_backend.image.reader import read_inventory, verify_files
from kernel_backend.image.writer import INVENTORY


class ProcessSummary(msgspec.Struct):
    """One process of an image. Sizes in bytes."""

    pid: int
    ppid: int
    exe: str
    argv: list[str]
    threads: int
    descriptors: int
    resident_bytes: int
    cwd: str


class ImageSummary(msgspec.Struct):
    """An image as a person wants to see it."""

    root_pid: int
    created: str  # ISO 8601, UTC
    host: str
    os_kernel: str
    size_bytes: int
    pause_ms: float
    channel_fd: int  # -1: none
    processes: list[ProcessSummary]
    warnings: list[str]


def inspect(image_dir: str | Path) -> ImageSummary:
    """Summarise an image. Raises ImageMissing, ImageCorrupt, ImageVersion."""
    folder = Path(image_dir)
    return _summary(folder, read_inventory(folder))


def _summary(folder: Path, inventory: Inventory) -> ImageSummary:
    return ImageSummary(
        root_pid=inventory.root_pid,
        created=inventory.created,
        host=inventory.host.hostname,
        os_kernel=inventory.host.os_kernel,
        size_bytes=sum(f.size for f in inventory.files.values()) + (folder / INVENTORY).stat().st_size,
        pause_ms=inventory.pause_ms,
        channel_fd=inventory.channel_fd,
        processes=[
            ProcessSummary(
                pid=p.pid, ppid=p.ppid, exe=p.exe.path, argv=p.argv, threads=len(p.threads),
                descriptors=len(p.descriptors), resident_bytes=sum(run.length for run in p.pagemap), cwd=p.cwd,
            )
            for p in inventory.processes
        ],
        warnings=inventory.warnings,
    )  # fmt: skip


def verify(image_dir: str | Path) -> None:
    """Read every byte of an image and compare it with its digests. Raises ImageMissing, ImageCorrupt, ImageVersion."""
    folder = Path(image_dir)
    verify_files(folder, read_inventory(folder))
