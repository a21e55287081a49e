"""Descriptor tables: who shares which open file description, and which room captures and rebuilds it.

A room (files, pipes, sockets, polling, terminals …) offers a list KINDS of `Kind` objects. This module asks each in
turn whether a descriptor is its own; what nobody claims is refused by name. Two descriptors that kcmp(2) calls equal
share one description, in one process or across the tree.

Coming back, the helper itself builds every description; the new processes receive them over a Unix socket
(SCM_RIGHTS: needs no permission to look into the helper) and put them at their numbers. What is keyed by a process's
own descriptor numbers (epoll items, record locks) is added afterwards, from inside (`Kind.finish`).
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kernel_backend.abi import linux
from kernel_backend.errors import ResourceUnsupported
from kernel_backend.host import libc, proc
from kernel_backend.image.descriptions import Channel, Description
from kernel_backend.image.entries import DescriptorEntry
from kernel_backend.tracee.inject import Workshop
from kernel_backend.tracee.process import Process

O_CLOEXEC = os.O_CLOEXEC


@dataclass
class Look:
    """One descriptor of a frozen process, as a room sees it when it decides and captures."""

    process: Process
    fd: int
    link: str  # where /proc/PID/fd/N points
    info: proc.FdInfo
    stat: os.stat_result
    _own: int = -1

    @property
    def own(self) -> int:
        """Our duplicate of the descriptor, taken on first use and closed by the table capture."""
        if self._own < 0:
            self._own = self.process.take_fd(self.fd)
        return self._own

    @property
    def flags(self) -> int:
        """Open flags without close-on-exec."""
        return self.info.flags & ~O_CLOEXEC

    @property
    def holder(self) -> str:
        """For messages: who holds it."""
        return f"descriptor {self.fd} of process {self.process.pid}"

    def close(self) -> None:
        """Give our duplicate back."""
        if self._own >= 0:
            os.close(self._own)
            self._own = -1


@dataclass
class CaptureTables:
    """What a capture of the whole tree gathers; rooms look things up in it and add to it."""

    folder: Path  # where a room may save content files (through `save`)
    processes: dict[int, Process]
    looks: list[Look] = field(default_factory=list)  # one per description, same index
    descriptions: list[Description] = field(default_factory=list)
    tables: dict[int, list[DescriptorEntry]] = field(default_factory=dict)
    holders: dict[int, list[tuple[int, int]]] = field(default_factory=dict)  # description → (pid, fd) pairs
    warnings: list[str] = field(default_factory=list)
    channel: tuple[int, int] | None = None  # (pid, fd) of the requester's channel
    later: list[Callable[[], None]] = field(default_factory=list)  # work that may be done when the tree runs again

    def look_with_inode(self, inode: int, device: int) -> list[int]:
        """Indices of the descriptions with this inode: the other end of a pipe, for example."""
        return [
            i for i, look in enumerate(self.looks) if look.stat.st_ino == inode and look.stat.st_dev == device
        ]


@dataclass
class RebuildTables:
    """What a rebuild of the whole tree has and makes."""

    folder: Path
    descriptions: Sequence[Description]
    own: dict[int, int] = field(default_factory=dict)  # description → our descriptor of the rebuilt one
    pids: dict[int, int] = field(default_factory=dict)  # image pid → new pid, known before `finish` runs
    live: dict[int, int] = field(default_factory=dict)  # in place: fd number → our duplicate of the present's descriptor
    holders: dict[int, list[tuple[int, int]]] = field(default_factory=dict)  # description → (image pid, fd)
    root_pid: int = 0  # image pid of the root process
    stdio: tuple[int, int, int] = (-1, -1, -1)  # ours, for streams whose other end was outside; -1: /dev/null
    boot_id_same: bool = False
    same_place: bool = False  # in place: the present process is the one the image was taken of (or stands for it)
    warnings: list[str] = field(default_factory=list)
    channel_fd: int = -1  # our socket for the channel, or -1
    to_close: list[int] = field(default_factory=list)  # further descriptors of ours that must live until the end


class Kind:
    """One kind of description. Subclasses live in the rooms; all methods have a harmless default but the first three."""

    entry: type[Any]

    def matches(self, look: Look) -> bool:
        """Whether this descriptor is of this kind."""
        raise NotImplementedError

    def capture(self, look: Look, tables: CaptureTables) -> Description:
        """Read it while everything is stopped. Must not disturb queues (peek, or read and put back)."""
        raise NotImplementedError

    def capture_links(self, index: int, look: Look, entry: Any, tables: CaptureTables) -> None:
        """Second pass, when every description is known: find the other end, in-flight descriptors, watched files."""

    def validate(self, entry: Any, tables: RebuildTables) -> None:
        """Before the point of no return: raise FileChanged, HostUnsupported … when it could not be rebuilt."""

    def rebuild(self, index: int, entry: Any, tables: RebuildTables) -> None:
        """Make it in this (the helper's) process: tables.own[index] = descriptor. Also the other end, where paired."""
        raise NotImplementedError

    def finish(self, index: int, entry: Any, tables: RebuildTables, workshop: Workshop, pid: int, fd: int) -> None:
        """Inside the first process that holds it (image pid `pid`, at `fd`), when all descriptors stand."""


def all_kinds() -> list[Kind]:
    """Every room's kinds, in the order of asking."""
    from kernel_backend.resources import files, pipes, polling, sockets, terminals

    return [ChannelKind(), *terminals.KINDS, *pipes.KINDS, *sockets.KINDS, *polling.KINDS, *files.KINDS]


class ChannelKind(Kind):
    """The requester's channel: known by its number alone."""

    entry = Channel

    def matches(self, look: Look) -> bool:
        return False  # assigned by number in _classify

    def rebuild(self, index: int, entry: Channel, tables: RebuildTables) -> None:
        if tables.channel_fd >= 0:
            tables.own[index] = os.dup(tables.channel_fd)
            return
        import socket

        ours, theirs = socket.socketpair()
        ours.close()  # reads end-of-file, which tells the restored life that no helper is there
        tables.own[index] = theirs.detach()


def look_at(process: Process, fd: int) -> Look:
    """Gather what /proc tells of one descriptor."""
    path = f"/proc/{process.pid}/fd/{fd}"
    return Look(process, fd, os.readlink(path), proc.fdinfo(process.pid, fd), os.stat(path))  # noqa: PTH115,PTH116


def _same_description(a: Look, b: Look) -> bool:
    return libc.kcmp(a.process.pid, b.process.pid, linux.KCMP_FILE, a.fd, b.fd) == 0


def capture(tables: CaptureTables, kinds: Sequence[Kind]) -> None:
    """Fill tables, looks and descriptions for every process of the tree, while all of it is stopped."""
    groups: dict[tuple[object, ...], list[int]] = {}
    for pid, process in tables.processes.items():
        tables.tables[pid] = []
        for fd in proc.fd_numbers(pid):
            look = look_at(process, fd)
            key = (look.stat.st_dev, look.stat.st_ino, look.link, look.info.pos, look.flags)
            same = (i for i in groups.get(key, ()) if _same_description(tables.looks[i], look))
            index = next(same, -1)
            if index < 0:
                index = len(tables.looks)
                tables.looks.append(look)
                tables.descriptions.append(_classify(look, tables, kinds))
                groups.setdefault(key, []).append(index)
            tables.holders.setdefault(index, []).append((pid, fd))
            cloexec = bool(look.info.flags & O_CLOEXEC)
            tables.tables[pid].append(DescriptorEntry(fd=fd, cloexec=cloexec, description=index))
    by_entry = {kind.entry: kind for kind in kinds}
    for index, (look, entry) in enumerate(zip(tables.looks, tables.descriptions, strict=True)):
        by_entry[type(entry)].capture_links(index, look, entry, tables)


def _classify(look: Look, tables: CaptureTables, kinds: Sequence[Kind]) -> Description:
    if tables.channel == (look.process.pid, look.fd):
        return Channel()
    for kind in kinds:
        if kind.matches(look):
            return kind.capture(look, tables)
    raise ResourceUnsupported(
        f"{look.holder} is {look.link}, which cannot be captured",
        kind=stat.S_IFMT(look.stat.st_mode), pid=look.process.pid, fd=look.fd, link=look.link,
    )  # fmt: skip


def rebuild(tables: RebuildTables, kinds: Sequence[Kind]) -> None:
    """Make every description in this process (tables.own)."""
    by_entry = {kind.entry: kind for kind in kinds}
    for index, entry in enumerate(tables.descriptions):
        if index not in tables.own:
            by_entry[type(entry)].rebuild(index, entry, tables)
