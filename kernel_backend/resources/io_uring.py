"""io_uring instances (io_uring(7)): what a program has of them, and whether a new one can become the same.

The OS kernel tells sizes and places of the rings, and what is registered, by /proc/PID/fdinfo; the rings themselves
anybody may map who has the descriptor. How an instance was set up it tells nobody. So each flag of io_uring_setup(2) is
found out by a call that it changes the answer of, and that changes nothing. Some change no answer at all:

- IORING_SETUP_COOP_TASKRUN, and IORING_SETUP_TASKRUN_FLAG with it, only put work off: without it completions come
  sooner. IORING_SETUP_SUBMIT_ALL says what becomes of the requests behind one that cannot be read; IORING_SETUP_CLAMP
  and ATTACH_WQ leave no trace. An instance comes back without them.
- IORING_SETUP_NO_SQARRAY: the array of indices is never written to. One that is all zeros comes back as 0, 1, 2 …,
  which is what the OS kernel goes by without it, and what a program that uses it overwrites.
- IORING_SETUP_CQE32, of small rings: there is something behind where the rings would end, as soon as they are used.

What is in flight the OS kernel does not tell either, but for polls. Every request has one completion, though, and both
are counted: where the counts agree, nothing is on its way. Requests with several completions (IORING_CQE_F_MORE) or
none spoil that: the ring shows the last ones, and where there is such a one, it is refused, as is every difference that
stays. Completions from other instances (IORING_OP_MSG_RING) make one, too, unless as many requests are in flight.
How it comes back is in io_uring_back.py.
"""

from __future__ import annotations

import errno
import os
import resource
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial

from kernel_backend.abi import linux
from kernel_backend.errors import HostUnsupported, ResourceUnsupported
from kernel_backend.host import io_uring as uring
from kernel_backend.host import limits, proc
from kernel_backend.host.features import effective_capabilities
from kernel_backend.image import io_uring as bounds
from kernel_backend.image.descriptions import Description, IoUring, ThreadNumber
from kernel_backend.resources import mapped_files
from kernel_backend.resources.descriptors import CaptureTables, Kind, Look, RebuildTables
from kernel_backend.resources.io_uring_registered import note_buffers, note_files, note_polling, refusal
from kernel_backend.resources.memory import IO_URING_LINK, Layout, shared_key
from kernel_backend.tracee.inject import Borrowed
from kernel_backend.tracee.process import Process
from kernel_backend.tracee.thread import Thread

_PATIENCE_S, _LOOK_AGAIN_S = 0.5, 0.005
_GROUPS = range(64)  # of provided buffers: their numbers are the program's, which usually begins with 0
_UNFINISHED = {
    "PollList": "with operations in flight (polls)",
    "CqOverflowList": "with completions that found no room in its ring",
}


class IoUringKind(Kind):
    """io_uring_setup(2)."""

    entry = IoUring

    def matches(self, look: Look) -> bool:
        return look.link == IO_URING_LINK

    def capture(self, look: Look, tables: CaptureTables) -> Description:
        if look.in_flight or look.tid:
            raise refusal(look, "in flight" if look.in_flight else "in a thread's own table of descriptors")
        facts = _Facts(look)
        place = _layout(look, facts)
        return IoUring(
            sq_entries=place.sq_entries, cq_entries=place.cq_entries, layout=list(place[2:]),
            deferred=_check_setup(look, facts),
        )  # fmt: skip

    def capture_links(self, index: int, look: Look, entry: IoUring, tables: CaptureTables) -> None:
        _complete(index, look, entry, tables)

    def validate(self, index: int, entry: IoUring, tables: RebuildTables) -> None:
        if entry.layout != _check_host(entry):
            raise HostUnsupported(
                "this OS kernel lays the rings of io_uring out in another way than that of the image",
                hint="restart it on a host like the one where it was taken",
            )

    def rebuild(self, index: int, entry: IoUring, tables: RebuildTables) -> None:
        """It belongs to whoever makes it, and cannot be sent: see io_uring_back.py."""


KINDS: list[Kind] = [IoUringKind()]


# --- what the OS kernel tells -----------------------------------------------------------------------------------------


