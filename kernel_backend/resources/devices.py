"""Harmless character devices, opened again by path. Others (GPUs above all) are refused with their driver's name."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from kernel_backend.errors import HostUnsupported
from kernel_backend.image.descriptions import Description, DeviceFile, pack_path, unpack_path
from kernel_backend.resources.descriptors import CaptureTables, Kind, Look, RebuildTables, open_path, set_status_flags

_HARMLESS = {(1, 3): "null", (1, 5): "zero", (1, 7): "full", (1, 8): "random", (1, 9): "urandom"}


def number(found: os.stat_result) -> tuple[int, int]:
    """Major and minor of a device file."""
    return os.major(found.st_rdev), os.minor(found.st_rdev)


class DeviceKind(Kind):
    """null, zero, full, random, urandom."""

    entry = DeviceFile

    def matches(self, look: Look) -> bool:
        return stat.S_ISCHR(look.stat.st_mode) and number(look.stat) in _HARMLESS

    def capture(self, look: Look, tables: CaptureTables) -> Description:
        path = look.link
        if not _leads_to(path, look.stat):
            path = f"/dev/{_HARMLESS[number(look.stat)]}"
            tables.warnings.append(f"{look.holder}: {look.link} has no path any more; a restored process gets {path}")
        return DeviceFile(path=pack_path(path), pos=look.info.pos)

    def validate(self, index: int, entry: DeviceFile, tables: RebuildTables) -> None:
        path = unpack_path(entry.path)
        if not (Path(path).exists() and _is_harmless(os.stat(path))):
            raise HostUnsupported(
                f"{path}, which {tables.who(index)} had open, is not a device here",
                hint="restore where /dev has its usual devices", path=path,
            )  # fmt: skip

    def rebuild(self, index: int, entry: DeviceFile, tables: RebuildTables) -> None:
        path = unpack_path(entry.path)
        fd = tables.own[index] = open_path(path, entry.flags, _is_harmless)
        set_status_flags(fd, entry.flags)


def _leads_to(path: str, wanted: os.stat_result) -> bool:
    try:
        found = os.stat(path)
    except OSError:
        return False
    return (found.st_dev, found.st_ino) == (wanted.st_dev, wanted.st_ino)


def _is_harmless(found: os.stat_result) -> bool:
    return stat.S_ISCHR(found.st_mode) and number(found) in _HARMLESS


def driver_name(found: os.stat_result) -> str:
    """What drives a device: as sysfs or /proc/devices call it; empty when unknown."""
    major, minor = number(found)
    block = stat.S_ISBLK(found.st_mode)
    link = Path(f"/sys/dev/{'block' if block else 'char'}/{major}:{minor}/device/driver")
    if link.exists():
        return link.resolve().name
    try:
        characters, _, blocks = Path("/proc/devices").read_text().partition("Block devices:")
    except OSError:
        return ""
    for line in (blocks if block else characters).splitlines():
        words = line.split()
        if len(words) == 2 and words[0] == str(major):
            return words[1]
    return ""


KINDS: list[Kind] = [DeviceKind()]
