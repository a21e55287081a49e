"""What the descriptions of an image must be to each other and to the rest of it; see validation.py."""

from __future__ import annotations

import os
import socket
from collections.abc import Container, Iterable, Iterator, Sequence

from kernel_backend.abi import linux
from kernel_backend.image import bpf_maps, io_uring, limits
from kernel_backend.image.descriptions import (
    OTHER_INSIDE,
    OTHER_OUTSIDE,
    BpfMap,
    Description,
    Epoll,
    EventFd,
    Fanotify,
    Inotify,
    IoUring,
    MemoryFile,
    Message,
    MessageQueue,
    PacketSocket,
    ProcFile,
    PtyMaster,
    RegularFile,
    TcpSocket,
    Terminal,
    UdpSocket,
    UnixSocket,
    UserFault,
    unpack_path,
)
from kernel_backend.image.entries import Inventory
from kernel_backend.image.expecting import check_path, check_runs, expect, fail, is_page_size

_PAGE = linux.PAGE_SIZE
_CONNECTED = {1, 4, 5, 8, 9, 11}
_LISTEN = 10  # include/net/tcp_states.h
_STREAM, _DATAGRAM, _SEQPACKET = 1, 2, 5
_FAMILIES = (2, 10)  # AF_INET, AF_INET6
_OF_PACKETS = (2, 3, 10)  # SOCK_DGRAM, SOCK_RAW, SOCK_PACKET


def check_description(index: int, entry: Description, inventory: Inventory) -> None:
    """Raise Unfit unless it can be rebuilt without looking at anything but what it is about."""
    what = f"description {index}"
    for reference in _references(entry):
        expect(-1 <= reference < len(inventory.descriptions), f"{what} refers to one that is missing")
    for path in _paths(entry):
        check_path(path, what)
    if entry.record_locks:
        owners = {process.pid for process in inventory.processes}
        owners |= {t.tid for p in inventory.processes for t in p.threads if t.descriptors is not None}
        expect(all(lock.pid in owners for lock in entry.record_locks), f"a lock of {what} belongs to nobody")
    if isinstance(entry, ProcFile):
        _check_proc_path(entry, what, {process.pid for process in inventory.processes})
    if isinstance(entry, TcpSocket | UdpSocket):
        expect(entry.family in _FAMILIES, f"the family of {what}")
        _check_addresses(entry, what)
    if isinstance(entry, RegularFile | MemoryFile):
        _check_contents(entry, inventory, what)
        if isinstance(entry, RegularFile):
            _name(entry.target, what)
    elif isinstance(entry, UnixSocket):
        _check_unix(index, entry, inventory.descriptions, what)
    elif isinstance(entry, TcpSocket):
        _check_tcp(index, entry, inventory.descriptions, what)
    elif isinstance(entry, PacketSocket):
        expect(entry.type in _OF_PACKETS, f"the type of {what}")
        names = [entry.bound_device, *(joined.device for joined in entry.memberships)]
        expect(all("\0" not in name for name in names), f"a network device of {what}")
    elif isinstance(entry, Terminal) and entry.other == OTHER_INSIDE:
        masters = [other.index for other in inventory.descriptions if isinstance(other, PtyMaster)]
        expect(entry.index in masters, f"the other side of {what} is missing")
    elif isinstance(entry, PtyMaster):
        expect([*entry.ends, len(entry.typed)] == sorted([*entry.ends, len(entry.typed)]), f"an end in {what}")
    elif isinstance(entry, Fanotify):
        masks = [mask for mark in entry.marks for mask in (mark.mask, mark.ignored)]
        expect(not any(mask & linux.FAN_PERMISSION_EVENTS for mask in masks), f"{what} decides who may open files")
    elif isinstance(entry, UserFault):
        every = [(area.start, area.size) for area in entry.areas]
        every += [(pages.start, pages.size) for pages in [*entry.zeros, *entry.protected]]
        for start, size in every:
            fits = not (start | size) % _PAGE and size > 0 and start + size <= linux.TASK_SIZE
            expect(fits, f"memory that {what} serves")
    elif isinstance(entry, BpfMap):
        bpf_maps.check(entry, what)
    elif isinstance(entry, IoUring):
        io_uring.check(index, entry, inventory, what)
    elif isinstance(entry, MessageQueue):
        name = _name(entry.name, what)
        expect(0 < len(name) < 256 and "/" not in name and name not in (".", ".."), f"the name of {what}")
    expect(max(_words(entry), default=0) <= limits.WORD_MAX, f"a number of {what} is too large")


def _name(text: str, what: str) -> str:
    """A name as pack_path writes it, without a NUL."""
    try:
        name = unpack_path(text)
    except ValueError:
        fail(f"the name of {what}")
    expect("\0" not in name, f"the name of {what}")
    return name


def _check_addresses(entry: TcpSocket | UdpSocket, what: str) -> None:
    """Numbers, never names: looking those up would ask the network."""
    hosts = [entry.host, entry.peer_host]
    groups: list[str] = []
    if isinstance(entry, UdpSocket):
        hosts += [host for message in entry.queue for host in (message.host, message.to)]
        groups = [group for joined in entry.memberships for group in (joined.group, *joined.sources)]
        expect(all("\0" not in joined.device for joined in entry.memberships), f"a group of {what}")
    six = entry.family == _FAMILIES[1]
    expect(all(not host or _is_address(host, six) for host in hosts), f"an address of {what}")
    expect(all(_is_address(group, ":" in group) for group in groups), f"a group of {what}")


