"""Handlers written as one function: a generator that yields where the image is taken.

    @nbcr.on_checkpoint(layer=nbcr.Layer.APPLICATION, context="thread")
    def flush(request):
        db.close()
        outcome = yield
        db.open()

What it needs to remember lies in its own variables, across the image and in every restored life.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Generator
from typing import Any

from nbcr.handlers.base import Context, Handler, Request, RestartEvent
from nbcr.states import Layer, Outcome

Span = Generator[None, Outcome, None]


class GeneratorHandler(Handler):
    """Runs `function` from its beginning to its one yield before the image, and from there to its end after it.

    The yield gives the outcome: CONTINUE, RESTART, or ABORTED when no image was taken after all. Then
    ``request.event`` tells a restored life what changed around it.
    """

    def __init__(self, function: Callable[..., Any], layer: Layer, context: Context) -> None:
        if not inspect.isgeneratorfunction(function):
            raise TypeError(f"{function!r} is no generator function: a handler yields where the image is taken")
        self.function = function
        self.layer = layer
        self.context = context
        self.__nbcr_name__ = str(getattr(function, "__qualname__", function))
        self.__nbcr_code__ = getattr(inspect.unwrap(function), "__code__", None)
        self._takes_request = bool(inspect.signature(function).parameters)
        self._request: Request | None = None
        self._span: Span | None = None

    def checkpoint(self, request: Request) -> None:
        """Run up to the yield; a generator that ends before has nothing to do afterwards."""
        span: Span = self.function(request) if self._takes_request else self.function()
        try:
            next(span)
        except StopIteration:
            return
        self._span, self._request = span, request

    def continue_(self) -> None:
        """Run on with CONTINUE."""
        self._go_on(Outcome.CONTINUE)

    def restart(self, event: RestartEvent) -> None:
        """Run on with RESTART."""
        if self._request is not None:
            self._request.event = event
        self._go_on(Outcome.RESTART)

    def aborted(self) -> None:
        """Run on with ABORTED."""
        self._go_on(Outcome.ABORTED)

    def _go_on(self, outcome: Outcome) -> None:
        span, self._span, self._request = self._span, None, None
        if span is None:
            return
        try:
            span.send(outcome)
        except StopIteration:
            return
        span.close()
        raise RuntimeError("it yields more than once, and an image is taken only once")
