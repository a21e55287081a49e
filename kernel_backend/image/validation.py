"""What the parts of an image must be to each other, whoever wrote it. Single values are bounded by limits.py already.

Everything that is used as an index, an address, an offset or a name is looked at before anything acts on it; so is
what the OS kernel would refuse later, when there is no way back. A writer checks what it is about to publish by the
same rules.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Sequence
from itertools import pairwise
from typing import NoReturn

from kernel_backend.abi import linux
from kernel_backend.abi.x86_64 import USER_REGS_BYTES
from kernel_backend.errors import ImageCorrupt
from kernel_backend.image import limits
from kernel_backend.image.descriptions import (
    OTHER_INSIDE,
    Description,
    Epoll,
    EventFd,
    Inotify,
    MemoryFile,
    Message,
    MessageQueue,
    ProcFile,
    PtyMaster,
    RegularFile,
    TcpSocket,
    Terminal,
    UdpSocket,
    UnixSocket,
    unpack_path,
)
from kernel_backend.image.entries import (
    Inventory,
    MmEntry,
    PageRun,
    ProcessEntry,
    SharedMemoryEntry,
    ThreadEntry,
    VmaEntry,
    ZombieEntry,
)

_PAGE = linux.PAGE_SIZE
_LISTEN = 10  # include/net/tcp_states.h
_STREAM, _DATAGRAM, _SEQPACKET = 1, 2, 5
_FAMILIES = (2, 10)  # AF_INET, AF_INET6


def check(inventory: Inventory, where: str) -> None:
    """Raise ImageCorrupt, naming what does not fit, unless everything does."""
    try:
        _check_files(inventory)
        _check_tree(inventory)
        for memory in inventory.shared_memory:
            _check_shared_memory(memory, inventory)
        for process in inventory.processes:
            _check_process(process, inventory)
        for index, description in enumerate(inventory.descriptions):
            _check_description(index, description, inventory)
    except _Unfit as error:
        raise ImageCorrupt(f"{where} is inconsistent: {error}", path=where) from None


class _Unfit(Exception):
    """What does not fit; in words for the user."""


def _fail(what: str) -> NoReturn:
    raise _Unfit(what)


def _expect(fits: bool, what: str) -> None:
    if not fits:
        raise _Unfit(what)


def _distinct(values: Sequence[object], what: str) -> None:
    _expect(len(set(values)) == len(values), f"{what} are not distinct")


# --- files and runs of pages ------------------------------------------------------------------------------------------


def _check_files(inventory: Inventory) -> None:
    _distinct([memory.key for memory in inventory.shared_memory], "keys of shared memory")
    for name, file in inventory.files.items():
        _expect(file.inode <= limits.WORD_MAX, f"inode of {name}")


def _check_runs(runs: Sequence[PageRun], name: str, inventory: Inventory, what: str) -> None:
    """Whole pages, behind each other in a file that is long enough, nowhere overlapping in memory."""
    offset = 0
    for run in runs:
        aligned = not (run.address | run.length | run.offset) % _PAGE
        _expect(aligned and run.length > 0 and run.offset == offset, f"page run at {run.address:#x} of {what}")
        offset += run.length
    if runs:
        _expect(name in inventory.files and inventory.files[name].size >= offset, f"the pages of {what} are missing")
    end = 0
    for run in sorted(runs, key=lambda run: run.address):
        _expect(run.address >= end, f"page runs of {what} overlap at {run.address:#x}")
        end = run.address + run.length


def _check_shared_memory(memory: SharedMemoryEntry, inventory: Inventory) -> None:
    what = f"shared memory {memory.key!r}"
    _check_runs(memory.runs, memory.pages, inventory, what)
    end = max((run.address + run.length for run in memory.runs), default=0)
    _expect(end <= memory.size + 2 * max(_PAGE, memory.huge_page_bytes), f"{what} is larger than it says")
    _expect(_is_page_size(memory.huge_page_bytes), f"page size of {what}")
    if memory.kind == "file":
        folder, _, name = memory.name.rpartition("/")
        _expect(folder == "/dev/shm" and name not in ("", ".", "..") and "\0" not in name, f"name of {what}")
    elif memory.kind == "memfd":
        _expect("\0" not in memory.name and len(memory.name.encode(errors="surrogateescape")) < 250, f"name of {what}")


def _is_page_size(size: int) -> bool:
    return size == 0 or (size > _PAGE and size & (size - 1) == 0)


# --- processes --------------------------------------------------------------------------------------------------------


def _check_tree(inventory: Inventory) -> None:
    """One root, everybody else a descendant of it, every number given once."""
    processes = {process.pid: process for process in inventory.processes}
    members: list[ProcessEntry | ZombieEntry] = [*inventory.processes, *inventory.zombies]
    _expect(bool(members) and inventory.processes[0].pid == inventory.root_pid, "the root process does not come first")
    tids = [thread.tid for process in inventory.processes for thread in process.threads]
    _expect(len(tids) <= limits.MAX_THREADS, f"{len(tids)} threads")
    numbers = [*tids, *(zombie.pid for zombie in inventory.zombies)]
    _distinct(numbers, "numbers of processes and threads")
    _expect(
        min(tids, default=1) > 0 and all(zombie.pid > 0 for zombie in inventory.zombies), "a process without number"
    )
    for process in inventory.processes:
        _expect(bool(process.threads) and process.threads[0].tid == process.pid, f"process {process.pid} has no leader")
    depth = {inventory.root_pid: 0}
    for member in members:
        if member.pid == inventory.root_pid:
            continue
        _expect(member.ppid in processes, f"the parent of process {member.pid} is missing")
        _expect(member.ppid in depth, f"process {member.pid} comes before its parent")
        depth[member.pid] = depth[member.ppid] + 1
        _expect(depth[member.pid] <= limits.MAX_DEPTH, f"process {member.pid} is the {depth[member.pid]}th generation")


def _check_process(process: ProcessEntry, inventory: Inventory) -> None:
    who = f"process {process.pid}"
    _expect(inventory.channel_fd <= limits.FD_MAX, "the channel's number")
    for path, what in ((process.exe.path, "program"), (process.cwd, "working folder")):
        _check_path(path, f"the {what} of {who}")
    _expect(process.root == "/", f"the root folder of {who}")
    for file in process.files:
        _check_path(file.path, f"a mapped file of {who}")
    _check_rows(process, inventory)
    _check_mappings(process, inventory)
    _check_runs(process.pagemap, f"pages-{process.pid}.img", inventory, who)
    _check_pages_are_mapped(process)
    for span in process.guards:
        aligned = not (span.address | span.length) % _PAGE
        _expect(aligned and span.address + span.length <= linux.TASK_SIZE, f"guard region of {who}")
    _check_layout(process.mm, who)
    for thread in process.threads:
        _check_thread(thread, process, inventory.host.xstate_bytes)
    _check_words(process, who)


def _check_rows(process: ProcessEntry, inventory: Inventory) -> None:
    _distinct([row.fd for row in process.descriptors], f"descriptor numbers of process {process.pid}")
    for row in process.descriptors:
        there = 0 <= row.description < len(inventory.descriptions)
        _expect(there, f"descriptor {row.fd} of process {process.pid} has no description")


def _check_mappings(process: ProcessEntry, inventory: Inventory) -> None:
    """By address, apart from each other, in user memory, with room left for our own workshop."""
    shared = {memory.key: memory.kind for memory in inventory.shared_memory}
    end = hole = 0
    for vma in process.vmas:
        what = f"mapping at {vma.start:#x} of process {process.pid}"
        _expect(not (vma.start | vma.end) % _PAGE and vma.start < vma.end <= linux.TASK_SIZE, what)
        _expect(vma.start >= end, f"{what} overlaps the one before")
        _check_mapping(vma, process, shared, what)
        hole, end = max(hole, vma.start - max(end, _LOWEST)), vma.end
    hole = max(hole, linux.TASK_SIZE - end)
    _expect(hole >= _LEAST_HOLE, f"process {process.pid} leaves no room in its address space")
    areas = [vma for vma in process.vmas if vma.kind in ("vdso", "vvar")]
    for one, next_one in pairwise(areas):
        _expect(one.end == next_one.start, f"the OS kernel's own code in process {process.pid}")


_LOWEST = 0x10000  # vm.mmap_min_addr
_LEAST_HOLE = 1 << 32  # where execve(2) puts a program is not known beforehand


def _check_mapping(vma: VmaEntry, process: ProcessEntry, shared: dict[str, str], what: str) -> None:
    if vma.kind == "file":
        _expect(0 <= vma.file < len(process.files), f"{what} names no file")
    elif vma.kind in ("shared", "sysv"):
        _expect(vma.shared in shared and not vma.private, f"{what} names no shared memory")
        _expect((shared[vma.shared] == "sysv") == (vma.kind == "sysv"), f"{what} names shared memory of another kind")
        _expect(vma.kind == "shared" or vma.offset <= vma.start, f"offset of {what}")
    else:
        _expect(vma.private, f"{what} is shared, but names nothing that is")
    _expect(not vma.offset % _PAGE, f"offset of {what}")
    _expect(_is_page_size(vma.huge_page_bytes), f"page size of {what}")
    _expect("\0" not in vma.name, f"name of {what}")
    _expect(set(vma.advice) <= limits.ADVICE, f"advice about {what}")


def _check_pages_are_mapped(process: ProcessEntry) -> None:
    """Contents belong into private memory of the process, every byte of them."""
    spans = _joined((vma.start, vma.end) for vma in process.vmas if vma.private and vma.kind in ("anon", "file"))
    at = next(spans, None)
    for run in sorted(process.pagemap, key=lambda run: run.address):
        while at is not None and at[1] <= run.address:
            at = next(spans, None)
        inside = at is not None and at[0] <= run.address and run.address + run.length <= at[1]
        _expect(inside, f"page run at {run.address:#x} of process {process.pid} is not mapped")


def _joined(spans: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Adjacent spans as one."""
    start = end = -1
    for low, high in spans:
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
        _expect(_LOWEST <= low <= high < linux.TASK_SIZE, f"memory layout of {who}")
    _expect(not len(mm.auxv) % 16, f"auxiliary vector of {who}")


