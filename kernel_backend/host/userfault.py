"""Pages put into another process's memory by userfaultfd(2): allocated, filled and mapped in one go.

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
_COPY = 0xC028AA03
_API_VERSION = 0xAA
_MODE_MISSING = 1
_COPY_DONTWAKE = 1


def open_api(fd: int) -> None:
    """The handshake that every other call needs."""
    fcntl.ioctl(fd, _API, bytearray(struct.pack("<3Q", _API_VERSION, 0, 0)))


def register(fd: int, start: int, size: int) -> None:
    """Make [start, start + size) of the process's anonymous memory one that `copy` may fill."""
    fcntl.ioctl(fd, _REGISTER, bytearray(struct.pack("<4Q", start, size, _MODE_MISSING, 0)))


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
