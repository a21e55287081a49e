"""System V message queues and semaphores, as the OS kernel shows them: /proc/sysvipc, msgctl(2), semctl(2)."""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from pathlib import Path

import msgspec

from kernel_backend.host import libc

IPC_CREAT, IPC_EXCL, IPC_NOWAIT = 0o1000, 0o2000, 0o4000
IPC_RMID, IPC_SET = 0, 1
GETPID, GETALL, SETVAL = 11, 13, 16
SEM_UNDO = 0x1000
MSG_NOERROR, MSG_COPY = 0o10000, 0o40000
SEMBUF = struct.Struct("<Hhh")
_IPC_PERM = struct.Struct("<iIIIII")
_QUEUE_DS_BYTES, _QUEUE_MOST_AT = 120, 88  # struct msqid64_ds, and msg_qbytes in it
_SET_DS_BYTES = 104


class Queue(msgspec.Struct):
    """One line of /proc/sysvipc/msg."""

    key: int
    id: int
    mode: int
    bytes: int
    messages: int
    sender: int
    receiver: int
    uid: int
    gid: int


class Set(msgspec.Struct):
    """One line of /proc/sysvipc/sem."""

    key: int
    id: int
    mode: int
    semaphores: int
    uid: int
    gid: int


def queues() -> dict[int, Queue]:
    """All message queues of our IPC namespace, by identifier."""
    found = {}
    for f in _rows("msg"):
        n = [int(word) for word in f]
        found[n[1]] = Queue(n[0], n[1], int(f[2], 8), n[3], n[4], n[5], n[6], n[7], n[8])
    return found


def sets() -> dict[int, Set]:
    """All semaphore sets of our IPC namespace, by identifier."""
    found = {}
    for f in _rows("sem"):
        n = [int(word) for word in f]
        found[n[1]] = Set(n[0], n[1], int(f[2], 8), n[3], n[4], n[5])
    return found


def _rows(which: str) -> list[list[str]]:
    try:
        lines = Path(f"/proc/sysvipc/{which}").read_text().splitlines()[1:]
    except FileNotFoundError:  # an OS kernel without System V IPC
        return []
    return [line.split() for line in lines]


def peek(queue: int, position: int, size: int) -> tuple[int, bytes]:
    """(type, data) of the message at a position, which stays there. Raises OSError: ENOMSG behind the last one."""
    room = ctypes.create_string_buffer(8 + size)
    got = libc.syscall("msgrcv", queue, room, size, position, IPC_NOWAIT | MSG_COPY | MSG_NOERROR)
    return struct.unpack_from("<q", room)[0], room.raw[8 : 8 + got]


def most_bytes(queue: int) -> int:
    """How many bytes of messages a queue may hold."""
    room = ctypes.create_string_buffer(_QUEUE_DS_BYTES)
    libc.syscall("msgctl", queue, 2, room)  # IPC_STAT
    return int(struct.unpack_from("<Q", room, _QUEUE_MOST_AT)[0])


def values(found: Set) -> list[int]:
    """The values of a set's semaphores."""
    room = ctypes.create_string_buffer(2 * found.semaphores)
    libc.syscall("semctl", found.id, 0, GETALL, room)
    return list(struct.unpack(f"<{found.semaphores}H", room.raw))


def last_users(found: Set) -> list[int]:
    """Who operated on each semaphore of a set last; 0: nobody."""
    return [libc.syscall("semctl", found.id, index, GETPID) for index in range(found.semaphores)]


def create(sort: str, number: int, key: int, mode: int, semaphores: int = 0) -> int:
    """A new queue ("msg") or set ("sem"), with that identifier where we may choose it; the one it has got."""
    try:
        Path(f"/proc/sys/kernel/{sort}_next_id").write_text(str(number))
    except OSError:
        pass  # not permitted: any identifier
    flags = IPC_CREAT | IPC_EXCL | mode & 0o777
    return libc.syscall("semget", key, semaphores, flags) if sort == "sem" else libc.syscall("msgget", key, flags)


def set_owner(sort: str, number: int, uid: int, gid: int, mode: int, most: int = 0) -> None:
    """Owner and permissions, of a queue also how much it may hold."""
    owner = _IPC_PERM.pack(0, uid, gid, 0, 0, mode & 0o777)
    if sort == "sem":
        libc.syscall("semctl", number, 0, IPC_SET, owner.ljust(_SET_DS_BYTES, b"\0"))
        return
    rest = owner.ljust(_QUEUE_MOST_AT, b"\0") + struct.pack("<Q", most)
    libc.syscall("msgctl", number, IPC_SET, rest.ljust(_QUEUE_DS_BYTES, b"\0"))


def remove(sort: str, number: int) -> None:
    """Remove a queue or a set; nothing happens when it is gone."""
    try:
        libc.syscall("semctl", number, 0, IPC_RMID) if sort == "sem" else libc.syscall("msgctl", number, IPC_RMID, 0)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EIDRM):
            raise


def is_alive(pid: int) -> bool:
    """Whether a process that was noted as a user lives."""
    return pid > 0 and os.path.exists(f"/proc/{pid}")  # noqa: PTH110
