"""The tree of stubs: every process forked by its parent, in the session and the process group that it was in."""

from __future__ import annotations

import signal
import struct
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from kernel_backend import kinship
from kernel_backend.abi import arch, linux
from kernel_backend.errors import ImageCorrupt
from kernel_backend.host import proc
from kernel_backend.image.entries import ProcessEntry, ZombieEntry
from kernel_backend.kinship import Member, leaderless_groups, session_of
from kernel_backend.resources import roots, terminal_sessions
from kernel_backend.tracee import stub
from kernel_backend.tracee.inject import Workshop
from kernel_backend.tracee.thread import Thread

if TYPE_CHECKING:
    from kernel_backend.rebuild import Building, Rebuild

WORKSHOP_BYTES = 1 << 20


def grow_tree(rebuild: Rebuild, root: Thread, furnish: Callable[[Building], None]) -> None:
    """Fork the stubs of all descendants, each from its parent, in the sessions and groups they were in.

    Who shares memory with a child is given it by `furnish` before that is forked.
    """
    shop = stub.open_workshop(root, 0, WORKSHOP_BYTES, fixed=False)
    roots.leave(shop)
    strangers = _grow(rebuild, rebuild.root, shop, kinship.OUTSIDE, furnish)
    while strangers:
        strangers = _place_strangers(rebuild, strangers, furnish)
    _join_groups(rebuild)
    _end_leaders(rebuild)


def fork_orphan(rebuild: Rebuild) -> Thread:
    """A stub for the root that is no child of ours: forked by one that ends at once. It dies with us all the same."""
    needed = set(kinship.all_tids(rebuild.inventory))
    middles: list[Thread] = []
    try:
        while not middles or middles[-1].tgid in needed:
            middles.append(stub.spawn())
        shop = stub.open_workshop(middles[-1], 0, WORKSHOP_BYTES, fixed=False)
        return fork(rebuild, shop, rebuild.root.pid, rebuild.root.exit_signal).thread
    finally:
        for middle in middles:
            stub.end_child(middle.tgid)


def _grow(
    rebuild: Rebuild, entry: ProcessEntry, shop: Workshop, born_in: int, furnish: Callable[[Building], None]
) -> list[Member]:
    """A process and those below it; `born_in` is the session that it was forked in.

    Returns its strangers: children that are in neither its session nor their own. They have been adopted: their parents
    have ended, and they still are in the session that those were in.
    """
    if entry.pid not in rebuild.built:
        rebuild.adopt(entry, shop)
    rebuild.uts.enter(entry, shop, of_programs=False)
    if rebuild.bequeaths(entry):
        furnish(rebuild.built[entry.pid])
        shop = rebuild.built[entry.pid].shop
    own = session_of(rebuild.inventory, entry)
    strangers: list[Member] = []
    early: list[Member] = []  # born before it led a session of its own
    late: list[Member] = []
    for child in kinship.children(rebuild.inventory, entry):
        session = session_of(rebuild.inventory, child)
        at_home, before = session in (own, child.pid), own == entry.pid and session == born_in
        (late if at_home else early if before else strangers).append(child)
    born = {entry.pid: shop}
    for child in early:
        born[child.pid] = _bear(rebuild, child, born)
    _lead(shop, entry)
    if own == entry.pid:
        terminal_sessions.take_early(entry.pid, rebuild.tables, shop)
    for child in late:
        born[child.pid] = _bear(rebuild, child, born)
    sessions = {child.pid: born_in for child in early}
    for child in (*early, *late):
        if isinstance(child, ProcessEntry):
            rebuild.adopt(child, born[child.pid])
            rebuild.built[child.pid].heritage = rebuild.heirs.get(child.pid)
            if rebuild.built[child.pid].heritage is not None:  # it is what forked it, and runs nothing
                rebuild.built[child.pid].named = rebuild.built[entry.pid].named
        strangers += _settle_in(rebuild, child, born[child.pid], sessions.get(child.pid, own), furnish)
    return strangers


