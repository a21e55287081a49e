"""Who is whose child, in which session and which group: what an inventory tells of a tree."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Protocol

from kernel_backend.abi import linux
from kernel_backend.image.entries import Inventory, ProcessEntry, ZombieEntry

Member = ProcessEntry | ZombieEntry
OUTSIDE = 0  # the session of whoever makes the tree
_TABLES = {linux.CLONE_FILES: "table_of", linux.CLONE_FS: "folders_of"}


class Kin(Protocol):
    """As much of an inventory as tells who was born where."""

    processes: list[ProcessEntry]
    root_pid: int
    outside_sessions: list[int]


def members(inventory: Inventory) -> list[Member]:
    """The living and the dead."""
    return [*inventory.processes, *inventory.zombies]


def root(inventory: Kin) -> ProcessEntry:
    """The process that all others come from."""
    return next(entry for entry in inventory.processes if entry.pid == inventory.root_pid)


def children(inventory: Inventory, parent: ProcessEntry) -> list[Member]:
    """Of one process."""
    return [entry for entry in members(inventory) if entry.ppid == parent.pid and entry is not parent]


def session_of(inventory: Kin, entry: Member) -> int:
    """The session that a process is in: OUTSIDE, or one that began in the tree, whether its leader lives or not."""
    first = root(inventory)
    outside = entry.sid in inventory.outside_sessions or (entry.sid == first.sid != first.pid)
    return OUTSIDE if outside else entry.sid


def headless_sessions(inventory: Inventory) -> set[int]:
    """Sessions that began in the tree and whose leader is gone."""
    everybody = members(inventory)
    return {session_of(inventory, entry) for entry in everybody} - {entry.pid for entry in everybody} - {OUTSIDE}


def leaderless_groups(inventory: Inventory) -> set[int]:
    """Process groups of the tree whose leader has ended; not the root's own, which may be that of a shell outside."""
    everybody = members(inventory)
    return {entry.pgid for entry in everybody} - {entry.pid for entry in everybody} - {root(inventory).pgid}


def all_tids(inventory: Inventory, *, threads: bool = True) -> Iterator[int]:
    """Every pid and tid that the image's memory may know; `threads` false: of leaders only."""
    for entry in inventory.processes:
        for thread in entry.threads if threads else entry.threads[:1]:
            yield thread.tid
    for zombie in inventory.zombies:
        yield zombie.pid
    yield from leaderless_groups(inventory) | headless_sessions(inventory)


# --- who forks whom ---------------------------------------------------------------------------------------------------


def runs_the_same(one: ProcessEntry, other: ProcessEntry) -> bool:
    """Whether two processes have the same program."""
    first, second = one.exe, other.exe
    return (first.path, first.device, first.inode) == (second.path, second.device, second.inode)


def forker(
    kin: Kin, entry: ProcessEntry, same_program: Callable[[ProcessEntry, ProcessEntry], bool] = runs_the_same
) -> tuple[ProcessEntry, int] | None:
    """Who forks a process, and by which flags of clone(2), so that it shares what it is said to; None: nobody can.

    That is its parent, or a sibling that was born before it and lets it have the same parent (CLONE_PARENT). Running a
    program ends the sharing of descriptors (execve(2)), so all of these run the same one.
    """
    parent = next(other for other in kin.processes if other.pid == entry.ppid)
    shared = {flag: field for flag, field in _TABLES.items() if getattr(entry, field)}
    if not shared:
        return parent, 0
    birthplace = _birthplace(kin, entry)
    older = itertools.takewhile(lambda other: other is not entry, kin.processes)
    siblings = (
        other
        for other in older
        if other.ppid == entry.ppid and other.pid != kin.root_pid and other.exit_signal == entry.exit_signal
        and _birthplace(kin, other) == birthplace
    )  # fmt: skip
    for other in itertools.chain([parent], siblings) if birthplace is not None else ():
        together = all(getattr(entry, field) == (getattr(other, field) or other.pid) for field in shared.values())
        fit = linux.CLONE_FILES not in shared or (same_program(other, entry) and same_program(parent, entry))
        if together and fit:
            return other, sum(shared) | (0 if other is parent else linux.CLONE_PARENT)
    return None


def _birthplace(kin: Kin, entry: ProcessEntry) -> int | None:
    """The session in which its parent forks a process; None when it was adopted by that from another one."""
    if entry.pid == kin.root_pid:
        return OUTSIDE
    parent = next(other for other in kin.processes if other.pid == entry.ppid)
    own, session = session_of(kin, parent), session_of(kin, entry)
    if session in (own, entry.pid):
        return own
    return session if own == parent.pid and session == _birthplace(kin, parent) else None


def heirs_of_tables(inventory: Inventory) -> set[int]:
    """Processes that share descriptors, so that they may run no program any more when they have been forked."""
    found = set[int]()
    for entry in inventory.processes:
        if entry.table_of and (how := forker(inventory, entry)) is not None:
            found |= {entry.pid} if how[0].pid == entry.ppid else {entry.pid, how[0].pid}
    return found
