"""From an image to a tree of processes: what the restore pipeline in engine.py does at each of its steps."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec

from kernel_backend import family, furnishing
from kernel_backend.host import proc
from kernel_backend.host.identity import Identity, acting_as, as_ourselves
from kernel_backend.image.descriptions import Epoll
from kernel_backend.image.entries import Inventory, ProcessEntry, SharedMemoryEntry
from kernel_backend.kinship import heirs_of_tables, root
from kernel_backend.resources import (
    contents,
    descriptors,
    epoll_told,
    fanotify,
    file_policy,
    forked_pages,
    inotify,
    io_uring_back,
    ipc_namespaces,
    locks,
    mapped_files,
    mount_namespaces,
    namespaces,
    net_namespaces,
    pages,
    removed_folders,
    shared_memory,
    sysv,
    sysv_ipc,
    terminal_sessions,
    time_namespaces,
    user_namespaces,
    visits,
)
from kernel_backend.stages import Stage, reach
from kernel_backend.tracee import namespace, stub
from kernel_backend.tracee.inject import Workshop
from kernel_backend.tracee.process import Process
from kernel_backend.tracee.standing_in import StandIns
from kernel_backend.tracee.thread import Thread


class Building(msgspec.Struct):
    """One process in the making."""

    entry: ProcessEntry
    leader: Thread
    shop: Workshop
    threads: dict[int, Thread] = {}  # by image tid
    named: bool = False  # it says which program it is, instead of having run it
    heritage: forked_pages.Heritage | None = None  # what it has of the memory of the parent that forked it
    furnished: bool = False  # it has its memory

    @property
    def pid(self) -> int:
        """Its new pid."""
        return self.leader.tgid


class Rebuild(msgspec.Struct, dict=True):  # for what is made when it is asked for
    """A restore under way."""

    folder: Path
    inventory: Inventory
    tables: descriptors.RebuildTables
    kinds: Sequence[descriptors.Kind]
    set_tids: bool
    born: list[int] = []  # pids of all processes of our making, parents first
    lost_tids: set[int] = set()  # tids of threads that somebody else has
    own_namespace: bool = False
    lazy: bool = False
    parting: bool = False  # whether we leave a fresh tree to itself
    user: Identity | None = None  # as whom files are opened and made; None: as ourselves
    init: Workshop | None = None  # the first process of that namespace
    built: dict[int, Building] = {}  # by image pid
    apart: dict[int, Workshop] = {}  # by image tid, of threads with tables of their own
    shared: dict[str, int] = {}  # our descriptors of shared memory objects
    mapped: dict[tuple[str, bool], int] = {}  # our descriptors of files that are mapped
    pages: dict[int, int] = {}  # and of the image's pages, by image pid
    stale: list[SharedMemoryEntry] = []  # objects that were there, with other contents
    visit: visits.Visit = msgspec.field(default_factory=visits.Visit)
    heirs: dict[int, forked_pages.Heritage] = {}  # by image pid, who may be forked with memory
    mothers: set[int] = set()  # their parents
    by_pid: dict[int, ProcessEntry] = {}
    zombies: dict[int, Workshop] = {}
    leaders: dict[int, Workshop] = {}  # of sessions whose own leaders are gone

    def __post_init__(self) -> None:
        self.heirs = forked_pages.heirs(self.inventory)
        for pid in heirs_of_tables(self.inventory):
            self.heirs.setdefault(pid, forked_pages.Heritage([], []))
        self.by_pid = {entry.pid: entry for entry in self.inventory.processes}
        self.mothers = {self.by_pid[pid].ppid for pid in self.heirs}

    @cached_property
    def sysv(self) -> sysv.Segments:
        """Segments of System V shared memory."""
        return sysv.Segments(self.tables.boot_id_same, self.tables.warnings, self.tables.guardian, self.user)

    @cached_property
    def ipc(self) -> sysv_ipc.Objects:
        """Message queues and semaphores of System V."""
        return sysv_ipc.Objects(self.tables.warnings, self.tables.guardian, self.may_give_to)

    @cached_property
    def uts(self) -> namespaces.Places:
        """Namespaces of host names."""
        return namespaces.Places(self.inventory.uts_namespaces)

    @cached_property
    def users(self) -> user_namespaces.Places:
        """User namespaces that programs of the image have made."""
        return user_namespaces.Places(self.inventory.user_namespaces)

    @cached_property
    def mounts(self) -> mount_namespaces.Places:
        """Namespaces of mounts."""
        return mount_namespaces.Places(self.inventory.mount_namespaces)

    @cached_property
    def times(self) -> time_namespaces.Places:
        """Namespaces of clocks."""
        return time_namespaces.Places(self.inventory.time_namespaces, same_boot=self.tables.boot_id_same)

    @property
    def warnings(self) -> list[str]:
        """What the user should know."""
        return self.tables.warnings

    def enter_namespaces(self, present: Process | None) -> None:
        """Be in the tree's namespaces from now on; `present` is the process that is replaced, None for none."""
        for room in (ipc_namespaces, net_namespaces):
            room.check(self.inventory, present, same_boot=self.tables.boot_id_same)
        for room in (ipc_namespaces, net_namespaces):
            found = room.enter(self.inventory, present, self.visit, for_a_user=self.user is not None)
            self.warnings.extend(found)

    def rewind_namespaces(self) -> None:
        """In place, past the point of no return: what the present has changed in the tree's namespaces is undone."""
        self.visit.commit()
        found = net_namespaces.rewind(self.inventory, self.visit, for_a_user=self.user is not None)
        self.warnings.extend(found)

    def may_give_to(self, uid: int) -> bool:
        """Whether what we make may be made that user's: root does so, but for a user's image only to that user."""
        return os.geteuid() == 0 and (self.user is None or uid == self.user.uid)

    def may_speak_of(self, uid: int) -> bool:
        """Whether an image is believed what it says of that user: a user's own only about that user."""
        return self.user is None or uid == self.user.uid

    def adopt(self, entry: ProcessEntry, shop: Workshop) -> None:
        """Take a fresh stub in as the process of an entry."""
        self.built[entry.pid] = Building(entry, shop.thread, shop)
        self.tables.pids[entry.pid] = proc.inner_id(shop.thread.tgid)  # the root may keep a pid of its own

    def number_inside(self, image_tid: int, tid: int) -> int:
        """What a new thread is called in its own pid namespace: there the image's numbers can be had."""
        kept = self.set_tids and image_tid not in self.lost_tids
        return image_tid if kept else proc.inner_id(tid)

    def may_choose_tids(self, entry: ProcessEntry) -> bool:
        """Whether a process may choose the numbers of its threads: from inside a user namespace nobody may."""
        return self.set_tids and entry.user == user_namespaces.OURS

    def pids_outside(self) -> dict[int, int]:
        """Image pid → what we, outside, call that process now."""
        found = {pid: building.pid for pid, building in self.built.items()}
        return found | {pid: shop.thread.tgid for pid, shop in self.zombies.items()}

    def bequeaths(self, entry: ProcessEntry) -> bool:
        """Whether a process has its memory before its children are forked, since some of them share it."""
        return entry.pid in self.mothers

    def shop_of(self, holder: int) -> Workshop:
        """Where a process makes calls, or a thread with a descriptor table of its own, by image number."""
        return self.apart[holder] if holder in self.apart else self.built[holder].shop

    @property
    def root_pid(self) -> int:
        """What we call the root process now."""
        return self.built[self.inventory.root_pid].pid

    @property
    def root(self) -> ProcessEntry:
        """The root process's entry."""
        return root(self.inventory)


