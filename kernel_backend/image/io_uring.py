"""What an io_uring instance of an image may be: of a size that the OS kernel makes, with places in its own memory."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from kernel_backend.abi import linux
from kernel_backend.image.descriptions import Description, IoUring
from kernel_backend.image.entries import Inventory, ProcessEntry, VmaEntry
from kernel_backend.image.expecting import distinct, expect

MOST_REQUESTS = 100_000_000  # served so far: a new instance is led on by as many, which takes some seconds
MOST_TOGETHER = 2 * MOST_REQUESTS  # of all instances of an image
_MOST_BYTES = 256 << 20  # of all, in the OS kernel's memory
MOST_FILES, MOST_BUFFERS = 1 << 15, 1 << 13  # registered; what fits into the workshop of a process
_OFFSETS = (linux.IORING_OFF_SQ_RING, linux.IORING_OFF_CQ_RING, linux.IORING_OFF_SQES)
_HEADER_BYTES = 4096  # of what stands before the completions
_MOST_MAPPED_BYTES = 64 << 20
_SQ_HEAD, _SQ_TAIL, _ARRAY, _CQ_HEAD, _CQ_TAIL, _CQES = 0, 1, 6, 7, 8, 12  # in `layout`
_WORDS = 14


def word(entry: IoUring, which: int) -> int:
    """A number of its rings; `which` is its place in `layout`."""
    at = entry.layout[which]
    return int(struct.unpack("<I", entry.rings[at : at + 4].ljust(4, b"\0"))[0])


def served(entry: IoUring) -> int:
    """How many requests it has taken, and completed."""
    return word(entry, _SQ_HEAD)


def rings_bytes(entry: IoUring) -> int:
    """Of both rings."""
    return entry.layout[_ARRAY] + 4 * entry.sq_entries


def fits(offset: int, size: int, entry: IoUring) -> bool:
    """Whether a mapping shows what can be mapped again: from the beginning, and of the requests all."""
    requests = -(-linux.IO_URING_SQE_BYTES * entry.sq_entries // linux.PAGE_SIZE) * linux.PAGE_SIZE
    least = requests if offset == linux.IORING_OFF_SQES else linux.PAGE_SIZE
    return offset in _OFFSETS and least <= size <= _MOST_MAPPED_BYTES


def check(index: int, entry: IoUring, inventory: Inventory, what: str) -> None:
    """Raise Unfit unless it can be made and led to where it was."""
    for count, most in ((entry.sq_entries, 1), (entry.cq_entries, 2)):
        power = count > 0 and not count & (count - 1)
        expect(power and count <= most * linux.IORING_MAX_ENTRIES, f"the size of {what}")
    inside = len(entry.layout) == _WORDS and all(at % 4 == 0 for at in entry.layout)
    expect(inside and max(entry.layout[:_ARRAY] + entry.layout[_CQ_HEAD:]) < _HEADER_BYTES, f"the layout of {what}")
    behind = entry.layout[_CQES] + linux.IO_URING_CQE_BYTES * entry.cq_entries
    expect(behind <= entry.layout[_ARRAY] < behind + _HEADER_BYTES, f"the layout of {what}")
    expect(len(entry.rings) <= rings_bytes(entry), f"the rings of {what}")
    expect(len(entry.requests) <= linux.IO_URING_SQE_BYTES * entry.sq_entries, f"the requests of {what}")
    expect(served(entry) == word(entry, _CQ_TAIL) <= MOST_REQUESTS, f"the count of {what}")
    expect((word(entry, _SQ_TAIL) - served(entry)) % 2**32 <= entry.sq_entries, f"what waits in {what}")
    expect((served(entry) - word(entry, _CQ_HEAD)) % 2**32 <= entry.cq_entries, f"what waits in {what}")
    _check_holders(index, entry, inventory, what)


def _check_holders(index: int, entry: IoUring, inventory: Inventory, what: str) -> None:
    holders = [
        process for process in inventory.processes if any(row.description == index for row in process.descriptors)
    ]
    tables = (thread.descriptors or [] for process in inventory.processes for thread in process.threads)
    expect(not any(row.description == index for rows in tables for row in rows), f"a thread's own table holds {what}")
    expect(bool(holders), f"nobody has {what}")
    _check_registered(entry, holders, what)
    threads = {(thread.tid, thread.exited) for process in holders for thread in process.threads}
    registered = [(one.tid, one.number) for one in entry.numbers]
    distinct(registered, f"numbers of threads for {what}")
    expect(all((tid, False) in threads for tid, _ in registered), f"a thread with {what}")
    issuers = {0, *(thread.tid for process in holders for thread in process.threads if not thread.exited)}
    expect(entry.issuer in issuers and not (entry.deferred and not entry.issuer), f"who may use {what}")


def _check_registered(entry: IoUring, holders: Sequence[ProcessEntry], what: str) -> None:
    expect(len(entry.files) <= MOST_FILES and len(entry.buffers) <= MOST_BUFFERS, f"the tables of {what}")
    expect(not entry.buffers or len(holders) == 1, f"whose memory is registered with {what}")
    user = next((p for p in holders if entry.issuer in {thread.tid for thread in p.threads}), holders[0])
    own = {-1, *(row.description for row in user.descriptors)}
    expect(own.issuperset(entry.files), f"the files registered with {what}")


def is_shown(vma: VmaEntry, every: Sequence[Description]) -> bool:
    """Whether a mapping of that kind shows one of the image's."""
    entry = every[vma.ring] if 0 <= vma.ring < len(every) else None
    return isinstance(entry, IoUring) and fits(vma.offset, vma.end - vma.start, entry)


def check_together(descriptions: Sequence[Description]) -> None:
    """Raise Unfit unless all instances can be had, and led on within bounds."""
    every = [entry for entry in descriptions if isinstance(entry, IoUring)]
    size = sum(rings_bytes(entry) + linux.IO_URING_SQE_BYTES * entry.sq_entries for entry in every)
    expect(size <= _MOST_BYTES, f"{len(every)} io_uring instances of {size} bytes")
    expect(sum(map(served, every)) <= MOST_TOGETHER, f"{len(every)} io_uring instances that have served so much")
