"""Contexts for asynchronous I/O (io_setup(2)): a ring of events that the OS kernel shows the process in its memory.

A context is named by the address of its ring, and follows it when it is moved (mremap(2)). Where the next event goes
the OS kernel knows by itself: a new context is led there by requests that end at once. Events that nobody has fetched
yet hold room in the ring, so the last of those requests stay unfetched, and the image's events take their places.

What is in flight nobody can ask for. Requests to disks end by themselves, so a dump waits until nothing has come for a
moment; where a thread waits for more than is there, without a limit, something must be on its way, and it is refused.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import time
from collections.abc import Collection
from contextlib import suppress

from kernel_backend.abi import arch, linux
from kernel_backend.abi.x86_64 import UserRegs
from kernel_backend.errors import EngineError, HostUnsupported, ResourceUnsupported
from kernel_backend.host import libc
from kernel_backend.image.entries import AioEntry, Inventory, ProcessEntry, VmaEntry
from kernel_backend.resources.memory import find_hole
from kernel_backend.resources.placing_fds import lend
from kernel_backend.tracee.inject import WORD, Call, Workshop
from kernel_backend.tracee.process import Process

# struct aio_ring and struct io_event of fs/aio.c, struct iocb of linux/aio_abi.h
_RING = struct.Struct("<8I")  # id, slots, head, tail, magic, features, incompatible features, bytes of this
_MAGIC = 0xA10A10A1
_EVENT_BYTES = 32
_IOCB = struct.Struct("<QIIHhIQQqQII")
_IOCB_CMD_PREAD = 0
_HEAD_OFFSET = 8
_SIDE_BY_SIDE = 16  # requests a call; a context has room for more on every host
_MREMAP_MAYMOVE_FIXED = 1 | 2
_WAITS = frozenset((arch.SYS["io_getevents"], arch.SYS["io_pgetevents"]))
_QUIET_S = 0.03
_PATIENCE_S = 0.5


# --- out --------------------------------------------------------------------------------------------------------------


def capture(process: Process, entry: ProcessEntry, vmas: Collection[VmaEntry]) -> list[str]:
    """Note the contexts of a frozen process; warnings. Raises ResourceUnsupported, naming the context."""
    rings = [vma for vma in vmas if vma.kind == "aio"]
    if not rings:
        return []
    with process.borrow() as borrowed:
        for vma in rings:
            try:
                borrowed.call("io_getevents", vma.start, 0, 0, 0, 0)
            except OSError as error:  # a forked child sees the ring, but has no context (io_setup(2))
                raise _refused(entry.pid, vma.start, "left of a parent's") from error
    for vma in rings:
        _await_quiet(process, entry, vma)
        _, slots, head, tail, *_ = _ring(process.view, vma)
        events = [
            libc.vm_read(process.view, vma.start + _RING.size + at % slots * _EVENT_BYTES, _EVENT_BYTES)
            for at in range(head, head + (tail - head) % slots)
        ]
        entry.aio.append(AioEntry(address=vma.start, head=head, tail=tail, events=b"".join(events)))
    return [
        f"process {entry.pid} has a context for asynchronous I/O (io_setup) at {vma.start:#x}: a request that was "
        "still in flight is in no image, and nobody can tell whether there was one"
        for vma in rings
    ]


def _refused(pid: int, address: int, why: str) -> ResourceUnsupported:
    return ResourceUnsupported(
        f"process {pid} has a context for asynchronous I/O (io_setup) at {address:#x}, {why}, which cannot be captured",
        hint="let its requests end, or destroy it (io_destroy), and checkpoint again", pid=pid, address=address,
    )  # fmt: skip


def _ring(pid: int, vma: VmaEntry) -> tuple[int, ...]:
    ring = _RING.unpack(libc.vm_read(pid, vma.start, _RING.size))
    _, slots, head, tail, magic, *_ = ring
    if (slots, magic) != (_slots(vma), _MAGIC) or head >= slots or tail >= slots:
        raise _refused(pid, vma.start, "whose ring the program has changed")
    return ring


def _slots(vma: VmaEntry) -> int:
    """How many events the ring has room for: the OS kernel fills its pages."""
    return (vma.end - vma.start - _RING.size) // _EVENT_BYTES


def _await_quiet(process: Process, entry: ProcessEntry, vma: VmaEntry) -> None:
    wanted = max((_waits_for(bytes(t.regs), vma.start) for t in entry.threads if not t.exited), default=0)
    begun = changed = time.monotonic()
    last = -1
    while True:
        _, slots, head, tail, *_ = _ring(process.view, vma)
        now = time.monotonic()
        if tail != last:
            last, changed = tail, now
        enough = (tail - head) % slots >= wanted
        if enough and now - changed >= _QUIET_S:
            return
        if now - begun > _PATIENCE_S:
            raise _refused(entry.pid, vma.start, "with requests in flight")
        time.sleep(_QUIET_S / 10)


def _waits_for(registers: bytes, context: int) -> int:
    """How many events the thread waits for, without a limit in time."""
    regs = UserRegs.from_buffer_copy(registers)
    interrupted = regs.call in _WAITS and regs.result > WORD - linux.ERESTART_RESTARTBLOCK - 1
    at, least, _, _, limit, *_ = regs.args
    return least if interrupted and at == context and not limit else 0


# --- coming back ------------------------------------------------------------------------------------------------------


def check(inventory: Inventory) -> None:
    """Raise HostUnsupported when a context cannot be had here: tried in our own process, with every size."""
    rings = [vma for entry in inventory.processes for vma in entry.vmas if vma.kind == "aio"]
    for size in {vma.end - vma.start: vma for vma in rings}.values():
        word = ctypes.create_string_buffer(8)
        try:
            libc.syscall("io_setup", _requests(size), word)
        except OSError as error:
            raise HostUnsupported(
                f"a context for asynchronous I/O cannot be had here: {error.strerror}",
                hint="see fs.aio-max-nr and fs.aio-nr (sysctl)",
            ) from error
        at = int.from_bytes(word.raw, "little")
        slots = _RING.unpack(libc.vm_read(os.getpid(), at, _RING.size))[1]
        libc.syscall("io_destroy", at)
        if slots != _slots(size):
            raise HostUnsupported(
                f"a context for asynchronous I/O has room for {slots} events here, that of the image for "
                f"{_slots(size)}: this host has another number of processors",
                hint="restart it on a host like the one where it was taken",
            )


def _requests(vma: VmaEntry) -> int:
    """The fewest requests to ask for to get a ring of this size, which has room for twice as many and two more."""
    pages = (vma.end - vma.start) // linux.PAGE_SIZE
    return max(1, (pages - 1) * (linux.PAGE_SIZE // _EVENT_BYTES // 2) - 1)


def bring_back(shop: Workshop, entry: ProcessEntry) -> None:
    """Make the contexts, in a process whose address space is empty yet, and leave them as they were."""
    if not entry.aio:
        return
    null = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    try:
        lent = lend(shop, [null])[0]
    finally:
        os.close(null)
    rings = {vma.start: vma for vma in entry.vmas if vma.kind == "aio"}
    for context in entry.aio:
        vma = rings[context.address]
        shop.put(bytes(8))
        shop.call("io_setup", _requests(vma), shop.data)
        _move(shop, int.from_bytes(shop.get(8), "little"), vma, entry)
        _lead_on(shop, context, _slots(vma), lent)
        if vma.prot != linux.PROT_READ | linux.PROT_WRITE:
            shop.call("mprotect", vma.start, vma.end - vma.start, vma.prot)
    shop.call("close", lent)


def _move(shop: Workshop, at: int, vma: VmaEntry, entry: ProcessEntry) -> None:
    size = vma.end - vma.start
    if at != vma.start and abs(at - vma.start) < size:  # it cannot be moved over itself
        occupied = [(other.start, other.end) for other in entry.vmas]
        aside = find_hole(size, [*occupied, (at, at + size), (shop.address, shop.address + shop.size)])
        at = shop.call("mremap", at, size, size, _MREMAP_MAYMOVE_FIXED, aside)
    if at != vma.start:
        shop.call("mremap", at, size, size, _MREMAP_MAYMOVE_FIXED, vma.start)


def _lead_on(shop: Workshop, context: AioEntry, slots: int, null: int) -> None:
    """Let as many requests end as it takes for the OS kernel to go on at the same place of the ring."""
    at, pid = context.address, shop.thread.tgid
    buffer = _SIDE_BY_SIDE * _EVENT_BYTES
    pointers = buffer + _IOCB.size
    request = _IOCB.pack(0, 0, 0, _IOCB_CMD_PREAD, 0, null, shop.data, 1, 0, 0, 0, 0)
    shop.put(request + struct.pack("<Q", shop.data + buffer) * _SIDE_BY_SIDE, buffer)
    fetch = Call("io_getevents", at, 0, _SIDE_BY_SIDE, shop.data, 0)

    def submit(count: int) -> Call:
        return Call("io_submit", at, count, shop.data + pointers)

    def left(place: int) -> int:
        return int(place - _RING.unpack(libc.vm_read(pid, at, _RING.size))[3]) % slots

    tries = 3  # the room that one processor has set aside is not there for the next
    for place, fetched in ((context.head, True), (context.tail, False)):
        while count := left(place):
            whole, rest = divmod(count, _SIDE_BY_SIDE)
            rounds = [[submit(n), *([fetch] if fetched else [])] for n in [*[_SIDE_BY_SIDE] * whole, rest] if n]
            try:
                shop.run(call for one in rounds[: shop.TABLE_ROWS // 2] for call in one)
            except OSError as error:
                if error.errno != errno.EAGAIN:
                    raise
                with suppress(OSError):
                    shop.run([fetch])
            if left(place) == count:
                tries -= 1
                if not tries:
                    raise EngineError(f"the context for asynchronous I/O at {at:#x} cannot be made as it was")
    for number in range(len(context.events) // _EVENT_BYTES):
        event = context.events[number * _EVENT_BYTES :][:_EVENT_BYTES]
        libc.vm_write(pid, at + _RING.size + (context.head + number) % slots * _EVENT_BYTES, event)
    libc.vm_write(pid, at + _HEAD_OFFSET, struct.pack("<I", context.head))