# --- preparation in our own process -----------------------------------------------------------------------------------


def prepare(rebuild: Rebuild, present: Iterable[Process] = ()) -> None:
    """Make every shared object and every open file description, here; the present is still untouched."""
    reach(Stage.RESTORE_PREPARE)
    with acting_as(rebuild.user):
        descriptors.validate(rebuild.tables, rebuild.kinds)
        _open_files(rebuild)
        _make_shared_memory(rebuild)
        rebuild.ipc.bring_back(rebuild.inventory.message_queues, rebuild.inventory.semaphore_sets)
        reach(Stage.RESTORE_DESCRIPTIONS)
        with _stand_ins(rebuild, present) as rebuild.tables.stand_ins:
            descriptors.rebuild(rebuild.tables, rebuild.kinds)


@contextmanager
def _stand_ins(rebuild: Rebuild, present: Iterable[Process]) -> Iterator[StandIns]:
    """Who make what bears the name of a process of the image."""

    def make(pid: int) -> Workshop:
        if rebuild.own_namespace:
            return family.fork(rebuild, _open_namespace(rebuild), pid, 0)
        return stub.open_workshop(stub.spawn(pid), 0, family.WORKSHOP_BYTES, fixed=False)

    def end(shop: Workshop) -> None:
        if rebuild.init is not None:
            family.end_helper(shop, rebuild.init)
        else:
            stub.end_child(shop.thread.tgid)

    numbered = {proc.inner_id(process.pid): process for process in present}
    if numbered:
        numbered[rebuild.root.pid] = next(iter(numbered.values()))  # it keeps its number as the image's root
    made = StandIns(numbered, make if rebuild.set_tids and not numbered else None, end, rebuild.user)
    try:
        yield made
    finally:
        made.close()


