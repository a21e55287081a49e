"""A file of the program's, as its ranks have it open: descriptor, view, pointers, and a communicator of its own."""

from __future__ import annotations

import contextlib
import itertools
import os
import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nbcr.mpi import file_bytes
from nbcr.mpi.communicators import GatedIntracomm
from nbcr.mpi.file_shared import SharedPointer
from nbcr.mpi.file_views import View
from nbcr.mpi.handles import GuardedDatatype
from nbcr.mpi.world import BYTE, MPI, Status

READS, WRITES, _BOTH = MPI.MODE_RDONLY, MPI.MODE_WRONLY, MPI.MODE_RDWR
_FLAGS = {READS: os.O_RDONLY, WRITES: os.O_WRONLY, _BOTH: os.O_RDWR}
_FIRST = 0x6E62_0000  # far from what MPI gives
_numbers = itertools.count(_FIRST)


@dataclass(eq=False)
class OpenFile:
    """What objects of the program for the same file share."""

    comm: Any  # the file's own
    number: int  # of the descriptor
    path: str
    amode: int
    hints: dict[str, str]
    shared: SharedPointer
    position: int = 0  # in etypes
    view: View = field(default_factory=lambda: View(0, 1))
    etype: Any = field(default_factory=lambda: GuardedDatatype(BYTE))
    filetype: Any = field(default_factory=lambda: GuardedDatatype(BYTE))
    representation: str = "native"
    is_atomic: bool = False
    under_way: tuple[bool, Any] | None = None  # a split collective: whether it writes, its status
    on_error: Any = field(default_factory=lambda: MPI.ERRORS_RETURN)  # a predefined one, or the program's function
    lock: Any = field(default_factory=threading.RLock)
    handle: int = field(default_factory=lambda: next(_numbers))

    def __post_init__(self) -> None:
        by_handle[self.handle] = self

    # Reading and writing

    def access(self, writes: bool, buf: Any, where: Place, offset: int = 0) -> Any:
        """Move a message between the program's buffer and the file; its status."""
        self.check(writes, where)
        if offset < 0:
            raise MPI.Exception(MPI.ERR_ARG)
        incoming = None if writes else file_bytes.Incoming(buf)
        data = file_bytes.outgoing(buf) if incoming is None else incoming.room
        etype_size = self.view.etype_size or 1
        if len(data) % etype_size or (len(data) and self.view.is_empty):
            raise MPI.Exception(MPI.ERR_IO)
        with self.lock if where is own_pointer else contextlib.nullcontext():
            start = where(self, len(data) // etype_size, offset)
            done = self._move(writes, start * etype_size, data)
            if where is own_pointer:
                self.position = start + done // etype_size
        if incoming is not None:
            incoming.came(done)
        status = Status()
        Status.Set_elements(status, BYTE, done)
        return status

    def check(self, writes: bool, where: Place | None) -> None:
        """Whether the file has been opened for that."""
        if self.amode & (READS if writes else WRITES):
            raise MPI.Exception(MPI.ERR_READ_ONLY if writes else MPI.ERR_ACCESS)
        if where in (own_pointer, given):
            self.refuse_if_sequential()

    def refuse_if_sequential(self) -> None:
        """Of a file that has the shared pointer only."""
        if self.amode & MPI.MODE_SEQUENTIAL:
            raise MPI.Exception(MPI.ERR_UNSUPPORTED_OPERATION)

    def _move(self, writes: bool, position: int, data: memoryview) -> int:
        move = file_bytes.write if writes else file_bytes.read
        if not len(data):
            return 0
        if not self.is_atomic:
            return move(self.number, self.view, position, data)
        first, last = self.view.offset(position), self.view.offset(position + len(data) - 1)
        with self.lock, file_bytes.locked(self.number, writes, first, last + 1 - first):
            return move(self.number, self.view, position, data)

    # All ranks together

    def agree(self, value: Any) -> None:
        """All have come, and with the same."""
        _agree(self.comm, value)

    def by_one(self, act: Callable[[], Any]) -> Any:
        """One rank does it, for all; what comes of it."""
        outcome = _attempted(act) if self.comm.Get_rank() == 0 else None
        return _outcome(self.comm.bcast(outcome, 0))

    def size(self) -> int:
        """In bytes."""
        return os.lseek(self.number, 0, os.SEEK_END)

    def etypes_before_end(self) -> int:
        """Of the view; one that begins before the file's end counts."""
        return -(-self.view.size_before(self.size()) // (self.view.etype_size or 1))

    def sought(self, offset: int, whence: int, now: Callable[[], int]) -> int:
        """Where a pointer is to be put."""
        since = {
            MPI.SEEK_SET: lambda: 0,
            MPI.SEEK_CUR: now,
            MPI.SEEK_END: self.etypes_before_end,
        }.get(whence)  # fmt: skip
        if since is None or (target := since() + offset) < 0:
            raise MPI.Exception(MPI.ERR_ARG)
        return target

    def close(self) -> None:
        """Collective: others wait also where this rank's own part fails, of which it is told at the end."""
        failure = _attempted(lambda: os.close(self.number))
        by_handle.pop(self.handle, None)
        self.free_types()
        self.comm.Barrier()
        self.shared.forget()
        if self.comm.Get_rank() == 0:
            with contextlib.suppress(OSError):
                self.shared.remove()
            if self.amode & MPI.MODE_DELETE_ON_CLOSE:
                with contextlib.suppress(OSError):
                    Path(self.path).unlink()
        if self.amode & MPI.MODE_DELETE_ON_CLOSE:
            self.comm.Barrier()
        self.comm.Free()
        _outcome(failure)

    def sync(self) -> None:
        """Collective, as `close`: what has been written is on the disk."""
        failure = _attempted(lambda: os.fsync(self.number))
        self.comm.Barrier()
        if not self.amode & READS:
            _outcome(failure)

    def check_displacement(self, displacement: int) -> None:
        """Whether a view may begin there."""
        if self.amode & MPI.MODE_SEQUENTIAL:
            if displacement != MPI.DISPLACEMENT_CURRENT:
                raise MPI.Exception(MPI.ERR_UNSUPPORTED_OPERATION)
        elif displacement < 0:
            raise MPI.Exception(MPI.ERR_ARG)

    def show(self, view: View, etype: Any, filetype: Any, representation: str) -> None:
        """See the file so from now on: collective. All pointers are at its beginning."""
        self.free_types()
        self.view, self.etype, self.filetype, self.representation = view, etype, filetype, representation
        self.position = 0
        self.shared.begin_anew()
        self.by_one(self.shared.remove)

    def free_types(self) -> None:
        """Those of the view."""
        for each in (self.etype, self.filetype):
            if not _is_predefined(each):
                MPI.Datatype.Free(each)


by_handle: weakref.WeakValueDictionary[int, OpenFile] = weakref.WeakValueDictionary()

Place = Callable[[OpenFile, int, int], int]  # how many etypes, and the call's offset → the first one


def given(file: OpenFile, count: int, offset: int) -> int:
    """Where the call says."""
    return offset


def own_pointer(file: OpenFile, count: int, offset: int) -> int:
    """Where this rank is."""
    return file.position


def shared_pointer(file: OpenFile, count: int, offset: int) -> int:
    """Where all are; the next comes behind that."""
    return file.shared.advance(count)


def in_order(file: OpenFile, count: int, offset: int) -> int:
    """The same for all together, by their ranks."""
    counts: list[int] = file.comm.allgather(count)
    start: int = file.by_one(lambda: file.shared.advance(sum(counts)))
    return start + sum(counts[: file.comm.Get_rank()])


def _attempted(act: Callable[[], Any]) -> tuple[Any, int, str]:
    """What comes of it, or MPI's and the system's names for what went wrong: for other ranks to hear."""
    try:
        return act(), 0, ""
    except OSError as error:
        return None, file_bytes.error_class(error), str(error)
    except ValueError as error:  # a name with a null in it
        return None, int(MPI.ERR_BAD_FILE), str(error)
    except MPI.Exception as error:
        return None, error.Get_error_class(), ""


def _outcome(attempted: tuple[Any, int, str]) -> Any:
    value, code, text = attempted
    if code:
        raise error_of(code, text)
    return value


def error_of(code: int, text: str = "") -> Exception:
    """MPI's, with what the system said."""
    error: Exception = MPI.Exception(code)
    if text:
        error.add_note(text)
    return error


def _agree(comm: Any, value: Any) -> None:
    if any(each != value for each in comm.allgather(value)):
        raise MPI.Exception(MPI.ERR_NOT_SAME)


# --- open and close ---------------------------------------------------------------------------------------------------


def opened(comm: Any, path: str, amode: int, info: Any) -> OpenFile:
    """Open a file: by one rank first, who makes it, then by the others."""
    if not isinstance(comm, MPI.Intracomm):
        raise TypeError(f"Argument 'comm' has incorrect type (expected Intracomm, got {type(comm).__name__})")
    if not comm:
        raise MPI.Exception(MPI.ERR_COMM)
    kind = amode & (READS | WRITES | _BOTH)
    creates = amode & (MPI.MODE_CREATE | MPI.MODE_EXCL)
    if kind not in _FLAGS or (kind == READS and creates) or (kind == _BOTH and amode & MPI.MODE_SEQUENTIAL):
        raise MPI.Exception(MPI.ERR_AMODE)
    private = GatedIntracomm.Split(comm, 0, comm.Get_rank())  # a duplicate would have the program's attributes copied
    number, path = -1, str(Path(path).absolute())
    try:
        _agree(private, amode)
        first = _attempted(lambda: _open_first(path, _FLAGS[kind], creates)) if private.Get_rank() == 0 else None
        if private.Get_rank() == 0 and first is not None and first[0] is not None:
            number = first[0][0]
        _, size, token = _outcome(private.bcast(first, 0))
        other = (None, 0, "") if number >= 0 else _attempted(lambda: os.open(path, _FLAGS[kind]))
        number = other[0] if other[0] is not None else number
        for each in private.allgather((None, *other[1:])):
            _outcome(each)
    except MPI.Exception:  # that all ranks have
        if number >= 0:
            os.close(number)
        private.Free()
        raise
    start = size if amode & MPI.MODE_APPEND else 0
    shared = SharedPointer(path, token, start, private.Get_rank() == 0)
    return OpenFile(private, number, path, amode, dict(info.items()) if info else {}, shared, start)


def _open_first(path: str, flags: int, creates: int) -> tuple[int, int, str]:
    """By one rank: the descriptor, the file's size, and what its shared pointer is to be called."""
    flags |= os.O_CREAT if creates & MPI.MODE_CREATE else 0
    flags |= os.O_EXCL if creates & MPI.MODE_EXCL else 0
    number = os.open(path, flags, 0o666)
    return number, os.fstat(number).st_size, f"pointer-{os.urandom(6).hex()}"


def _is_predefined(datatype: Any) -> bool:
    return bool(MPI.Datatype.is_predefined.__get__(datatype))


def kept(datatype: Any) -> Any:
    """One that stays when the program frees its own."""
    if _is_predefined(datatype):
        return GuardedDatatype(datatype)
    duplicate = MPI.Datatype.Dup(datatype)  # by MPI's own: no attributes of the program's are copied
    duplicate._committed = True
    return duplicate


def is_usable(datatype: Any) -> bool:
    """Whether it is one that MPI takes: another would end the job."""
    return bool(datatype != MPI.DATATYPE_NULL) and (_is_predefined(datatype) or bool(datatype._committed))
