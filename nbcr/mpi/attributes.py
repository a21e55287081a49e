"""Attributes of communicators and datatypes. They never leave a process, so that MPI need not know them: they outlive
it here, with the functions that copy and delete them.
"""

from __future__ import annotations

import contextlib
import itertools
import traceback
from typing import Any

from nbcr.mpi.world import MPI

PREDEFINED = frozenset(
    getattr(MPI, name) for name in ("TAG_UB", "IO", "WTIME_IS_GLOBAL", "UNIVERSE_SIZE", "APPNUM", "LASTUSEDCODE")
)
_FIRST = 0x6E62_0000  # far from MPI's own

_keyvals: dict[int, tuple[Any, Any]] = {}
_numbers = itertools.count(_FIRST)


def create_keyval(copy_fn: Any = None, delete_fn: Any = None, nopython: bool = False) -> int:
    """A new key; `copy_fn`: a function, or whether a duplicate gets the value too."""
    keyval = next(_numbers)
    _keyvals[keyval] = (copy_fn, delete_fn)
    return keyval


def free_keyval(keyval: int) -> int:
    """Values stay where they are, as in MPI."""
    if keyval not in _keyvals:
        raise MPI.Exception(MPI.ERR_KEYVAL)
    return int(MPI.KEYVAL_INVALID)


class Attributes:
    """Those of one handle."""

    def __init__(self) -> None:
        self._values: dict[int, Any] = {}

    def get(self, keyval: int) -> Any:
        """The value, None without one."""
        if keyval not in _keyvals:
            raise MPI.Exception(MPI.ERR_KEYVAL)
        return self._values.get(keyval)

    def set(self, owner: Any, keyval: int, value: Any) -> None:
        """A value that was there is deleted first."""
        if keyval not in _keyvals:
            raise MPI.Exception(MPI.ERR_KEYVAL)
        if keyval in self._values:
            self.delete(owner, keyval)
        self._values[keyval] = value

    def delete(self, owner: Any, keyval: int) -> None:
        """Delete one, as its key says; it is gone, whatever its function raises."""
        if keyval not in self._values:
            raise MPI.Exception(MPI.ERR_KEYVAL)
        delete, value = _keyvals[keyval][1], self._values.pop(keyval)
        if callable(delete):
            _called(delete, owner, keyval, value)

    def clear(self, owner: Any) -> None:
        """The handle is about to be freed: the last set is the first deleted. What functions raise is told only."""
        for keyval in reversed(list(self._values)):
            with contextlib.suppress(MPI.Exception):
                self.delete(owner, keyval)

    def copy(self, owner: Any, duplicate: Any) -> None:
        """What a duplicate gets."""
        for keyval, value in list(self._values.items()):
            copy = _keyvals[keyval][0]
            copied = _called(copy, owner, keyval, value) if callable(copy) else value if copy else NotImplemented
            if copied is not NotImplemented:
                duplicate._attributes.set(duplicate, keyval, copied)


def _called(function: Any, *args: Any) -> Any:
    """Errors of the program's functions are told and become MPI's, as mpi4py does."""
    try:
        return function(*args)
    except Exception:
        traceback.print_exc()
        raise MPI.Exception(MPI.ERR_OTHER) from None