def _open_files(rebuild: Rebuild) -> None:
    """What is mapped, and the image's own pages: opened while there is a way back."""
    descriptors.raise_our_limit()
    for entry in rebuild.inventory.processes:
        mapped_files.open_files(entry, rebuild.mapped, rebuild.tables.warn)
        with as_ourselves():
            path = rebuild.folder / pages.pages_name(entry.pid)
            rebuild.pages[entry.pid] = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)


def _make_shared_memory(rebuild: Rebuild) -> None:
    huge = {v.shared for entry in rebuild.inventory.processes for v in entry.vmas if v.hugetlb}
    for entry in rebuild.inventory.shared_memory:
        reach(Stage.RESTORE_SHARED_MEMORY)
        if entry.kind == "sysv":
            rebuild.sysv.bring_back(entry, rebuild.folder, huge=entry.key in huge)
            continue
        fd, new = shared_memory.rebuild(entry, rebuild.folder, rebuild.tables.guardian)
        rebuild.shared[entry.key] = fd
        if not new:
            rebuild.stale.append(entry)
    rebuild.tables.shared = rebuild.shared


def refill(rebuild: Rebuild) -> None:
    """Shared memory that others may see is brought back last: a restore that fails before has not changed it."""
    for entry in rebuild.stale:
        shared_memory.refill(rebuild.shared[entry.key], entry, rebuild.folder)
    rebuild.sysv.refill(rebuild.folder)
    with acting_as(rebuild.user):
        file_policy.apply(rebuild.tables, [building.pid for building in rebuild.built.values()])
    shops = {pid: building.shop for pid, building in rebuild.built.items()}
    inventory = rebuild.inventory
    rebuild.ipc.refill(inventory.message_queues, inventory.semaphore_sets, shops, inventory.root_pid)


def watch_files(rebuild: Rebuild) -> None:
    """Nobody opens, changes or closes a file for the restore any more: who watches them may be told of all from now on.

    So duplicates of the present's descriptors, and files that were made anew by way of one of ours, are closed before.
    """
    for fd in set(rebuild.tables.live.values()):
        os.close(fd)
    rebuild.tables.live.clear()
    contents.close_made(rebuild.tables)
    with acting_as(rebuild.user):
        inotify.watch_again(rebuild.tables)
        fanotify.mark_again(rebuild.tables)


def discard(rebuild: Rebuild) -> None:
    """Close everything of ours."""
    rebuild.tables.close()
    rebuild.sysv.discard()
    rebuild.ipc.discard()
    rebuild.times.close()
    rebuild.users.close()
    rebuild.mounts.close()
    tables = rebuild.tables
    ours: list[dict[Any, int]] = [rebuild.shared, tables.live, tables.below, rebuild.mapped, rebuild.pages]
    for fd in {fd for table in ours for fd in table.values()}:
        os.close(fd)
    for table in ours:
        table.clear()


# --- the tree of stubs ------------------------------------------------------------------------------------------------


def grow_tree(rebuild: Rebuild, leader: Thread) -> None:
    """The stubs of all processes; those who share memory with their children have it from then on."""
    family.grow_tree(rebuild, leader, lambda building: furnishing.furnish(rebuild, building))


def spawn_root(rebuild: Rebuild) -> Thread:
    """A fresh stub for the root process."""
    if rebuild.own_namespace:
        return family.fork(rebuild, _open_namespace(rebuild), rebuild.root.pid, rebuild.root.exit_signal).thread
    if rebuild.parting and any(thread.pdeathsig for thread in rebuild.root.threads):
        leader = family.fork_orphan(rebuild)  # else our end would be its parent's death
    else:
        leader = stub.spawn(rebuild.root.pid if rebuild.set_tids else 0)
        rebuild.born.append(leader.tgid)
    gadget = stub.find_syscall(leader.tgid)
    stub.step_call(leader, gadget, "close_range", 0, 0xFFFFFFFF, 0)
    return leader


