"""Who is whose child, in which session and which group: what an inventory tells of a tree."""

from __future__ import annotations

from collections.abc import Iterator

from kernel_backend.image.entries import Inventory, ProcessEntry, ZombieEntry

Member = ProcessEntry | ZombieEntry
OUTSIDE = 0  # the session of whoever makes the tree


def members(inventory: Inventory) -> list[Member]:
    """The living and the dead."""
    return [*inventory.processes, *inventory.zombies]


def root(inventory: Inventory) -> ProcessEntry:
    """The process that all others come from."""
    return next(entry for entry in inventory.processes if entry.pid == inventory.root_pid)


def children(inventory: Inventory, parent: ProcessEntry) -> list[Member]:
    """Of one process."""
    return [entry for entry in members(inventory) if entry.ppid == parent.pid and entry is not parent]


def session_of(inventory: Inventory, entry: Member) -> int:
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
