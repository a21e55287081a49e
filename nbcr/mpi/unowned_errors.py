"""Errors that belong to no communicator, as exceptions: a datatype of a negative count, a handle that was freed.

MPICH (5.0.2) gives such an error to the error handler of MPI_COMM_SELF. Where MPI is set up by sessions there is none,
and it ends the job, where it would have raised MPI.Exception without us. All its calls come to that by one function of
its own, MPIR_Err_return_comm(communicator or NULL, function, code), and they call it by the library's table of
functions (its PLT's, System V ABI 5.3): ours takes its place there. It gives the code back where there is no
communicator, as MPI_ERRORS_RETURN does, and calls MPICH's for all others. What is not found (another MPI) is left.

Rejected: asking beforehand whether a call can fail, which is to know all of MPI's rules once more.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from typing import Any

from nbcr.loaded import Library

_NAME = "MPIR_Err_return_comm"
_FUNCTION = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int)

_kept: list[Any] = []  # what the table refers to


def become_exceptions(library: Any) -> None:
    """From now on, in the MPI that `library` (a ctypes.CDLL) leads to; once is enough for all lives of a process."""
    try:
        theirs = _FUNCTION((_NAME, library))
    except AttributeError:
        return  # another MPI
    address = ctypes.cast(theirs, ctypes.c_void_p).value or 0

    def returned(comm: int | None, function: bytes, code: int) -> int:
        return code if comm is None else int(theirs(comm, function, code))

    ours = _FUNCTION(returned)
    for place in _places(address):
        _kept.extend((theirs, ours))
        ctypes.c_void_p.from_address(place).value = ctypes.cast(ours, ctypes.c_void_p).value


def _places(function: int) -> Iterator[int]:
    """Where the library that has `function` keeps its address to call it, as far as it may be written to."""
    library = Library.of(function)
    if library is not None:
        for place in library.import_slots(_NAME):
            if any(place in area for area in library.writable):
                yield place
