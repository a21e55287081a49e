"""One process of a restore, from a stub to what the image says: program, memory, descriptors, settings, signals."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from kernel_backend import family, remains
from kernel_backend.abi import linux
from kernel_backend.host import proc
from kernel_backend.host.identity import acting_as
from kernel_backend.image.entries import FoldersEntry, ProcessEntry
from kernel_backend.resources import (
    aio,
    forked_pages,
    lazy_pages,
    mapped_files,
    memory,
    numa,
    pages,
    pkeys,
    placing_fds,
    processes,
    removed_folders,
    segments,
    signals,
    sysv,
    userfaults,
)
from kernel_backend.stages import Stage, reach
from kernel_backend.tracee import stub
from kernel_backend.tracee.courier import courier
from kernel_backend.tracee.inject import Call, Workshop

if TYPE_CHECKING:
    from kernel_backend.rebuild import Building, Rebuild


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
    runs a program, it becomes an ordinary child; and who replaces a process in a user namespace of a program's may lose
    its rights by that. Where we may say in another way which program it is, we do so.
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
    building.shop.run(memory.map_vdso_calls(entry, [*occupied, (address, address + family.WORKSHOP_BYTES)]))


def _run_program(rebuild: Rebuild, building: Building) -> None:
    entry, leader = building.entry, building.leader
    children = [] if rebuild.bequeaths(entry) else rebuild.inventory.processes  # else they are yet to be born
    odd = [p.pid for p in children if _is_odd_child(rebuild, p) and p.ppid == entry.pid]
    odd += [entry.pid] if _is_odd_child(rebuild, entry) else []
    inside = processes.is_of_a_programs_users(leader.tgid)
    building.named = (bool(odd) or inside) and processes.may_name_program(leader.tgid)
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
    aio.bring_back(shop, entry)
    shop.run(sysv.attach_calls(entry, rebuild.sysv))
    shop.run(memory.map_calls(entry, views, heritage.kept))
    rebuild.warnings.extend(numa.bind(shop, entry))
    shop.run(memory.advise_calls(entry))
    shop.run(lazy_pages.map_calls(lazily, moved[-1]))
    shop.run(lazy_pages.advise_calls(entry, lazily))
    shop.run(Call("madvise", low, high - low, linux.MADV_DONTNEED) for low, high in heritage.dropped)
    pages.fill(shop, at_once, moved[-1])
    userfaults.note_missing(rebuild.tables, entry)
    shop.run([Call("close_range", 0, 0xFFFFFFFF, 0)])  # what only memory needed
    for pid, runs in forked_pages.elsewhere(entry, rebuild.by_pid, building.heritage).items():
        pages.fill(shop, runs, placing_fds.lend(shop, [rebuild.pages[pid]])[0])
        shop.run([Call("close_range", 0, 0xFFFFFFFF, 0)])


def close_memory(rebuild: Rebuild, building: Building) -> None:
    """What stands in the way of further work on memory, when all who inherit of it have been forked."""
    _close_mappings(rebuild, building)
    entry = building.entry
    processes.set_mm(building.shop, entry.mm, entry.exe.path if building.named else "")
    segments.put_back(building.shop, entry)


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
    """Put every descriptor at its number, unless it shares the table of a process that has them by now."""
    if not building.entry.table_of:
        placing_fds.place(building.shop, building.entry.descriptors, rebuild.tables.own)


def settle(rebuild: Rebuild, building: Building) -> None:
    """Folders, dispositions, prctl settings, POSIX timers."""
    entry, shop = building.entry, building.shop
    for warning in processes.apply_login_uid(shop, entry, rebuild.may_speak_of):
        rebuild.tables.warn(warning)  # all of a tree have usually been the same user's
    with acting_as(rebuild.user):
        _run_with(shop, processes.folder_calls(entry, _working_folder(rebuild, entry, entry.pid), shop.data))
    if processes.is_proc_folder_of_dead(entry.cwd):
        _enter_proc_folder_of_dead(shop)
    reset_signals(building)
    shop.run(processes.prctl_calls(entry))
    if entry.lock_future and not _run_harmless(shop, [Call("mlockall", entry.lock_future)]):
        rebuild.tables.warn(f"what process {entry.pid} maps from now on will not be locked: it may not lock memory")


def leave_tables(rebuild: Rebuild, building: Building) -> None:
    """Let threads have descriptors and folders of their own again."""
    shop = building.shop
    for entry in building.entry.threads:
        if entry.descriptors is None and entry.folders is None:
            continue
        own = rebuild.apart[entry.tid] = shop.of_thread(building.threads[entry.tid])
        if entry.descriptors is not None:
            own.call("close_range", 0, 0xFFFFFFFF, linux.CLOSE_RANGE_UNSHARE)
            placing_fds.place(own, entry.descriptors, rebuild.tables.own)
        if entry.folders is not None:
            own.call("unshare", linux.CLONE_FS)
            with acting_as(rebuild.user):
                path = _working_folder(rebuild, entry.folders, entry.tid)
                _run_with(own, processes.folder_calls(entry.folders, path, own.data))


def _working_folder(rebuild: Rebuild, entry: ProcessEntry | FoldersEntry, number: int) -> str:
    if processes.is_proc_folder_of_dead(entry.cwd):
        return "/"  # on the way, see _enter_proc_folder_of_dead
    if not entry.cwd_deleted:
        return entry.cwd
    identity = entry.cwd_identity if any(entry.cwd_identity) else (-1, number)
    return removed_folders.path_of(identity, entry.cwd, rebuild.tables)


def _enter_proc_folder_of_dead(shop: Workshop) -> None:
    """By a descriptor: in a pid namespace of its own it sees nothing of ours."""
    with removed_folders.of_one_who_dies() as folder, courier(shop) as line:
        number = line.send([folder])[0]
        shop.call("fchdir", number)
        shop.call("close", number)


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
