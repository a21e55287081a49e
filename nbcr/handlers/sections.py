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

An interrupt (Ctrl-C) may be raised at the very first instruction of `__exit__`, which then does nothing: certain to
happen when it came during the block's last operation. So whoever is found inside is looked at twice: a `with` block is
over when the function that it stands in is (`_Record.is_over`).
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
from opcode import opname
from time import monotonic
from types import CodeType, FrameType
from typing import Any, TypeVar, cast

from nbcr.errors import Held, InCriticalSection
from nbcr.handlers.deadline import Deadline
from nbcr.handlers.interrupts import waiting
from nbcr.runtime import where_threads_are

F = TypeVar("F", bound=Callable[..., Any])

_PUT_ASIDE = inspect.CO_GENERATOR | inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR


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

    __slots__ = (
        "__weakref__", "code", "depth", "exempt", "frame", "greenlet", "instruction", "label", "since", "thread",
    )  # fmt: skip

    def __init__(self) -> None:
        self.depth = 0
        self.exempt = 0  # is part of the checkpoint: asked for it, or runs a handler
        self.label = ""
        self.since = 0.0
        self.code: CodeType | None = None  # who entered, and at which instruction
        self.instruction = 0
        self.frame: FrameType | None = None  # that code as it runs, while it is inside
        self.greenlet: Any = None  # in which, where the package of that name is in use
        self.thread = threading.current_thread()

    def holder(self) -> Holder:
        """This thread's section in words."""
        code = self.code
        file = code.co_filename if code is not None else "?"
        decorated = self.frame is not None and self.frame.f_code is not code
        line = _line(code, -1 if decorated else self.instruction)
        return Holder(self.label, self.thread.name, file, line, monotonic() - self.since)

    def is_inside(self, running: FrameType | None) -> bool:
        """Whether this thread, which runs in `running`, is in a section that a checkpoint has to wait for."""
        return bool(self.depth) and not self.exempt and self.thread.is_alive() and not self.is_over(running)

    def is_over(self, running: FrameType | None) -> bool:
        """Whether what was entered was left unheard: the thread, which runs in `running`, is in that function no more.

        False where that is no proof: what no `with` statement entered may be left anywhere, and generators and
        coroutines can be put aside. So can greenlets, but one that is tells where it will go on.
        """
        entered = self.frame
        if entered is None:  # by a handler
            return True
        if _is_within(entered, running) or entered.f_code.co_flags & _PUT_ASIDE:
            return False
        if "greenlet" in sys.modules:
            if self.greenlet is None:  # entered before there were any: it may have been put aside since
                return False
            if _is_within(entered, self.greenlet.gr_frame):
                return False
        return _is_with(entered.f_code, self.instruction)

    def encloses(self, entering: FrameType) -> bool:
        """Whether the section that `entering` is about to enter lies within the one that is noted here."""
        if (
            entering is self.frame
            and entering.f_lasti == self.instruction
            and _is_with(entering.f_code, self.instruction)
        ):
            return False  # the same statement: its block was left
        return not self.is_over(entering)


class _Local(threading.local):
    record: _Record


class _Gate:
    """The process's one gate, and all records."""

    def __init__(self) -> None:
        self.closed = False
        self.records: set[weakref.ref[_Record]] = set()
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

    def know(self, record: _Record) -> None:
        """From now on `record` is asked for, until its thread ends."""
        self.records.add(weakref.ref(record, self.records.discard))

    def holders(self) -> list[Holder]:
        """Who is inside now."""
        records = [record for reference in list(self.records) if (record := reference()) is not None]
        running = where_threads_are()
        inside = [record for record in records if record.is_inside(running.get(record.thread.ident or 0))]
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
        _gate.know(record)


os.register_at_fork(after_in_child=_forget_other_threads)


def _own_record() -> _Record:
    try:
        return _local.record
    except AttributeError:
        record = _local.record = _Record()
        _gate.know(record)
        return record