def _open_namespace(rebuild: Rebuild) -> Workshop:
    """The first process of the tree's own pid namespace, begun when it is first needed."""
    if rebuild.init is None:
        init = namespace.spawn_init()
        rebuild.born.append(init.tgid)
        rebuild.init = namespace.furnish(init)
    return rebuild.init


def move_in(rebuild: Rebuild) -> None:
    """Everybody is in the namespaces that are entered without threads, and kept by a program that is run."""
    everybody = [(building.entry, building.shop) for building in rebuild.built.values()]
    rebuild.times.enter(everybody, of_programs=False)
    for entry, shop in everybody:
        rebuild.mounts.enter(entry, shop, of_programs=False)
    for entry, shop in everybody:
        rebuild.users.enter(entry, shop)
    for entry, shop in everybody:  # what these own, and nobody else can make
        rebuild.uts.enter(entry, shop, of_programs=True)
        rebuild.mounts.enter(entry, shop, of_programs=True)
    rebuild.times.enter(everybody, of_programs=True)
    rebuild.warnings.extend(rebuild.mounts.warnings)


def remove_folders(rebuild: Rebuild) -> None:
    """Folders that had been removed are gone again, now that everybody is in them who was."""
    with acting_as(rebuild.user):
        removed_folders.remove(rebuild.tables)


def make_rings(rebuild: Rebuild) -> None:
    """io_uring instances, which have to be made by those who have them, while they have no other descriptors."""
    io_uring_back.bring_back(rebuild.inventory.descriptions, _ring_members(rebuild))


def lead_rings_on(rebuild: Rebuild) -> None:
    """… are led to where they were, where only one of their threads may do so."""

    def shop_of_thread(tid: int) -> Workshop:
        building = next(b for b in rebuild.built.values() if tid in b.threads)
        return building.shop.of_thread(building.threads[tid])

    rebuild.warnings.extend(
        io_uring_back.lead_on(rebuild.inventory.descriptions, _ring_members(rebuild), shop_of_thread)
    )


def _ring_members(rebuild: Rebuild) -> list[io_uring_back.Member]:
    return [io_uring_back.Member(b.entry, b.shop, rebuild.tables.pids[pid]) for pid, b in rebuild.built.items()]


def finish_descriptors(rebuild: Rebuild) -> None:
    """What is keyed by a process's own numbers: from inside the first process that holds each description."""
    by_entry = {kind.entry: kind for kind in rebuild.kinds}
    tables = rebuild.tables
    every = list(enumerate(rebuild.inventory.descriptions))
    for index, entry in sorted(every, key=lambda one: isinstance(one[1], Epoll)):  # which watch what the others make
        kind = by_entry[type(entry)]
        holders: dict[int, int] = {}
        for pid, fd in tables.holders.get(index, []):
            holders.setdefault(pid, fd)
        for pid in list(holders) if kind.every_process else list(holders)[:1]:
            with acting_as(rebuild.user):
                kind.finish(index, entry, tables, rebuild.shop_of(pid), pid, holders[pid])
        locks.take_late(index, entry, tables)
        if entry.flock and holders:
            taker = entry.flock_pid if entry.flock_pid in holders else next(iter(holders))
            locks.take_flock(index, entry, tables, rebuild.shop_of(taker), holders[taker])
        for pid, fd in list(holders.items())[:1]:
            locks.take_lease(index, entry, tables, rebuild.shop_of(pid), fd)
        for pid in {lock.pid for lock in entry.record_locks} & holders.keys():
            locks.take_record_locks(entry, tables, rebuild.shop_of(pid), pid, holders[pid])
    for pid, building in rebuild.built.items():
        terminal_sessions.control_closed(pid, tables, building.shop)
    epoll_told.quieten(tables)


def abandon(rebuild: Rebuild) -> None:
    """End everything that was half made; no junk process stays."""
    for pid in reversed(rebuild.born):
        stub.kill_and_collect(pid)
    for pid in rebuild.born[:1]:
        stub.collect(pid)  # our own child, which may have run already and was killed
