"""Critical sections: stretches of code in the middle of which no image may be taken.

    with nbcr.critical_section("db commit"):
        …

A checkpoint asked for meanwhile waits until nobody is inside, and whoever asked is told who is. From then on, until
the image is taken and the handlers are done, a thread that wants to enter waits at the front (as an MPI call does,
seed 002). Handlers themselves enter freely: the checkpoint is theirs.

Entering costs well below a microsecond, because it takes no lock. Each thread has a record of its own: it first notes
that it is inside, and then looks whether the gate is closed; whoever closes the gate first closes it, and then looks
into the records. Whichever comes second sees the other (Dekker's rule; the interpreter's lock makes the order of
these steps the same for all threads). Nor does leaving take a lock, so that a signal's handler may use sections.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import os
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from time import monotonic
from types import CodeType
from typing import Any, TypeVar, cast

from nbcr.errors import Held, InCriticalSection
from nbcr.handlers.deadline import Deadline

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class Holder:
    """Who delays a checkpoint."""

    label: str
    thread: str
    file: str
    line: int
    since_s: float  # how long it has been inside

    def __str__(self) -> str:
        what = f"critical section {self.label!r}" if self.label else "a critical section"
        return f"{what} (thread {self.thread}, {self.file}:{self.line}, for {self.since_s:.1f} s)"


class _Record:
    """One thread's part."""

    __slots__ = ("__weakref__", "code", "depth", "exempt", "instruction", "label", "since", "thread")

    def __init__(self) -> None:
        self.depth = 0
        self.exempt = 0  # runs a handler
        self.label = ""
        self.since = 0.0
        self.code: CodeType | None = None
        self.instruction = 0
        self.thread = threading.current_thread()

    def holder(self) -> Holder:
        """This thread's section in words."""
        code = self.code
        file = code.co_filename if code is not None else "?"
        return Holder(self.label, self.thread.name, file, _line(code, self.instruction), monotonic() - self.since)


class _Local(threading.local):
    record: _Record


class _Gate:
    """The process's one gate, and all records."""

    def __init__(self) -> None:
        self.closed = False
        self.records: list[weakref.ref[_Record]] = []
        self.disabled: list[_Record] = []  # `disable_checkpoint`, one entry a call
        self._waiting: list[threading.Lock] = []
        self._left = threading.Lock()  # released when somebody leaves a section
        self._left.acquire()

    def wait_until_open(self) -> None:
        """Wait in front of the closed gate."""
        turn = threading.Lock()
        turn.acquire()
        self._waiting.append(turn)
        if self.closed:  # else it was opened before it could know of us
            turn.acquire()

    def open(self) -> None:
        """Let all in."""
        self.closed = False
        while self._waiting:
            self._waiting.pop().release()

    def tell_left(self) -> None:
        """Wake whoever waits until nobody is inside."""
        with contextlib.suppress(RuntimeError):  # it is awake already
            self._left.release()

    def wait_until_left(self, deadline: Deadline) -> bool:
        """Wait for the next `tell_left`."""
        return self._left.acquire(timeout=deadline.left_s)

    def holders(self) -> list[Holder]:
        """Who is inside now."""
        self.records = [reference for reference in self.records if reference() is not None]
        records = [record for reference in self.records if (record := reference()) is not None]
        inside = [record for record in records if record.depth and not record.exempt and record.thread.is_alive()]
        return [record.holder() for record in [*inside, *self.disabled]]


_local = _Local()
_gate = _Gate()


def _forget_other_threads() -> None:
    """In a forked child there is one thread, and no checkpoint under way."""
    global _gate
    _gate = _Gate()
    record = getattr(_local, "record", None)
    if record is not None:
        record.exempt = 0
        record.thread = threading.current_thread()
        _gate.records.append(weakref.ref(record))


os.register_at_fork(after_in_child=_forget_other_threads)


def _own_record() -> _Record:
    try:
        return _local.record
    except AttributeError:
        record = _local.record = _Record()
        _gate.records.append(weakref.ref(record))
        return record


