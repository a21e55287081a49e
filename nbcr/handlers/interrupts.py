"""Interrupts (Ctrl-C, a client's interrupt request) come where something is waited for, not in the middle of things.

Python raises KeyboardInterrupt in the main thread between any two instructions: between the end of a handler and the
note that it has to be told the outcome, between the taking of a lock and the `try` that gives it back. So whoever must
not be torn apart puts interrupts off, and lets them in again where it waits. None is lost.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import FrameType
from typing import Any


@dataclass(frozen=True)
class _Block:
    lets_in: Callable[[], bool]
    but_in_waits: bool = False


class _Door:
    """What becomes of interrupts while there are blocks. Used in the main thread only."""

    def __init__(self) -> None:
        self.blocks: list[_Block] = []  # the innermost last: it decides
        self.usual: Any = None  # the signal's handler outside
        self.came: list[int] = []  # put off
        self.owner = 0  # ident of the main thread

    def knock(self, number: int, frame: FrameType | None) -> None:
        """The signal's handler."""
        if self.blocks and not self.blocks[-1].lets_in():
            self.came.append(number)
        else:
            self.usual(number, frame)

    def open(self) -> None:
        """What was put off comes now, if it may."""
        if self.came and (not self.blocks or self.blocks[-1].lets_in()):
            self.usual(self.came.pop(), sys._getframe())


_door = _Door()


@contextlib.contextmanager
def uninterrupted(*, but_in_waits: bool = False, unless: Callable[[], bool] = lambda: False) -> Iterator[None]:
    """Put interrupts off until the end of the block, or until `unless`.

    `but_in_waits`: not where something within it is waited for in a block of `waiting`.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # interrupts are raised in the main thread only
        return
    with _block(_Block(unless, but_in_waits)):
        yield


@contextlib.contextmanager
def waiting() -> Iterator[None]:
    """One interrupt may come here, where nothing but waiting is done, if the block around it lets it.

    It may still come when what was waited for is there: look at that, too, when it is raised.
    """
    if threading.current_thread() is threading.main_thread() and _door.blocks and _door.blocks[-1].but_in_waits:
        once = [True]  # what is raised leaves the block, perhaps before our end of it has run
        with _block(_Block(lambda: bool(once) and once.pop())):
            yield
    else:
        yield


@contextlib.contextmanager
def _block(block: _Block) -> Iterator[None]:
    depth = len(_door.blocks)
    if not depth and not _take_door():
        yield
        return
    try:
        if not depth:
            signal.signal(signal.SIGINT, _door.knock)
        _door.blocks.append(block)
        _door.open()
        yield
    finally:
        del _door.blocks[depth:]
        if not depth:
            signal.signal(signal.SIGINT, _door.usual)
        _door.open()


def _take_door() -> bool:
    """Before the outermost block. False when none is ever raised: the signal is ignored, or ends the process."""
    usual = signal.getsignal(signal.SIGINT)
    if usual != _door.knock:  # an interrupt at the very end of the last block may have left it there
        _door.usual = usual
    _door.came.clear()
    _door.owner = threading.get_ident()
    return callable(_door.usual)


def _forget_in_child() -> None:
    """A child that another thread forked meanwhile: nobody would ever end our blocks there."""
    global _door
    if _door.blocks and _door.owner != threading.get_ident():
        before, _door = _door, _Door()
        signal.signal(signal.SIGINT, before.usual)


os.register_at_fork(after_in_child=_forget_in_child)
