"""Restartable sequences (rseq(2)): a thread that is made to do something else in the midst of one has to abort it.

The OS kernel does so when it preempts a thread there. When it finds a thread elsewhere than in the sequence which that
had announced, it takes the announcement for stale and drops it: a thread which we have sent elsewhere would come back
into a sequence that nobody guards any more. So we abort it, as the OS kernel may do at any time.
"""

from __future__ import annotations

import struct

from kernel_backend.abi.x86_64 import UserRegs
from kernel_backend.errors import TargetUnsupported
from kernel_backend.host import libc
from kernel_backend.tracee.thread import Thread

_ANNOUNCED_AT = 8  # rseq_cs in struct rseq
Area = tuple[int, int, int, int]
_SECTION = struct.Struct("<IIQQQ")  # struct rseq_cs: version, flags, start_ip, post_commit_offset, abort_ip


def abort_section(thread: Thread, regs: UserRegs, area: Area | None) -> int:
    """Send `regs` to where a sequence is aborted, if the thread is in one; where that is announced, else 0.

    `area`: what Thread.rseq tells. Raises TargetUnsupported for a thread which the OS kernel ends as soon as it runs
    again.
    """
    if area is None:
        return 0
    announced = area[0] + _ANNOUNCED_AT
    section = struct.unpack("<Q", _read_and_write(thread, announced))[0]
    if not section:
        return 0
    try:
        _, _, start, length, abort = _SECTION.unpack(libc.vm_read(thread.tid, section, _SECTION.size))
    except OSError:
        return 0  # the OS kernel would not find it either
    if not start <= regs.pc < start + length:
        return 0
    regs.pc = abort
    return announced


def _read_and_write(thread: Thread, announced: int) -> bytes:
    """What is announced; proven is that the OS kernel can write there, as it does when a thread runs again.

    Where it cannot (the program has unmapped the area), it sends SIGSEGV, whatever the thread was about to do. A call
    of ours would never begin: we swallow the signal, and the next is sent.
    """
    try:
        content = libc.vm_read(thread.tid, announced, 8)
        libc.vm_write(thread.tid, announced, content)
    except OSError as error:
        raise TargetUnsupported(
            f"thread {thread.tid} of process {thread.tgid} has no memory any more at its rseq area: it ends as soon as "
            f"it runs on", pid=thread.tgid,
        ) from error  # fmt: skip
    return content


def clear(thread: Thread, announced: int) -> None:
    """The sequence has been aborted."""
    libc.vm_write(thread.tid, announced, bytes(8))
