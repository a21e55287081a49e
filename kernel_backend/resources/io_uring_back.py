"""io_uring instances coming back: made, mapped and led on to where they were.

An instance belongs to the process that made it, and cannot be sent to another through a socket. So one of its holders
makes it, and the others fetch its descriptor from there (pidfd_getfd(2)).

Its memory can be mapped at no address of our choice: mmap(2) with one is refused, and so is mremap(2). The OS kernel
takes a gap that is large enough, though. So all gaps are filled for the moment, but for the one that it has to take.

How many requests it has taken and completed the OS kernel knows by itself. A new instance is led on by as many requests
of no effect (IORING_OP_NOP), one of which, all zeros, stands in its new memory already. Then the rings are filled in.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import pairwise

from kernel_backend.abi import arch, linux
from kernel_backend.errors import EngineError
from kernel_backend.host import io_uring as uring
from kernel_backend.host import libc, proc
from kernel_backend.image import io_uring as bounds
from kernel_backend.image.descriptions import Description, IoUring
from kernel_backend.image.entries import ProcessEntry, VmaEntry
from kernel_backend.resources.io_uring import setup_flags
from kernel_backend.resources.io_uring_registered import register
from kernel_backend.tracee.inject import Call, Workshop

_LOWEST = 0x10000  # vm.mmap_min_addr, as it usually is
_MOST_AT_ONCE = 4_000_000  # requests; a thread has to stop again within seconds
_ROUND_IN_REQUESTS = 8  # how many would take as long as a round's system call
_PR_SET_PTRACER, _ANYBODY = 0x59616D61, 2**64 - 1  # of the security module Yama
_F_SETFL = 4


class Member:
    """A process of the tree, as far as it matters here."""

    def __init__(self, entry: ProcessEntry, shop: Workshop, number: int) -> None:
        """`number`: its pid as the tree knows it."""
        self.entry = entry
        self.shop = shop
        self.number = number

    def numbers_of(self, index: int) -> list[int]:
        """Its descriptors of a description."""
        return [row.fd for row in self.entry.descriptors if row.description == index]

    def mappings_of(self, index: int) -> list[VmaEntry]:
        """What it maps of an instance."""
        return [vma for vma in self.entry.vmas if vma.kind == "io_uring" and vma.ring == index]


def bring_back(descriptions: Sequence[Description], members: Sequence[Member]) -> None:
    """Make every instance, with its descriptors and mappings, in processes that have no other descriptors yet."""
    for index, entry in enumerate(descriptions):
        if not isinstance(entry, IoUring):
            continue
        owner = _owner(index, entry, members)
        _make(index, entry, owner)
        for member in members:
            if member is owner or member.entry.table_of == owner.entry.pid:
                _map(index, member, owner.numbers_of(index)[0])
            elif member.numbers_of(index) or member.mappings_of(index):
                _share(index, member, owner)


def _owner(index: int, entry: IoUring, members: Sequence[Member]) -> Member:
    """Who makes an instance: the process of its only user, if there is such a one."""
    holders = [member for member in members if member.numbers_of(index) and not member.entry.table_of]
    return next(
        (m for m in holders if entry.issuer in {thread.tid for thread in m.entry.threads}),
        holders[0],
    )


def _make(index: int, entry: IoUring, owner: Member) -> None:
    shop = owner.shop
    shop.put(uring.params(entry.sq_entries, entry.cq_entries, setup_flags(entry)))
    made = shop.call("io_uring_setup", entry.sq_entries, shop.data)
    if list(uring.layout(shop.get(uring.PARAMS_BYTES))[2:]) != entry.layout:
        raise EngineError("the rings of an io_uring instance are laid out in another way than those of the image")
    _place(index, owner, made)


def _place(index: int, member: Member, fd: int) -> None:
    """Put it at its numbers; those of another instance are taken already."""
    rows = {row.fd: row.cloexec for row in member.entry.descriptors if row.description == index}
    calls = [
        Call("dup3", fd, number, os.O_CLOEXEC if cloexec else 0) for number, cloexec in rows.items() if number != fd
    ]
    if fd not in rows:
        calls.append(Call("close", fd))
    elif not rows[fd]:
        calls.append(Call("fcntl", fd, 2, 0))  # F_SETFD
    member.shop.run(calls)


def _share(index: int, member: Member, owner: Member) -> None:
    """Let another process have it, for good or as long as it takes to map it."""
    with suppress(OSError):  # without that module nothing forbids it
        owner.shop.call("prctl", _PR_SET_PTRACER, _ANYBODY, 0, 0, 0)
    process = member.shop.call("pidfd_open", owner.number, 0)
    fd = member.shop.call("pidfd_getfd", process, owner.numbers_of(index)[0], 0)
    member.shop.call("close", process)
    with suppress(OSError):
        owner.shop.call("prctl", _PR_SET_PTRACER, 0, 0, 0, 0)
    _map(index, member, fd)
    _place(index, member, fd)


# --- memory -----------------------------------------------------------------------------------------------------------


def _map(index: int, member: Member, fd: int) -> None:
    shop = member.shop
    for vma in member.mappings_of(index):
        size = vma.end - vma.start
        with _only_gap(shop, vma.start, vma.end):
            at = shop.call("mmap", 0, size, vma.prot, linux.MAP_SHARED, fd, vma.offset)
        if at != vma.start:
            raise EngineError(f"an io_uring instance cannot be mapped at {vma.start:#x}")
        shop.run(Call("madvise", vma.start, size, value) for value in vma.advice)
        if vma.sealed:
            shop.call("mseal", vma.start, size, 0)


@contextmanager
def _only_gap(shop: Workshop, start: int, end: int) -> Iterator[None]:
    """While this is entered, nothing is free in the address space but [start, end)."""
    taken = [(m.start, m.end) for m in proc.maps(shop.thread.tgid) if m.start < linux.TASK_SIZE]
    edges = sorted([(0, _LOWEST), *taken, (start, end), (linux.TASK_SIZE, linux.TASK_SIZE)])
    gaps = [(low, high) for (_, low), (high, _) in pairwise(edges) if low < high]
    flags = linux.MAP_PRIVATE | linux.MAP_ANONYMOUS | linux.MAP_NORESERVE | linux.MAP_FIXED_NOREPLACE
    shop.run(Call("mmap", low, high - low, 0, flags, -1, 0) for low, high in gaps)
    yield
    shop.run(Call("munmap", low, high - low) for low, high in gaps)


# --- to where they were -----------------------------------------------------------------------------------------------


def lead_on(
    descriptions: Sequence[Description], members: Sequence[Member], shop_of_thread: Callable[[int], Workshop]
) -> list[str]:
    """When all threads stand: let every instance go on at the same place, with what waits in it; warnings."""
    warnings: list[str] = []
    for index, entry in enumerate(descriptions):
        if not isinstance(entry, IoUring):
            continue
        owner = _owner(index, entry, members)
        shop, fd = owner.shop, owner.numbers_of(index)[0]
        if entry.issuer:
            shop = shop_of_thread(entry.issuer)
            shop.call("io_uring_register", fd, linux.IORING_REGISTER_ENABLE_RINGS, 0, 0)
        _lead_one_on(entry, shop, fd)
        numbers = {row.description: row.fd for row in owner.entry.descriptors}
        warnings += register(entry, shop, fd, numbers)
        for registered in entry.numbers:
            user = next(m for m in members if registered.tid in {thread.tid for thread in m.entry.threads})
            shop = shop_of_thread(registered.tid)
            update = struct.pack("<IIQ", registered.number, 0, user.numbers_of(index)[0])
            shop.call(
                "io_uring_register", user.numbers_of(index)[0], linux.IORING_REGISTER_RING_FDS, shop.put(update), 1
            )
        if entry.flags & os.O_NONBLOCK:
            owner.shop.call("fcntl", fd, _F_SETFL, os.O_NONBLOCK)
    return warnings


def _lead_one_on(entry: IoUring, shop: Workshop, fd: int) -> None:
    place = uring.Layout(entry.sq_entries, entry.cq_entries, *entry.layout)
    process = libc.pidfd_open(shop.thread.tgid)
    try:
        ours = libc.pidfd_getfd(process, fd)
    finally:
        os.close(process)
    try:
        with uring.mapped(ours, place) as memory:
            count = bounds.served(entry)
            memory.put(place.sq_tail, count)
            _serve(place, shop, fd, count)
            if (memory.word(place.sq_head), memory.word(place.cq_tail)) != (count, count):
                raise EngineError("an io_uring instance cannot be led to where it was")
            memory.rings[: place.rings_bytes] = entry.rings.ljust(place.rings_bytes, b"\0")
            memory.requests[: place.requests_bytes] = entry.requests.ljust(place.requests_bytes, b"\0")
    finally:
        os.close(ours)


def _serve(place: uring.Layout, shop: Workshop, fd: int, count: int) -> None:
    """Have so many requests taken and completed, and the completions passed over, many rounds in one go."""
    rings = shop.call("mmap", 0, place.rings_bytes, linux.PROT_READ | linux.PROT_WRITE, linux.MAP_SHARED, fd, 0)
    size = min(place.sq_entries, place.cq_entries)
    rounds, rest = divmod(count, size)
    most = max(1, _MOST_AT_ONCE // (size + _ROUND_IN_REQUESTS))
    for first in range(0, rounds, most):
        _pass_requests(shop, fd, size, rings + place.cq_head, min(most, rounds - first))
    if rest:
        _pass_requests(shop, fd, rest, rings + place.cq_head, 1)
    shop.call("munmap", rings, place.rings_bytes)


def _pass_requests(shop: Workshop, fd: int, size: int, head: int, rounds: int) -> None:
    """What was not taken is seen later, by the counts."""
    table = struct.pack("<3Q", fd, size, head)
    at = shop.put(table + arch.PASS_REQUESTS)
    regs = shop.thread.get_regs()
    regs.run(at + len(table), at, rounds)
    shop.thread.set_regs(regs)
    shop.thread.resume()
    while not shop.thread.wait().is_step:
        shop.thread.resume()
