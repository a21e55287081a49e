"""System calls of POSIX message queues (mq_overview(7)), as plain functions that raise OSError."""

from __future__ import annotations

import ctypes
import errno
import os
import re
import struct

import msgspec

from kernel_backend.host import libc

_ATTRIBUTES = struct.Struct("<8q")  # struct mq_attr: flags, most messages, most bytes, messages, four unused
_NOTIFIED = re.compile(rb"NOTIFY:(\d+)\s+SIGNO:(\d+)\s+NOTIFY_PID:(\d+)")
_STATE_BYTES = 256
_FSOPEN_CLOEXEC = _FSMOUNT_CLOEXEC = 1  # linux/mount.h
_FSCONFIG_CMD_CREATE = 6


class Facts(msgspec.Struct, frozen=True):
    """What the OS kernel tells of a queue."""

    most_messages: int
    most_bytes: int  # of one message
    waiting: int
    notified_pid: int  # who is to be told of the next message; 0: nobody
    notified_how: int  # SIGEV_
    notified_signo: int


def is_queue(fd: int) -> bool:
    """Whether a descriptor is of a queue, which stat(2) cannot tell from a file."""
    try:
        _attributes(fd)
    except OSError:
        return False
    return True


def _attributes(fd: int) -> tuple[int, ...]:
    room = ctypes.create_string_buffer(_ATTRIBUTES.size)
    libc.syscall("mq_getsetattr", fd, None, room)
    return _ATTRIBUTES.unpack(room.raw)


def facts(fd: int) -> Facts:
    """By attributes, and by reading the queue as a file; that takes no message out."""
    _, most_messages, most_bytes, waiting, *_ = _attributes(fd)
    readable = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        found = _NOTIFIED.search(os.read(readable, _STATE_BYTES))
    finally:
        os.close(readable)
    how, signo, pid = map(int, found.groups()) if found else (0, 0, 0)
    return Facts(most_messages, most_bytes, waiting, pid, how, signo)


def names() -> set[str]:
    """All queues of our IPC namespace, by a mount of its own that nobody else sees. It takes CAP_SYS_ADMIN."""
    try:
        context = libc.syscall("fsopen", b"mqueue", _FSOPEN_CLOEXEC)
    except OSError as error:
        if error.errno == errno.ENODEV:  # an OS kernel without such queues
            return set()
        raise
    try:
        libc.syscall("fsconfig", context, _FSCONFIG_CMD_CREATE, None, None, 0)
        mounted = libc.syscall("fsmount", context, _FSMOUNT_CLOEXEC, 0)
    finally:
        os.close(context)
    try:
        folder = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=mounted)
    finally:
        os.close(mounted)
    try:
        return set(os.listdir(folder))
    finally:
        os.close(folder)


def open_queue(name: str, mode: int = os.O_RDWR) -> int:
    """A queue that is there, for both directions or as `mode` says; -1 when there is none of that name."""
    try:
        fd = libc.syscall("mq_open", os.fsencode(name), mode | os.O_NONBLOCK, 0, None)
    except FileNotFoundError:
        return -1
    os.set_inheritable(fd, False)  # not by O_CLOEXEC, which such a description would show for ever (F_GETFL)
    return fd


def create(name: str, mode: int, most_messages: int, most_bytes: int) -> int:
    """A new queue."""
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NONBLOCK | os.O_CLOEXEC
    before = os.umask(0)
    try:
        attributes = _ATTRIBUTES.pack(0, most_messages, most_bytes, 0, 0, 0, 0, 0)
        return libc.syscall("mq_open", os.fsencode(name), flags, mode, attributes)
    finally:
        os.umask(before)


def unlink(name: str) -> None:
    """Remove a name."""
    libc.syscall("mq_unlink", os.fsencode(name))


def receive(fd: int, most_bytes: int) -> tuple[int, bytes]:
    """(priority, content) of the next message, which is taken out. Raises BlockingIOError when there is none."""
    room = ctypes.create_string_buffer(most_bytes)
    priority = ctypes.create_string_buffer(4)
    size = libc.syscall("mq_timedreceive", fd, room, most_bytes, priority, None)
    return struct.unpack("<I", priority.raw)[0], room.raw[:size]


def send(fd: int, priority: int, data: bytes) -> None:
    """Put a message in. Raises BlockingIOError when the queue is full."""
    libc.syscall("mq_timedsend", fd, data, len(data), priority, None)