class critical_section:  # noqa: N801  (used like a function, as contextlib's own are)
    """No image is taken between entering and leaving: a context manager, and a decorator of functions and coroutines.

    Re-entrant, and a matter of each thread. `label` says what it protects, to whoever has to wait for it.
    """

    __slots__ = ("_function", "label")

    def __init__(self, label: str = "") -> None:
        self.label = label
        self._function: CodeType | None = None  # which it decorates

    def __enter__(self) -> None:
        try:
            record = _local.record
        except AttributeError:
            record = _own_record()
        frame = sys._getframe(1)
        if record.exempt or (record.depth and record.encloses(frame)):
            record.depth += 1
        else:
            _note(record, self.label, frame, self._function)
            record.depth = 1
            while _gate.closed:
                _step_back(record)

    def __exit__(self, *exc: object) -> None:
        record = _local.record
        record.depth -= 1
        if not record.depth:
            record.frame = record.greenlet = None
            if _gate.closed:
                _gate.tell_left()

    def __call__(self, function: F) -> F:
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise TypeError(f"{function!r} is a generator, which runs when it is asked: enter the section inside it")
        section = critical_section(self.label)
        section._function = getattr(inspect.unwrap(function), "__code__", None)

        async def coroutine_inside(*args: Any, **kwargs: Any) -> Any:
            with section:
                return await function(*args, **kwargs)

        def inside(*args: Any, **kwargs: Any) -> Any:
            with section:
                return function(*args, **kwargs)

        chosen = coroutine_inside if inspect.iscoroutinefunction(function) else inside
        return cast(F, functools.wraps(function)(chosen))


class try_critical_section:  # noqa: N801
    """As `critical_section`, but never waits: ``with try_critical_section("x") as entered`` is False when a checkpoint
    is under way, and then the block must leave alone what it protects."""

    __slots__ = ("_refused", "label")

    def __init__(self, label: str = "") -> None:
        self.label = label
        self._refused: list[int] = []  # idents of threads, one each time

    def __enter__(self) -> bool:
        record = _own_record()
        frame = sys._getframe(1)
        if record.exempt or (record.depth and record.encloses(frame)):
            record.depth += 1
        else:
            _note(record, self.label, frame)
            record.depth = 1
            if _gate.closed:
                critical_section().__exit__()  # leaving is the same for all
                self._refused.append(threading.get_ident())
                return False
        return True

    def __exit__(self, *exc: object) -> None:
        if threading.get_ident() in self._refused:
            self._refused.remove(threading.get_ident())
        else:
            critical_section().__exit__()


def _note(record: _Record, label: str, frame: FrameType, function: CodeType | None = None) -> None:
    record.label = label
    record.code = function or frame.f_code
    record.instruction = frame.f_lasti
    record.since = monotonic()
    record.greenlet = _current_greenlet()
    record.frame = frame


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
    record.frame = None  # it may end long before
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
    refuse_within()
    record = _own_record()
    inside = record.is_inside(sys._getframe())
    mine = [*([record] if inside else []), *(r for r in _gate.disabled if r.thread is record.thread)]
    if mine:
        raise InCriticalSection(
            f"this thread itself is in {mine[0].holder()}, so that no checkpoint can be taken",
            hint="leave it first" if inside else "call nbcr.enable_checkpoint() first",
        )


def refuse_within() -> None:
    """Raise InCriticalSection when the calling thread is part of a checkpoint or restart already."""
    if _own_record().exempt:
        raise InCriticalSection(
            "this thread is part of a checkpoint already: it asked for one, or runs a handler (a handler cannot ask)",
            hint="ask before, or after it",
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
            with waiting():
                left = gate.wait_until_left(deadline)
            if not left and (still := gate.holders()):
                raise Held.by([str(holder) for holder in still], deadline.bound_s)
        yield
    finally:
        gate.open()


@contextlib.contextmanager
def handling() -> Iterator[None]:
    """The calling thread is part of the checkpoint: it runs a handler, or waits for the image.

    Sections are open to it, also when a signal's handler of the program enters one in the middle of that: it would wait
    for itself.
    """
    record = _own_record()
    record.exempt += 1
    try:
        yield
    finally:
        record.exempt -= 1


def _is_within(function: FrameType, running: FrameType | None) -> bool:
    """Whether `function` is among the calls that lead to `running`."""
    while running is not None:
        if running is function:
            return True
        running = running.f_back
    return False


def _current_greenlet() -> Any:
    """The greenlet that we are in; None where nobody has loaded that package."""
    package = sys.modules.get("greenlet")
    return None if package is None else package.getcurrent()


def _is_with(code: CodeType, instruction: int) -> bool:
    """Whether a `with` statement enters there."""
    words = code.co_code
    return opname[words[instruction]] == "BEFORE_WITH" or opname[words[instruction - 2]] == "LOAD_SPECIAL"  # 3.14


def _line(code: CodeType | None, instruction: int) -> int:
    if code is None:
        return 0
    for begin, end, line in code.co_lines():
        if begin <= instruction < end and line is not None:
            return line
    return code.co_firstlineno