class _Facts:
    """/proc/PID/fdinfo of an instance: numbers and words by name, and the lines that are listed under a name."""

    def __init__(self, look: Look) -> None:
        self.numbers: dict[str, int] = {}
        self.words: dict[str, str] = {}
        self.listed: dict[str, list[str]] = {}
        self.requests: list[int] = []  # indices of those that are prepared
        self.large = False  # they are of 128 bytes
        name = ""
        for line in proc.fdinfo(look.process.view, look.fd).lines:
            before, _, after = line.partition(":")
            if before[:1].isalpha():
                name = before
                self.numbers[name], self.words[name] = _number(after), after.strip()
                continue
            self.listed.setdefault(name, []).append(line)
            if name == "SQEs":
                self.requests.append(_number(before))
                self.large = self.large or ", e0:" in line

    def count(self, name: str) -> int:
        """What is said, or listed, under a name."""
        return max(self.numbers.get(name, 0), len(self.listed.get(name, ())))


def _number(text: str) -> int:
    word = text.strip()
    try:
        return int(word, 0)
    except ValueError:
        return 0


def _layout(look: Look, facts: _Facts) -> uring.Layout:
    """Where things lie in it: as in one of ours that is as large."""
    sq_entries, cq_entries = facts.numbers["SqMask"] + 1, facts.numbers["CqMask"] + 1
    try:
        fd, place = uring.setup(sq_entries, cq_entries, 0)
    except OSError as error:
        raise refusal(look, f"of which we cannot make another here ({error.strerror})") from error
    os.close(fd)
    return place


def _check_setup(look: Look, facts: _Facts) -> bool:
    """Whether completions are put off until they are asked for; refuse what cannot be set up again."""
    if facts.numbers.get("SqThread", -1) != -1:
        raise refusal(look, "whose requests a thread of the OS kernel's takes (IORING_SETUP_SQPOLL)")
    why = uring.restriction(look.own)
    if why == errno.EBADFD:
        raise refusal(look, "that is not enabled yet (IORING_SETUP_R_DISABLED)")
    if why == errno.EACCES:
        raise refusal(look, "with restrictions (IORING_REGISTER_RESTRICTIONS)")
    if uring.polls(look.own):
        raise refusal(look, "that polls for completions (IORING_SETUP_IOPOLL)")
    if facts.count("Personalities"):  # newer OS kernels do not tell
        raise refusal(look, "with registered credentials", "have the program unregister them and checkpoint again")
    return uring.enter(look.own, linux.IORING_ENTER_GETEVENTS) == errno.EEXIST


# --- out --------------------------------------------------------------------------------------------------------------


def _complete(index: int, look: Look, entry: IoUring, tables: CaptureTables) -> None:
    """When it is known who has it: what is registered, whether it rests, and what is in its memory."""
    place = uring.Layout(entry.sq_entries, entry.cq_entries, *entry.layout)
    holders = {tables.processes[pid]: fd for pid, fd in tables.holders[index]}
    _note_numbers(look, entry, holders, tables)
    issuer = _issuer(look, holders) if uring.restriction(look.own) else None
    if issuer is None:
        _check_registered(look, partial(uring.register, look.own))
    else:
        process, thread = issuer
        entry.issuer = thread.tid
        with process.borrow(thread) as borrowed:
            _check_registered(look, partial(_register_inside, borrowed, holders[process]))
    facts = _await_rest(look, entry, holders)
    user = issuer[0] if issuer else next(iter(holders))
    note_files(look, entry, facts.count("UserFiles"), facts.listed.get("UserFiles", []), user, tables)
    note_buffers(look, entry, facts.listed.get("UserBufs", []), list(holders))
    note_polling(look, entry, facts.words)
    with _memory(look, place, facts) as memory:
        _check_counts(look, place, memory, facts)
        entry.rings = bytes(_with_indices(look, place, memory, facts)).rstrip(b"\0")
        entry.requests = memory.requests[:].rstrip(b"\0")


def _note_numbers(look: Look, entry: IoUring, holders: Iterable[Process], tables: CaptureTables) -> None:
    """Numbers that threads have given to it. Which instance it is nobody tells: of several, they are refused."""
    for process in holders:
        known: dict[int, list[tuple[int, int]]] = tables.cache.setdefault("numbers of io_uring instances", {})
        if process.pid not in known:
            known[process.pid] = [
                (thread.tid, n) for thread in process.threads.values() for n in _numbers(process, thread)
            ]
        if not known[process.pid]:
            continue
        rows = {row.description for row in tables.tables[process.pid]}
        if sum(isinstance(tables.descriptions[index], IoUring) for index in rows) > 1:
            raise refusal(look, "among others, of which threads use some by numbers of their own", "close the others")
        entry.numbers += [ThreadNumber(tid=tid, number=number) for tid, number in known[process.pid]]


