"""One passage of all handlers through a checkpoint: the order of seeds 002 and 004, failures, lateness.

                 thread context          signal context
    CHECKPOINT   1. top layer first      2. top layer first
                                   (image)
    CONTINUE     2. bottom layer first   1. bottom layer first
    RESTART_PRE  2. top layer first      1. top layer first
    RESTART      4. bottom layer first   3. bottom layer first       only when every RESTART_PRE is done
    (aborted)    those entered, in reverse order

Within one layer: reverse order of registration going down, order of registration coming up, as atexit and fork
handlers do it.

A handler hears one thing at a time. One whose call was left alone because it was late hears nothing more until that
call has ended, in a later passage either: the deadline counts for this, too.
"""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from types import CodeType, FrameType, TracebackType
from typing import Any

from nbcr.errors import HandlerFailed
from nbcr.handlers.base import Context, Handler, Request, RestartEvent, code_of, name_of
from nbcr.handlers.deadline import Deadline
from nbcr.handlers.interrupts import uninterrupted, waiting
from nbcr.handlers.places import Call, Here, Job, LateError, Place, where_is
from nbcr.handlers.sections import handling
from nbcr.states import State

CONTEXTS: tuple[Context, ...] = ("thread", "signal")  # the order of the way down

_left_alone: dict[int, Job] = {}  # calls that nobody waits for any more, by id() of their handlers
os.register_at_fork(after_in_child=_left_alone.clear)  # their threads are not there


@dataclass(frozen=True)
class HandlerProblem:
    """A handler that failed after the image was taken: it stops nobody, but it is told."""

    handler: str
    place: str
    state: State
    error: Exception

    def __str__(self) -> str:
        what = f"handler {self.handler} ({self.place}) failed in {self.state.value}"
        return f"{what}: {type(self.error).__name__}: {self.error}"


class Places:
    """Which place each context has in one passage; a context manager that gives back what was borrowed.

    `enter` is called for a context before its first handler runs, and may wait until the deadline.
    """

    def enter(self, context: Context, deadline: Deadline) -> None:
        """Make the place ready."""

    def of(self, context: Context) -> Place:
        """The place of a context that was entered."""
        return Here()

    def leave(self) -> None:
        """Give everything back; harmless when repeated."""


