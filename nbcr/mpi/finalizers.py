"""MPICH's stack of what is to be called at its end, emptied between two of its lives in one process.

MPICH (5.0.2, and all before) calls what is in this stack at its end and marks it as called, but never takes it off:
256 places are used up by some 30 to 80 checkpoints of one process, and then MPICH ends the job in the middle of the
next one ("overflow in finalize stack!"). How many are used is in a variable that no symbol leads to. So it is looked
for, by what it does: while MPI is there, records of a function in MPICH's text, an argument and a small priority stand
one after the other; after its end the functions are gone and all else is still there; and one number in MPICH's memory
is how many they are, at every end. Where it is not found beyond doubt (another MPI, or an MPICH that takes its records
off), nothing is touched.

Rejected: a limit on checkpoints, since those of a restored job count on; MPICH loaded anew: mpi4py is bound to it.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Iterable, Iterator

from nbcr.loaded import Library

_RECORD = struct.Struct("<QQI4x")  # function, argument, priority
_MAX_RECORDS = 256
_MAX_PRIORITY = 255
_LENGTH = struct.Struct("<I")


class Finalizers:
    """The stack of one library's life after life. `ending` is called while MPI is there, `ended` after its end."""

    def __init__(self) -> None:
        self._library: Library | None = None
        self._before: list[tuple[int, bytes]] = []  # the writable memory, at the first end
        self._stack = 0  # its address, once known
        self._count = 0  # records in it before this end, those of earlier lives at the beginning
        self._lengths: list[int] = []  # addresses of what may be its length

    def ending(self, function: int) -> None:
        """MPI is there, `function` is the address of one of its functions."""
        if self._library is None:
            self._library = Library.of(function)
            self._before = self._library.contents() if self._library else []
        elif self._lengths:
            records = enumerate(self._functions(_MAX_RECORDS), 1)
            self._count = max((number for number, each in records if each in self._library.text), default=0)

    def ended(self) -> None:
        """MPI is no longer there, and nobody calls it. Without `ending` before it, nothing happens."""
        if self._library is None:
            return
        if self._before:
            self._seek()
        self._lengths = [at for at in self._lengths if ctypes.c_uint32.from_address(at).value == self._count]
        if len(self._lengths) == 1 and self._count and not any(self._functions(self._count)):
            ctypes.c_uint32.from_address(self._lengths[0]).value = 0

    def _seek(self) -> None:
        assert self._library is not None
        before, self._before = self._before, []
        after = self._library.contents()
        runs = [
            run
            for (at, was), (_, remains) in zip(before, after, strict=True)
            for run in _called(at, was, remains, self._library.text)
        ]
        if len(runs) == 1:
            ((self._stack, self._count),) = runs
            self._lengths = sorted(set(_equal(before, self._count)) & set(_equal(after, self._count)))

    def _functions(self, count: int) -> list[int]:
        room = ctypes.string_at(self._stack, count * _RECORD.size)
        return [function for function, _, _ in _RECORD.iter_unpack(room)]


def _called(at: int, was: bytes, remains: bytes, text: range) -> Iterator[tuple[int, int]]:
    """Address and number of records one after the other whose functions, in `text`, are gone, and nothing else."""
    over = 0
    for high in {text.start >> 32, (text.stop - 1) >> 32}:
        for position in _positions(was, _LENGTH.pack(high), 8, 4):
            count = 0
            while _is_called(was, remains, position - 4 + count * _RECORD.size, text):
                count += 1
            if count > 1 and position > over:  # MPICH has three at the least
                over = position + count * _RECORD.size
                yield at + position - 4, count


def _is_called(was: bytes, remains: bytes, position: int, text: range) -> bool:
    if position + _RECORD.size > len(was):
        return False
    function, argument, priority = _RECORD.unpack_from(was, position)
    called = _RECORD.unpack_from(remains, position)
    return function in text and priority <= _MAX_PRIORITY and called == (0, argument, priority)


def _equal(contents: Iterable[tuple[int, bytes]], number: int) -> Iterator[int]:
    """Addresses where this number is."""
    for at, data in contents:
        for position in _positions(data, _LENGTH.pack(number), 4, 0):
            yield at + position


def _positions(data: bytes, sought: bytes, alignment: int, remainder: int) -> Iterator[int]:
    position = data.find(sought)
    while position >= 0:
        if position % alignment == remainder:
            yield position
        position = data.find(sought, position + 1)


finalizers = Finalizers()
