"""From an image to a tree of processes: what the restore pipeline in engine.py does at each of its steps."""

from __future__ import annotations

import os
import signal
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from kernel_backend import capture, family
from kernel_backend.abi import arch, linux
from kernel_backend.errors import HostUnsupported, NoRoom, TargetDenied, TargetUnsupported
from kernel_backend.host import libc, proc, room
from kernel_backend.image import reader
from kernel_backend.image.entries import Inventory, ProcessEntry, ThreadEntry
from kernel_backend.resources import (
    descriptors,
    lazy_pages,
    memory,
    pages,
    processes,
    shared_memory,
    signals,
    sysv,
    threads,
    timers,
)
from kernel_backend.tracee import namespace, stub
from kernel_backend.tracee.courier import courier
from kernel_backend.tracee.inject import Call, Workshop
from kernel_backend.tracee.process import Process
from kernel_backend.tracee.thread import Thread

_THREAD_FLAGS = (
    linux.CLONE_VM | linux.CLONE_FS | linux.CLONE_FILES | linux.CLONE_SIGHAND | linux.CLONE_THREAD | linux.CLONE_SYSVSEM
)
_F_DUPFD_CLOEXEC = 1030


@dataclass
class Building:
    """One process in the making."""

    entry: ProcessEntry
    leader: Thread
    shop: Workshop
    threads: dict[int, Thread] = field(default_factory=dict)  # by image tid
    moved: list[int] = field(default_factory=list)  # where the received descriptors wait to be placed

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
    lost_tids: set[int] = field(default_factory=set)  # tids of threads that somebody else has
    own_namespace: bool = False
    lazy: bool = False
    init: Workshop | None = None  # the first process of that namespace
    built: dict[int, Building] = field(default_factory=dict)  # by image pid
    shared: dict[str, int] = field(default_factory=dict)  # our descriptors of shared memory objects
    sysv: sysv.Segments = field(init=False)
    zombies: dict[int, Thread] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.sysv = sysv.Segments(self.tables.boot_id_same, self.tables.warnings)

    @property
    def warnings(self) -> list[str]:
        """What the user should know."""
        return self.tables.warnings

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
        return found | {pid: thread.tgid for pid, thread in self.zombies.items()}

    @property
    def root(self) -> ProcessEntry:
        """The root process's entry."""
        return next(p for p in self.inventory.processes if p.pid == self.inventory.root_pid)


# --- validation: nothing is touched -----------------------------------------------------------------------------------


def check_host(inventory: Inventory) -> None:
    """The image can run on this OS kernel and processor. Raises HostUnsupported."""
    theirs, ours = inventory.host, capture.host_entry(0)
    if (theirs.machine, theirs.page_size) != (ours.machine, ours.page_size):
        raise HostUnsupported(f"the image is of a {theirs.machine} host, this is a {ours.machine} host")
    if theirs.vdso_blake3 != ours.vdso_blake3:
        raise HostUnsupported(
            f"the image was taken under another OS kernel ({theirs.os_kernel}, here {ours.os_kernel})",
            hint="restart it on a host with the same OS kernel, or restore the objects tier",
        )


def check_xstate(inventory: Inventory, here: int) -> None:
    """The processor state has the layout that this host uses."""
    if inventory.host.xstate_bytes != here:
        raise HostUnsupported(
            f"the image holds {inventory.host.xstate_bytes} bytes of processor state, this processor has {here}",
            hint="restart it on a host with the same processor features",
        )


def check_user(inventory: Inventory) -> None:
    """Without privileges only one's own processes can come back."""
    if os.geteuid() == 0:
        return
    for entry in inventory.processes:
        if set(entry.credentials.uids) != {os.geteuid()}:
            raise TargetDenied(
                f"process {entry.pid} of the image ran as user {entry.credentials.uids[1]}, you are {os.geteuid()}",
                hint="restart it as that user, or as root",
            )


