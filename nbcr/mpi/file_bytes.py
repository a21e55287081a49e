"""Bytes between a program's buffers and a file: POSIX calls, what their errors are called in MPI, and locks."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import struct
from collections.abc import Iterator
from typing import Any

from nbcr.mpi.file_views import View
from nbcr.mpi.messages import contents
from nbcr.mpi.world import BYTE, MPI, Comm, Request, world

_WINDOW = 1 << 20  # read at once where a view has small gaps
_LARGE = 1 << 16  # a piece that is read by itself
_FLOCK = struct.Struct("hhqqi4x")
_PLAIN = frozenset("b B h H i I l L q Q f d g ? Zf Zd Zg".split())  # formats of buffers that MPI has types for
_CLASSES = {
    errno.ENOENT: MPI.ERR_NO_SUCH_FILE,
    errno.EEXIST: MPI.ERR_FILE_EXISTS,
    errno.EACCES: MPI.ERR_ACCESS,
    errno.EPERM: MPI.ERR_ACCESS,
    errno.EROFS: MPI.ERR_READ_ONLY,
    errno.ENOSPC: MPI.ERR_NO_SPACE,
    errno.EDQUOT: MPI.ERR_QUOTA,
    errno.ETXTBSY: MPI.ERR_FILE_IN_USE,
    **dict.fromkeys((errno.EISDIR, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG), MPI.ERR_BAD_FILE),
}


def error_class(error: OSError) -> int:
    """MPI's name for what the system said."""
    return int(_CLASSES.get(error.errno or 0, MPI.ERR_IO))


# --- files ------------------------------------------------------------------------------------------------------------


def write(number: int, view: View, position: int, data: memoryview) -> int:
    """Write all of it where the view says. Nothing between is touched, so that no lock is needed."""
    done = 0
    for offset, length in view.pieces(position, len(data)):
        end = done + length
        while done < end:
            written = os.pwrite(number, data[done:end], offset)
            done, offset = done + written, offset + written
    return done


def read(number: int, view: View, position: int, into: memoryview) -> int:
    """How much came before the file's end."""
    if not len(into):
        return 0
    last = view.offset(position + len(into) - 1) + 1
    done, start, window = 0, 0, b""
    for offset, length in view.pieces(position, len(into)):
        if length >= _LARGE or not view.is_close:
            came = _filled(number, into[done : done + length], offset)
        else:
            if not start <= offset <= offset + length <= start + len(window):
                start, window = offset, os.pread(number, max(length, min(_WINDOW, last - offset)), offset)
            part = window[offset - start : offset - start + length]
            came = len(part)
            into[done : done + came] = part
        done += came
        if came < length:
            break
    return done


def _filled(number: int, into: memoryview, offset: int) -> int:
    done = 0
    while done < len(into) and (came := os.preadv(number, [into[done:]], offset + done)):
        done += came
    return done


@contextlib.contextmanager
def locked(number: int, writes: bool, start: int = 0, length: int = 0) -> Iterator[None]:
    """A part of a file, all of it without a length: against everybody who has opened it himself."""
    kind = fcntl.F_WRLCK if writes else fcntl.F_RDLCK
    fcntl.fcntl(number, fcntl.F_OFD_SETLKW, _FLOCK.pack(kind, os.SEEK_SET, start, length, 0))
    try:
        yield
    finally:
        fcntl.fcntl(number, fcntl.F_OFD_SETLKW, _FLOCK.pack(fcntl.F_UNLCK, os.SEEK_SET, start, length, 0))


# --- buffers ----------------------------------------------------------------------------------------------------------


def outgoing(buf: Any) -> memoryview:
    """What is to be written: the program's memory itself where its type has no gaps, else as MPI packs it."""
    plain = _plain(buf, writable=False)
    return memoryview(_packed(buf)) if plain is None else plain


class Incoming:
    """Where to put what is read."""

    def __init__(self, buf: Any) -> None:
        plain = _plain(buf, writable=True)
        self._buf = buf if plain is None else None
        self.room = memoryview(bytearray(len(_packed(buf)))) if plain is None else plain

    def came(self, size_bytes: int) -> None:
        """So much is in the room."""
        if self._buf is None:
            return
        data, tag = self.room[:size_bytes], world.next_tag()
        sent = Comm.Isend(world.own, [data, BYTE], 0, tag)
        try:
            Comm.Recv(world.own, self._buf, 0, tag)
        except BaseException:
            Comm.Recv(world.own, [bytearray(size_bytes), BYTE], 0, tag)
            raise
        finally:
            Request.Wait(sent)


def _packed(buf: Any) -> bytearray:
    if buf is None:
        raise TypeError("message: expecting buffer or list/tuple")
    return contents(buf)


def _plain(buf: Any, writable: bool) -> memoryview | None:
    """The program's memory as bytes; None where mpi4py and MPI must say what the message is, or what is wrong with
    it."""
    count = datatype = None
    if isinstance(buf, list | tuple):
        if len(buf) == 2:
            buf, datatype = buf
        elif len(buf) == 3:
            buf, count, datatype = buf
        if not isinstance(datatype, MPI.Datatype) or not (count is None or isinstance(count, int)):
            return None
    try:
        given = memoryview(buf)
    except (TypeError, ValueError, BufferError):
        return None
    if not given.contiguous or (writable and given.readonly):
        return None
    if datatype is None:
        return memoryview(MPI.buffer(buf)) if given.format in _PLAIN else None
    item = _size_without_gaps(datatype)
    if not item or (given.nbytes % item if count is None else not 0 <= count * item <= given.nbytes):
        return None
    return memoryview(MPI.buffer(buf))[: given.nbytes if count is None else count * item]


def _size_without_gaps(datatype: Any) -> int:
    """0 for a type that has some, or is not MPI's own."""
    if datatype == MPI.DATATYPE_NULL or not MPI.Datatype.is_predefined.__get__(datatype):
        return 0
    size = int(MPI.Datatype.Get_size(datatype))
    return size if size == MPI.Datatype.Get_extent(datatype)[1] else 0
