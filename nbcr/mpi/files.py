"""MPI-IO: `MPI.File` over plain files. MPICH's own (ROMIO) fails where MPI is set up by sessions.

A file that is open is a descriptor, a view and pointers in this process, and a communicator of its own: all of that
goes through a checkpoint by itself, but for the shared pointer. Nobody is at the file then, for each call `passes`; but
a rank may wait in the middle of a call, for the others at a collective of the file's communicator.
Collective calls that move data do so independently, which is all that MPI promises of them; those that change the file
itself (its size, the view, its end) wait for all ranks.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from operator import index
from pathlib import Path
from typing import Any

from nbcr.mpi import file_bytes
from nbcr.mpi.communicators import live
from nbcr.mpi.errhandlers import GuardedErrhandler
from nbcr.mpi.file_state import (
    READS,
    OpenFile,
    Place,
    by_handle,
    error_of,
    given,
    in_order,
    is_usable,
    kept,
    opened,
    own_pointer,
    shared_pointer,
)
from nbcr.mpi.file_types import runs_of
from nbcr.mpi.file_views import View
from nbcr.mpi.gate import gate
from nbcr.mpi.handles import GuardedInfo
from nbcr.mpi.requests import GatedRequest
from nbcr.mpi.world import BYTE, MPI, copy_status, world

_File: Any = MPI.File
_REPRESENTATIONS = ("native", "internal")
_SYSTEMS = ("ufs:", "nfs:", "xfs:", "panfs:", "lustre:", "gpfs:", "testfs:")  # ROMIO's, before names
_representations: set[str] = {*_REPRESENTATIONS, "external32"}


def _path(filename: Any) -> str:
    path = os.fsdecode(filename)
    return path.partition(":")[2] if path.startswith(_SYSTEMS) else path


# --- how errors are told ----------------------------------------------------------------------------------------------


@dataclass
class _Nulls:
    """What MPI.FILE_NULL says for files that could not be opened."""

    on_error: Any = field(default_factory=lambda: MPI.ERRORS_RETURN)
    comm: Any = None  # who has the handler, from when the program has given one


_nulls = _Nulls()


def _told(file: Any, error: Exception) -> Exception:
    """Do what is to be done on an error; the one to raise."""
    if isinstance(error, OSError):
        error = error_of(file_bytes.error_class(error), str(error))
    state = file._state
    file._call_handler((state or _nulls).on_error, error.Get_error_class())  # type: ignore[attr-defined]
    return error


def _call(function: Any) -> Any:
    """A method of the program's files: nobody is in one when MPI is torn down."""

    @functools.wraps(function)
    @gate.passes
    def call(self: Any, *args: Any, **named: Any) -> Any:
        if gate.closed:
            gate.stay_out()
        try:
            return function(self, *args, **named)
        except (OSError, MPI.Exception) as error:
            raise _told(self, error) from None

    return call


def _moving(writes: bool, where: Place, finish: Any) -> Any:
    """One of the many calls that read or write."""

    def at(self: Any, offset: int, buf: Any, status: Any = None) -> Any:
        return finish(self, writes, lambda: self._opened.access(writes, buf, where, index(offset)), status)

    def on(self: Any, buf: Any, status: Any = None) -> Any:
        return finish(self, writes, lambda: self._opened.access(writes, buf, where), status)

    return _call(at if where is given else on)


def _now(self: Any, writes: bool, access: Callable[[], Any], status: Any) -> None:
    copy_status(access(), status)


def _as_request(self: Any, writes: bool, access: Callable[[], Any], status: Any) -> GatedRequest:
    """It is over at once, which MPI allows."""
    return GatedRequest.of_result(access(), None)


def _begun(self: Any, writes: bool, access: Callable[[], Any], status: Any) -> None:
    if self._opened.under_way is not None:
        raise MPI.Exception(MPI.ERR_IO)
    self._opened.under_way = (writes, access())


def _ending(writes: bool) -> Any:
    def end(self: Any, buf: Any, status: Any = None) -> None:
        under_way = self._opened.under_way
        if under_way is None or under_way[0] != writes:
            raise MPI.Exception(MPI.ERR_IO)
        self._opened.under_way = None
        copy_status(under_way[1], status)

    return _call(end)