def check_memory(inventory: Inventory, *, freed: int = 0) -> None:
    """The image's pages fit into memory."""
    needed = sum(pages.total_bytes(entry.pagemap) for entry in inventory.processes)
    available = room.available_bytes() + freed
    if needed > available:
        raise NoRoom(
            f"the image needs {needed / 2**20:.0f} MiB of memory, {available / 2**20:.0f} MiB are left",
            needed=needed, free=available,
        )  # fmt: skip


def check_all(folder: Path, inventory: Inventory, *, lazy: bool) -> None:
    """Everything that can be known to be wrong before the present is touched."""
    check_host(inventory)
    check_user(inventory)
    written_here = inventory.host.boot_id == capture.boot_id()
    reader.verify_files(folder, inventory, trust_untouched=lazy or written_here)
    for entry in inventory.processes:
        memory.check_files(entry)


def check_taking_over(inventory: Inventory, process: Process) -> None:
    """What a process that is taken over could not become: refused while it is still unharmed."""
    if process.view != process.pid:
        raise TargetUnsupported(
            f"the main thread of process {process.pid} has ended, so another program cannot take its place",
            hint="restore the image as a fresh process", pid=process.pid,
        )  # fmt: skip
    for entry in inventory.processes:
        processes.check_identity(process, entry.credentials)
    if any(entry.timers for entry in inventory.processes) and not timers.ids_can_be_chosen():
        raise HostUnsupported(
            "POSIX timers cannot get their old numbers in a process that has had timers before",
            hint="restore the image as a fresh process, or use OS kernel 6.15 or later",
        )


# --- preparation in our own process -----------------------------------------------------------------------------------


def prepare(rebuild: Rebuild) -> None:
    """Make every shared object and every open file description, here; the present is still untouched."""
    huge = {v.shared for entry in rebuild.inventory.processes for v in entry.vmas if v.hugetlb}
    for entry in rebuild.inventory.shared_memory:
        if entry.kind == "sysv":
            rebuild.sysv.bring_back(entry, rebuild.folder, huge=entry.key in huge)
            continue
        rebuild.shared[entry.key] = shared_memory.rebuild(entry, rebuild.folder)
    rebuild.tables.shared = rebuild.shared
    descriptors.rebuild(rebuild.tables, rebuild.kinds)


def discard(rebuild: Rebuild) -> None:
    """Close everything of ours."""
    rebuild.tables.close()
    rebuild.sysv.discard()
    for fd in {*rebuild.shared.values(), *rebuild.tables.live.values()}:
        os.close(fd)
    rebuild.shared.clear()
    rebuild.tables.live.clear()


# --- the tree of stubs ------------------------------------------------------------------------------------------------


def spawn_root(rebuild: Rebuild) -> Thread:
    """A fresh stub for the root process."""
    if rebuild.own_namespace:
        rebuild.init = namespace.furnish(namespace.spawn_init())
        return family.fork(rebuild, rebuild.init, rebuild.root.pid, rebuild.root.exit_signal).thread
    leader = stub.spawn(rebuild.root.pid if rebuild.set_tids else 0)
    gadget = stub.find_syscall(leader.tgid)
    stub.step_call(leader, gadget, "close_range", 0, 0xFFFFFFFF, 0)
    return leader


# --- one process ------------------------------------------------------------------------------------------------------


def become(rebuild: Rebuild, building: Building) -> None:
    """Run the image's program, then empty the address space down to our workshop."""
    entry, leader = building.entry, building.leader
    stub.execute(building.shop, entry.exe.path)
    occupied = [(vma.start, vma.end) for vma in entry.vmas] + [(m.start, m.end) for m in proc.maps(building.pid)]
    address = memory.find_hole(family.WORKSHOP_BYTES, occupied)
    building.shop = stub.open_workshop(leader, address, family.WORKSHOP_BYTES, fixed=True)
    building.shop.run([Call("close_range", 0, 0xFFFFFFFF, 0), *memory.clear_calls(building.shop)])
    building.shop.run(memory.map_vdso_calls(entry))