class critical_section:  # noqa: N801  (used like a function, as contextlib's own are)
    """No image is taken between entering and leaving: a context manager, and a decorator of functions and coroutines.

    Re-entrant, and a matter of each thread. `label` says what it protects, to whoever has to wait for it.
    """

    __slots__ = ("label",)

    def __init__(self, label: str = "") -> None:
        self.label = label

    def __enter__(self) -> None:
        try:
            record = _local.record
        except AttributeError:
            record = _own_record()
        if record.depth or record.exempt:
            record.depth += 1
        else:
            _note(record, self.label, sys._getframe(1))
            record.depth = 1
            while _gate.closed:
                _step_back(record)

    def __exit__(self, *exc: object) -> None:
        record = _local.record
        record.depth -= 1
        if _gate.closed and not record.depth:
            _gate.tell_left()

    def __call__(self, function: F) -> F:
        async def coroutine_inside(*args: Any, **kwargs: Any) -> Any:
            with self:
                return await function(*args, **kwargs)

        def inside(*args: Any, **kwargs: Any) -> Any:
            with self:
                return function(*args, **kwargs)

        chosen = coroutine_inside if inspect.iscoroutinefunction(function) else inside
        return cast(F, functools.wraps(function)(chosen))


class try_critical_section:  # noqa: N801
    """As `critical_section`, but never waits: ``with try_critical_section("x") as entered`` is False when a checkpoint
    is under way, and then the block must leave alone what it protects."""

    __slots__ = ("_refused", "label")

    def __init__(self, label: str = "") -> None:
        self.label = label
        self._refused: set[int] = set()  # idents of threads

    def __enter__(self) -> bool:
        record = _own_record()
        if record.depth or record.exempt:
            record.depth += 1
        else:
            _note(record, self.label, sys._getframe(1))
            record.depth = 1
            if _gate.closed:
                record.depth = 0
                _gate.tell_left()
                self._refused.add(threading.get_ident())
                return False
        return True

    def __exit__(self, *exc: object) -> None:
        if threading.get_ident() in self._refused:
            self._refused.discard(threading.get_ident())
            return
        record = _local.record
        record.depth -= 1
        if _gate.closed and not record.depth:
            _gate.tell_left()


def _note(record: _Record, label: str, frame: Any) -> None:
    record.label = label
    record.code = frame.f_code
    record.instruction = frame.f_lasti
    record.since = monotonic()


def _step_back(record: _Record) -> None:
    """We are inside a closed gate: out again, wait, and once more."""
    record.depth = 0
    _gate.tell_left()
    _gate.wait_until_open()
    record.since = monotonic()
    record.depth = 1


def disable_checkpoint(label: str = "") -> None:
    """Let checkpoints of this process wait until as many `enable_checkpoint` were called."""
    record = _Record()
    _note(record, label or "disable_checkpoint", sys._getframe(1))
    _gate.disabled.append(record)


def enable_checkpoint() -> None:
    """Undo one `disable_checkpoint`. Raises RuntimeError when there is none."""
    try:
        _gate.disabled.pop()
    except IndexError:
        raise RuntimeError("checkpoints of this process are not disabled") from None
    _gate.tell_left()


def refuse_inside() -> None:
    """Raise InCriticalSection when the calling thread would wait for itself."""
    record = _own_record()
    if record.exempt:
        raise InCriticalSection(
            "a handler cannot ask for a checkpoint: it is part of one", hint="ask before, or after it"
        )
    mine = [*([record] if record.depth else []), *(r for r in _gate.disabled if r.thread is record.thread)]
    if mine:
        raise InCriticalSection(
            f"this thread itself is in {mine[0].holder()}, so that no checkpoint can be taken",
            hint="leave it first" if record.depth else "call nbcr.enable_checkpoint() first",
        )


@contextlib.contextmanager
def all_left(deadline: Deadline, tell: Callable[[list[Holder]], None]) -> Iterator[None]:
    """Nobody is in a critical section during the block, and nobody enters one.

    `tell` hears at once of those who have to be waited for. Raises Held when they do not leave in time.
    """
    gate = _gate
    gate.closed = True
    try:
        told = False
        while holders := gate.holders():
            if not told:
                tell(holders)
                told = True
            if not gate.wait_until_left(deadline):
                raise Held.by([str(holder) for holder in gate.holders() or holders], deadline.bound_s)
        yield
    finally:
        gate.open()


@contextlib.contextmanager
def handling() -> Iterator[None]:
    """The calling thread runs a handler: sections are open to it."""
    record = _own_record()
    record.exempt += 1
    try:
        yield
    finally:
        record.exempt -= 1


def _line(code: CodeType | None, instruction: int) -> int:
    if code is None:
        return 0
    for begin, end, line in code.co_lines():
        if begin <= instruction < end and line is not None:
            return line
    return code.co_firstlineno