def _bear(rebuild: Rebuild, child: Member, born: Mapping[int, Workshop]) -> Workshop:
    """A child, forked by its parent or by a sibling that it shares tables with; both are among those that are born."""
    how = None
    if isinstance(child, ProcessEntry) and (child.table_of or child.folders_of):
        how = kinship.forker(rebuild.inventory, child)
    if how is None:
        return fork(rebuild, born[child.ppid], child.pid, child.exit_signal)
    forker, flags = how
    return fork(rebuild, born[forker.pid], child.pid, 0 if flags & linux.CLONE_PARENT else child.exit_signal, flags)


def _settle_in(
    rebuild: Rebuild, entry: Member, shop: Workshop, born_in: int, furnish: Callable[[Building], None]
) -> list[Member]:
    if isinstance(entry, ProcessEntry):
        return _grow(rebuild, entry, shop, born_in, furnish)
    _lead(shop, entry)
    rebuild.zombies[entry.pid] = shop
    return []


# --- strangers: history repeated --------------------------------------------------------------------------------------


def _place_strangers(rebuild: Rebuild, strangers: list[Member], furnish: Callable[[Building], None]) -> list[Member]:
    """Make those whose sessions are there, and what is below them; the strangers that are left, or found with them."""
    left: list[Member] = []
    for entry in strangers:
        session = session_of(rebuild.inventory, entry)
        via = _somebody_in(rebuild, session)
        if via is None and any(other.pid == session for other in strangers):
            left.append(entry)  # its session's leader is yet to come
        else:
            shop = _adopt(rebuild, entry, via or _lead_for_now(rebuild, entry, session))
            left += _settle_in(rebuild, entry, shop, session, furnish)
    if left == strangers:
        raise ImageCorrupt(f"the sessions of processes {', '.join(str(e.pid) for e in left)} wait for each other")
    return left


def _somebody_in(rebuild: Rebuild, session: int) -> Workshop | None:
    """A stub in a session, its leader if that is there."""
    for found in (rebuild.leaders.get(session), rebuild.zombies.get(session)):
        if found is not None:
            return found
    there = [b for b in rebuild.built.values() if session_of(rebuild.inventory, b.entry) == session]
    return min(there, key=lambda building: building.entry.pid != session).shop if there else None


def _lead_for_now(rebuild: Rebuild, entry: Member, session: int) -> Workshop:
    """A leader for a session whose own has ended, as long as the tree is made: a child of who adopted its member."""
    shop = rebuild.leaders[session] = fork(rebuild, rebuild.built[entry.ppid].shop, session, 0)
    shop.call("setsid")
    rebuild.tables.pids[session] = rebuild.number_inside(session, shop.thread.tgid)
    return shop