def fill(rebuild: Rebuild, building: Building) -> None:
    """Descriptors in, mappings made, contents read."""
    entry, shop = building.entry, building.shop
    processes.raise_descriptor_limit(shop, building.pid)
    own = rebuild.tables.own
    mapped = [_open_mapped(entry, i) for i in range(len(entry.files))]
    shared_keys = sorted({vma.shared for vma in entry.vmas if vma.kind == "shared"})
    source = os.open(rebuild.folder / pages.pages_name(entry.pid), os.O_RDONLY | os.O_CLOEXEC)
    try:
        wanted = [own[row.description] for row in entry.descriptors]
        ours = [*wanted, *mapped, *(rebuild.shared[key] for key in shared_keys), source]
        moved = _hand_over(building, ours)
        lazily, at_once = lazy_pages.split(entry, source) if rebuild.lazy else ([], entry.pagemap)
    finally:
        for fd in (*mapped, source):
            os.close(fd)
    building.moved = moved[: len(wanted)]
    files = dict(enumerate(moved[len(wanted) : len(wanted) + len(mapped)]))
    shared = dict(zip(shared_keys, moved[len(wanted) + len(mapped) : -1], strict=True))
    shop.run(sysv.attach_calls(entry, rebuild.sysv))
    shop.run(memory.map_calls(entry, memory.Sources(files, shared)))
    shop.run(memory.advise_calls(entry))
    shop.run(lazy_pages.map_calls(lazily, moved[-1]))
    pages.fill(shop, at_once, moved[-1])
    shop.run(memory.protect_calls(entry))
    calls, arguments = memory.name_calls(entry, shop.data)
    shop.put(arguments)
    _run_harmless(shop, calls)
    processes.set_mm(shop, entry.mm)


def _open_mapped(entry: ProcessEntry, index: int) -> int:
    """A mapped file, writable where a shared mapping writes to it."""
    writes = any(vma.file == index and not vma.private and vma.prot & linux.PROT_WRITE for vma in entry.vmas)
    return os.open(entry.files[index].path, (os.O_RDWR if writes else os.O_RDONLY) | os.O_CLOEXEC)


def _hand_over(building: Building, ours: list[int]) -> list[int]:
    """Send our descriptors and move them above every number that the image uses."""
    shop = building.shop
    base = max((row.fd for row in building.entry.descriptors), default=0) + 1
    with courier(shop) as line:
        numbers = line.send(ours)
        moved = shop.run(Call("fcntl", number, _F_DUPFD_CLOEXEC, base + 1) for number in numbers)
        shop.run(Call("close", number) for number in numbers)
    return moved


def _run_harmless(shop: Workshop, calls: Sequence[Call]) -> None:
    """Calls whose failure loses nothing."""
    for call in calls:
        try:
            shop.run([call])
        except OSError:
            return


def place_descriptors(building: Building) -> None:
    """Put every descriptor at its number, and drop what only the building needed."""
    rows, moved = building.entry.descriptors, building.moved
    calls = [Call("dup3", at, row.fd, os.O_CLOEXEC if row.cloexec else 0) for row, at in zip(rows, moved, strict=True)]
    base = max((row.fd for row in rows), default=-1) + 1
    building.shop.run([*calls, Call("close_range", base, 0xFFFFFFFF, 0)])


def settle(rebuild: Rebuild, building: Building) -> None:
    """Folders, dispositions, prctl settings, POSIX timers."""
    entry, shop = building.entry, building.shop
    with processes.working_folder(entry) as path:
        _run_with(shop, processes.folder_calls(entry, path, shop.data))
    _run_with(shop, signals.flush_calls(shop.data))
    _run_with(shop, signals.action_calls(entry, shop.data))
    shop.run(processes.prctl_calls(entry))


def _run_with(shop: Workshop, prepared: tuple[list[Call], bytes]) -> None:
    """Run calls whose arguments stand in the data room."""
    calls, arguments = prepared
    shop.put(arguments)
    shop.run(calls)


