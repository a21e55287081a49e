"""A process's own segment descriptors (modify_ldt(2)), which emulators of older systems use.

The OS kernel tells a table with all that a processor would read, and takes entries one by one, in another form
(abi.x86_64). A fork copies it, execve(2) ends it. Threads that have selectors of it in their segment registers get
those with all others, when the table stands.
"""

from __future__ import annotations

import errno
import os
from functools import cache

from kernel_backend.abi import linux, x86_64
from kernel_backend.errors import HostUnsupported, ResourceUnsupported
from kernel_backend.host import features, libc
from kernel_backend.image.entries import Inventory, ProcessEntry
from kernel_backend.tracee.chorus import Asking
from kernel_backend.tracee.inject import WORD, Borrowed, Call, Workshop

_READ, _WRITE = 0, 0x11
_ENTRY = x86_64.SEGMENT_BYTES
_MOST_BYTES = x86_64.MOST_SEGMENTS * _ENTRY


@cache
def exist() -> bool:
    """Whether this OS kernel knows such tables at all (CONFIG_MODIFY_LDT_SYSCALL)."""
    try:
        libc.syscall("modify_ldt", _READ, None, 0)
    except OSError:
        return False
    return True


def first_call(data: int) -> Call:
    """Tells whether there is a table: it returns how much was read, of most processes nothing. It writes 8 bytes."""
    return Call("modify_ldt", _READ, data, _ENTRY) if exist() else Call("getpid")


def is_there(told: int) -> bool:
    """What `first_call` has told."""
    return exist() and _checked(told) > 0


def read(workshop: Workshop) -> bytes:
    """The table of the process that a workshop is in, as ProcessEntry.segments."""
    return _shortened(workshop.get(_checked(workshop.call("modify_ldt", _READ, workshop.data, _MOST_BYTES))))


def ask(pid: int, borrowed: Borrowed) -> Asking[bytes]:
    """The same of a process that must live on: the table may be larger than what a thread has room for.

    Raises ResourceUnsupported where nothing more can be mapped.
    """
    flags = linux.MAP_PRIVATE | linux.MAP_ANONYMOUS
    try:
        at = yield Call("mmap", 0, _MOST_BYTES, linux.PROT_READ | linux.PROT_WRITE, flags, WORD, 0)
    except OSError as error:
        if error.errno not in (errno.ENOMEM, errno.EAGAIN):
            raise
        raise ResourceUnsupported(
            f"process {pid} has segment descriptors (modify_ldt), and no memory left into which they could be read",
            hint="raise its RLIMIT_AS or RLIMIT_MEMLOCK and checkpoint again", pid=pid,
        ) from error  # fmt: skip
    size = _checked((yield Call("modify_ldt", _READ, at, _MOST_BYTES)))
    table = libc.vm_read(borrowed.thread.tid, at, size)
    yield Call("munmap", at, _MOST_BYTES)
    return _shortened(table)


def _checked(result: int) -> int:
    """An error of this call is a negative number of 32 bits (an `int`, see modify_ldt in arch/x86/kernel/ldt.c)."""
    if result >> 31:
        number = 2**32 - result
        raise OSError(number, f"modify_ldt in the tracee: {os.strerror(number)}")
    return result


def _shortened(table: bytes) -> bytes:
    """Without the empty entries at its end; of a table in which nothing stands, one of them."""
    used = -(-len(table.rstrip(b"\0")) // _ENTRY) * _ENTRY
    return table[: max(used, _ENTRY)]  # nothing, where there is none


# --- coming back ------------------------------------------------------------------------------------------------------


def check(inventory: Inventory) -> None:
    """Whether this OS kernel lets processes have the tables of an image. Raises HostUnsupported."""
    for entry in inventory.processes:
        if entry.segments and (refused := features.refuses_segment(_hardest(entry.segments))):
            raise HostUnsupported(
                f"process {entry.pid} of the image has segment descriptors of its own, which this OS kernel does not "
                f"let a process have (modify_ldt: {refused})",
                hint="restart it on a host whose OS kernel has CONFIG_MODIFY_LDT_SYSCALL and CONFIG_X86_16BIT",
                pid=entry.pid,
            )  # fmt: skip


def _hardest(table: bytes) -> bytes:
    """What to try: not every OS kernel has segments of 16 bits."""
    wanted = [table[at : at + _ENTRY] for at in range(0, len(table), _ENTRY)]
    return x86_64.segment_to_set(0, min(wanted, key=x86_64.is_segment_of_32_bits))


def put_back(workshop: Workshop, entry: ProcessEntry) -> None:
    """Give a process the image's table, in place of what the present may have left in it."""
    if not exist():
        return  # no image has one here: `check`
    present = read(workshop)
    size = max(len(present), len(entry.segments))
    before, after = (table.ljust(size, b"\0") for table in (present, entry.segments))
    differ = [at // _ENTRY for at in range(0, size, _ENTRY) if before[at : at + _ENTRY] != after[at : at + _ENTRY]]
    if entry.segments and not present:
        differ = differ or [0]  # a table in which nothing stands is one, too
    orders = [x86_64.segment_to_set(number, after[number * _ENTRY :][:_ENTRY]) for number in differ]
    at_once = workshop.data_bytes // x86_64.SEGMENT_TO_SET_BYTES
    for first in range(0, len(orders), at_once):
        some = orders[first : first + at_once]
        at = workshop.put(b"".join(some))
        places = range(at, at + len(some) * x86_64.SEGMENT_TO_SET_BYTES, x86_64.SEGMENT_TO_SET_BYTES)
        for told in workshop.run(Call("modify_ldt", _WRITE, p, x86_64.SEGMENT_TO_SET_BYTES) for p in places):
            _checked(told)