class GatedFile(_File):
    """The program's file."""

    _state: OpenFile | None = None

    def __new__(cls, file: Any = None) -> GatedFile:
        ours = isinstance(file, GatedFile)
        self: GatedFile = _File.__new__(cls) if ours else _File.__new__(cls, file)
        if ours:
            self._state = file._state
        return self

    def __bool__(self) -> bool:
        return self._state is not None and self._state.handle in by_handle

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, GatedFile):
            return NotImplemented
        return self._state is other._state if self and other else bool(self) == bool(other)

    def __ne__(self, other: object) -> bool:  # theirs knows handles only
        return not self == other if isinstance(other, GatedFile) else NotImplemented

    __hash__ = None  # type: ignore[assignment]  # as theirs

    def __reduce_ex__(self, protocol: Any) -> Any:
        if self:
            raise ValueError("cannot pickle an open MPI.File")
        return super().__reduce_ex__(protocol)

    @property
    def _opened(self) -> OpenFile:
        if self._state is None or not self:
            raise MPI.Exception(MPI.ERR_FILE)
        return self._state

    @classmethod
    def Open(cls, comm: Any, filename: Any, amode: int = READS, info: Any = MPI.INFO_NULL) -> Any:
        file = cls.__new__(cls)
        file._open(comm, _path(filename), amode, info)
        return file

    @_call
    def _open(self, comm: Any, path: str, amode: int, info: Any) -> None:
        self._state = opened(comm, path, amode, info)

    @_call
    def Close(self) -> None:
        self._opened.close()
        self._state = None

    def free(self) -> None:
        if self:
            self.Close()

    @classmethod
    def Delete(cls, filename: Any, info: Any = MPI.INFO_NULL) -> None:
        GatedFile()._delete(_path(filename))

    @_call
    def _delete(self, path: str) -> None:
        Path(path).unlink()

    # The file itself

    @_call
    def Set_size(self, size: int) -> None:
        self._resize(size, lambda number: os.ftruncate(number, size))

    @_call
    def Preallocate(self, size: int) -> None:
        self._resize(size, lambda number: os.posix_fallocate(number, 0, size) if size else None)

    def _resize(self, size: int, resize: Callable[[int], Any]) -> None:
        file = self._opened
        if size < 0:
            raise MPI.Exception(MPI.ERR_ARG)
        file.check(True, None)
        file.agree(size)
        file.by_one(lambda: resize(file.number))

    @_call
    def Get_size(self) -> int:
        return self._opened.size()

    @_call
    def Get_amode(self) -> int:
        return self._opened.amode

    @_call
    def Get_group(self) -> Any:
        return self._opened.comm.Get_group()

    @_call
    def Get_info(self) -> Any:
        return GuardedInfo.Create(self._opened.hints)

    @_call
    def Set_info(self, info: Any) -> None:
        self._opened.hints.update(info.items() if info else ())

    @_call
    def Sync(self) -> None:
        self._opened.sync()

    @_call
    def Set_atomicity(self, flag: bool) -> None:
        self._opened.agree(bool(flag))
        self._opened.is_atomic = bool(flag)

    @_call
    def Get_atomicity(self) -> bool:
        return self._opened.is_atomic

    # Views

    @_call
    def Set_view(
        self, disp: int = 0, etype: Any = BYTE, filetype: Any = None, datarep: str = "native",
        info: Any = MPI.INFO_NULL,
    ) -> None:  # fmt: skip
        file = self._opened
        etype = BYTE if etype is None else etype
        filetype = etype if filetype is None else filetype
        if not is_usable(etype) or not is_usable(filetype):
            raise MPI.Exception(MPI.ERR_TYPE)
        if datarep not in _REPRESENTATIONS:
            raise MPI.Exception(MPI.ERR_UNSUPPORTED_DATAREP)
        etype_size, size = MPI.Datatype.Get_size(etype), MPI.Datatype.Get_size(filetype)
        if size % etype_size if etype_size else size:
            raise MPI.Exception(MPI.ERR_ARG)
        disp = index(disp)
        file.check_displacement(disp)
        file.comm.Barrier()  # until nobody uses the view before
        if disp == MPI.DISPLACEMENT_CURRENT:
            disp = file.by_one(lambda: file.view.offset(file.shared.get() * file.view.etype_size))
        view = View(disp, etype_size, runs_of(filetype), int(MPI.Datatype.Get_extent(filetype)[1]))
        file.show(view, kept(etype), kept(filetype), datarep)
        file.hints.update(info.items() if info else ())

    @_call
    def Get_view(self) -> tuple[int, Any, Any, str]:
        file = self._opened
        etype, filetype = kept(file.etype), kept(file.filetype)
        return file.view.displacement, etype, filetype, file.representation

    @_call
    def Get_byte_offset(self, offset: int) -> int:
        file = self._opened
        file.refuse_if_sequential()
        if offset < 0:
            raise MPI.Exception(MPI.ERR_ARG)
        return file.view.offset(offset * file.view.etype_size)

    @_call
    def Get_type_extent(self, datatype: Any) -> int:
        if not is_usable(self._opened and datatype):
            raise MPI.Exception(MPI.ERR_TYPE)
        return int(MPI.Datatype.Get_extent(datatype)[1])

    # Pointers

    @_call
    def Seek(self, offset: int, whence: int = MPI.SEEK_SET) -> None:
        file = self._opened
        file.refuse_if_sequential()
        with file.lock:
            file.position = file.sought(index(offset), whence, lambda: file.position)

    @_call
    def Get_position(self) -> int:
        self._opened.refuse_if_sequential()
        return self._opened.position

    @_call
    def Seek_shared(self, offset: int, whence: int = MPI.SEEK_SET) -> None:
        file = self._opened
        file.refuse_if_sequential()
        file.agree((offset, whence))
        if whence == MPI.SEEK_SET and offset < 0:
            raise MPI.Exception(MPI.ERR_ARG)
        file.by_one(lambda: file.shared.set(file.sought(offset, whence, file.shared.get)))

    @_call
    def Get_position_shared(self) -> int:
        self._opened.refuse_if_sequential()
        return self._opened.shared.get()

    # Reading and writing: the table below

    Read_at_all_end = Read_all_end = Read_ordered_end = _ending(False)
    Write_at_all_end = Write_all_end = Write_ordered_end = _ending(True)

    # What errors do: MPI keeps the handler at the file's communicator

    @classmethod
    def Create_errhandler(cls, errhandler_fn: Any) -> Any:
        return GuardedErrhandler.of_function(errhandler_fn)

    @_call
    def Get_errhandler(self) -> Any:
        comm = self._opened.comm if self else _nulls.comm
        return GuardedErrhandler(MPI.ERRORS_RETURN) if comm is None else comm.Get_errhandler()

    @_call
    def Set_errhandler(self, errhandler: Any) -> None:
        if not self and _nulls.comm is None:
            _nulls.comm = live[f"s/{world.rank}"].Split()
        (self._opened if self else _nulls).comm.Set_errhandler(errhandler)
        (self._state or _nulls).on_error = getattr(errhandler, "_function", None) or errhandler

    @_call
    def Call_errhandler(self, errorcode: int) -> None:
        self._call_handler((self._state or _nulls).on_error, errorcode)

    def _call_handler(self, handler: Any, code: int) -> None:
        if not isinstance(handler, MPI.Errhandler):
            handler(self, code)
        elif handler in (MPI.ERRORS_ARE_FATAL, MPI.ERRORS_ABORT):
            os.write(2, f"an error of MPI.File: {MPI.Get_error_string(code)}\n".encode())
            live["w/0"].Abort(code)

    # By a number, that only we know

    @classmethod
    def fromhandle(cls, handle: int) -> Any:
        file = cls.__new__(cls)
        file._state = by_handle.get(handle)
        return file

    @classmethod
    def fromint(cls, arg: int) -> Any:
        return cls.fromhandle(arg)

    f2py = fromint

    def toint(self) -> int:
        return self._state.handle if self and self._state is not None else int(_File.toint(_File()))

    py2f = toint
    handle = property(toint)
    size, amode, group = property(Get_size), property(Get_amode), property(Get_group)
    info = property(Get_info, Set_info)
    atomicity = property(Get_atomicity, Set_atomicity)
    group_size = property(lambda self: self._opened.comm.Get_size())
    group_rank = property(lambda self: self._opened.comm.Get_rank())


