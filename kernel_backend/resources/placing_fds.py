"""Descriptors at their numbers, in a process that may hold hardly more than it had.

A limit (RLIMIT_NOFILE) forbids numbers from it on, so there is no room above those of the image to put things aside:
what is needed meanwhile goes into gaps between them. The OS kernel gives what it hands over the lowest free numbers,
which may be wanted for others of the same batch; so each is moved when its place is free, and a circle is broken by way
of a gap.
"""

from __future__ import annotations

import fcntl
import os
import resource
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress

from kernel_backend.errors import HostUnsupported
from kernel_backend.host import fds, limits
from kernel_backend.host.features import effective_capabilities
from kernel_backend.image.entries import DescriptorEntry, Inventory, ProcessEntry
from kernel_backend.resources import mapped_files, memory
from kernel_backend.tracee.courier import BATCH, courier
from kernel_backend.tracee.inject import Call, Workshop

_F_DUPFD_CLOEXEC = 1030
_SPARE = 2  # for the line by which descriptors come, and to break circles


def numbers_needed(entry: ProcessEntry) -> int:
    """What the limit must be at least while the process is made."""
    lent = len(mapped_files.file_views(entry)) + len(memory.shared_views(entry)) + 1
    return max(_highest(rows, lent) for rows in (entry.descriptors, *(t.descriptors or [] for t in entry.threads))) + 1


def _highest(rows: Sequence[DescriptorEntry], lent: int) -> int:
    taken = {row.fd for row in rows}
    return max([*taken, *gaps(taken, max(lent, _SPARE) + 1)])


def check(inventory: Inventory, hard: int) -> None:
    """Raise HostUnsupported when a process could not hold its descriptors under that hard limit."""
    for entry in inventory.processes:
        needed = numbers_needed(entry)
        if needed > hard and "CAP_SYS_RESOURCE" not in effective_capabilities():
            raise HostUnsupported(
                f"process {entry.pid} needs descriptors up to {needed - 1} while it is made; the limit is {hard}",
                hint=f"raise it: ulimit -Hn {needed}",
            )


def limit_of(pid: int) -> int:
    """The hard limit of a process: what it, or what it makes, may not go beyond."""
    return limits.hard(pid, resource.RLIMIT_NOFILE)


def make_room(pid: int, entry: ProcessEntry) -> None:
    """Raise the process's own hard limit for the while, where that is too low and we may."""
    needed = numbers_needed(entry)
    if limit_of(pid) < needed:
        with suppress(OSError, ValueError):
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (needed, needed))


def gaps(taken: Iterable[int], count: int) -> list[int]:
    """The lowest numbers that are not taken."""
    occupied, number = set(taken), 0
    found: list[int] = []
    while len(found) < count:
        if number not in occupied:
            found.append(number)
        number += 1
    return found


def dup_beside(fd: int, taken: Iterable[int]) -> int:
    """A duplicate of ours at a number that is none of these."""
    occupied, at = set(taken), 3
    while True:
        made = fcntl.fcntl(fd, _F_DUPFD_CLOEXEC, at)
        if made not in occupied:
            return made
        os.close(made)
        at = made + 1


def in_own_table(work: Callable[[], None]) -> None:
    """Run `work` in a thread whose descriptor table is a copy of ours that it may change at will."""
    failed: list[BaseException] = []

    def run() -> None:
        try:
            fds.unshare_descriptor_table()
            work()
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if failed:
        raise failed[0]


def lend(shop: Workshop, ours: Sequence[int]) -> list[int]:
    """Give the process, which has none yet, duplicates of our descriptors for the while; their numbers."""
    with courier(shop) as line:
        return line.send(ours)


def place(shop: Workshop, table: Sequence[DescriptorEntry], own: Mapping[int, int]) -> None:
    """Give the process its descriptors; it has none yet but those that are not ours to give (io_uring_back.py)."""
    rows = sorted((row for row in table if row.description in own), key=lambda row: row.fd)
    aside, spare = gaps({row.fd for row in table}, _SPARE)
    with courier(shop) as line:
        if line.remote != aside:
            shop.run([Call("dup3", line.remote, aside, os.O_CLOEXEC), Call("close", line.remote)])
            line.remote = aside
        for first in range(0, len(rows), BATCH):
            batch = rows[first : first + BATCH]
            numbers = line.send([own[row.description] for row in batch])
            shop.run(_moves(dict(zip(numbers, batch, strict=True)), spare))


def _moves(pending: dict[int, DescriptorEntry], spare: int) -> Iterator[Call]:
    """From where each descriptor is to where it belongs."""
    while pending:
        free = [at for at, row in pending.items() if row.fd == at or row.fd not in pending]
        if not free:
            at, row = pending.popitem()
            yield from (Call("dup3", at, spare, 0), Call("close", at))
            pending[spare] = row
            continue
        for at in free:
            row = pending.pop(at)
            if row.fd == at:
                yield Call("fcntl", at, fcntl.F_SETFD, fcntl.FD_CLOEXEC if row.cloexec else 0)
            else:
                yield Call("dup3", at, row.fd, os.O_CLOEXEC if row.cloexec else 0)
                yield Call("close", at)
