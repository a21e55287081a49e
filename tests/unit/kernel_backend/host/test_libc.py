"""System calls that need more than a call."""

from __future__ import annotations

import ctypes
import mmap
import os

import pytest

from kernel_backend.abi import linux
from kernel_backend.host import libc


@pytest.mark.parametrize("count", [1, 511, 512, 513, 514, 1024, 1025, 4096, 4097, 9000])
def test_a_scan_tells_every_run_of_pages_once(count: int) -> None:
    """The OS kernel hands out 512 at a time, and is not always right about where it was."""
    room = mmap.mmap(-1, (2 * count + 2) * mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    room.madvise(mmap.MADV_NOHUGEPAGE)
    start = ctypes.addressof(ctypes.c_char.from_buffer(room))
    wanted = [start + 2 * i * mmap.PAGESIZE for i in range(count)]
    for i in range(count):
        room[2 * i * mmap.PAGESIZE] = 1
    for end in (start + (2 * count - 1) * mmap.PAGESIZE, start + len(room)):
        assert _scan(start, end) == [(page, page + mmap.PAGESIZE, 0) for page in wanted]


def _scan(start: int, end: int) -> list[tuple[int, int, int]]:
    fd = os.open("/proc/self/pagemap", os.O_RDONLY | os.O_CLOEXEC)
    try:
        return libc.pagemap_scan(fd, start, end, mask=0, any_of=linux.PAGE_IS_PRESENT)
    finally:
        os.close(fd)
