"""userfaultfd: a process serves the page faults of its own memory, as garbage collectors and emulators do.

What is missing has to be missing afterwards, what is write-protected has to be so. smaps tells which mappings are
served (VmFlags um, uw), the page tables which pages are there, are the zero page, or are protected. Two things no file
shows: whose memory a descriptor serves, and whether faults inside the OS kernel are served, too (an ordinary user gets
UFFD_USER_MODE_ONLY). Both are tried at a page of our own that is mapped for the moment (`_Trial`).

Whoever touches missing memory waits until it is served. So nothing of it is ever read that is not there, and what
would have us wait is refused before the first call is injected (`check`): programs that want to hear of forks and
unmapping (a twin is a fork), threads whose stack or thread area is served.

Coming back, memory is filled first; the descriptor is made in the process when everything else stands, and what waits
in a fault runs into it again. Pages that must be missing are dropped when their memory is registered, not before: the
OS kernel's khugepaged makes huge pages of what is there and what is not, and leaves alone only what is served
(hugepage_vma_revalidate and userfaultfd_armed in mm/khugepaged.c). A fault that the
program has read of, but not served yet, is told a second time, as after any signal.

Sources: userfaultfd(2), ioctl_userfaultfd(2), fs/userfaultfd.c and Documentation/admin-guide/mm of the OS kernel.
"""

from __future__ import annotations

import errno
import os
import signal
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

from kernel_backend.abi import linux
from kernel_backend.errors import HostUnsupported, ResourceUnsupported
from kernel_backend.host import fds, libc, proc, userfault
from kernel_backend.host.identity import without_capabilities
from kernel_backend.image.descriptions import Description, PageRange, ServedRange, UserFault
from kernel_backend.image.entries import ProcessEntry
from kernel_backend.image.spans import joined
from kernel_backend.resources import memory
from kernel_backend.resources.descriptors import CaptureTables, Kind, Look, RebuildTables, restore_owner
from kernel_backend.resources.pidfd import replace_everywhere
from kernel_backend.tracee.inject import Workshop
from kernel_backend.tracee.process import Process

_LINK = "anon_inode:[userfaultfd]"
_INITIALIZED = 1 << 31
_THREAD_ID, _SIGBUS, _EXACT_ADDRESS, _MOVE = 1 << 8, 1 << 7, 1 << 11, 1 << 16
_KINDS_OF_MEMORY = 1 << 0 | 1 << 4 | 1 << 5 | 1 << 9 | 1 << 10 | 1 << 12  # what may be registered, not what is
_FEATURES = _KINDS_OF_MEMORY | _THREAD_ID | _SIGBUS | _EXACT_ADDRESS | _MOVE
_TRIAL_S = 10.0
_PM_PROTECTED = 1 << 57
_MISSING = "calls that make served pages missing"
_PIECE_BYTES = 64 << 20
_HINT = "end the thread that serves page faults, or close its descriptor, and checkpoint again"


