"""Restartable sequences (rseq(2)): a thread that is made to do something else in the midst of one has to abort it.

The OS kernel does so when it preempts a thread there. When it finds a thread elsewhere than in the sequence which that
had announced, it takes the announcement for stale and drops it: a thread which we have sent elsewhere would come back
into a sequence that nobody guards any more. So we abort it, as the OS kernel may do at any time.
"""

from __future__ import annotations

import struct

from kernel_backend.abi.x86_64 import UserRegs
from kernel_backend.host import libc
from kernel_backend.tracee.thread import Thread

_ANNOUNCED_AT = 8  # rseq_cs in struct rseq
_SECTION = struct.Struct("<IIQQQ")  # struct rseq_cs: version, flags, start_ip, post_commit_offset, abort_ip


def abort_section(thread: Thread, regs: UserRegs) -> int:
    """Send `regs` to where a sequence is aborted, if the thread is in one; where that is announced, else 0."""
    area = thread.rseq()
    if area is None:
        return 0
    try:
        announced = area[0] + _ANNOUNCED_AT
        section = struct.unpack("<Q", libc.vm_read(thread.tid, announced, 8))[0]
        if not section:
            return 0
        _, _, start, length, abort = _SECTION.unpack(libc.vm_read(thread.tid, section, _SECTION.size))
    except OSError:
        return 0  # the OS kernel would not find it either
    if not start <= regs.pc < start + length:
        return 0
    regs.pc = abort
    return announced


def clear(thread: Thread, announced: int) -> None:
    """The sequence has been aborted."""
    libc.vm_write(thread.tid, announced, bytes(8))
