"""What the parts of an image must be to each other, whoever wrote it. Single values are bounded by limits.py already.

Everything that is used as an index, an address, an offset or a name is looked at before anything acts on it; so is
what the OS kernel would refuse later, when there is no way back. A writer checks what it is about to publish by the
same rules.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable, Iterator

from kernel_backend.abi import linux
from kernel_backend.abi.x86_64 import SEGMENT_BYTES, USER_REGS_BYTES, may_be_set
from kernel_backend.errors import ImageCorrupt
from kernel_backend.image import bpf_maps, io_uring, limits, spans
from kernel_backend.image.entries import (
    DispatchEntry,
    Inventory,
    MmEntry,
    ProcessEntry,
    SharedMemoryEntry,
    ThreadEntry,
    VmaEntry,
    ZombieEntry,
    filled_ranges,
)
from kernel_backend.image.expecting import Unfit, check_path, check_runs, distinct, expect, is_page_size
from kernel_backend.image.valid_descriptions import check_description

_PAGE = linux.PAGE_SIZE


def check(inventory: Inventory, where: str) -> None:
    """Raise ImageCorrupt, naming what does not fit, unless everything does."""
    try:
        _check_files(inventory)
        _check_tree(inventory)
        _check_fates(inventory)
        for memory in inventory.shared_memory:
            _check_shared_memory(memory, inventory)
        for process in inventory.processes:
            _check_process(process, inventory)
        for index, description in enumerate(inventory.descriptions):
            check_description(index, description, inventory)
        bpf_maps.check_together(inventory.descriptions)
        io_uring.check_together(inventory.descriptions)
    except Unfit as error:
        raise ImageCorrupt(f"{where} is inconsistent: {error}", path=where) from None


# --- files and runs of pages ------------------------------------------------------------------------------------------


_PROPAGATING = {linux.MS_UNBINDABLE, linux.MS_PRIVATE, linux.MS_SLAVE, linux.MS_SHARED}


def _check_files(inventory: Inventory) -> None:
    distinct([memory.key for memory in inventory.shared_memory], "keys of shared memory")
    if inventory.ipc_namespace is not None:
        expect(set(inventory.ipc_namespace.limits) <= set(limits.IPC_LIMITS), "limits of the IPC namespace")
    for mount in (mount for space in inventory.mount_namespaces for mount in space.propagation):
        check_path(mount.path, "a mount")
        expect(set(mount.steps) <= _PROPAGATING, f"what the mount at {mount.path} tells others")
    if inventory.net_namespace is not None:
        for address in inventory.net_namespace.addresses:
            bits = 32 if address.family == socket.AF_INET else 128 if address.family == socket.AF_INET6 else 0
            is_whole = len(address.address) * 8 == bits and address.prefix <= bits
            expect(is_whole, "addresses of the network namespace")
    for name, file in inventory.files.items():
        expect(file.inode <= limits.WORD_MAX, f"inode of {name}")


def _check_shared_memory(memory: SharedMemoryEntry, inventory: Inventory) -> None:
    what = f"shared memory {memory.key!r}"
    check_runs(memory.runs, memory.pages, inventory, what)
    end = max((run.address + run.length for run in memory.runs), default=0)
    expect(end <= memory.size + 2 * max(_PAGE, memory.huge_page_bytes), f"{what} is larger than it says")
    expect(is_page_size(memory.huge_page_bytes), f"page size of {what}")
    if memory.kind == "file":
        parts = memory.name.removeprefix("/dev/shm/").split("/")
        below = memory.name.startswith("/dev/shm/") and "\0" not in memory.name
        expect(below and not {"", ".", ".."} & set(parts), f"name of {what}")
        expect(not memory.mode & ~0o777, f"mode of {what}")
    elif memory.kind == "memfd":
        expect("\0" not in memory.name and len(memory.name.encode(errors="surrogateescape")) < 250, f"name of {what}")


# --- processes --------------------------------------------------------------------------------------------------------


def _check_tree(inventory: Inventory) -> None:
    """One root, everybody else a descendant of it, every number given once."""
    processes = {process.pid: process for process in inventory.processes}
    members: list[ProcessEntry | ZombieEntry] = [*inventory.processes, *inventory.zombies]
    expect(bool(members) and inventory.processes[0].pid == inventory.root_pid, "the root process does not come first")
    tids = [thread.tid for process in inventory.processes for thread in process.threads]
    expect(len(tids) <= limits.MAX_THREADS, f"{len(tids)} threads")
    numbers = [*tids, *(zombie.pid for zombie in inventory.zombies)]
    distinct(numbers, "numbers of processes and threads")
    expect(min(tids, default=1) > 0 and all(zombie.pid > 0 for zombie in inventory.zombies), "a process without number")
    for process in inventory.processes:
        expect(bool(process.threads) and process.threads[0].tid == process.pid, f"process {process.pid} has no leader")
    depth = {inventory.root_pid: 0}
    for member in members:
        if member.pid == inventory.root_pid:
            continue
        expect(member.ppid in processes, f"the parent of process {member.pid} is missing")
        expect(member.ppid in depth, f"process {member.pid} comes before its parent")
        depth[member.pid] = depth[member.ppid] + 1
        expect(depth[member.pid] <= limits.MAX_DEPTH, f"process {member.pid} is the {depth[member.pid]}th generation")
    _check_sharing(inventory)


def _check_sharing(inventory: Inventory) -> None:
    """What processes have in common is told of the first of them, and of the others in the same words."""
    before: dict[int, ProcessEntry] = {}
    for process in inventory.processes:
        if process.table_of:
            owner = before.get(process.table_of)
            same = owner is not None and not owner.table_of and owner.descriptors == process.descriptors
            expect(same, f"the descriptor table that process {process.pid} shares")
        if process.folders_of:
            owner = before.get(process.folders_of)
            same = owner is not None and not owner.folders_of and _folders(owner) == _folders(process)
            expect(same, f"the folders that process {process.pid} shares")
        before[process.pid] = process


def _folders(process: ProcessEntry) -> tuple[object, ...]:
    return process.cwd, process.cwd_deleted, process.cwd_identity, process.root, process.umask


_MCL_FUTURE = 2 | 4  # MCL_FUTURE, MCL_ONFAULT
_STOPS = (0, 19, 20, 21, 22)  # SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU
_HARMLESS = (17, 18, 23, 28)  # SIGCHLD, SIGCONT, SIGURG, SIGWINCH: nobody dies of these, nor of what stops


def _check_fates(inventory: Inventory) -> None:
    """What has become of processes is made to happen again: it has to be something that can happen."""
    for zombie in inventory.zombies:
        number = zombie.exit_code & 0x7F
        deadly = number == 0 or (number <= 64 and number not in (*_STOPS, *_HARMLESS))
        expect(deadly and zombie.exit_code <= 0xFFFF, f"the end of process {zombie.pid}")
    for process in inventory.processes:
        expect(process.stopped_by in _STOPS, f"what stopped process {process.pid}")


def _check_process(process: ProcessEntry, inventory: Inventory) -> None:
    who = f"process {process.pid}"
    expect(inventory.channel_fd <= limits.FD_MAX, "the channel's number")
    for path, what in ((process.exe.path, "program"), (process.cwd, "working folder"), (process.root, "root folder")):
        check_path(path, f"the {what} of {who}")
    for group in [*process.control_groups, *(group for thread in process.threads for group in thread.control_groups)]:
        check_path(group.path, f"a control group of {who}")
    _check_namespaces(process, inventory, who)
    expect(not process.lock_future & ~_MCL_FUTURE, f"what {who} will lock")  # what is there is locked one by one
    for file in process.files:
        check_path(file.path, f"a mapped file of {who}")
    _check_rows(process, inventory)
    _check_mappings(process, inventory)
    check_runs(process.pagemap, f"pages-{process.pid}.img", inventory, who)
    _check_pages_are_mapped(process)
    _check_heritage(process, inventory)
    _check_segments(process.segments, who)
    for span in process.guards:
        aligned = not (span.address | span.length) % _PAGE
        expect(aligned and span.address + span.length <= linux.TASK_SIZE, f"guard region of {who}")
    _check_layout(process.mm, who)
    for thread in process.threads:
        _check_thread(thread, process, inventory.host.xstate_bytes)
    _check_words(process, who)


def _check_namespaces(process: ProcessEntry, inventory: Inventory, who: str) -> None:
    expect(process.uts < len(inventory.uts_namespaces), f"the UTS namespace of {who}")
    for index in (process.time, process.time_of_children):
        expect(index < len(inventory.time_namespaces), f"the time namespace of {who}")
    expect(process.time_of_children >= 0 or process.time < 0, f"the time namespace of what {who} starts")
    owners = [inventory.uts_namespaces[process.uts].owner] if process.uts >= 0 else []
    owners += [inventory.time_namespaces[at].owner for at in (process.time, process.time_of_children) if at >= 0]
    if process.mount >= 0:
        expect(process.mount < len(inventory.mount_namespaces), f"the mount namespace of {who}")
        owners.append(inventory.mount_namespaces[process.mount].owner)
    expect(all(owner in (-1, process.user) for owner in owners), f"whose the namespaces of {who} are")
    if process.user < 0:
        return
    expect(process.user < len(inventory.user_namespaces), f"the user namespace of {who}")
    space = inventory.user_namespaces[process.user]
    known = [range(row.outside, row.outside + row.count) for row in space.uid_map]
    strangers = [uid for uid in process.credentials.uids if uid != space.owner and not any(uid in row for row in known)]
    expect(not strangers and not any(thread.credentials for thread in process.threads), f"the users of {who}")


def _check_segments(table: bytes, who: str) -> None:
    """Nothing but what a program can have asked for, as if it did."""
    expect(len(table) % SEGMENT_BYTES == 0, f"segment descriptors of {who}")
    for at in range(0, len(table), SEGMENT_BYTES):
        expect(may_be_set(table[at : at + SEGMENT_BYTES]), f"segment descriptor {at // SEGMENT_BYTES} of {who}")


def _check_rows(process: ProcessEntry, inventory: Inventory) -> None:
    tables = [(f"process {process.pid}", process.descriptors)]
    tables += [(f"thread {thread.tid}", thread.descriptors) for thread in process.threads if thread.descriptors]
    for who, rows in tables:
        distinct([row.fd for row in rows], f"descriptor numbers of {who}")
        for row in rows:
            there = 0 <= row.description < len(inventory.descriptions)
            expect(there, f"descriptor {row.fd} of {who} has no description")


def _check_mappings(process: ProcessEntry, inventory: Inventory) -> None:
    """By address, apart from each other, in user memory, with room left for our own workshop."""
    shared = {memory.key: memory.kind for memory in inventory.shared_memory}
    end = hole = 0
    for vma in process.vmas:
        what = f"mapping at {vma.start:#x} of process {process.pid}"
        expect(not (vma.start | vma.end) % _PAGE and vma.start < vma.end <= linux.TASK_SIZE, what)
        expect(vma.start >= end, f"{what} overlaps the one before")
        _check_mapping(vma, process, shared, what)
        if vma.kind == "io_uring":
            expect(io_uring.is_shown(vma, inventory.descriptions), f"{what} is of no io_uring instance")
        hole, end = max(hole, vma.start - max(end, _LOWEST)), vma.end
    hole = max(hole, linux.TASK_SIZE - end)
    expect(hole >= _LEAST_HOLE, f"process {process.pid} leaves no room in its address space")
    rings = {vma.start for vma in process.vmas if vma.kind == "aio"}
    expect({ring.address for ring in process.aio} <= rings, f"a context of process {process.pid} has no ring")


_LOWEST = 0x10000  # vm.mmap_min_addr
_LEAST_HOLE = 1 << 32  # where execve(2) puts a program is not known beforehand


def _check_mapping(vma: VmaEntry, process: ProcessEntry, shared: dict[str, str], what: str) -> None:
    if vma.kind == "file":
        expect(0 <= vma.file < len(process.files), f"{what} names no file")
    elif vma.kind in ("shared", "sysv"):
        expect(vma.shared in shared, f"{what} names no shared memory")
        expect(vma.kind == "shared" or not vma.private, f"{what} is private")
        expect((shared[vma.shared] == "sysv") == (vma.kind == "sysv"), f"{what} names shared memory of another kind")
        expect(vma.kind == "shared" or vma.offset <= vma.start, f"offset of {what}")
    elif vma.kind == "aio":
        rings = [ring for ring in process.aio if ring.address == vma.start]
        expect(not vma.private and len(rings) == 1, f"{what} is a ring without context")
        slots = (vma.end - vma.start) // _EVENT_BYTES - 1
        waiting = len(rings[0].events)
        expect(max(rings[0].head, rings[0].tail) < slots, f"the place in {what}")
        expect(waiting == (rings[0].tail - rings[0].head) % slots * _EVENT_BYTES, f"the events of {what}")
    elif vma.kind == "io_uring":
        expect(not vma.private and not vma.huge_page_bytes, f"{what} is private")
    else:
        expect(vma.private, f"{what} is shared, but names nothing that is")
    expect(not vma.offset % _PAGE, f"offset of {what}")
    expect(is_page_size(vma.huge_page_bytes), f"page size of {what}")
    expect("\0" not in vma.name, f"name of {what}")
    expect(set(vma.advice) <= limits.ADVICE, f"advice about {what}")


_EVENT_BYTES = 32  # struct io_event
_WITH_PAGES = ("anon", "file", "shared")


def _check_pages_are_mapped(process: ProcessEntry) -> None:
    """Contents belong into private memory of the process, every byte of them."""
    private = _joined((vma.start, vma.end) for vma in process.vmas if vma.private and vma.kind in _WITH_PAGES)
    at = next(private, None)
    for address, end in filled_ranges(process):
        while at is not None and at[1] <= address:
            at = next(private, None)
        inside = at is not None and at[0] <= address and end <= at[1]
        expect(inside, f"page run at {address:#x} of process {process.pid} is not mapped")


def _check_heritage(process: ProcessEntry, inventory: Inventory) -> None:
    """Pages that are the parent's have to be there, and may not be the process's own as well."""
    if not process.as_parent:
        return
    parent = next((other for other in inventory.processes if other.pid == process.ppid), None)
    expect(parent is not None and process.pid != inventory.root_pid, f"process {process.pid} has pages of nobody")
    assert parent is not None
    end = 0
    for span in process.as_parent:
        aligned = not (span.address | span.length) % _PAGE and span.length > 0
        expect(aligned and span.address >= end, f"pages of the parent of process {process.pid} at {span.address:#x}")
        end = span.address + span.length
    needed = spans.joined((span.address, span.address + span.length) for span in process.as_parent)
    own = spans.joined((run.address, run.address + run.length) for run in process.pagemap)
    theirs = spans.joined(filled_ranges(parent))
    expect(not spans.overlap(needed, own), f"pages of process {process.pid} are its own and its parent's")
    expect(not spans.without(needed, theirs), f"pages that process {process.pid} has of its parent are missing")


def _joined(ranges: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Adjacent spans as one."""
    start = end = -1
    for low, high in ranges:
        if low != end:
            if end > start:
                yield start, end
            start = low
        end = high
    if end > start:
        yield start, end


