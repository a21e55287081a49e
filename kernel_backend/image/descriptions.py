"""Open file descriptions in an image: one tagged structure per kind (see FORMAT.md, "Descriptions").

A description is what dup(2) and fork(2) share: offset, flags, queues. Descriptor tables refer to it by index.
"""

from __future__ import annotations

import msgspec


class _Base(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, tag_field="kind"):
    flags: int = 0  # open flags as fdinfo shows them, without close-on-exec
    owner: int = 0  # F_SETOWN: pid, negative for a process group
    owner_signal: int = 0  # F_SETSIG


class Channel(_Base, tag="channel"):
    """The requester's own channel to its helper: never captured, always replaced."""


class RegularFile(_Base, tag="file"):
    """A regular file or directory, opened again by path; `content` names a saved copy when it has no path any more."""

    path: str
    pos: int = 0
    size: int = 0
    mtime_ns: int = 0
    device: int = 0
    inode: int = 0
    mode: int = 0
    deleted: bool = False
    content: str = ""  # file name in the image folder


class DeviceFile(_Base, tag="device"):
    """A harmless character device (null, zero, full, random, urandom, tty)."""

    path: str
    pos: int = 0


Description = Channel | RegularFile | DeviceFile