class Passage:
    """Handlers that went down together come up together, whatever was registered or removed meanwhile."""

    def __init__(self, places: Places, deadline: Deadline) -> None:
        self.entered: list[Handler] = []
        self._places = places
        self._deadline = deadline

    @property
    def elapsed_s(self) -> float:
        """Seconds since the checkpoint was asked for."""
        return self._deadline.elapsed_s

    def down(self, handlers: Iterable[Handler], request: Request, is_registered: Callable[[Handler], bool]) -> None:
        """Tell every handler CHECKPOINT, in the order given.

        Raises HandlerFailed when one of them raises or is late; those entered are then told `aborted`.
        """
        context: Context | None = None
        try:
            for handler in handlers:
                if handler.context != context:
                    context = handler.context
                    self._enter(context, handler)
                if is_registered(handler):
                    self._tell_checkpoint(handler, request)
        except BaseException:
            self.aborted()
            raise

    def _enter(self, context: Context, first: Handler) -> None:
        try:
            self._places.enter(context, self._deadline)
        except LateError as late:
            raise HandlerFailed.late(
                name_of(first),
                place_of_frame(code_of(first), None),
                State.CHECKPOINT.value,
                self._deadline.elapsed_s,
                "the main thread, in which it must run, did not come: it is in " + _place_of(late.frame),
            ) from None

    def _tell_checkpoint(self, handler: Handler, request: Request) -> None:
        begun, before_s = time.monotonic(), self._deadline.elapsed_s
        try:
            self._run(handler, lambda: handler.checkpoint(request), self._deadline, if_late=handler.aborted)
        except LateError as late:
            place = place_of_frame(code_of(handler), late.frame)
            elapsed_s = time.monotonic() - begun
            why = late.why
            if not why and before_s > elapsed_s:
                why = f"of the deadline of {self._deadline.bound_s:g} s others had taken {before_s:.1f} s"
            raise HandlerFailed.late(name_of(handler), place, State.CHECKPOINT.value, elapsed_s, why) from None
        except Exception as error:
            place = place_of_traceback(code_of(handler), error.__traceback__)
            raise HandlerFailed.by(
                name_of(handler), place, State.CHECKPOINT.value, time.monotonic() - begun, error
            ) from error
        self.entered.append(handler)

    def continue_(self) -> list[HandlerProblem]:
        """CONTINUE; every handler is told, failures are returned."""
        return self._up((State.CONTINUE, reversed(self.entered), lambda h: h.continue_()))

    def restart(self, event: RestartEvent) -> list[HandlerProblem]:
        """RESTART_PRE, and only when all are done RESTART."""
        signals_first = [h for context in reversed(CONTEXTS) for h in self.entered if h.context == context]
        return self._up(
            (State.RESTART_PRE, signals_first, lambda h: h.restart_pre(event)),
            (State.RESTART, reversed(self.entered), lambda h: h.restart(event)),
        )

    def aborted(self) -> list[HandlerProblem]:
        """No image after all: those entered are told in reverse order."""
        return self._up((State.ERROR, reversed(self.entered), lambda h: h.aborted()))

    def part(self) -> None:
        """The last word to the handlers before the image with which the process ends."""
        for handler in self.entered:
            handler.part()

    def late_requests(self) -> list[Any]:
        """What reached the handlers since `Registry.prepare_restart`."""
        return [request for handler in self.entered for request in handler.late_requests()]

    def _up(self, *phases: tuple[State, Iterable[Handler], Callable[[Handler], None]]) -> list[HandlerProblem]:
        """Tell all, whatever each of them does. What is borrowed is given back as early as can be: a handler of the
        thread context may need a lock that the main thread was holding when it was interrupted.

        Each has a deadline of its own: this may be another life, with another clock, and those behind a late one are to
        be told in order, too.
        """
        problems = []
        steps = [(state, handler, call) for state, handlers, call in phases for handler in handlers]
        borrowed = [n for n, (_, handler, _) in enumerate(steps, 1) if handler.context == "signal"]
        with uninterrupted():
            try:
                for n, (state, handler, call) in enumerate(steps, 1):
                    try:
                        self._run(handler, partial(call, handler), Deadline(self._deadline.bound_s))
                    except Exception as error:
                        problems.append(_problem(handler, state, error))
                    if n in borrowed[-1:]:
                        self._places.leave()
            finally:
                self._places.leave()
        return problems

    def _run(self, handler: Handler, call: Call, deadline: Deadline, if_late: Call = lambda: None) -> None:
        self._await_earlier(handler, deadline)
        job = Job(_as_handler(call), _as_handler(if_late))
        try:
            self._places.of(handler.context).run(job, deadline)
        finally:
            if job.abandoned:
                _left_alone[id(handler)] = job

    def _await_earlier(self, handler: Handler, deadline: Deadline) -> None:
        earlier = _left_alone.get(id(handler))
        if earlier is None:
            return
        with waiting():
            ended = earlier.ended(deadline.left_s)
        if not ended:
            why = "an earlier call of it, left alone because it was late, has not ended yet"
            raise LateError(deadline, where_is(earlier.thread), why)
        del _left_alone[id(handler)]


def _as_handler(call: Call) -> Call:
    def run() -> None:
        with handling():
            try:
                call()
            except Exception:
                raise
            except (
                BaseException
            ) as error:  # sys.exit, say: it is a handler that fails, not the thread it happens to be in
                failure = RuntimeError(f"it raised {type(error).__name__} {error}".rstrip())
                raise failure.with_traceback(error.__traceback__) from error

    return run


def _problem(handler: Handler, state: State, error: Exception) -> HandlerProblem:
    code = code_of(handler)
    if isinstance(error, LateError):
        return HandlerProblem(name_of(handler), place_of_frame(code, error.frame), state, error)
    return HandlerProblem(name_of(handler), place_of_traceback(code, error.__traceback__), state, error)


def place_of_traceback(code: CodeType | None, trace: TracebackType | None) -> str:
    """File and line where a handler raised: in its own file if possible, not deep in a library."""
    steps = traceback.extract_tb(trace)
    own = [step for step in steps if code is not None and step.filename == code.co_filename]
    places = [f"{step.filename}:{step.lineno}" for step in own or steps]
    return places[-1] if places else place_of_frame(code, None)


def place_of_frame(code: CodeType | None, frame: FrameType | None) -> str:
    """File and line at which a handler is, given its thread's innermost frame; else where it is written."""
    while frame is not None and code is not None:
        if frame.f_code.co_filename == code.co_filename:
            return _place_of(frame)
        frame = frame.f_back
    return f"{code.co_filename}:{code.co_firstlineno}" if code is not None else "unknown place"


def _place_of(frame: FrameType | None) -> str:
    return f"{frame.f_code.co_filename}:{frame.f_lineno}" if frame is not None else "unknown place"