def _adopt(rebuild: Rebuild, entry: Member, via: Workshop) -> Workshop:
    """A process forked by one that ends at once, in the session of `via`; its parent is the one that adopts it."""
    parent = rebuild.built[entry.ppid]
    parent.shop.call("prctl", linux.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    middle = _fork_nobody(rebuild, via)
    shop = fork(rebuild, middle, entry.pid, signal.SIGCHLD)
    end_helper(middle, via)
    parent.shop.call("prctl", linux.PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)
    if proc.stat(shop.thread.tgid).ppid != parent.pid:
        rebuild.tables.warn(f"process {entry.pid} is a child of another process than before")
    return shop


def _fork_nobody(rebuild: Rebuild, parent: Workshop) -> Workshop:
    """A child for a moment, under a number that nobody of the image needs."""
    needed = set(kinship.all_tids(rebuild.inventory)) if rebuild.set_tids else set()
    spare: list[Workshop] = []
    while True:
        shop = fork(rebuild, parent, 0, 0)
        if proc.inner_id(shop.thread.tgid) not in needed:
            break
        spare.append(shop)
    for other in spare:
        end_helper(other, parent)
    return shop


def end_helper(helper: Workshop, parent: Workshop) -> None:
    """End a child that only the building needed."""
    number = proc.inner_id(helper.thread.tgid)
    stub.kill_and_collect(helper.thread.tgid)
    parent.call("wait4", number, 0, linux.WALL, 0)


def _end_leaders(rebuild: Rebuild) -> None:
    for shop in rebuild.leaders.values():
        above = proc.stat(shop.thread.tgid).ppid
        end_helper(shop, next(building.shop for building in rebuild.built.values() if building.pid == above))


# --- sessions and groups ----------------------------------------------------------------------------------------------


def _lead(shop: Workshop, entry: ProcessEntry | ZombieEntry) -> None:
    """Become leader of a session or group of one's own, unless one is already."""
    now = proc.stat(shop.thread.tgid)
    if entry.sid == entry.pid and now.sid != now.pid:
        shop.call("setsid")
    elif entry.pgid == entry.pid and now.pgid != now.pid:
        shop.call("setpgid", 0, 0)


def fork(rebuild: Rebuild, shop: Workshop, pid: int, exit_signal: int, flags: int = 0) -> Workshop:
    """A child of a stub, with the image's `pid` (0: any) where pids may be chosen; its workshop copies the parent's."""
    tid_at = shop.put(struct.pack("<i", pid), 128)
    count = 1 if rebuild.set_tids and pid else 0
    args = arch.CLONE_ARGS.pack(flags, 0, 0, 0, exit_signal, 0, 0, 0, tid_at if count else 0, count, 0)
    shop.call("clone3", shop.put(args), len(args))
    new = shop.new_tids.pop()
    rebuild.born.append(new)
    thread = Thread(new, new)
    thread.wait()
    return Workshop(thread, shop.address, shop.size)


def _join_groups(rebuild: Rebuild) -> None:
    """Put every process, the dead as well, into its group; groups whose leader has ended get one for as long as this
    takes.
    """
    groups: dict[int, list[tuple[Member, Workshop]]] = {}
    for building in rebuild.built.values():
        groups.setdefault(building.entry.pgid, []).append((building.entry, building.shop))
    for zombie in rebuild.inventory.zombies:
        groups.setdefault(zombie.pgid, []).append((zombie, rebuild.zombies[zombie.pid]))
    for pgid, members in groups.items():
        if pgid in rebuild.built:
            _join(rebuild, members, rebuild.built[pgid].pid, rebuild.tables.pids[pgid])
        elif pgid in rebuild.zombies:
            leader = rebuild.zombies[pgid].thread
            _join(rebuild, members, leader.tgid, rebuild.number_inside(pgid, leader.tgid))
        elif pgid in rebuild.leaders:
            _join(rebuild, members, rebuild.leaders[pgid].thread.tgid, rebuild.tables.pids[pgid])
        elif pgid in leaderless_groups(rebuild.inventory):
            _join_leaderless(rebuild, pgid, members)


def _join_leaderless(rebuild: Rebuild, pgid: int, members: list[tuple[Member, Workshop]]) -> None:
    """A child of the first member leads the group until all are in it."""
    _, parent = members[0]
    leader = fork(rebuild, parent, pgid, 0)
    leader.call("setpgid", 0, 0)
    number = rebuild.tables.pids[pgid] = rebuild.number_inside(pgid, leader.thread.tgid)
    _join(rebuild, members, leader.thread.tgid, number)
    end_helper(leader, parent)


def _join(rebuild: Rebuild, members: list[tuple[Member, Workshop]], leader: int, number: int) -> None:
    """`leader` is the group's number for us, `number` the one for the members."""
    there = proc.stat(leader)
    for entry, shop in members:
        here = proc.stat(shop.thread.tgid)
        if here.pgid == there.pgid:
            continue
        if here.sid != there.sid:
            rebuild.tables.warn(f"process {entry.pid} is in another process group than before")
        else:
            shop.call("setpgid", 0, number)
