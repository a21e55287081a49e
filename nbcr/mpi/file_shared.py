"""The file pointer that all ranks of a file share: a number in a small file beside it, under a lock.

It is there from its first use until the file is closed. A checkpoint takes the number with it: a job that goes on
counts on, and what is brought back must not find that.
"""

from __future__ import annotations

import contextlib
import os
import weakref
from collections.abc import Callable
from pathlib import Path

from nbcr.mpi.file_bytes import locked
from nbcr.mpi.world import MPI

_LONGEST = 200  # of a name, for the token to fit


class SharedPointer:
    """Of one file, in one of its ranks."""

    def __init__(self, path: str, token: str, start: int, is_first: bool) -> None:
        """`token` is the same in all ranks and in no other job; `is_first`: this rank keeps it through a checkpoint."""
        beside = Path(path).absolute()
        self._is_possible = beside.is_file()
        self._path = beside.with_name(f".{beside.name[:_LONGEST]}.{token}")
        self._start = start
        if is_first:
            _kept.add(self)

    def get(self) -> int:
        """Where it is, in etypes."""
        return self._change(lambda value: value)

    def set(self, value: int) -> None:
        """Put it there."""
        self._change(lambda _: value)

    def advance(self, count: int) -> int:
        """Where it was, which is the caller's."""
        return self._change(lambda value: value + count)

    def _change(self, change: Callable[[int], int]) -> int:
        if not self._is_possible:  # nothing is left in /dev
            raise MPI.Exception(MPI.ERR_UNSUPPORTED_OPERATION)
        number = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            with locked(number, writes=True):
                value = self._parsed(os.pread(number, 32, 0))
                if (changed := change(value)) != value:
                    os.pwrite(number, b"%20d\n" % changed, 0)
                return value
        finally:
            os.close(number)

    def _parsed(self, text: bytes) -> int:
        return int(text) if text else self._start

    def begin_anew(self) -> None:
        """At nought, as in all other ranks, before anyone uses it."""
        self._start = 0

    def remove(self) -> None:
        """Nobody uses it any more, or not before it begins anew."""
        if self._path.exists():
            self._path.unlink(missing_ok=True)

    # Through a checkpoint

    def remember(self) -> str | None:
        """What is to be there again."""
        try:
            return self._path.read_text()
        except OSError:
            return None

    def restore(self, text: str | None) -> None:
        """Before any rank goes on. Where this fails, so does its next use."""
        with contextlib.suppress(OSError):
            if text is None:
                self.remove()
            else:
                self._path.write_text(text)

    def forget(self) -> None:
        """The file has been closed."""
        _kept.discard(self)


_kept: weakref.WeakSet[SharedPointer] = weakref.WeakSet()


def remembered() -> list[tuple[SharedPointer, str | None]]:
    """All that this rank keeps, when no rank is at any."""
    return [(pointer, pointer.remember()) for pointer in _kept]