def _calls() -> Iterator[tuple[str, Any]]:
    for name, writes in (("ead", False), ("rite", True)):
        upper, lower = ("W", "w") if writes else ("R", "r")
        for suffix, where in (("_at", given), ("", own_pointer), ("_shared", shared_pointer)):
            yield upper + name + suffix, _moving(writes, where, _now)
            yield "I" + lower + name + suffix, _moving(writes, where, _as_request)
        for suffix, where in (("_at_all", given), ("_all", own_pointer), ("_ordered", in_order)):
            yield upper + name + suffix, _moving(writes, where, _now)
            yield f"{upper}{name}{suffix}_begin", _moving(writes, where, _begun)
        yield f"I{lower}{name}_at_all", _moving(writes, given, _as_request)
        yield f"I{lower}{name}_all", _moving(writes, own_pointer, _as_request)


for _name, _made in _calls():
    _made.__name__ = _made.__qualname__ = _name
    setattr(GatedFile, _name, _made)


def register_datarep(datarep: str, read_fn: Any, write_fn: Any, extent_fn: Any) -> None:
    """MPI.Register_datarep: known by its name, and as with MPICH not usable in a view."""
    if datarep in _representations:
        raise MPI.Exception(MPI.ERR_DUP_DATAREP)
    _representations.add(datarep)
