"""A page of shared memory on which the processes of one save tell each other how far they are.

Nothing here blocks, and nothing is lost when a process is killed between two instructions: that is why it is
no pipe.
"""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Sequence
from enum import IntEnum

from nbcr.objects.results import Progress

_FORMAT = struct.Struct("<BBqqqqq")  # state, stage, worker, spare, names done, names in all, bytes written
_NAMES_AT, _TEXT_AT, _SIZE = 256, 2048, 4096


class Late(BaseException):
    """The deadline is over. No Exception: no ``except`` of a user's may swallow it."""


class Orphaned(BaseException):
    """The process that asked for the snapshot is gone."""


class State(IntEnum):
    """How a save ended."""

    UNDER_WAY = 0
    DONE = 1
    FAILED = 2


class Stage(IntEnum):
    """What the worker is about to do to a name."""

    NOTHING = 0
    SAVING = 1
    DESCRIBING = 2


class Board:
    """Written by the worker, read by its spare and by the process that waits."""

    def __init__(self) -> None:
        self._page = mmap.mmap(-1, _SIZE)  # anonymous and shared
        self.state, self.stage = State.UNDER_WAY, Stage.NOTHING
        self.worker = self.spare = self.done = self.names_total = self.written = 0

    # --- the worker's side

    def post(self) -> None:
        """Show the numbers to the others."""
        values = (self.state, self.stage, self.worker, self.spare, self.done, self.names_total, self.written)
        self._page[: _FORMAT.size] = _FORMAT.pack(*values)

    def begin(self, stage: Stage, names: Sequence[str]) -> None:
        """The worker turns to these names."""
        self.stage = stage
        self._put(_NAMES_AT, _TEXT_AT, "\0".join(names))
        self.post()

    def end(self, names: Sequence[str]) -> None:
        """It has done with them."""
        self.stage = Stage.NOTHING
        self.done += len(names)
        self.post()

    def wrote(self, size: int) -> None:
        """More bytes are on the disk."""
        self.written += size
        self.post()

    def finish(self) -> None:
        """The snapshot is complete."""
        self.state = State.DONE
        self.post()

    def fail(self, text: str) -> None:
        """There will be no snapshot."""
        self._put(_TEXT_AT, _SIZE, text)
        self.state = State.FAILED
        self.post()

    def enlist(self, *, spare: int) -> None:
        """This process is the worker; `spare` would take over."""
        self.worker, self.spare = os.getpid(), spare
        self.post()

    # --- the others' side

    def read(self) -> Board:
        """Take the numbers that the worker shows; the board itself."""
        state, stage, *numbers = _FORMAT.unpack(self._page[: _FORMAT.size])
        self.state, self.stage = State(state), Stage(stage)
        self.worker, self.spare, self.done, self.names_total, self.written = numbers
        return self

    @property
    def names(self) -> list[str]:
        """What the worker is at."""
        return [name for name in self._get(_NAMES_AT, _TEXT_AT).split("\0") if name]

    @property
    def failure(self) -> str:
        """Why there is no snapshot."""
        return self._get(_TEXT_AT, _SIZE)

    def progress(self) -> Progress:
        """How far it is."""
        names = self.names if self.stage is not Stage.NOTHING else []
        return Progress(self.done, self.names_total, self.written, names[0] if names else "")

    def _put(self, start: int, end: int, text: str) -> None:
        data = text.encode(errors="replace")[: end - start - 1]
        self._page[start:end] = data.ljust(end - start, b"\0")

    def _get(self, start: int, end: int) -> str:
        return self._page[start:end].rstrip(b"\0").decode(errors="ignore")