class UserFaultKind(Kind):
    """userfaultfd(2)."""

    entry = UserFault

    def matches(self, look: Look) -> bool:
        return look.link == _LINK

    def capture(self, look: Look, tables: CaptureTables) -> Description:
        if look.in_flight:
            raise _refused(look.holder, "is on its way to another process")
        features = _features(look.info)
        _check_features(look.holder, features)
        flags = proc.smaps_flags(proc.smaps(look.process.view))
        served = [area for area in proc.maps(look.process.view) if flags.get(area.start, frozenset()) & {"um", "uw"}]
        user_only = _try_out(look, tables.processes.values())
        entry = UserFault(features=features & ~_INITIALIZED, user_only=user_only)
        entry.areas = [
            ServedRange(a.start, a.end - a.start, "um" in flags[a.start], "uw" in flags[a.start]) for a in served
        ]
        _note_pages(look.process.view, entry)
        return entry

    def capture_links(self, index: int, look: Look, entry: UserFault, tables: CaptureTables) -> None:
        if len({pid for pid, _ in tables.holders.get(index, ())}) > 1:
            raise _refused(look.holder, "belongs to other processes, too")
        others = [
            other
            for number, other in enumerate(tables.looks)
            if number != index and other.link == _LINK and other.process.pid == look.process.pid
        ]
        if others:
            raise _refused(look.holder, f"is one of two (the other is descriptor {others[0].fd})")

    def validate(self, index: int, entry: UserFault, tables: RebuildTables) -> None:
        try:
            with without_capabilities():
                fd = libc.syscall("userfaultfd", _open_flags(entry))
            try:
                userfault.open_api(fd, entry.features)
            finally:
                os.close(fd)
        except OSError as error:
            raise HostUnsupported(
                f"the userfaultfd at {tables.who(index)} cannot be had here: {error.strerror}",
                hint="restore it as root" if error.errno == errno.EPERM else "",
            ) from error

    def rebuild(self, index: int, entry: UserFault, tables: RebuildTables) -> None:
        tables.own[index] = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)  # until `finish`

    def finish(
        self, index: int, entry: UserFault, tables: RebuildTables, workshop: Workshop, pid: int, fd: int
    ) -> None:
        made = workshop.call("userfaultfd", _open_flags(entry))
        handle = libc.pidfd_open(workshop.thread.tgid)
        try:
            ours = libc.pidfd_getfd(handle, made)
        finally:
            os.close(handle)
        try:
            userfault.open_api(ours, entry.features)
            for area in entry.areas:
                userfault.register(ours, area.start, area.size, missing=area.missing, protected=area.protected)
            workshop.run(tables.cache.get(_MISSING, {}).get(pid, []))
            for zero in entry.zeros:
                userfault.zero(ours, zero.start, zero.size)
            for low in entry.protected:
                userfault.protect(ours, low.start, low.size)
        finally:
            os.close(ours)
        replace_everywhere(index, made, tables, workshop, pid)
        restore_owner(entry, tables, workshop, fd)


def note_missing(tables: RebuildTables, entry: ProcessEntry) -> None:
    """Which pages of a process are to be missing when its memory is served again."""
    tables.cache.setdefault(_MISSING, {})[entry.pid] = memory.missing_calls(entry)


def check(process: Process, served: Mapping[int, frozenset[str]]) -> None:
    """Refuse what nobody can capture of memory whose faults are served, before anything is injected.

    `served`: flags of such mappings by where they start.
    """
    if not served:
        return
    who = f"process {process.pid} has memory at {min(served):#x} whose page faults"
    own = [info for fd in _numbers(process) if _features(info := proc.fdinfo(process.view, fd)) & _INITIALIZED]
    if not own:
        raise _refused(who, "somebody else serves")  # its missing pages come from there
    for info in own:
        _check_features(f"process {process.pid}", _features(info))
    areas = [area for area in process.mappings if area.start in served]
    for area in areas:
        if area.shared or area.inode or {"ui", "ht", "lo"} & served[area.start]:
            raise _refused(who, f"are served in memory that is shared, locked or of huge pages ({area.start:#x})")
    for thread in process.threads.values():
        regs = thread.get_regs()
        for touched in (regs.sp, regs.sp - linux.PAGE_SIZE, regs.thread_area):
            if any(area.start <= touched < area.end for area in areas):
                raise _refused(who, f"are served, and thread {thread.tid} lives in it")


def _numbers(process: Process) -> Iterator[int]:
    for fd in proc.fd_numbers(process.view):
        if proc.fd_link(process.view, fd) == _LINK:
            yield fd


def _refused(who: str, why: str) -> ResourceUnsupported:
    return ResourceUnsupported(f"{who} {why} (userfaultfd), which cannot be captured", hint=_HINT)


def _features(info: proc.FdInfo) -> int:
    """What a program asked for by UFFDIO_API; 0: it has not yet."""
    return int((info.value("API") or "0:0").split(":")[1], 16)


