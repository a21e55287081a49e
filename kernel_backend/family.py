"""The tree of stubs: every process forked by its parent, in the session and the process group that it was in."""

from __future__ import annotations

import os
import signal
import struct
from typing import TYPE_CHECKING

from kernel_backend.abi import arch, linux
from kernel_backend.host import proc
from kernel_backend.image.entries import Inventory, ProcessEntry, ZombieEntry
from kernel_backend.tracee import stub
from kernel_backend.tracee.inject import Workshop
from kernel_backend.tracee.thread import Thread, ThreadGone

if TYPE_CHECKING:
    from kernel_backend.rebuild import Building, Rebuild

WORKSHOP_BYTES = 1 << 20


def grow_tree(rebuild: Rebuild, root: Thread) -> None:
    """Fork the stubs of all descendants, each from its parent, in the sessions and groups they were in."""
    _grow(rebuild, rebuild.root, stub.open_workshop(root, 0, WORKSHOP_BYTES, fixed=False))
    _join_groups(rebuild)


def _grow(rebuild: Rebuild, entry: ProcessEntry, shop: Workshop) -> None:
    rebuild.adopt(entry, shop)
    children: list[ProcessEntry | ZombieEntry] = [
        *(p for p in rebuild.inventory.processes if p.ppid == entry.pid and p is not entry),
        *(z for z in rebuild.inventory.zombies if z.ppid == entry.pid),
    ]
    leads_session = entry.sid == entry.pid
    early = [child for child in children if leads_session and child.sid not in (entry.pid, child.pid)]
    born = [(child, fork(rebuild, shop, child.pid, child.exit_signal)) for child in early]
    _lead(shop, entry)
    born += [(child, fork(rebuild, shop, child.pid, child.exit_signal)) for child in children if child not in early]
    for child, child_shop in born:
        if isinstance(child, ProcessEntry):
            _grow(rebuild, child, child_shop)
        else:
            _lead(child_shop, child)
            rebuild.zombies[child.pid] = child_shop.thread


def _lead(shop: Workshop, entry: ProcessEntry | ZombieEntry) -> None:
    """Become leader of a session or group of one's own, unless one is already."""
    now = proc.stat(shop.thread.tgid)
    if entry.sid == entry.pid and now.sid != now.pid:
        shop.call("setsid")
    elif entry.pgid == entry.pid and now.pgid != now.pid:
        shop.call("setpgid", 0, 0)


def fork(rebuild: Rebuild, shop: Workshop, pid: int, exit_signal: int) -> Workshop:
    """A child of a stub, with the image's `pid` where pids may be chosen; its workshop is a copy of the parent's."""
    tid_at = shop.put(struct.pack("<i", pid), 128)
    count = 1 if rebuild.set_tids else 0
    args = arch.CLONE_ARGS.pack(0, 0, 0, 0, exit_signal, 0, 0, 0, tid_at if count else 0, count, 0)
    shop.call("clone3", shop.put(args), len(args))
    new = shop.new_tids.pop()
    rebuild.born.append(new)
    thread = Thread(new, new)
    thread.wait()
    return Workshop(thread, shop.address, shop.size)


def _join_groups(rebuild: Rebuild) -> None:
    """Put every process into its group; groups whose leader has ended get one for as long as this takes."""
    groups: dict[int, list[Building]] = {}
    for building in rebuild.built.values():
        groups.setdefault(building.entry.pgid, []).append(building)
    for pgid, members in groups.items():
        if pgid in rebuild.built:
            _join(rebuild, members, rebuild.built[pgid].pid, rebuild.tables.pids[pgid])
        elif pgid in rebuild.zombies:
            zombie = rebuild.zombies[pgid]
            _join(rebuild, members, zombie.tgid, rebuild.number_inside(pgid, zombie.tgid))
        elif pgid in leaderless_groups(rebuild.inventory):
            _join_leaderless(rebuild, pgid, members)


def leaderless_groups(inventory: Inventory) -> set[int]:
    """Process groups of the tree whose leader has ended; not the root's own, which may be that of a shell outside."""
    entries: list[ProcessEntry | ZombieEntry] = [*inventory.processes, *inventory.zombies]
    root = next(entry for entry in entries if entry.pid == inventory.root_pid)
    return {entry.pgid for entry in inventory.processes} - {entry.pid for entry in entries} - {root.pgid}


def _join_leaderless(rebuild: Rebuild, pgid: int, members: list[Building]) -> None:
    """A child of the first member leads the group until all are in it."""
    parent = members[0].shop
    leader = fork(rebuild, parent, pgid, 0)
    leader.call("setpgid", 0, 0)
    number = rebuild.tables.pids[pgid] = rebuild.number_inside(pgid, leader.thread.tgid)
    _join(rebuild, members, leader.thread.tgid, number)
    stub.kill_and_collect(leader.thread.tgid)
    parent.call("wait4", number, 0, linux.WALL, 0)


def _join(rebuild: Rebuild, members: list[Building], leader: int, number: int) -> None:
    """`leader` is the group's number for us, `number` the one for the members."""
    there = proc.stat(leader)
    for member in members:
        here = proc.stat(member.pid)
        if here.pgid == there.pgid:
            continue
        if here.sid != there.sid:
            rebuild.tables.warn(f"process {member.entry.pid} is in another process group than before")
        else:
            member.shop.call("setpgid", 0, number)


def end_zombies(rebuild: Rebuild) -> None:
    """Let the stubs of dead children die as they did, unreaped."""
    for entry in rebuild.inventory.zombies:
        thread = rebuild.zombies[entry.pid]
        rebuild.tables.pids[entry.pid] = rebuild.number_inside(entry.pid, thread.tgid)
        sig = entry.exit_code & 0x7F
        if sig:
            os.kill(thread.tgid, signal.SIGKILL)
        else:
            gadget = stub.find_syscall(thread.tgid)
            try:
                stub.step_call(thread, gadget, "exit_group", entry.exit_code >> 8 & 0xFF)
            except ThreadGone:
                continue
        stub.collect(thread.tgid)
