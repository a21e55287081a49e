"""Seccomp filters of a tracee (seccomp(2)): suspended while we trace it, and read.

A system call that we inject passes the program's own filter, which may answer it with the program's death. For the time
of a trace there is none (PTRACE_O_SUSPEND_SECCOMP), if the tracer has CAP_SYS_ADMIN and no filter itself. One thing is
left that a freeze brings about when the trace is over: a sleeper that it woke goes on by restart_syscall(2), of which
not every filter has been told. And should the tracer be killed in the middle of a call of ours, the filter judges that.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from kernel_backend.abi import arch, linux
from kernel_backend.host import libc, proc
from kernel_backend.host.features import effective_capabilities
from kernel_backend.tracee import bpf
from kernel_backend.tracee.thread import Thread

NONE, STRICT = "0", "1"  # modes of /proc/PID/status; anything else are filters
_ALLOWED = (0x7FFC0000, 0x7FFF0000)  # SECCOMP_RET_LOG, SECCOMP_RET_ALLOW
_ACTION = 0xFFFF0000


class Program(NamedTuple):
    """One filter: those of its flags that can be read (SECCOMP_FILTER_FLAG_), and struct sock_filter[]."""

    flags: int
    code: bytes

    @property
    def actions(self) -> set[int]:
        """The answers (SECCOMP_RET_) that stand in it."""
        return {
            constant & _ACTION for code, _, _, constant in bpf.INSTRUCTION.iter_unpack(self.code) if code == bpf.RETURN
        }


def mode(pid: int) -> str:
    """Under which sort of filter a process is."""
    return proc.status(pid).get("Seccomp", NONE)


def can_be_suspended() -> bool:
    """Whether we may do so: root of a user namespace may not."""
    everybody = Path("/proc/self/uid_map").read_text().split() == ["0", "0", "4294967295"]
    return everybody and "CAP_SYS_ADMIN" in effective_capabilities() and mode(os.getpid()) == NONE


def suspend(threads: Iterable[Thread]) -> bool:
    """Let all calls of these stopped threads pass until they are let go; whether that is permitted."""
    try:
        for thread in threads:
            thread.suspend_filters()
    except OSError:
        return False
    return True


def read(thread: Thread) -> list[Program]:
    """The filters of a stopped thread, the oldest first. Raises OSError where one cannot be read."""
    found: list[Program] = []
    while True:
        index = len(found)
        try:
            count = libc.ptrace(linux.PTRACE_SECCOMP_GET_FILTER, thread.tid, index, 0)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.EINVAL):  # there are no more; it is under no filters
                return found
            raise
        code = ctypes.create_string_buffer(count * bpf.INSTRUCTION.size)
        libc.ptrace(linux.PTRACE_SECCOMP_GET_FILTER, thread.tid, index, code)
        metadata = ctypes.create_string_buffer(struct.pack("<QQ", index, 0), 16)
        libc.ptrace(linux.PTRACE_SECCOMP_GET_METADATA, thread.tid, len(metadata), metadata)
        found.append(Program(struct.unpack("<QQ", metadata.raw)[1], code.raw))


def let_restart(programs: Sequence[Program]) -> bool:
    """Whether they all let a sleeper go on that was woken (restart_syscall(2))."""
    data = struct.pack(
        "<iI7Q", arch.SYS["restart_syscall"], arch.AUDIT_ARCH, 0, 0, 0, 0, 0, 0, 0
    )  # struct seccomp_data
    return all(bpf.result(program.code, data) & _ACTION in _ALLOWED for program in programs)
