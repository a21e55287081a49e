"""Thread ids that stand in the memory of a process whose threads could not keep theirs.

An ordinary user's restart in place gives new ids to all threads but the first. The C library has noted the old ones: a
thread's own beside it, in the word that set_tid_address(2) named, and in each mutex that a thread holds its owner, whom
a recursive, an error-checking, a PI or a robust one knows. Were only the first corrected, a thread could neither lock
its own mutex again nor unlock it.

Nobody lists mutexes, so they are looked for in the pages of the image. Each of the forty bytes of glibc's
pthread_mutex_t (sysdeps/nptl/bits/pthreadtypes.h, struct_mutex.h) is known of one that is held, but for small counts;
nothing else is taken for one. Not looked at: memory that is shared, and mutexes of other C libraries.
"""

from __future__ import annotations

import bisect
import contextlib
import mmap
import re
import struct
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path

from kernel_backend.abi import linux
from kernel_backend.host import libc
from kernel_backend.image.descriptions import PageRun
from kernel_backend.image.entries import ProcessEntry
from kernel_backend.resources import pages

_MOST_BYTES = 256 << 20  # a tenth of a second; small mappings come first: heaps, stacks and variables of libraries are
_MUTEX = struct.Struct("<IIiIIi16s")  # lock, count, owner, users, kind, spins and elision, list
_OWNER_OFFSET, _USERS_OFFSET, _ALIGNED = 8, 12, 8
_RECURSIVE, _ERRORCHECK = 1, 2
_TYPE, _ROBUST, _INHERITS, _SHARED, _ELIDED = 0x03, 0x10, 0x20, 0x80, 0x300  # parts of `kind`
_LOCK_BITS = 0xC0000000  # FUTEX_WAITERS, FUTEX_OWNER_DIED; the rest of the word is the owner, of a robust or PI one
_MOST = 1 << 16  # of counts


def correct(pid: int, entry: ProcessEntry, new: Mapping[int, int], folder: Path) -> None:
    """Write the `new` ids (by the old ones) into the stopped process `pid`, restored from an image in `folder`."""
    if not new:
        return
    for thread in entry.threads:
        if thread.tid in new and thread.tid_address:
            _replace(pid, thread.tid_address, _packed(thread.tid), _packed(new[thread.tid]))
    if not entry.pagemap:
        return
    path = folder / pages.pages_name(entry.pid)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as image:
        for address, mutex in held_mutexes(_runs(entry), new, image):
            lock, count, owner, *_, kind, _, _ = _MUTEX.unpack(mutex)
            if kind & (_ROBUST | _INHERITS):
                lock = lock & _LOCK_BITS | new[owner]
            _replace(pid, address, mutex, struct.pack("<IIi", lock, count, new[owner]))


def _packed(tid: int) -> bytes:
    return struct.pack("<i", tid)


def _replace(pid: int, address: int, was: bytes, now: bytes) -> None:
    """Where the memory is as it was."""
    with contextlib.suppress(OSError):
        if libc.vm_read(pid, address, len(was)) == was:
            libc.vm_write(pid, address, now)


def held_mutexes(runs: Iterable[PageRun], tids: Collection[int], image: mmap.mmap) -> Iterator[tuple[int, bytes]]:
    """Addresses and contents of the mutexes in these pages that threads hold which had these ids."""
    wanted = [(re.compile(pattern, re.DOTALL), distance) for pattern, distance in _patterns(tids)]
    for run in runs:
        for pattern, distance in wanted:
            for found in pattern.finditer(image, run.offset, run.offset + run.length):
                at = found.start() - distance
                address = run.address + at - run.offset
                if address >= run.address and address % _ALIGNED == 0 and _is_held(image[at : at + _MUTEX.size], tids):
                    yield address, image[at : at + _MUTEX.size]


def _runs(entry: ProcessEntry) -> Iterator[PageRun]:
    """Of memory that is written to and not shared, that of small mappings first."""
    writable = [vma for vma in entry.vmas if vma.private and vma.prot & linux.PROT_WRITE]
    left = _MOST_BYTES
    starts = [run.address for run in entry.pagemap]
    for vma in sorted(writable, key=lambda vma: vma.end - vma.start):
        first = bisect.bisect_left(starts, vma.start)
        for run in entry.pagemap[max(0, first - 1) : bisect.bisect_left(starts, vma.end)]:
            begin, end = max(run.address, vma.start), min(run.address + run.length, vma.end)
            if begin < end and left > 0:
                left -= end - begin
                yield PageRun(begin, end - begin, run.offset + begin - run.address)


def _patterns(tids: Collection[int]) -> Iterator[tuple[bytes, int]]:
    """Regular expressions, and how far behind the start of the mutex each begins: with bytes that are found fast."""
    high = {_packed(tid)[1:] for tid in tids}
    if bytes(3) not in high:
        for part in high:
            low = b"".join(re.escape(_packed(tid)[:1]) for tid in tids if _packed(tid)[1:] == part)
            yield rb"%s(?<=[%s]%s)" % (re.escape(part), low, re.escape(part)), _OWNER_OFFSET + 1
        return
    kinds = b"".join(
        re.escape(bytes([kind | shared]))
        for kind in (_RECURSIVE, _ERRORCHECK, *range(_ROBUST, _ROBUST + 4), *range(_INHERITS, _INHERITS + 4))
        for shared in (0, _SHARED)
    )
    yield rb"\x01\x00\x00\x00[%s][\x00-\x03]\x00\x00" % kinds, _USERS_OFFSET


def _is_held(found: bytes, tids: Collection[int]) -> bool:
    if len(found) < _MUTEX.size:
        return False
    lock, count, owner, users, kind, spins, links = _MUTEX.unpack_from(found)
    if owner not in tids or not 0 < users < _MOST or count >= _MOST:
        return False
    if kind & ~(_TYPE | _ROBUST | _INHERITS | _SHARED | _ELIDED):
        return False
    if kind & (_ROBUST | _INHERITS):
        return bool(lock & ~_LOCK_BITS == owner)
    knows = count > 0 if kind & _TYPE == _RECURSIVE else count == 0 and kind & _TYPE == _ERRORCHECK
    return knows and lock in (1, 2) and not spins and not any(links)