def _numbers(process: Process, thread: Thread) -> list[int]:
    """Those that are in use in one thread."""
    found = []
    with process.borrow(thread) as borrowed:
        for number in range(linux.IO_RINGFD_REG_MAX):
            try:
                borrowed.call("io_uring_enter", number, 0, 0, linux.IORING_ENTER_REGISTERED_RING, 0, 0)
            except OSError as error:
                if error.errno == errno.EINVAL:
                    break  # it has never used any
                if error.errno == errno.EBADF:
                    continue
            found.append(number)
    return found


def _register_inside(borrowed: Borrowed, fd: int, opcode: int, argument: bytes, count: int) -> int:
    try:
        borrowed.call("io_uring_register", fd, opcode, borrowed.put(argument), count)
    except OSError as error:
        return error.errno or errno.EIO
    return 0


def _issuer(look: Look, holders: Mapping[Process, int]) -> tuple[Process, Thread]:
    """The only thread that may use it (IORING_SETUP_SINGLE_ISSUER)."""
    for process, fd in holders.items():
        for thread in process.threads.values():
            with process.borrow(thread) as borrowed:
                if uring.refused(partial(_register_inside, borrowed, fd)) == errno.EINVAL:
                    return process, thread
    raise refusal(look, "for a single thread (IORING_SETUP_SINGLE_ISSUER), which has ended", "close it")


def _check_registered(look: Look, call: uring.Register) -> None:
    hint = "have the program unregister it and checkpoint again"
    if uring.has_eventfd(call):
        raise refusal(look, "with a registered eventfd", hint)
    if uring.knows_buffers(call) and uring.has_buffers(call, _GROUPS):
        raise refusal(look, "with provided buffers", hint)


def _await_rest(look: Look, entry: IoUring, holders: Mapping[Process, int]) -> _Facts:
    """Requests to disks end by themselves, and are then completed by the thread that made them, in any call.

    Where completions are put off, they are asked for: what is done is done, and a program sees it a little sooner.
    """
    begun = time.monotonic()
    while True:
        facts = _Facts(look)
        for name, what in _UNFINISHED.items():
            if facts.count(name):
                raise refusal(look, what, "let it fetch its completions and checkpoint again")
        taken, done = facts.numbers["CachedSqHead"], facts.numbers["CachedCqTail"]
        if taken == done:
            return facts
        if time.monotonic() - begun > _PATIENCE_S:
            raise refusal(
                look, f"that has taken {taken} requests and completed {done}: some may be in flight",
                "let its operations end, or cancel them, and checkpoint again",
            )  # fmt: skip
        for process, fd in holders.items():
            for thread in process.threads.values():
                with process.borrow(thread) as borrowed:
                    borrowed.call("gettid")
                    if entry.deferred and thread.tid == entry.issuer:
                        borrowed.call("io_uring_enter", fd, 0, 0, linux.IORING_ENTER_GETEVENTS, 0, 0)
        time.sleep(_LOOK_AGAIN_S)


