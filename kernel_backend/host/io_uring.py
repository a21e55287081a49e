"""System calls about io_uring instances (io_uring(7)), as plain functions, and where things lie in one.

Source: linux/io_uring.h; io_uring/io_uring.c and io_uring/register.c of the OS kernel.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import mmap
import os
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple

from kernel_backend.abi import linux
from kernel_backend.host import libc

PARAMS_BYTES = 120  # struct io_uring_params
_PARAMS = struct.Struct("<10I 7I12x 7I12x")  # without what is reserved
_OVERSIZE_PAGES = 1  # more than the rings can have

Register = Callable[[int, bytes, int], int]
"""io_uring_register(2) of one instance: opcode, what the argument points to, its count → an error number, or 0."""


class Layout(NamedTuple):
    """Sizes of an instance, and what stands where in its rings, in bytes: io_sqring_offsets, io_cqring_offsets."""

    sq_entries: int
    cq_entries: int
    sq_head: int
    sq_tail: int
    sq_mask: int
    sq_size: int
    sq_flags: int
    sq_dropped: int
    array: int
    cq_head: int
    cq_tail: int
    cq_mask: int
    cq_size: int
    cq_overflow: int
    cqes: int
    cq_flags: int

    @property
    def rings_bytes(self) -> int:
        """Of both rings, which share their memory."""
        return self.array + 4 * self.sq_entries

    @property
    def requests_bytes(self) -> int:
        """Of the array of requests."""
        return linux.IO_URING_SQE_BYTES * self.sq_entries

    @property
    def completions(self) -> range:
        """At which bytes of the rings a completion may stand."""
        size = linux.IO_URING_CQE_BYTES
        return range(self.cqes, self.cqes + size * self.cq_entries, size)


def params(sq_entries: int, cq_entries: int, flags: int) -> bytes:
    """What io_uring_setup(2) is to be given for an instance of exactly these sizes."""
    words = (sq_entries, cq_entries, flags | linux.IORING_SETUP_CQSIZE)
    return struct.pack("<3I", *words).ljust(PARAMS_BYTES, b"\0")


def layout(answer: bytes) -> Layout:
    """What io_uring_setup(2) has made of them. Raises OSError where the rings do not share one mapping."""
    sq_entries, cq_entries, _, _, _, features, _, _, _, _, *offsets = _PARAMS.unpack(answer)
    if not features & linux.IORING_FEAT_SINGLE_MMAP:
        raise OSError(errno.EOPNOTSUPP, "the rings of io_uring have two mappings here")
    return Layout(sq_entries, cq_entries, *offsets)


def setup(sq_entries: int, cq_entries: int, flags: int) -> tuple[int, Layout]:
    """An instance of ours, close-on-exec, and its layout."""
    room = ctypes.create_string_buffer(params(sq_entries, cq_entries, flags), PARAMS_BYTES)
    fd = libc.syscall("io_uring_setup", sq_entries, room)
    try:
        return fd, layout(room.raw)
    except OSError:
        os.close(fd)
        raise


def register(fd: int, opcode: int, argument: bytes, count: int) -> int:
    """io_uring_register(2), of which only the failure matters: its error number, 0 for none."""
    room = ctypes.create_string_buffer(argument, len(argument))
    try:
        libc.syscall("io_uring_register", fd, opcode, room, count)
    except OSError as error:
        return error.errno or errno.EIO
    return 0


def enter(fd: int, flags: int, argument: bytes = b"") -> int:
    """io_uring_enter(2) that submits nothing and waits for nothing: its error number, 0 for none."""
    room = ctypes.create_string_buffer(argument, len(argument)) if argument else None
    try:
        libc.syscall("io_uring_enter", fd, 0, 0, flags, room, len(argument))
    except OSError as error:
        return error.errno or errno.EIO
    return 0


def restriction(fd: int) -> int:
    """Why calls about an instance are not for us: EBADFD (it is not enabled yet), EEXIST (one thread alone may make
    them), EACCES (they are restricted); 0: they are.
    """  # fmt: skip
    found = enter(fd, 0) or refused(partial(register, fd))
    return 0 if found == errno.EINVAL else found


def refused(call: Register) -> int:
    """What a call that changes nothing answers: EINVAL where such calls are let through."""
    return call(linux.IORING_REGISTER_PROBE, b"\0", 0xFFFF)


def polls(fd: int) -> bool:
    """Whether completions are polled for (IORING_SETUP_IOPOLL): then nobody looks for how long to wait."""
    no_time = struct.pack("<QIIQ", 0, 0, 0, 8)  # struct io_uring_getevents_arg, whose time lies where nothing is
    return enter(fd, linux.IORING_ENTER_GETEVENTS | linux.IORING_ENTER_EXT_ARG, no_time) != errno.EFAULT


def has_eventfd(call: Register) -> bool:
    """Whether an eventfd is told of completions: no second one may be."""
    return call(linux.IORING_REGISTER_EVENTFD, struct.pack("<i", -1), 1) == errno.EBUSY


def has_buffers(call: Register, groups: range) -> bool:
    """Whether there is a group of provided buffers with one of these numbers."""
    return any(_status(call, group) != errno.ENOENT for group in groups)


def knows_buffers(call: Register) -> bool:
    """Whether the OS kernel tells about groups of provided buffers (6.8 or later)."""
    return _status(call, 0xFFFF) != errno.EINVAL


def _status(call: Register, group: int) -> int:
    return call(linux.IORING_REGISTER_PBUF_STATUS, struct.pack("<I36x", group), 1)


class Memory(NamedTuple):
    """The memory of an instance, mapped by us."""

    rings: mmap.mmap
    requests: mmap.mmap

    def word(self, at: int) -> int:
        """The number at a byte of the rings."""
        return int(struct.unpack_from("<I", self.rings, at)[0])

    def put(self, at: int, word: int) -> None:
        """Write it."""
        struct.pack_into("<I", self.rings, at, word)


@contextmanager
def mapped(fd: int, place: Layout) -> Iterator[Memory]:
    """The memory of an instance, the rings in whole pages. Raises OSError (EFAULT: its requests are larger)."""
    with contextlib.ExitStack() as stack:
        pages = -(-place.rings_bytes // linux.PAGE_SIZE)
        rings = mmap.mmap(fd, pages * linux.PAGE_SIZE, offset=linux.IORING_OFF_SQ_RING)
        stack.callback(rings.close)
        requests = mmap.mmap(fd, place.requests_bytes, offset=linux.IORING_OFF_SQES)
        stack.callback(requests.close)
        yield Memory(rings, requests)


def rings_pages(fd: int, place: Layout) -> int:
    """How many pages the rings have; at most those of rings with completions twice as large, and one more."""
    most = -(-(2 * place.rings_bytes) // linux.PAGE_SIZE) + _OVERSIZE_PAGES
    with mmap.mmap(fd, most * linux.PAGE_SIZE, offset=linux.IORING_OFF_SQ_RING) as area:
        at = ctypes.addressof(ctypes.c_char.from_buffer(area))
        count = 0
        with contextlib.suppress(OSError):
            while count < most:
                libc.vm_read(os.getpid(), at + count * linux.PAGE_SIZE, 1)
                count += 1
        return count