def _is_address(host: str, six: bool) -> bool:
    """Whether a host is a number of the family; of IPv6 ones also with the network device that it is of."""
    number, _, device = host.partition("%")
    try:
        socket.inet_pton(socket.AF_INET6 if six else socket.AF_INET, number)
    except (OSError, ValueError):
        return False
    return len(device) < 16 and "\0" not in device and (six or not device)


_NAMESPACES = ("cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts")
_OF_WHO_RESTORES = ("cgroup", "ipc", "net", "time", "uts")
_MAGIC = ("root", "cwd", "exe", "fd", "map_files", "ns")  # links of /proc/PID that lead out of it


def _check_proc_path(entry: ProcFile, what: str, pids: Container[int]) -> None:
    """/proc or below it, and not through one of its magic links to somewhere else (an O_PATH descriptor may be of one).

    What a process of the image itself lives in, it may have open: its namespaces; and those of whoever restores it.
    """
    parts = unpack_path(entry.path).split("/")[1:]
    if parts[:-1] == ["proc", "self", "ns"] and parts[-1] in _OF_WHO_RESTORES:
        return
    if len(parts) == 4 and parts[2] == "ns" and parts[1].isdecimal() and int(parts[1]) in pids:
        expect(parts[3] in _NAMESPACES, f"the path of {what}")
        return
    expect(parts[0] == "proc", f"the path of {what}")
    for at, part in enumerate(parts):
        behind = len(parts) - at - 1
        if part in _MAGIC:
            is_link = part in _MAGIC[:3]
            allowed = (0 if is_link else 1) if entry.flags & linux.O_PATH else (-1 if is_link else 0)
            expect(behind <= allowed, f"the path of {what}")


def _references(entry: Description) -> Iterator[int]:
    """Every index of another description."""
    if isinstance(entry, Epoll):
        yield from (item.description for item in entry.items)
    elif isinstance(entry, IoUring):
        yield from entry.files
    elif isinstance(entry, UnixSocket):
        yield from (entry.peer, *entry.pending)
        yield from _rights(entry.messages())
    elif isinstance(entry, TcpSocket):
        yield from (entry.peer, entry.listener)
    elif isinstance(entry, UdpSocket):
        yield from _rights(entry.queue)


def _rights(messages: Iterable[Message]) -> Iterator[int]:
    return (index for message in messages for index in message.rights)


def _paths(entry: Description) -> Iterator[str]:
    for name in ("path", "unlinked", "folder", "moved"):
        found = getattr(entry, name, "")
        if isinstance(found, str) and found:  # of a Unix socket `unlinked` is a yes or no
            yield found
    if isinstance(entry, Inotify):
        yield from (watch.path for watch in entry.watches)
    if isinstance(entry, Fanotify):
        yield from (mark.path for mark in entry.marks)


def _words(entry: Description) -> Iterator[int]:
    for name in ("inode", "device", "mask"):
        yield getattr(entry, name, 0)
    if isinstance(entry, EventFd):
        yield entry.count + 1  # the largest word is no count
    if isinstance(entry, Epoll):
        yield from (item.data for item in entry.items)


def _check_contents(entry: RegularFile | MemoryFile, inventory: Inventory, what: str) -> None:
    if isinstance(entry, MemoryFile):
        expect(len(os.fsencode(_name(entry.name, what))) < 250, f"the name of {what}")
        expect(is_page_size(entry.huge_page_size), f"the page size of {what}")
    expect(not entry.content or entry.content in inventory.files, f"the contents of {what} are missing")
    check_runs(entry.content_runs, entry.content, inventory, what)
    end = max((run.address + run.length for run in entry.content_runs), default=0)
    expect(end <= entry.size + 2 * _PAGE, f"{what} is larger than it says")
    keys = {memory.key for memory in inventory.shared_memory}
    expect(not entry.shared or entry.shared in keys, f"{what} names no shared memory")


def _check_unix(index: int, entry: UnixSocket, every: Sequence[Description], what: str) -> None:
    expect(entry.type in (_STREAM, _DATAGRAM, _SEQPACKET), f"the type of {what}")
    for name in (entry.name, entry.peer_name):
        expect(name.startswith(b"\0") or b"\0" not in name, f"the name of {what}")
    expect(min(entry.pending, default=0) >= 0, f"queue of {what}")
    clients = [every[other] for other in entry.pending]
    expect(all(isinstance(client, UnixSocket) and client.type == entry.type for client in clients), f"queue of {what}")
    expect(entry.listening or not (entry.pending or entry.departed), f"{what} does not listen")
    if entry.peer < 0:
        return
    expect(entry.peer != index or entry.type == _DATAGRAM, f"the other end of {what} is itself")
    peer = every[entry.peer]
    expect(isinstance(peer, UnixSocket) and peer.type == entry.type, f"the other end of {what}")
    assert isinstance(peer, UnixSocket)
    one_way = entry.type == _DATAGRAM
    expect(one_way or peer.peer == index, f"the other end of {what} is another's")


def _check_tcp(index: int, entry: TcpSocket, every: Sequence[Description], what: str) -> None:
    if entry.repair is not None:
        outside = entry.other == OTHER_OUTSIDE and entry.state in _CONNECTED
        expect(outside and bool(entry.peer_host) and bool(entry.port), f"{what} is no connection to outside")
        expect(entry.repair.unsent <= len(entry.repair.waiting), f"{what} has more to send than there is")
    if entry.listener >= 0:
        door = every[entry.listener]
        expect(isinstance(door, TcpSocket) and door.state == _LISTEN, f"{what} waits at none that listens")
        expect(bool(entry.peer_host), f"{what} waits nowhere")
    elif entry.other == OTHER_INSIDE:
        peer = every[entry.peer] if entry.peer >= 0 else None
        expect(isinstance(peer, TcpSocket) and peer.peer == index, f"the other end of {what}")