def make_threads(rebuild: Rebuild, building: Building) -> None:
    """All threads, each with its own masks, lists and names, stopped."""
    entry, shop = building.entry, building.shop
    building.threads[entry.pid] = building.leader
    for thread in entry.threads[1:]:
        building.threads[thread.tid] = _clone_thread(rebuild, building, thread)
    pairs = [(thread, building.threads[thread.tid]) for thread in entry.threads if not thread.exited]
    _setup_threads(shop, pairs)
    _correct_tids(rebuild, building)
    timers.create_timers(shop, entry, rebuild.tables.pids)


def _clone_thread(rebuild: Rebuild, building: Building, thread: ThreadEntry) -> Thread:
    shop = building.shop
    try:
        _clone(shop, [thread.tid] if rebuild.set_tids else [])
    except FileExistsError:  # somebody has the number; a thread can do with another
        rebuild.lost_tids.add(thread.tid)
        _clone(shop, [])
    made = Thread(shop.new_tids.pop(), building.pid)
    made.wait()
    return made


def _clone(shop: Workshop, set_tid: list[int]) -> None:
    tid_at = shop.put(struct.pack("<i", *set_tid), 128) if set_tid else 0
    args = arch.CLONE_ARGS.pack(_THREAD_FLAGS, 0, 0, 0, 0, 0, 0, 0, tid_at, len(set_tid), 0)
    shop.call("clone3", shop.put(args), len(args))


_PER_THREAD_BYTES = 8 * 64 + threads.SETUP_DATA_BYTES


def _setup_threads(shop: Workshop, pairs: list[tuple[ThreadEntry, Thread]]) -> None:
    """Run every thread's own calls, many threads at a time."""
    at_once = shop.data_bytes // _PER_THREAD_BYTES
    for first in range(0, len(pairs), at_once):
        started = []
        for i, (entry, thread) in enumerate(pairs[first : first + at_once]):
            table = shop.data + i * _PER_THREAD_BYTES
            data = table + 8 * 64
            calls, arguments = threads.setup_calls(entry, data)
            libc.vm_write(thread.tgid, data, arguments)
            shop.start(calls, thread, table)
            started.append((calls, thread, table))
        for calls, thread, table in started:
            shop.finish(calls, thread, table)


def _correct_tids(rebuild: Rebuild, building: Building) -> None:
    """Where a tid could not be kept, correct libc's own note of it (the word that set_tid_address(2) named)."""
    for entry in building.entry.threads:
        if entry.tid not in rebuild.tables.pids:
            rebuild.tables.pids[entry.tid] = rebuild.number_inside(entry.tid, building.threads[entry.tid].tid)
        new = rebuild.tables.pids[entry.tid]
        if new == entry.tid or not entry.tid_address:
            continue
        try:
            if libc.vm_read(building.pid, entry.tid_address, 4) == struct.pack("<i", entry.tid):
                libc.vm_write(building.pid, entry.tid_address, struct.pack("<i", new))
        except OSError:
            continue


def finish_descriptors(rebuild: Rebuild) -> None:
    """What is keyed by a process's own numbers: from inside the first process that holds each description."""
    by_entry = {kind.entry: kind for kind in rebuild.kinds}
    tables = rebuild.tables
    for index, entry in enumerate(rebuild.inventory.descriptions):
        kind = by_entry[type(entry)]
        holders: dict[int, int] = {}
        for pid, fd in tables.holders.get(index, []):
            holders.setdefault(pid, fd)
        for pid in list(holders) if kind.every_process else list(holders)[:1]:
            kind.finish(index, entry, tables, rebuild.built[pid].shop, pid, holders[pid])


def identity(rebuild: Rebuild, building: Building) -> None:
    """Scheduling, limits, credentials: from the least to the most that cannot be undone."""
    entry = building.entry
    for thread in entry.threads:
        if not thread.exited:
            rebuild.warnings.extend(threads.apply_scheduling(building.threads[thread.tid].tid, thread.scheduling))
    rebuild.warnings.extend(processes.apply_oom_score(building.pid, entry.oom_score_adj))
    rebuild.warnings.extend(processes.apply_limits(building.shop, entry.rlimits, building.pid))
    _credentials(rebuild, building)
    building.shop.run(processes.late_prctl_calls(entry))


