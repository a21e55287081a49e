"""Seccomp (seccomp(2)): filters of system calls, which a process can never take off, and strict mode.

Only root reads them, and puts them back: that takes CAP_SYS_ADMIN, and a filter would judge our own calls if it were
not suspended (tracee/filters.py). What we are under ourselves, as all of a container usually are, is nobody's own: what
we restore is under it anyway.

A restored process gets its filters just before it becomes its user. Its threads share them (SECCOMP_FILTER_FLAG_TSYNC),
as they must if one of them is to add another one for all. A present keeps what it has, so it can become only a process
that begins with that.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import functools
import os
import signal
import struct
from collections.abc import Iterable, Mapping

from kernel_backend.errors import HostUnsupported, ImageCorrupt, ResourceUnsupported, TargetDenied, TargetUnsupported
from kernel_backend.host import fds, libc, proc
from kernel_backend.image.entries import Inventory, ProcessEntry, SeccompEntry, SeccompFilter
from kernel_backend.resources import processes
from kernel_backend.tracee import bpf, filters, stub
from kernel_backend.tracee.inject import Call, Workshop
from kernel_backend.tracee.process import Process
from kernel_backend.tracee.thread import Thread

_FIELDS = ("Seccomp", "Seccomp_filters")
_SET_MODE_STRICT, _SET_MODE_FILTER = 0, 1
_TSYNC, _SPEC_ALLOW = 1, 4  # SECCOMP_FILTER_FLAG_; how a process speculates is restored by itself
_USER_NOTIF = 0x7FC00000
_CAP_SYS_ADMIN = 1 << 21
_ENDS_WITHIN_MS = 10_000
_PROGRAM = struct.Struct("<H6xQ")  # struct sock_fprog
_HINT = (
    "root can checkpoint it, where nbcr itself is under no filter (`nbcr doctor`); or run nbcr inside the same sandbox"
)


def has_its_own(theirs: Mapping[str, str]) -> bool:
    """Whether a process with this status is under filters that we are not under."""
    mine = _our_status(os.getpid())
    return [theirs.get(name, "0") for name in _FIELDS] != [mine.get(name, "0") for name in _FIELDS]


@functools.cache
def _our_status(pid: int) -> dict[str, str]:
    return proc.status(pid)


def check_running(pids: Iterable[int]) -> None:
    """Refuse processes whose filters we cannot suspend before they are stopped: that might wake them to their death."""
    if filters.can_be_suspended():
        return
    for pid in pids:
        with contextlib.suppress(OSError):  # the freeze will say so
            if has_its_own(proc.status(proc.view(pid))):
                raise _unreadable(pid)


def check(process: Process) -> None:
    """Refuse a frozen process whose filters we do not share and could not suspend."""
    if has_its_own(process.status()) and not process.unfiltered:
        raise _unreadable(process.pid)


def _unreadable(pid: int) -> ResourceUnsupported:
    return ResourceUnsupported(
        f"process {pid} runs under a seccomp filter of its own, which cannot be read back by this user",
        hint=_HINT, pid=pid,
    )  # fmt: skip


def capture(process: Process) -> SeccompEntry | None:
    """What a process is under, where that is its own."""
    if not process.unfiltered:
        return None
    if filters.mode(process.view) == filters.STRICT:
        return SeccompEntry(strict=True)
    found = _read(process, process.main)
    for thread in process.threads.values():
        if thread is not process.main and _read(process, thread) != found:
            raise ResourceUnsupported(
                f"thread {thread.tid} of process {process.pid} has a seccomp filter of its own, which is not captured",
                hint="end that thread and checkpoint again", pid=process.pid, tid=thread.tid,
            )  # fmt: skip
    if any(_USER_NOTIF in program.actions for program in found):
        raise ResourceUnsupported(
            f"process {process.pid} has a seccomp filter that asks a supervisor (SECCOMP_RET_USER_NOTIF)",
            hint="end the sandbox, or start the program without it", pid=process.pid,
        )  # fmt: skip
    return SeccompEntry(filters=[SeccompFilter(program.flags, program.code) for program in found])


def _read(process: Process, thread: Thread) -> list[filters.Program]:
    try:
        return filters.read(thread)
    except OSError as error:
        raise ResourceUnsupported(
            f"a seccomp filter of process {process.pid} cannot be read: {error.strerror}", hint=_HINT, pid=process.pid
        ) from error


# --- coming back ------------------------------------------------------------------------------------------------------


def check_image(inventory: Inventory, present: Process | None, *, for_a_user: bool) -> None:
    """Raise unless all processes of an image can get what they were under: as children of ours, or of a present.

    `for_a_user`: root restores it, and does not believe all that it says.
    """
    confined = [(entry, entry.seccomp) for entry in inventory.processes if entry.seccomp is not None]
    if confined and not filters.can_be_suspended():
        raise HostUnsupported(
            f"process {confined[0][0].pid} of the image ran under a seccomp filter, which root alone can put back",
            hint="restart it as root, with an nbcr that is under no filter itself",
        )
    rising = next((e.pid for e, _ in confined if not all(r.no_new_privs for r in processes.rights_of(e))), 0)
    if rising and for_a_user:  # a filter could lead programs astray that have more rights than that user (setuid)
        raise TargetDenied(
            f"process {rising} of the image ran under a seccomp filter, but may gain rights",
            hint="restore it with --trust if you know where the image comes from", pid=rising,
        )  # fmt: skip
    if present is not None:
        _check_present(inventory, present)
    for entry in {str(seccomp): seccomp for _, seccomp in confined}.values():
        _try(entry)


def _check_present(inventory: Inventory, present: Process) -> None:
    """What it is under it keeps; what is added takes CAP_SYS_ADMIN, or that it may never gain rights."""
    kept, adds = capture(present), False
    for entry in inventory.processes:
        if kept is not None and not _begins_with(entry.seccomp, kept):
            raise TargetUnsupported(
                f"process {present.pid} runs under a seccomp filter that process {entry.pid} of the image has not",
                hint="restore the image as a fresh process", pid=present.pid,
            )  # fmt: skip
        more = entry.seccomp is not None and entry.seccomp != kept
        adds = adds or (more and not entry.credentials.no_new_privs)
    if adds and not int(proc.status(present.view)["CapEff"], 16) & _CAP_SYS_ADMIN:
        raise TargetDenied(
            f"process {present.pid} may not put itself under the seccomp filters that the image has",
            hint="restore the image as a fresh process, as root", pid=present.pid,
        )  # fmt: skip


def _begins_with(wanted: SeccompEntry | None, kept: SeccompEntry) -> bool:
    if wanted is None or kept.strict or wanted.strict:
        return False
    return wanted.filters[: len(kept.filters)] == kept.filters


def _try(entry: SeccompEntry) -> None:
    """Have a child of ours take the filters: the OS kernel refuses programs that make no sense. Raises ImageCorrupt."""
    child = os.fork()
    if child == 0:
        try:
            for one in entry.filters:
                code = ctypes.create_string_buffer(one.program)
                program = _PROGRAM.pack(len(one.program) // bpf.INSTRUCTION.size, ctypes.addressof(code))
                libc.syscall("seccomp", _SET_MODE_FILTER, one.flags | _SPEC_ALLOW, program)
            os._exit(0)  # which they may forbid: it dies of that
        except OSError as error:
            os._exit(error.errno or 1)
        finally:
            os._exit(1)
    pidfd = os.pidfd_open(child)
    try:
        if not fds.is_ready(pidfd, wait_ms=_ENDS_WITHIN_MS):
            os.kill(child, signal.SIGKILL)
        status = os.waitpid(child, 0)[1]
    finally:
        os.close(pidfd)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status) in (errno.EINVAL, errno.EFAULT):  # others a filter may answer
        raise ImageCorrupt(f"a seccomp filter of the image is none: {os.strerror(os.WEXITSTATUS(status))}")


def let_restart(entry: ProcessEntry) -> bool:
    """Whether a process may go on sleeping by restart_syscall(2)."""
    return entry.seccomp is None or filters.let_restart(_programs(entry.seccomp))


def _programs(entry: SeccompEntry) -> list[filters.Program]:
    return [filters.Program(one.flags, one.program) for one in entry.filters]


def put_back(shop: Workshop, threads: Iterable[Thread], entry: ProcessEntry) -> None:
    """Put all threads of a process under what it was under; our own calls are not judged."""
    if entry.seccomp is None:
        return
    every = list(threads)
    for thread in every:
        thread.suspend_filters(stub.STUB_OPTIONS)
    if entry.seccomp.strict:
        for thread in every:
            shop.run([Call("seccomp", _SET_MODE_STRICT, 0, 0)], thread=thread)
    there = len(filters.read(shop.thread))  # a present's
    for one in entry.seccomp.filters[there:]:
        program = _PROGRAM.pack(len(one.program) // bpf.INSTRUCTION.size, shop.data + _PROGRAM.size)
        flags = one.flags | _SPEC_ALLOW | (_TSYNC if len(every) > 1 else 0)
        shop.call("seccomp", _SET_MODE_FILTER, flags, shop.put(program + one.program))
