"""Harmless character devices, opened again by path. Others (GPUs above all) are refused with their driver's name."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
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
        found = look.stat
        if _leads_to(look.link, found):
            return DeviceFile(path=pack_path(look.link), pos=look.info.pos)
        path = f"/dev/{_HARMLESS[number(found)]}"
        return DeviceFile(
            path=path, pos=look.info.pos, removed=True, mode=stat.S_IMODE(found.st_mode), uid=found.st_uid,
            gid=found.st_gid,
        )  # fmt: skip

    def validate(self, index: int, entry: DeviceFile, tables: RebuildTables) -> None:
        path = unpack_path(entry.path)
        if not (Path(path).exists() and _is_harmless(os.stat(path))):
            raise HostUnsupported(
                f"{path}, which {tables.who(index)} had open, is not a device here",
                hint="restore where /dev has its usual devices", path=path,
            )  # fmt: skip

    def rebuild(self, index: int, entry: DeviceFile, tables: RebuildTables) -> None:
        path = unpack_path(entry.path)
        with _node_again(path, entry) as node:
            fd = tables.own[index] = open_path(node, entry.flags, _is_harmless)
        if entry.removed and node == path:
            tables.warn(f"{tables.who(index)} had a node open that was gone, and gets {path}: only root could make one")
        set_status_flags(fd, entry.flags)


def _leads_to(path: str, wanted: os.stat_result) -> bool:
    try:
        found = os.stat(path)
    except OSError:
        return False
    return (found.st_dev, found.st_ino) == (wanted.st_dev, wanted.st_ino)


@contextmanager
def _node_again(path: str, entry: DeviceFile) -> Iterator[str]:
    """A node like one that was gone, for the moment; the usual one where we may not make any."""
    node, device = path, next((os.makedev(*n) for n, name in _HARMLESS.items() if path == f"/dev/{name}"), 0)
    if entry.removed and device:  # by our own table: a path may lead elsewhere by now
        with suppress(OSError):
            os.mknod(f"/dev/.nbcr-{os.getpid()}", stat.S_IFCHR | 0o600, device)
            node = f"/dev/.nbcr-{os.getpid()}"
    try:
        if node != path:
            os.chown(node, entry.uid, entry.gid)
            Path(node).chmod(stat.S_IMODE(entry.mode))
        yield node
    finally:
        if node != path:
            Path(node).unlink()


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
