"""userfaultfd(2): above all, pages put into another process's memory, allocated, filled and mapped in one go.

A read(2) into fresh memory faults on every page and clears it before it copies: twice the work. The descriptor is
made in the process whose memory it is about; here it is only used.
"""

from __future__ import annotations

import errno
import fcntl
import struct

USER_MODE_ONLY = 1  # what any user may have: faults inside the OS kernel are not reported, and none will happen
_API = 0xC018AA3F
_REGISTER = 0xC020AA00
_UNREGISTER = 0x8010AA01
_COPY = 0xC028AA03
_ZEROPAGE = 0xC020AA04
_WRITEPROTECT = 0xC018AA06
_API_VERSION = 0xAA
_MODE_MISSING, _MODE_PROTECTED = 1, 2
_COPY_DONTWAKE = _ZEROPAGE_DONTWAKE = 1
_PROTECT = 1


def open_api(fd: int, features: int = 0) -> None:
    """The handshake that every other call needs; `features` are those that are wanted (UFFD_FEATURE_*)."""
    fcntl.ioctl(fd, _API, bytearray(struct.pack("<3Q", _API_VERSION, features, 0)))


def register(fd: int, start: int, size: int, *, missing: bool = True, protected: bool = False) -> None:
    """Serve [start, start + size) of the process's anonymous memory: pages that are missing, or are written to."""
    mode = (_MODE_MISSING if missing else 0) | (_MODE_PROTECTED if protected else 0)
    fcntl.ioctl(fd, _REGISTER, bytearray(struct.pack("<4Q", start, size, mode, 0)))


def unregister(fd: int, start: int, size: int) -> None:
    """Serve it no more."""
    fcntl.ioctl(fd, _UNREGISTER, struct.pack("<2Q", start, size))


def zero(fd: int, start: int, size: int) -> None:
    """Put the zero page where pages are missing. Raises OSError."""
    done = 0
    while done < size:
        args = bytearray(struct.pack("<3Qq", start + done, size - done, _ZEROPAGE_DONTWAKE, 0))
        try:
            fcntl.ioctl(fd, _ZEROPAGE, args)
        except OSError as error:
            if error.errno != errno.EAGAIN:
                raise
        done += max(0, struct.unpack_from("<q", args, 24)[0])


def protect(fd: int, start: int, size: int) -> None:
    """Have the pages that are there protected from writing."""
    fcntl.ioctl(fd, _WRITEPROTECT, bytearray(struct.pack("<3Q", start, size, _PROTECT)))


def copy(fd: int, destination: int, source: int, size: int) -> None:
    """Fill pages of the process at `destination` with what stands at `source` in ours. Raises OSError.

    Other Python threads run meanwhile.
    """
    done = 0
    while done < size:
        args = bytearray(struct.pack("<4Qq", destination + done, source + done, size - done, _COPY_DONTWAKE, 0))
        try:
            fcntl.ioctl(fd, _COPY, args)
        except OSError as error:
            if error.errno != errno.EAGAIN:  # interrupted half-way: `copied` says where
                raise
        copied = struct.unpack_from("<q", args, 32)[0]
        done += max(0, copied)