def _check_features(holder: str, features: int) -> None:
    if not features & _INITIALIZED:
        raise _refused(holder, "has a userfaultfd that is not set up yet")
    if odd := features & ~_INITIALIZED & ~_FEATURES:
        raise _refused(holder, f"hears of forks, unmapping or the like by a userfaultfd (features {odd:#x})")


def _open_flags(entry: UserFault) -> int:
    return os.O_CLOEXEC | entry.flags & os.O_NONBLOCK | (userfault.USER_MODE_ONLY if entry.user_only else 0)


# --- what only a trial tells ------------------------------------------------------------------------------------------


def _try_out(look: Look, processes: Iterable[Process]) -> bool:
    """Whether a descriptor serves faults in user mode only. Raises where the memory is not its holder's."""
    every = [*processes]
    occupied = [(area.start, area.end) for process in every for area in proc.maps(process.view)]
    address = memory.find_hole(linux.PAGE_SIZE, occupied)
    with look.process.borrow() as borrowed:
        flags = linux.MAP_PRIVATE | linux.MAP_ANONYMOUS | linux.MAP_FIXED_NOREPLACE
        borrowed.call("mmap", address, linux.PAGE_SIZE, linux.PROT_READ | linux.PROT_WRITE, flags, -1, 0)
        try:
            with _served(look, address):
                return not _is_waited_for(look, address)
        finally:
            borrowed.call("munmap", address, linux.PAGE_SIZE)


@contextmanager
def _served(look: Look, address: int) -> Iterator[None]:
    try:
        userfault.register(look.own, address, linux.PAGE_SIZE)
    except OSError as error:
        raise _refused(look.holder, "serves memory of another process") from error
    try:
        yield
    finally:
        userfault.unregister(look.own, address, linux.PAGE_SIZE)


def _is_waited_for(look: Look, address: int) -> bool:
    """Whether somebody who is not in user mode waits at a missing page, or is told that there is none."""
    child = os.fork()
    if child == 0:
        try:
            libc.vm_read(look.process.view, address, 1)
        except OSError as error:
            os._exit(error.errno or 0)
        finally:
            os._exit(0)
    pidfd = os.pidfd_open(child)
    try:
        deadline = time.monotonic() + _TRIAL_S
        while time.monotonic() < deadline:
            if fds.is_ready(pidfd, wait_ms=1):
                break
            if (proc.fdinfo(look.process.view, look.fd).value("pending") or "0") != "0":
                return True
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    finally:
        os.close(pidfd)
        os.kill(child, signal.SIGKILL)
        status = os.waitpid(child, 0)[1]
    if not os.WIFEXITED(status) or os.WEXITSTATUS(status) != errno.EFAULT:
        raise _refused(look.holder, "does not show whether it serves the OS kernel's own faults")
    return False


# --- pages ------------------------------------------------------------------------------------------------------------


def _note_pages(pid: int, entry: UserFault) -> None:
    """Which of the served pages are the zero page, and which are protected; of the original, a fork forgets both."""
    fd = os.open(f"/proc/{pid}/pagemap", os.O_RDONLY | os.O_CLOEXEC)
    try:
        for area in entry.areas:
            end = area.start + area.size
            mask = linux.PAGE_IS_PFNZERO
            found = libc.pagemap_scan(fd, area.start, end, mask=mask, any_of=linux.PAGE_IS_PRESENT)
            entry.zeros += [PageRange(low, high - low) for low, high, _ in found]
            if area.protected:
                entry.protected += [PageRange(low, high - low) for low, high in joined(_protected(fd, area.start, end))]
    finally:
        os.close(fd)


def _protected(fd: int, start: int, end: int) -> Iterator[tuple[int, int]]:
    for at in range(start, end, _PIECE_BYTES):
        for number, word in enumerate(libc.pagemap_words(fd, at, min(at + _PIECE_BYTES, end))):
            if word & _PM_PROTECTED:
                yield at + number * linux.PAGE_SIZE, at + (number + 1) * linux.PAGE_SIZE


KINDS: list[Kind] = [UserFaultKind()]
