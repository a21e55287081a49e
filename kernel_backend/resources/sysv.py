"""System V shared memory that the tree has attached (shmget(2), shmop(2)).

A segment is no process's own: it stays when its users end, unless it was marked for removal. So a restore looks for
it first. One that is still there (same key, same size) gets the image's contents and the processes attach it again; as
with a file in /dev/shm, others who use it see that. One that is gone is made again, with its old identifier where we
may choose it (/proc/sys/kernel/shm_next_id, CAP_CHECKPOINT_RESTORE).
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import struct
from pathlib import Path

import msgspec

from kernel_backend.abi import linux
from kernel_backend.errors import HostUnsupported, ResourceUnsupported
from kernel_backend.host import libc
from kernel_backend.host.guardian import Guardian
from kernel_backend.host.identity import Identity, as_ourselves
from kernel_backend.image.entries import ProcessEntry, SharedMemoryEntry, VmaEntry
from kernel_backend.resources import visits
from kernel_backend.resources.mapped_files import may_write
from kernel_backend.tracee.inject import Call

_NEXT_ID = Path("/proc/sys/kernel/shm_next_id")
_IPC_CREAT, _IPC_EXCL = 0o1000, 0o2000
_IPC_RMID, _IPC_SET = 0, 1
_SHM_RDONLY, _SHM_EXEC = 0o10000, 0o100000
_SHM_HUGETLB = 0o4000
_SHM_DEST, _SHM_LOCKED = 0o1000, 0o2000  # in the mode: marked for removal, kept out of swap
_SHM_LOCK = 11
_MADV_REMOVE = 9
_SHMID_DS_BYTES = 112


class Segment(msgspec.Struct):
    """One line of /proc/sysvipc/shm."""

    key: int
    id: int
    mode: int
    size: int
    creator: int  # its pid, 0 when that means nothing here
    uid: int
    gid: int
    creator_uid: int
    creator_gid: int

    def belongs_to(self, who: Identity) -> bool:
        """Whether this user may remove it."""
        return who.uid in (self.uid, self.creator_uid)

    def is_open_to(self, who: Identity) -> bool:
        """Whether this user may read it and write to it."""
        if self.belongs_to(who):
            mode = self.mode >> 6
        else:
            in_group = {who.gid, *who.groups} & {self.gid, self.creator_gid}
            mode = self.mode >> 3 if in_group else self.mode
        return mode & 0o6 == 0o6


def segments() -> dict[int, Segment]:
    """All segments of our IPC namespace, by identifier."""
    found = {}
    for line in Path("/proc/sysvipc/shm").read_text().splitlines()[1:]:
        f = line.split()
        found[int(f[1])] = Segment(int(f[0]), int(f[1]), int(f[2], 8), int(f[3]), int(f[4]), *map(int, f[7:11]))
    return found


def describe(entry: SharedMemoryEntry, pid: int) -> None:
    """Complete the entry of a segment that process `pid` has attached: /proc/PID/maps shows its id as the inode."""
    number = int(entry.key.rsplit(":", 1)[1])
    found = segments().get(number)
    if found is None or visits.identity("ipc", pid) != visits.here("ipc"):
        raise ResourceUnsupported(
            f"process {pid} has System V shared memory {number} of another IPC namespace attached",
            hint="run nbcr inside the same container", pid=pid, id=number,
        )  # fmt: skip
    entry.size = found.size
    entry.sysv_id, entry.sysv_key, entry.sysv_mode = number, found.key, found.mode
    entry.sysv_uid, entry.sysv_gid = found.uid, found.gid


# --- coming back ------------------------------------------------------------------------------------------------------


class Segments(msgspec.Struct):
    """The segments of a restore under way: made or found, held by us until the processes have them."""

    boot_id_same: bool
    warnings: list[str]
    guardian: Guardian
    user: Identity | None = None  # whose rights decide: the OS kernel would ask for ours; None: they do
    ids: dict[str, int] = {}  # by key of the shared memory entry
    sizes: dict[str, int] = {}
    _created: list[int] = []
    _found: list[tuple[int, SharedMemoryEntry]] = []  # our address; others may see them
    _passing: list[int] = []  # to be marked for removal again
    _attached: list[int] = []  # our addresses
    _announced: bool = False

    def bring_back(self, entry: SharedMemoryEntry, folder: Path, *, huge: bool) -> None:
        """Find or make the segment; a new one gets the image's contents at once, others see no change yet."""
        number = self._find(entry)
        made = number < 0
        if made:
            self._announce()
            number = _create(entry, huge, self.user)
            self._created.append(number)
            if number != entry.sysv_id:
                self.warnings.append(f"System V shared memory {entry.sysv_id} has the new identifier {number}")
        address = libc.syscall("shmat", number, 0, 0)
        self._attached.append(address)
        if made:
            _fill(address, entry, folder)
            self._lock(number, entry)
        else:
            self._found.append((address, entry))
        self.ids[entry.key], self.sizes[entry.key] = number, _rounded(entry.size)
        if entry.sysv_mode & _SHM_DEST and (made or self.user is None or segments()[number].belongs_to(self.user)):
            self._passing.append(number)

    def _lock(self, number: int, entry: SharedMemoryEntry) -> None:
        if entry.sysv_mode & _SHM_LOCKED:
            try:
                libc.syscall("shmctl", number, _SHM_LOCK, 0)
            except OSError as error:
                self.warnings.append(f"System V shared memory {number} is not locked as it was: {error.strerror}")

    def _announce(self) -> None:
        """Tell the guardian before the first is made: killed between the two, we would leave it for ever."""
        if not self._announced:
            ours = [found.id for found in segments().values() if found.creator == os.getpid()]
            self.guardian.tell("segments", os.getpid(), ours)
            self._announced = True

    def _find(self, entry: SharedMemoryEntry) -> int:
        """The identifier of the segment if it lives; keyless ones are recognised within one boot only."""
        for found in segments().values():
            same = found.id == entry.sysv_id and self.boot_id_same if not entry.sysv_key else True
            if not same or (found.key, found.size) != (entry.sysv_key, entry.size):
                continue
            if self.user is not None and not found.is_open_to(self.user):
                raise HostUnsupported(
                    f"System V shared memory {found.id} of the image is another user's now",
                    hint="restore with --trust if the image's user is to have it all the same", id=found.id,
                )  # fmt: skip
            return found.id
        return -1

    def refill(self, folder: Path) -> None:
        """Give those that were there the image's contents, now that nothing can be in the way any more."""
        for address, entry in self._found:
            libc.syscall("madvise", address, _rounded(entry.size), _MADV_REMOVE)
            _fill(address, entry, folder)
        self._found.clear()

    def attached(self) -> None:
        """The processes have them: let go, and let those pass that were to go with their last user."""
        self._let_go()
        for number in self._passing:
            libc.syscall("shmctl", number, _IPC_RMID, 0)
        self._passing.clear()

    def keep(self) -> None:
        """The processes run: what was made stays."""
        self._created.clear()

    def discard(self) -> None:
        """Nothing of ours stays when a restore failed."""
        self._let_go()
        for number in self._created:
            with contextlib.suppress(OSError):  # it may have gone with its last user
                libc.syscall("shmctl", number, _IPC_RMID, 0)
        self._created.clear()

    def _let_go(self) -> None:
        for address in self._attached:
            libc.syscall("shmdt", address)
        self._attached.clear()