def _check_layout(mm: MmEntry, who: str) -> None:
    """As prctl(2), PR_SET_MM_MAP, will check it."""
    pairs = (
        (mm.start_code, mm.end_code), (mm.start_data, mm.end_data), (mm.start_brk, mm.brk), (mm.arg_start, mm.arg_end),
        (mm.env_start, mm.env_end), (mm.start_stack, mm.start_stack),
    )  # fmt: skip
    for low, high in pairs:
        expect(_LOWEST <= low <= high < linux.TASK_SIZE, f"memory layout of {who}")
    expect(not len(mm.auxv) % 16, f"auxiliary vector of {who}")


def _check_thread(thread: ThreadEntry, process: ProcessEntry, xstate_bytes: int) -> None:
    who = f"thread {thread.tid} of process {process.pid}"
    if thread.exited:
        expect(thread.tid == process.pid and len(process.threads) > 1, f"{who} has ended")
        return
    expect(len(thread.regs) == USER_REGS_BYTES, f"registers of {who}")
    expect(len(thread.xstate) == xstate_bytes, f"processor state of {who}")
    expect(len(thread.altstack) in (0, 24), f"signal stack of {who}")
    expect(thread.robust_length in (0, 24), f"robust list of {who}")
    if thread.rseq is not None:
        low, high = thread.rseq.address, thread.rseq.address + thread.rseq.size
        writable = _joined((vma.start, vma.end) for vma in process.vmas if vma.prot & linux.PROT_WRITE)
        expect(any(start <= low < high <= end for start, end in writable), f"restartable sequences of {who}")
    if thread.dispatch is not None:
        _check_dispatch(thread.dispatch, who)
    expect("\0" not in thread.name, f"name of {who}")
    apart = thread.descriptors is not None or thread.folders is not None
    expect(not apart or thread is not process.threads[0], f"{who} has left its own tables")
    for path in (thread.folders.cwd, thread.folders.root) if thread.folders else ():
        check_path(path, f"a folder of {who}")