def _check_thread(thread: ThreadEntry, process: ProcessEntry, xstate_bytes: int) -> None:
    who = f"thread {thread.tid} of process {process.pid}"
    if thread.exited:
        _expect(thread.tid == process.pid and len(process.threads) > 1, f"{who} has ended")
        return
    _expect(len(thread.regs) == USER_REGS_BYTES, f"registers of {who}")
    _expect(len(thread.xstate) == xstate_bytes, f"processor state of {who}")
    _expect(len(thread.altstack) in (0, 24), f"signal stack of {who}")
    _expect(thread.robust_length in (0, 24), f"robust list of {who}")
    if thread.rseq is not None:
        low, high = thread.rseq.address, thread.rseq.address + thread.rseq.size
        spans = _joined((vma.start, vma.end) for vma in process.vmas if vma.prot & linux.PROT_WRITE)
        _expect(any(start <= low < high <= end for start, end in spans), f"restartable sequences of {who}")
    _expect("\0" not in thread.name, f"name of {who}")


def _check_words(process: ProcessEntry, who: str) -> None:
    """Numbers of 64 bits without a sign."""
    rights = process.credentials
    words = [rights.inheritable, rights.permitted, rights.effective, rights.bounding, rights.ambient]
    words += [word for limit in process.rlimits for word in limit]
    words += [timer.value for timer in process.timers]
    for thread in process.threads:
        words += [thread.sigmask, thread.robust_head, thread.tid_address]
    words += [file.inode for file in (process.exe, *process.files)]
    _expect(max(words, default=0) <= limits.WORD_MAX, f"a number of {who} is too large")
    _distinct([timer.timer_id for timer in process.timers], f"timers of {who}")
    _expect(all(0 < number <= 64 for number in process.sigactions), f"signal actions of {who}")


