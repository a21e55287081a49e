"""Functions of the program that MPI calls on errors, and who has them: they outlive MPI, and what it knows of them is
made again.
"""

from __future__ import annotations

import ctypes
import traceback
from collections.abc import Iterable
from typing import Any

import mpi4py

from nbcr.mpi.guarding import Freed, Noted, guard, guarded_call
from nbcr.mpi.world import MPI, world

_errhandlers = Noted()


class GuardedErrhandler(Freed, MPI.Errhandler):
    """The program's function that is called on errors.

    MPI is given a function of ours for it, and the same one in each life: mpi4py has room for 32, and gives none back.
    """

    _function: Any = None
    _callback: Any = None

    def __new__(cls, errhandler: Any = None) -> GuardedErrhandler:
        self: GuardedErrhandler = super().__new__(cls, errhandler)
        _errhandlers.add(self)
        return self

    @classmethod
    def of_function(cls, function: Any) -> GuardedErrhandler:
        """One for communicators, kept as mpi4py keeps functions: MPI calls it, whoever has it."""
        self = cls()
        self._function, self._callback = function, _callback_of(function)
        guarded_call(self.make)
        _kept.append(self)
        return self

    def make(self) -> None:
        """Make it known to MPI. Raises MPI.Exception."""
        create = ctypes.CDLL(mpi4py.MPI.__file__).MPI_Comm_create_errhandler
        code = create(self._callback, ctypes.c_void_p(MPI._addressof(self)))
        if code != MPI.SUCCESS:
            raise MPI.Exception(code)

    @classmethod
    def of_handle(cls, errhandler: Any) -> GuardedErrhandler:
        """What MPI says is one that the program has made, or predefined."""
        self = cls(errhandler)
        ours = _made_for(self)
        if ours is not None:
            self._function, self._callback = ours._function, ours._callback
        return self

    def Free(self) -> None:
        """Communicators that have it keep it."""
        if self._function is not None and self:
            released.append(self.of_handle(self))
        guarded_call(MPI.Errhandler.Free, self)
        _kept[:] = [each for each in _kept if each is not self]


_kept: list[GuardedErrhandler] = []  # until they are freed: communicators may have them when the program has not
released: list[GuardedErrhandler] = []  # which the program has freed, and communicators may have


def _made_for(errhandler: Any) -> Any:
    """The program's errhandler that is the same; None: it is predefined."""
    return next((each for each in (*of_the_program(), *reversed(released)) if each == errhandler), None)


def of_the_program() -> list[GuardedErrhandler]:
    """Functions that it has objects of, and has not freed."""
    freed = set(map(id, released))
    return [each for each in _errhandlers if each._function is not None and each and id(each) not in freed]


_HANDLE = ctypes.c_uint32 if MPI._sizeof(MPI.Comm) == ctypes.sizeof(ctypes.c_uint32) else ctypes.c_uint64
_ON_ERROR = ctypes.CFUNCTYPE(None, ctypes.POINTER(_HANDLE), ctypes.POINTER(ctypes.c_int))


def _callback_of(function: Any) -> Any:
    """What MPI calls. As mpi4py has it, an error in the program's function ends the job."""

    def call(comm: Any, code: Any) -> None:
        from nbcr.mpi.communicators import known

        try:
            function(known(MPI.Comm.fromhandle(comm[0])), code[0])
        except BaseException:
            traceback.print_exc()
            world.comm.Abort(1)

    return _ON_ERROR(call)


def errhandler_of(comm: Any) -> Any:
    """What is to be set again when `comm` has been made again; None for what all have from their beginning."""
    errhandler = MPI.Comm.Get_errhandler(comm)
    if errhandler == MPI.ERRORS_RETURN:
        return None
    return _made_for(errhandler) or errhandler


def forget_released(in_use: Iterable[Any]) -> None:
    """But for these, which communicators have."""
    used = set(map(id, in_use))
    released[:] = [each for each in released if id(each) in used]


guard(GuardedErrhandler, MPI.Errhandler)