@contextmanager
def _memory(look: Look, place: uring.Layout, facts: _Facts) -> Iterator[uring.Memory]:
    usual = -(-place.rings_bytes // linux.PAGE_SIZE)
    try:
        with uring.mapped(look.own, place) as memory:
            pages = uring.rings_pages(look.own, place)
            behind = memory.rings[place.rings_bytes :]  # of its last page
            if pages > usual or any(behind):
                raise refusal(look, "with completions of 32 bytes (IORING_SETUP_CQE32)")
            if facts.large or _requests_are_large(look, place, memory):
                raise refusal(look, "with requests of 128 bytes (IORING_SETUP_SQE128)")
            yield memory
    except OSError as error:
        if error.errno == errno.EINVAL:
            raise refusal(look, "in memory of the program's own (IORING_SETUP_NO_MMAP)") from error
        if error.errno == errno.EFAULT:
            raise refusal(look, "with requests of 128 bytes (IORING_SETUP_SQE128)") from error
        raise


def _requests_are_large(look: Look, place: uring.Layout, memory: uring.Memory) -> bool:
    """Whether requests are of 128 bytes, where their array says nothing: what it shows of one that it has taken tells.

    For that the ring says for a moment that the last one is not taken yet. Nobody goes by that word but a program that
    looks for room, and the OS kernel writes it anew with the next request; should we be killed, little is lost.
    """
    head = memory.word(place.sq_head)
    if place.sq_entries < 2 or memory.word(place.sq_tail) != head:
        return False
    memory.put(place.sq_head, (head - 1) % 2**32)
    try:
        return _Facts(look).large
    finally:
        memory.put(place.sq_head, head)


def _check_counts(look: Look, place: uring.Layout, memory: uring.Memory, facts: _Facts) -> None:
    counts = [memory.word(at) for at in (place.sq_head, place.sq_tail, place.cq_head, place.cq_tail)]
    sq_head, sq_tail, cq_head, cq_tail = counts
    as_told = sq_head == facts.numbers["CachedSqHead"] and cq_tail == facts.numbers["CachedCqTail"]
    waiting = (sq_tail - sq_head) % 2**32, (cq_tail - cq_head) % 2**32
    if not as_told or waiting[0] > place.sq_entries or waiting[1] > place.cq_entries:
        raise refusal(look, "whose rings the program has changed")
    if memory.word(place.sq_dropped) or memory.word(place.cq_overflow):
        raise refusal(look, "that has lost requests or completions", "close it and checkpoint again")
    if sq_head > bounds.MOST_REQUESTS:
        raise refusal(look, f"that has served {sq_head} requests: a new one would have to do as many")
    several = linux.IORING_CQE_F_MORE | linux.IORING_CQE_F_NOTIF
    if any(memory.word(at + 12) & several for at in place.completions):
        raise refusal(look, "with requests that have several completions each: some may be in flight")


def _with_indices(look: Look, place: uring.Layout, memory: uring.Memory, facts: _Facts) -> bytearray:
    """The rings; where nobody has written to the array of indices, it holds what the OS kernel goes by without it."""
    rings = bytearray(memory.rings[: place.rings_bytes])
    if any(rings[place.array :]):
        return rings
    indices = list(range(place.sq_entries))
    head, tail = memory.word(place.sq_head), memory.word(place.sq_tail)
    waiting = [at % place.sq_entries for at in range(head, head + (tail - head) % 2**32)]
    if len(facts.requests) != len(waiting):
        raise refusal(look, "with prepared requests whose places cannot be told (IORING_SETUP_NO_SQARRAY)")
    for at, index in zip(waiting, facts.requests, strict=True):
        indices[at] = index
    rings[place.array :] = b"".join(index.to_bytes(4, "little") for index in indices)
    return rings


def link(pid: int, layout: Layout, tables: CaptureTables) -> None:
    """Say of each mapping of a process which instance it shows. Raises ResourceUnsupported, naming the mapping."""
    for vma, mapping in zip(layout.vmas, layout.live, strict=True):
        if vma.kind != "io_uring":
            continue
        key = shared_key(mapping)
        vma.ring = next(
            (
                index
                for index, (look, entry) in enumerate(zip(tables.looks, tables.descriptions, strict=True))
                if isinstance(entry, IoUring) and mapped_files.key_of_stat(look.stat) == key
            ),
            -1,
        )
        entry = tables.descriptions[vma.ring] if vma.ring >= 0 else None
        if not isinstance(entry, IoUring):
            raise _refused_mapping(pid, vma.start, "an io_uring instance that nobody has open any more")
        if not bounds.fits(vma.offset, vma.end - vma.start, entry):
            raise _refused_mapping(pid, vma.start, "memory of an io_uring instance other than the whole of its rings")


def _refused_mapping(pid: int, address: int, what: str) -> ResourceUnsupported:
    return ResourceUnsupported(
        f"process {pid} maps {what}, at {address:#x}, which cannot be captured",
        hint="end its user, or make the program use epoll", pid=pid, address=address,
    )  # fmt: skip


# --- before coming back -----------------------------------------------------------------------------------------------


def _check_host(entry: IoUring) -> list[int]:
    """How one is laid out here. Raises HostUnsupported when none can be had: tried in our own process."""
    try:
        fd, place = uring.setup(entry.sq_entries, entry.cq_entries, setup_flags(entry))
    except OSError as error:
        raise HostUnsupported(
            f"an io_uring instance cannot be had here: {error.strerror}",
            hint="see kernel.io_uring_disabled (sysctl)",
        ) from error
    os.close(fd)
    unlimited = limits.hard(os.getpid(), resource.RLIMIT_AS) == limits.UNLIMITED
    if not unlimited and "CAP_SYS_RESOURCE" not in effective_capabilities():
        raise HostUnsupported(
            "io_uring instances cannot be put at their addresses where address space is limited (RLIMIT_AS)",
            hint="raise the limit: ulimit -Hv unlimited",
        )
    return list(place[2:])


def setup_flags(entry: IoUring) -> int:
    """How an instance is set up again, before anything is said about who may use it."""
    if not entry.issuer:
        return 0
    late = linux.IORING_SETUP_DEFER_TASKRUN | linux.IORING_SETUP_TASKRUN_FLAG if entry.deferred else 0
    return linux.IORING_SETUP_SINGLE_ISSUER | linux.IORING_SETUP_R_DISABLED | late