def _check_dispatch(dispatch: DispatchEntry, who: str) -> None:
    """As the OS kernel checks it: no empty range but that of nothing, and none around all."""
    offset, length = dispatch.offset, dispatch.length
    sane = max(offset, length) <= limits.WORD_MAX and (length > 0 or offset == 0)
    around = offset + length - (limits.WORD_MAX + 1)
    expect(sane and around < offset and dispatch.selector < linux.TASK_SIZE, f"calls that {who} takes itself")


def _check_words(process: ProcessEntry, who: str) -> None:
    """Numbers of 64 bits without a sign."""
    words = []
    for rights in [process.credentials, *(thread.credentials for thread in process.threads if thread.credentials)]:
        words += [rights.inheritable, rights.permitted, rights.effective, rights.bounding, rights.ambient]
    words += [word for limit in process.rlimits for word in limit]
    words += [timer.value for timer in process.timers]
    for thread in process.threads:
        words += [thread.sigmask, thread.robust_head, thread.tid_address]
    words += [file.inode for file in (process.exe, *process.files)]
    expect(max(words, default=0) <= limits.WORD_MAX, f"a number of {who} is too large")
    distinct([timer.timer_id for timer in process.timers], f"timers of {who}")
    expect(all(0 < number <= 64 for number in process.sigactions), f"signal actions of {who}")


__all__ = ["check"]