def _rounded(size: int) -> int:
    return -(-size // linux.PAGE_SIZE) * linux.PAGE_SIZE


def _create(entry: SharedMemoryEntry, huge: bool, user: Identity | None) -> int:
    try:
        _NEXT_ID.write_text(str(entry.sysv_id))
    except OSError:
        pass  # not permitted: any identifier
    flags = _IPC_CREAT | _IPC_EXCL | entry.sysv_mode & 0o777 | (_SHM_HUGETLB if huge else 0)
    try:
        number = libc.syscall("shmget", entry.sysv_key, entry.size, flags)
    except OSError as error:
        if error.errno != errno.EEXIST:
            raise
        raise HostUnsupported(
            f"the key {entry.sysv_key:#x} of System V shared memory is in use for a segment of another size",
            hint=f"remove that one: ipcrm -M {entry.sysv_key:#x}",
        ) from error
    uid, gid = (entry.sysv_uid, entry.sysv_gid) if user is None else (user.uid, user.gid)
    if (uid, gid) != (os.geteuid(), os.getegid()) and os.geteuid() == 0:
        owner = struct.pack("<iIIIII", 0, uid, gid, 0, 0, entry.sysv_mode & 0o777)
        libc.syscall("shmctl", number, _IPC_SET, owner.ljust(_SHMID_DS_BYTES, b"\0"))
    return number


def _fill(address: int, entry: SharedMemoryEntry, folder: Path) -> None:
    room = memoryview((ctypes.c_char * _rounded(entry.size)).from_address(address)).cast("B")
    with as_ourselves():
        fd = os.open(folder / entry.pages, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    with os.fdopen(fd, "rb", buffering=0) as source:
        for run in entry.runs:
            source.seek(run.offset)
            part = room[run.address : run.address + run.length]
            while part:
                count = source.readinto(part)
                if not count:
                    raise EOFError(f"{entry.pages} ends too early")
                part = part[count:]


def attach_calls(entry: ProcessEntry, segments: Segments) -> list[Call]:
    """Attach what a process had attached; partly unmapped or protected, it shows as several areas of one attachment."""
    areas: dict[tuple[str, int], list[VmaEntry]] = {}
    for vma in entry.vmas:
        if vma.kind == "sysv":
            areas.setdefault((vma.shared, vma.start - vma.offset), []).append(vma)
    calls: list[Call] = []
    for (key, base), parts in areas.items():
        union = 0
        for part in parts:
            union |= part.prot | (linux.PROT_WRITE if may_write(part) else 0)
        flags = (0 if union & linux.PROT_WRITE else _SHM_RDONLY) | (_SHM_EXEC if union & linux.PROT_EXEC else 0)
        calls.append(Call("shmat", segments.ids[key], base, flags))
        at = base
        for part in parts:
            calls += [Call("munmap", at, part.start - at)] if part.start > at else []
            calls.append(Call("mprotect", part.start, part.end - part.start, part.prot))
            at = part.end
        end = base + segments.sizes[key]
        calls += [Call("munmap", at, end - at)] if end > at else []
    return calls
