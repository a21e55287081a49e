"""Handlers in the order the layers demand, and one passage of them through a checkpoint.

Within one layer: reverse order of registration on the way down, order of registration on the way up, as
atexit and fork handlers do it.
"""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from nbcr.errors import HandlerFailed
from nbcr.handlers.base import Handler, Request, RestartEvent
from nbcr.states import State


@dataclass(frozen=True)
class HandlerProblem:
    """A handler that failed after the image was taken: it stops nobody, but it is told."""

    handler: str
    state: State
    error: BaseException

    def __str__(self) -> str:
        return f"handler {self.handler} failed in {self.state.value}: {type(self.error).__name__}: {self.error}"


class Registry:
    """All handlers of a process. Register and remove from any thread, also from within a handler."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._handlers: list[Handler] = []

    def register(self, handler: Handler) -> Handler:
        """Add `handler`; adding it twice changes nothing. Returns it."""
        with self._lock:
            if not any(h is handler for h in self._handlers):
                self._handlers.append(handler)
        return handler

    def remove(self, handler: Handler) -> None:
        """Take `handler` away; unknown ones are ignored."""
        with self._lock:
            self._handlers = [h for h in self._handlers if h is not handler]

    def top_down(self) -> list[Handler]:
        """Handlers in the order of the way down."""
        with self._lock:
            handlers = self._handlers[::-1]
        return sorted(handlers, key=lambda h: -h.layer)

    def enter(self, request: Request) -> Passage:
        """Tell every handler CHECKPOINT, top layer first.

        Raises HandlerFailed when one of them raises; those already entered, and the one that raised, are
        then told `aborted`.
        """
        passage = Passage()
        for handler in self.top_down():
            passage.entered.append(handler)
            try:
                handler.checkpoint(request)
            except BaseException as error:
                passage.aborted()
                if not isinstance(error, Exception):
                    raise
                raise _failed(handler, State.CHECKPOINT, error) from error
        return passage

    def prepare_restart(self) -> tuple[dict[str, Any], Passage]:
        """What the present hands to the life that will replace it, and the passage to abort if that fails."""
        present: dict[str, Any] = {}
        passage = Passage()
        for handler in self.top_down():
            passage.entered.append(handler)
            try:
                present.update(handler.prepare_restart())
            except BaseException as error:
                passage.aborted()
                if not isinstance(error, Exception):
                    raise
                raise _failed(handler, State.RESTART_PRE, error) from error
        return present, passage


class Passage:
    """Handlers that went down together come up together, whatever was registered or removed meanwhile."""

    def __init__(self) -> None:
        self.entered: list[Handler] = []

    def continue_(self) -> list[HandlerProblem]:
        """CONTINUE, bottom layer first; every handler is told, failures are returned."""
        return self._tell(State.CONTINUE, reversed(self.entered), lambda h: h.continue_())

    def restart(self, event: RestartEvent) -> list[HandlerProblem]:
        """RESTART_PRE top layer first, and only when all are done RESTART bottom layer first."""
        problems = self._tell(State.RESTART_PRE, self.entered, lambda h: h.restart_pre(event))
        return problems + self._tell(State.RESTART, reversed(self.entered), lambda h: h.restart(event))

    def aborted(self) -> list[HandlerProblem]:
        """No image after all: those entered are told in reverse order."""
        return self._tell(State.ERROR, reversed(self.entered), lambda h: h.aborted())

    def late_requests(self) -> list[Any]:
        """What reached the handlers since `Registry.prepare_restart`."""
        return [request for handler in self.entered for request in handler.late_requests()]

    @staticmethod
    def _tell(state: State, handlers: Any, call: Callable[[Handler], None]) -> list[HandlerProblem]:
        problems = []
        for handler in list(handlers):
            try:
                call(handler)
            except Exception as error:
                problems.append(HandlerProblem(_name(handler), state, error))
        return problems


def _name(handler: Handler) -> str:
    return type(handler).__qualname__


def _failed(handler: Handler, state: State, error: Exception) -> HandlerFailed:
    """The error a requester sees: handler, its file and line, phase and cause."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f"{frames[-1].filename}:{frames[-1].lineno}" if frames else "unknown place"
    return HandlerFailed(
        f"handler {_name(handler)} ({where}) failed in {state.value}: {type(error).__name__}: {error}",
        hint="nothing was changed and the program goes on; mend or remove the handler",
    )


registry = Registry()
"""The process's own registry."""
