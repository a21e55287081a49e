"""Calls about descriptors that Python (3.11) does not offer, as plain functions that raise OSError."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import select
import socket
import struct

from kernel_backend.abi import linux
from kernel_backend.host import libc

_libc = ctypes.CDLL(None, use_errno=True)
_libc.tee.restype = ctypes.c_ssize_t
_libc.tee.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_size_t, ctypes.c_uint]

SPLICE_F_NONBLOCK = 2
_TFD_IOC_SET_TICKS = 0x40085400
_MAX_HANDLE_BYTES = 128
SO_GET_FILTER = 26  # and SO_ATTACH_FILTER
_STATFS_BYTES = 120
_SOCKADDR_BYTES = 128
_BPF_MAX_INSTRUCTIONS, _SOCK_FILTER_BYTES = 4096, 8


def _checked(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def is_ready(*fds: int, events: int = select.POLLIN, wait_ms: float | None = 0) -> bool:
    """Whether there is anything to read (or what `events` say, or an end or error) at one of these.

    select(2) cannot be asked: it knows no descriptors from 1024 on, and we may have one for each that a tree has.
    """
    asked = select.poll()
    for fd in fds:
        asked.register(fd, events)
    return bool(asked.poll(wait_ms))


def filesystem_magic(path: str | os.PathLike[str]) -> int:
    """What kind of file system a path lies in: `f_type` of statfs(2)."""
    room = ctypes.create_string_buffer(_STATFS_BYTES)
    libc.syscall("statfs", os.fsencode(path) + b"\0", room)
    return int(struct.unpack_from("<q", room)[0])


def tee(source: int, target: int, length: int) -> int:
    """Copy a pipe's content to another pipe without consuming it (tee(2)); never blocks."""
    return _checked(_libc.tee(source, target, length, SPLICE_F_NONBLOCK), "tee")


def signalfd(mask: int, flags: int) -> int:
    """signalfd(2) with the mask as a number, bit n-1 for signal n."""
    return _checked(_libc.signalfd(-1, struct.pack("<Q", mask).ljust(128, b"\0"), flags), "signalfd")


def timerfd_create(clock: int, flags: int) -> int:
    """timerfd_create(2)."""
    return _checked(_libc.timerfd_create(clock, flags), "timerfd_create")


def timerfd_settime(fd: int, flags: int, value_ns: int, interval_ns: int) -> None:
    """timerfd_settime(2)."""
    setting = struct.pack("<4q", *divmod(interval_ns, 10**9), *divmod(value_ns, 10**9))
    _checked(_libc.timerfd_settime(fd, flags, setting, None), "timerfd_settime")


def timerfd_set_ticks(fd: int, ticks: int) -> None:
    """Let a read of the timer give `ticks` (needs CONFIG_CHECKPOINT_RESTORE)."""
    fcntl.ioctl(fd, _TFD_IOC_SET_TICKS, struct.pack("<Q", ticks))


def inotify_init(flags: int) -> int:
    """inotify_init1(2)."""
    return _checked(_libc.inotify_init1(flags), "inotify_init1")


def timerfd_gettime(fd: int) -> None:
    """timerfd_gettime(2), for its effect: an expired periodic timer counts its expirations and runs again."""
    libc.syscall("timerfd_gettime", fd, bytes(32))


def inotify_add_watch(fd: int, path: str, mask: int) -> int:
    """inotify_add_watch(2): the watch number."""
    return _checked(_libc.inotify_add_watch(fd, os.fsencode(path), ctypes.c_uint32(mask)), "inotify_add_watch")


def inotify_rm_watch(fd: int, wd: int) -> None:
    """inotify_rm_watch(2)."""
    _checked(_libc.inotify_rm_watch(fd, wd), "inotify_rm_watch")


def fanotify_init(flags: int, event_flags: int) -> int:
    """fanotify_init(2)."""
    return libc.syscall("fanotify_init", flags, event_flags)


def fanotify_mark(fd: int, flags: int, mask: int, path: str) -> None:
    """fanotify_mark(2); the path is an absolute one."""
    libc.syscall("fanotify_mark", fd, flags, mask, -1, os.fsencode(path) + b"\0")


def open_by_handle(mount_fd: int, kind: int, handle: bytes, flags: int) -> int:
    """open_by_handle_at(2): needs CAP_DAC_READ_SEARCH."""
    if len(handle) > _MAX_HANDLE_BYTES:
        raise ValueError(f"a file handle of {len(handle)} bytes")
    packed = struct.pack("<Ii", len(handle), kind) + handle
    return _checked(_libc.open_by_handle_at(mount_fd, packed, flags), "open_by_handle_at")


