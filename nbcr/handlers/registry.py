"""All handlers of a process, in the order the layers demand."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from nbcr.errors import HandlerFailed
from nbcr.handlers import parents
from nbcr.handlers.base import Context, Handler, Request, code_of, name_of
from nbcr.handlers.deadline import Deadline
from nbcr.handlers.passage import CONTEXTS, Passage, Places, place_of_traceback
from nbcr.handlers.remembered import RememberedPids


class Registry:
    """Register and remove from any thread, also from within a handler; a passage under way keeps its order.

    Each step is one operation of a dictionary and takes no lock: a handler may come and go in a signal's handler too.
    """

    def __init__(self) -> None:
        self._handlers: dict[int, Handler] = {}  # by id(), in order of registration

    def register(self, handler: Handler) -> Handler:
        """Add `handler`; adding it twice changes nothing. Returns it."""
        self._handlers.setdefault(id(handler), handler)
        return handler

    def remove(self, handler: Handler) -> None:
        """Take `handler` away; unknown ones are ignored."""
        self._handlers.pop(id(handler), None)

    def __contains__(self, handler: object) -> bool:
        return id(handler) in self._handlers

    def __iter__(self) -> Iterator[Handler]:
        """In order of registration."""
        return iter(list(self._handlers.values()))

    def __repr__(self) -> str:
        lines = [f"{h.layer.name:<12}{h.context:<8}{name_of(h)}" for h in self.top_down()]
        return "\n".join(["layer       context handler", *lines])

    def top_down(self, context: Context | None = None) -> list[Handler]:
        """Handlers in the order of the way down, of one context or (thread context first) of both."""
        if context is None:
            return [handler for each in CONTEXTS for handler in self.top_down(each)]
        handlers = [handler for handler in reversed(list(self)) if handler.context == context]
        return sorted(handlers, key=lambda h: -h.layer)

    def enter(self, request: Request, *, places: Places | None = None, deadline: Deadline | None = None) -> Passage:
        """Tell every handler CHECKPOINT, top layer first, thread context first.

        Raises HandlerFailed when one of them raises or is late; those entered before are then told `aborted`.
        Without `places` all run in the calling thread.
        """
        passage = Passage(places or Places(), deadline or Deadline())
        passage.down(self.top_down(), request, self.__contains__)
        return passage

    def facts(self) -> dict[str, Any]:
        """What handlers know of this process, where none of them has to be told of the checkpoint."""
        found: dict[str, Any] = {}
        for handler in self.top_down():
            with contextlib.suppress(Exception):  # less is known
                found.update(handler.facts())
        return found

    def prepare_restart(self) -> tuple[dict[str, Any], Passage]:
        """What the present hands to the life that will replace it, and the passage to abort if that fails.

        In the calling thread: it is its request, or its cell, that the other life will answer.
        """
        present: dict[str, Any] = {}
        passage = Passage(Places(), Deadline())
        for handler in self.top_down():
            passage.entered.append(handler)
            try:
                present.update(handler.prepare_restart())
            except BaseException as error:
                passage.aborted()
                if not isinstance(error, Exception):
                    raise
                place = place_of_traceback(code_of(handler), error.__traceback__)
                raise HandlerFailed.by(name_of(handler), place, "prepare_restart", passage.elapsed_s, error) from error
        return present, passage


registry = Registry()
"""The process's own registry. One handler every process needs: whatever else it has, its pids may become others."""
registry.register(RememberedPids())
parents.remember_in_children()
