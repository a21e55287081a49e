"""From an image to a tree of processes: what the restore pipeline in engine.py does at each of its steps."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kernel_backend import family, remains
from kernel_backend.abi import linux
from kernel_backend.host import proc
from kernel_backend.host.identity import Identity, acting_as, as_ourselves
from kernel_backend.image.descriptions import Epoll
from kernel_backend.image.entries import Inventory, ProcessEntry, SharedMemoryEntry
from kernel_backend.kinship import root
from kernel_backend.resources import (
    descriptors,
    epoll_told,
    file_policy,
    forked_pages,
    lazy_pages,
    locks,
    mapped_files,
    memory,
    numa,
    pages,
    pkeys,
    placing_fds,
    processes,
    removed_folders,
    shared_memory,
    signals,
    sysv,
    sysv_ipc,
    terminal_sessions,
)
from kernel_backend.stages import Stage, reach
from kernel_backend.tracee import namespace, stub
from kernel_backend.tracee.inject import Call, Workshop
from kernel_backend.tracee.process import Process
from kernel_backend.tracee.standing_in import StandIns
from kernel_backend.tracee.thread import Thread


@dataclass
class Building:
    """One process in the making."""

    entry: ProcessEntry
    leader: Thread
    shop: Workshop
    threads: dict[int, Thread] = field(default_factory=dict)  # by image tid
    named: bool = False  # it says which program it is, instead of having run it
    heritage: forked_pages.Heritage | None = None  # what it has of the memory of the parent that forked it
    furnished: bool = False  # it has its memory

    @property
    def pid(self) -> int:
        """Its new pid."""
        return self.leader.tgid


@dataclass
class Rebuild:
    """A restore under way."""

    folder: Path
    inventory: Inventory
    tables: descriptors.RebuildTables
    kinds: Sequence[descriptors.Kind]
    set_tids: bool
    born: list[int] = field(default_factory=list)  # pids of all processes of our making, parents first
    lost_tids: set[int] = field(default_factory=set)  # tids of threads that somebody else has
    own_namespace: bool = False
    lazy: bool = False
    parting: bool = False  # whether we leave a fresh tree to itself
    user: Identity | None = None  # as whom files are opened and made; None: as ourselves
    init: Workshop | None = None  # the first process of that namespace
    built: dict[int, Building] = field(default_factory=dict)  # by image pid
    shared: dict[str, int] = field(default_factory=dict)  # our descriptors of shared memory objects
    mapped: dict[tuple[str, bool], int] = field(default_factory=dict)  # our descriptors of files that are mapped
    pages: dict[int, int] = field(default_factory=dict)  # and of the image's pages, by image pid
    stale: list[SharedMemoryEntry] = field(default_factory=list)  # objects that were there, with other contents
    sysv: sysv.Segments = field(init=False)
    ipc: sysv_ipc.Objects = field(init=False)
    heirs: dict[int, forked_pages.Heritage] = field(init=False)  # by image pid, who may be forked with memory
    mothers: set[int] = field(init=False)  # their parents
    by_pid: dict[int, ProcessEntry] = field(init=False)
    zombies: dict[int, Workshop] = field(default_factory=dict)
    leaders: dict[int, Workshop] = field(default_factory=dict)  # of sessions whose own leaders are gone

    def __post_init__(self) -> None:
        self.heirs = forked_pages.heirs(self.inventory)
        self.by_pid = {entry.pid: entry for entry in self.inventory.processes}
        self.mothers = {self.by_pid[pid].ppid for pid in self.heirs}
        self.sysv = sysv.Segments(self.tables.boot_id_same, self.tables.warnings, self.tables.guardian, self.user)
        self.ipc = sysv_ipc.Objects(self.tables.warnings, self.tables.guardian, self.may_give_to)

    @property
    def warnings(self) -> list[str]:
        """What the user should know."""
        return self.tables.warnings

    def may_give_to(self, uid: int) -> bool:
        """Whether what we make may be made that user's: root does so, but for a user's image only to that user."""
        return os.geteuid() == 0 and (self.user is None or uid == self.user.uid)

    def adopt(self, entry: ProcessEntry, shop: Workshop) -> None:
        """Take a fresh stub in as the process of an entry."""
        self.built[entry.pid] = Building(entry, shop.thread, shop)
        self.tables.pids[entry.pid] = proc.inner_id(shop.thread.tgid)  # the root may keep a pid of its own

    def number_inside(self, image_tid: int, tid: int) -> int:
        """What a new thread is called in its own pid namespace: there the image's numbers can be had."""
        kept = self.set_tids and image_tid not in self.lost_tids
        return image_tid if kept else proc.inner_id(tid)

    def pids_outside(self) -> dict[int, int]:
        """Image pid → what we, outside, call that process now."""
        found = {pid: building.pid for pid, building in self.built.items()}
        return found | {pid: shop.thread.tgid for pid, shop in self.zombies.items()}

    def bequeaths(self, entry: ProcessEntry) -> bool:
        """Whether a process has its memory before its children are forked, since some of them share it."""
        return entry.pid in self.mothers

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