def _credentials(rebuild: Rebuild, building: Building) -> None:
    entry, shop = building.entry, building.shop
    wanted = entry.credentials
    for image_tid, thread in building.threads.items():
        bits = shop.run([Call("prctl", linux.PR_GET_SECUREBITS)], thread=thread)[0]
        present = processes.credentials(proc.status(building.pid, thread.tid), bits, wanted.keepcaps)
        if rebuild.own_namespace and os.geteuid() != 0:
            present.groups = wanted.groups  # those of our user, which a user namespace does not let us name
        calls, arguments = processes.credential_calls(present, wanted, shop.data)
        if calls:
            shop.put(arguments)
            shop.run(calls, thread=thread)
        elif image_tid == entry.pid:
            return  # as is the leader, so are all: they were cloned from it


def launch(rebuild: Rebuild) -> None:
    """Queue signals, arm timers, take the workshops away, set the registers, let everything run."""
    rebuild.sysv.attached()
    for building in rebuild.built.values():
        _arm(rebuild.tables.pids, building)
    for building in rebuild.built.values():
        gadget = _take_workshop_away(building)
        for thread in building.entry.threads:
            if thread.exited:
                threads.exit_alone(building.threads[thread.tid], gadget)
            else:
                threads.final_state(building.threads[thread.tid], thread)
        if building.entry.stopped_by:
            os.kill(building.pid, signal.SIGSTOP)
    if rebuild.init is not None:
        namespace.leave_alone(rebuild.init, rebuild.root.pid)
    for building in rebuild.built.values():
        for made in building.threads.values():
            made.detach()


def _arm(pids: dict[int, int], building: Building) -> None:
    entry, shop = building.entry, building.shop
    pid = pids[entry.pid]
    batches = [signals.queue_calls(pid, pid, entry.pending, shop.data, shared=True)]
    for thread in entry.threads:
        if thread.pending:
            calls, arguments = signals.queue_calls(pid, pids[thread.tid], thread.pending, shop.data, shared=False)
            shop.put(arguments)
            shop.run(calls, thread=building.threads[thread.tid])
    batches += [timers.itimer_calls(entry, shop.data), timers.timer_calls(entry, shop.data)]
    for calls, arguments in batches:
        if calls:
            shop.put(arguments)
            shop.run(calls)


def _take_workshop_away(building: Building) -> int:
    """The address of a `syscall` instruction that is left."""
    shop = building.shop
    gadget = next((_find_call(building.pid, v.start, v.end) for v in building.entry.vmas if v.kind == "vdso"), 0)
    if not gadget:
        return shop.address + arch.RUN_TABLE.index(arch.SYSCALL_INSTRUCTION)  # no vdso in the image: the page stays
    stub.step_call(building.leader, gadget, "munmap", shop.address, shop.size)
    return gadget


def _find_call(pid: int, start: int, end: int) -> int:
    at = libc.vm_read(pid, start, end - start).find(arch.SYSCALL_INSTRUCTION)
    return start + at if at >= 0 else 0


def abandon(rebuild: Rebuild, leader: Thread | None) -> None:
    """End everything that was half made; no junk process stays."""
    for building in reversed(rebuild.built.values()):
        stub.kill_and_collect(building.pid, [thread.tid for thread in building.threads.values()])
    for thread in rebuild.zombies.values():
        stub.kill_and_collect(thread.tgid)
    if leader is not None and not rebuild.built:
        there = Path(f"/proc/{leader.tgid}").exists()  # perhaps as a present whose threads have not ended yet
        stub.kill_and_collect(leader.tgid, proc.task_ids(leader.tgid) if there else ())
    if rebuild.init is not None:
        stub.kill_and_collect(rebuild.init.thread.tgid)