# --- descriptions -----------------------------------------------------------------------------------------------------


def _check_path(text: str, what: str) -> None:
    """An absolute path as the OS kernel shows it: without `..`, without a NUL."""
    try:
        path = unpack_path(text)
    except ValueError:
        _fail(f"the path of {what}")
    _expect(path.startswith("/") and "\0" not in path and ".." not in path.split("/"), f"the path of {what}")


def _check_description(index: int, entry: Description, inventory: Inventory) -> None:
    what = f"description {index}"
    for reference in _references(entry):
        _expect(-1 <= reference < len(inventory.descriptions), f"{what} refers to one that is missing")
    for path in _paths(entry):
        _check_path(path, what)
    if isinstance(entry, ProcFile):
        _check_proc_path(entry, what, {process.pid for process in inventory.processes})
    if isinstance(entry, TcpSocket | UdpSocket):
        _expect(entry.family in _FAMILIES, f"the family of {what}")
    if isinstance(entry, RegularFile | MemoryFile):
        _check_contents(entry, inventory, what)
    elif isinstance(entry, UnixSocket):
        _check_unix(index, entry, inventory.descriptions, what)
    elif isinstance(entry, TcpSocket):
        _check_tcp(index, entry, inventory.descriptions, what)
    elif isinstance(entry, Terminal) and entry.other == OTHER_INSIDE:
        masters = [other.index for other in inventory.descriptions if isinstance(other, PtyMaster)]
        _expect(entry.index in masters, f"the other side of {what} is missing")
    elif isinstance(entry, MessageQueue):
        name = unpack_path(entry.name)
        _expect(0 < len(name) < 256 and "/" not in name and "\0" not in name, f"the name of {what}")
    _expect(max(_words(entry), default=0) <= limits.WORD_MAX, f"a number of {what} is too large")