def discard(rebuild: Rebuild) -> None:
    """Close everything of ours."""
    rebuild.tables.close()
    rebuild.sysv.discard()
    rebuild.ipc.discard()
    tables = rebuild.tables
    ours: list[dict[Any, int]] = [rebuild.shared, tables.live, tables.below, rebuild.mapped, rebuild.pages]
    for fd in {fd for table in ours for fd in table.values()}:
        os.close(fd)
    for table in ours:
        table.clear()


# --- the tree of stubs ------------------------------------------------------------------------------------------------


def grow_tree(rebuild: Rebuild, leader: Thread) -> None:
    """The stubs of all processes; those who share memory with their children have it from then on."""
    family.grow_tree(rebuild, leader, lambda building: furnish(rebuild, building))


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


# --- one process ------------------------------------------------------------------------------------------------------


def furnish(rebuild: Rebuild, building: Building) -> None:
    """Program and memory, unless it has them since its children had to be forked with them."""
    if building.furnished:
        return
    reach(Stage.RESTORE_BECOME, building.pid)
    become(rebuild, building)
    reach(Stage.RESTORE_FILL, building.pid)
    fill(rebuild, building)
    building.furnished = True


def become(rebuild: Rebuild, building: Building) -> None:
    """Run the image's program, then empty the address space down to our workshop and what was inherited.

    A child may tell its parent of its end by another signal than SIGCHLD, or by none (clone(2)). When either of the two
    runs a program, it becomes an ordinary child. Where we may say in another way which program it is, we do so.
    """
    entry, leader = building.entry, building.leader
    if building.heritage is not None:
        kept = [(vma.start, vma.end) for vma in building.heritage.kept]
    else:
        kept = []
        _run_program(rebuild, building)
    occupied = [(vma.start, vma.end) for vma in entry.vmas] + [(m.start, m.end) for m in proc.maps(building.pid)]
    address = memory.find_hole(family.WORKSHOP_BYTES, occupied)
    building.shop = stub.open_workshop(leader, address, family.WORKSHOP_BYTES, fixed=True)
    building.shop.run([Call("close_range", 0, 0xFFFFFFFF, 0), *memory.clear_calls(building.shop, kept)])
    building.shop.run(memory.map_vdso_calls(entry))


def _run_program(rebuild: Rebuild, building: Building) -> None:
    entry, leader = building.entry, building.leader
    children = [] if rebuild.bequeaths(entry) else rebuild.inventory.processes  # else they are yet to be born
    odd = [p.pid for p in children if _is_odd_child(rebuild, p) and p.ppid == entry.pid]
    odd += [entry.pid] if _is_odd_child(rebuild, entry) else []
    building.named = bool(odd) and processes.may_name_program(leader.tgid)
    if building.named:
        stub.unregister_rseq(building.shop)
        building.shop.call("munlockall")  # the present may have locked what it would map
    else:
        with remains.inherited(rebuild, building.shop):
            stub.execute(building.shop, entry.exe.path)
        for pid in odd:
            rebuild.tables.warn(f"process {pid} tells of its end by SIGCHLD now; another signal, or none, takes root")


def _is_odd_child(rebuild: Rebuild, entry: ProcessEntry) -> bool:
    return entry.exit_signal != signal.SIGCHLD and entry.pid != rebuild.inventory.root_pid


def fill(rebuild: Rebuild, building: Building) -> None:
    """Descriptors in, mappings made, contents read."""
    entry, shop = building.entry, building.shop
    placing_fds.make_room(building.pid, entry)
    files, shared = mapped_files.file_views(entry), memory.shared_views(entry)
    mapped = [rebuild.mapped[entry.files[index].path, writes] for index, writes in files]
    source = rebuild.pages[entry.pid]
    with _opened_shared(rebuild, shared) as objects:
        moved = placing_fds.lend(shop, [*mapped, *objects, source])
    alone = not entry.as_parent and not rebuild.bequeaths(entry)
    lazily, at_once = lazy_pages.split(entry, source) if rebuild.lazy and alone else ([], entry.pagemap)
    heritage = building.heritage or forked_pages.Heritage([], [])
    views = memory.Sources(
        dict(zip(files, moved[: len(files)], strict=True)), dict(zip(shared, moved[len(files) : -1], strict=True))
    )
    shop.run(sysv.attach_calls(entry, rebuild.sysv))
    shop.run(memory.map_calls(entry, views, heritage.kept))
    rebuild.warnings.extend(numa.bind(shop, entry))
    shop.run(memory.advise_calls(entry))
    shop.run(lazy_pages.map_calls(lazily, moved[-1]))
    shop.run(lazy_pages.advise_calls(entry, lazily))
    shop.run(Call("madvise", low, high - low, linux.MADV_DONTNEED) for low, high in heritage.dropped)
    pages.fill(shop, at_once, moved[-1])
    shop.run([Call("close_range", 0, 0xFFFFFFFF, 0)])  # what only memory needed
    for pid, runs in forked_pages.elsewhere(entry, rebuild.by_pid, building.heritage).items():
        pages.fill(shop, runs, placing_fds.lend(shop, [rebuild.pages[pid]])[0])
        shop.run([Call("close_range", 0, 0xFFFFFFFF, 0)])