def unshare_descriptor_table() -> None:
    """Give the calling thread a descriptor table of its own, a copy of the process's (unshare(2))."""
    _checked(_libc.unshare(linux.CLONE_FILES), "unshare")


class _EpollEvent(ctypes.Structure):
    _pack_ = 1
    _fields_ = [("events", ctypes.c_uint32), ("data", ctypes.c_uint64)]


def epoll_event(events: int, data: int) -> bytes:
    """struct epoll_event (packed on x86-64)."""
    return bytes(_EpollEvent(events, data))


def epoll_add(epoll: int, fd: int, events: int, data: int) -> None:
    """epoll_ctl(2), EPOLL_CTL_ADD, with any data word."""
    _checked(_libc.epoll_ctl(epoll, linux.EPOLL_CTL_ADD, fd, ctypes.byref(_EpollEvent(events, data))), "epoll_ctl")


def epoll_modify(epoll: int, fd: int, events: int, data: int) -> None:
    """epoll_ctl(2), EPOLL_CTL_MOD."""
    _checked(_libc.epoll_ctl(epoll, linux.EPOLL_CTL_MOD, fd, ctypes.byref(_EpollEvent(events, data))), "epoll_ctl")


def epoll_remove(epoll: int, fd: int) -> None:
    """epoll_ctl(2), EPOLL_CTL_DEL."""
    _checked(_libc.epoll_ctl(epoll, linux.EPOLL_CTL_DEL, fd, None), "epoll_ctl")


def epoll_ready(epoll: int, most: int) -> list[tuple[int, int]]:
    """epoll_wait(2) without waiting: (events, data word) of up to `most` items."""
    room = (_EpollEvent * most)()
    count = _checked(_libc.epoll_wait(epoll, room, most, 0), "epoll_wait")
    return [(found.events, found.data) for found in room[:count]]


def status_flags(fd: int) -> int:
    """F_GETFL."""
    return fcntl.fcntl(fd, fcntl.F_GETFL)


def getsockopt_about(fd: int, level: int, name: int, question: bytes) -> bytes:
    """getsockopt(2) for an option whose buffer says what is asked about; the buffer afterwards."""
    room = ctypes.create_string_buffer(question, len(question))
    length = ctypes.c_uint32(len(question))
    _checked(_libc.getsockopt(fd, level, name, room, ctypes.byref(length)), "getsockopt")
    return room.raw


def socket_address(fd: int, which: str) -> bytes:
    """getsockname(2) or getpeername(2), as the OS kernel writes it."""
    room = ctypes.create_string_buffer(_SOCKADDR_BYTES)
    length = ctypes.c_uint32(_SOCKADDR_BYTES)
    _checked(getattr(_libc, which)(fd, room, ctypes.byref(length)), which)
    return room.raw[: length.value]


def socket_call(fd: int, which: str, address: bytes) -> None:
    """bind(2) or connect(2) to such an address."""
    _checked(getattr(_libc, which)(fd, address, len(address)), which)


def socket_filter(fd: int) -> bytes:
    """The packet filter that is attached: an array of struct sock_filter. Raises PermissionError for one in eBPF."""
    room = ctypes.create_string_buffer(_BPF_MAX_INSTRUCTIONS * _SOCK_FILTER_BYTES)
    length = ctypes.c_uint32(_BPF_MAX_INSTRUCTIONS)  # in and out it counts instructions
    if _libc.getsockopt(fd, socket.SOL_SOCKET, SO_GET_FILTER, room, ctypes.byref(length)) < 0:
        if ctypes.get_errno() == errno.EACCES:
            raise PermissionError(errno.EACCES, "a filter in eBPF cannot be read back")
        return b""  # a socket of a kind that has none
    return room.raw[: length.value * _SOCK_FILTER_BYTES]


def attach_socket_filter(fd: int, program: bytes) -> None:
    """SO_ATTACH_FILTER."""
    code = ctypes.create_string_buffer(program, len(program))
    argument = struct.pack("<H6xQ", len(program) // _SOCK_FILTER_BYTES, ctypes.addressof(code))
    _checked(
        _libc.setsockopt(fd, socket.SOL_SOCKET, SO_GET_FILTER, argument, len(argument)), "setsockopt(SO_ATTACH_FILTER)"
    )