_NAMESPACES = ("cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts")
_MAGIC = ("root", "cwd", "exe", "fd", "map_files", "ns")  # links of /proc/PID that lead out of it


def _check_proc_path(entry: ProcFile, what: str, pids: Container[int]) -> None:
    """Below /proc, and not through one of its magic links to somewhere else (an O_PATH descriptor may be of one).

    What a process of the image itself lives in, it may have open: its namespaces.
    """
    parts = unpack_path(entry.path).split("/")[1:]
    if len(parts) == 4 and parts[2] == "ns" and parts[1].isdecimal() and int(parts[1]) in pids:
        _expect(parts[3] in _NAMESPACES, f"the path of {what}")
        return
    _expect(parts[0] == "proc" and len(parts) > 1, f"the path of {what}")
    for at, part in enumerate(parts):
        behind = len(parts) - at - 1
        if part in _MAGIC:
            is_link = part in _MAGIC[:3]
            allowed = (0 if is_link else 1) if entry.flags & linux.O_PATH else (-1 if is_link else 0)
            _expect(behind <= allowed, f"the path of {what}")


def _references(entry: Description) -> Iterator[int]:
    """Every index of another description."""
    if isinstance(entry, Epoll):
        yield from (item.description for item in entry.items)
    elif isinstance(entry, UnixSocket):
        yield from (entry.peer, *entry.pending)
        yield from _rights([*entry.queue, *entry.early])
    elif isinstance(entry, TcpSocket):
        yield from (entry.peer, entry.listener)
    elif isinstance(entry, UdpSocket):
        yield from _rights(entry.queue)


def _rights(messages: Iterable[Message]) -> Iterator[int]:
    return (index for message in messages for index in message.rights)


def _paths(entry: Description) -> Iterator[str]:
    named = [entry.unlinked] if isinstance(entry, RegularFile) else [getattr(entry, "folder", "")]
    yield from filter(None, [getattr(entry, "path", ""), *named])
    if isinstance(entry, Inotify):
        yield from (watch.path for watch in entry.watches)


def _words(entry: Description) -> Iterator[int]:
    for name in ("inode", "device", "mask"):
        yield getattr(entry, name, 0)
    if isinstance(entry, EventFd):
        yield entry.count + 1  # the largest word is no count
    if isinstance(entry, Epoll):
        yield from (item.data for item in entry.items)


def _check_contents(entry: RegularFile | MemoryFile, inventory: Inventory, what: str) -> None:
    _expect(not entry.content or entry.content in inventory.files, f"the contents of {what} are missing")
    _check_runs(entry.content_runs, entry.content, inventory, what)
    end = max((run.address + run.length for run in entry.content_runs), default=0)
    _expect(end <= entry.size + 2 * _PAGE, f"{what} is larger than it says")
    keys = {memory.key for memory in inventory.shared_memory}
    _expect(not entry.shared or entry.shared in keys, f"{what} names no shared memory")
    pids = {process.pid for process in inventory.processes}
    _expect(all(lock.pid in pids for lock in entry.record_locks), f"a lock of {what} belongs to nobody")


def _check_unix(index: int, entry: UnixSocket, every: Sequence[Description], what: str) -> None:
    _expect(entry.type in (_STREAM, _DATAGRAM, _SEQPACKET), f"the type of {what}")
    clients = [every[other] for other in entry.pending]
    _expect(all(isinstance(client, UnixSocket) and client.type == entry.type for client in clients), f"queue of {what}")
    _expect(entry.listening or not entry.pending, f"{what} does not listen")
    if entry.peer < 0:
        return
    peer = every[entry.peer]
    _expect(isinstance(peer, UnixSocket) and peer.type == entry.type, f"the other end of {what}")
    assert isinstance(peer, UnixSocket)
    one_way = entry.type == _DATAGRAM
    _expect(one_way or peer.peer == index, f"the other end of {what} is another's")


def _check_tcp(index: int, entry: TcpSocket, every: Sequence[Description], what: str) -> None:
    if entry.listener >= 0:
        door = every[entry.listener]
        _expect(isinstance(door, TcpSocket) and door.state == _LISTEN, f"{what} waits at none that listens")
    elif entry.other == OTHER_INSIDE:
        peer = every[entry.peer] if entry.peer >= 0 else None
        _expect(isinstance(peer, TcpSocket) and peer.peer == index, f"the other end of {what}")


__all__ = ["check"]