def close_memory(rebuild: Rebuild, building: Building) -> None:
    """What stands in the way of further work on memory, when all who inherit of it have been forked."""
    _close_mappings(rebuild, building)
    entry = building.entry
    processes.set_mm(building.shop, entry.mm, entry.exe.path if building.named else "")


@contextmanager
def _opened_shared(rebuild: Rebuild, views: list[tuple[str, bool]]) -> Iterator[list[int]]:
    """Our descriptors of shared objects; where no mapping may write, ones that cannot either."""
    with ExitStack() as stack:
        found = []
        for key, writes in views:
            fd = rebuild.shared[key]
            if not writes:
                fd = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)
                stack.callback(os.close, fd)
            found.append(fd)
        yield found


def _close_mappings(rebuild: Rebuild, building: Building) -> None:
    """What is done to mappings when their contents stand."""
    entry, shop = building.entry, building.shop
    shop.run(memory.protect_calls(entry))
    shop.run(pkeys.calls(entry))
    if not _run_harmless(shop, memory.lock_calls(entry)):
        rebuild.tables.warn(f"the memory that process {entry.pid} had locked is not locked: RLIMIT_MEMLOCK is too low")
    calls, arguments = memory.name_calls(entry, shop.data)
    shop.put(arguments)
    _run_harmless(shop, calls)
    shop.run(memory.closing_calls(entry))


def _run_harmless(shop: Workshop, calls: Sequence[Call]) -> bool:
    """Calls whose failure loses little; whether all were made."""
    try:
        shop.run(calls)
    except OSError:
        return False
    return True


def place_descriptors(rebuild: Rebuild, building: Building) -> None:
    """Put every descriptor at its number."""
    placing_fds.place(building.shop, building.entry, rebuild.tables.own)


def settle(rebuild: Rebuild, building: Building) -> None:
    """Folders, dispositions, prctl settings, POSIX timers."""
    entry, shop = building.entry, building.shop
    with acting_as(rebuild.user):
        _run_with(shop, processes.folder_calls(entry, _working_folder(rebuild, entry), shop.data))
    reset_signals(building)
    shop.run(processes.prctl_calls(entry))
    if entry.lock_future and not _run_harmless(shop, [Call("mlockall", entry.lock_future)]):
        rebuild.tables.warn(f"what process {entry.pid} maps from now on will not be locked: it may not lock memory")


def _working_folder(rebuild: Rebuild, entry: ProcessEntry) -> str:
    if not entry.cwd_deleted:
        return entry.cwd
    identity = entry.cwd_identity if any(entry.cwd_identity) else (-1, entry.pid)
    return removed_folders.path_of(identity, entry.cwd, rebuild.tables)


def remove_folders(rebuild: Rebuild) -> None:
    """Folders that had been removed are gone again, now that everybody is in them who was."""
    with acting_as(rebuild.user):
        removed_folders.remove(rebuild.tables)


def reset_signals(building: Building) -> None:
    """The image's signal actions, and nothing queued."""
    shop = building.shop
    _run_with(shop, signals.flush_calls(shop.data))
    _run_with(shop, signals.action_calls(building.entry, shop.data))


def _run_with(shop: Workshop, prepared: tuple[list[Call], bytes]) -> None:
    """Run calls whose arguments stand in the data room."""
    calls, arguments = prepared
    shop.put(arguments)
    shop.run(calls)


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
                kind.finish(index, entry, tables, rebuild.built[pid].shop, pid, holders[pid])
        locks.take_late(index, entry, tables)
        if entry.flock and holders:
            taker = entry.flock_pid if entry.flock_pid in holders else next(iter(holders))
            locks.take_flock(index, entry, tables, rebuild.built[taker].shop, holders[taker])
        for pid, fd in list(holders.items())[:1]:
            locks.take_lease(index, entry, tables, rebuild.built[pid].shop, fd)
        for pid in {lock.pid for lock in entry.record_locks} & holders.keys():
            locks.take_record_locks(entry, tables, rebuild.built[pid].shop, pid, holders[pid])
    for pid, building in rebuild.built.items():
        terminal_sessions.control_closed(pid, tables, building.shop)
    epoll_told.quieten(tables)


def abandon(rebuild: Rebuild) -> None:
    """End everything that was half made; no junk process stays."""
    for pid in reversed(rebuild.born):
        stub.kill_and_collect(pid)
    for pid in rebuild.born[:1]:
        stub.collect(pid)  # our own child, which may have run already and was killed
