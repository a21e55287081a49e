"""What a program says beforehand: its handlers, and the signal by which it wants to be asked."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, TypeVar, overload

from nbcr.handlers import Context, GeneratorHandler, Handler, Layer, registry

T = TypeVar("T")
_METHODS = ("checkpoint", "continue_", "restart_pre", "restart", "aborted")


@overload
def on_checkpoint(target: T, /, *, layer: Layer | None = None, context: Context | None = None) -> T: ...


@overload
def on_checkpoint(*, layer: Layer | None = None, context: Context | None = None) -> Callable[[T], T]: ...


def on_checkpoint(target: Any = None, /, *, layer: Layer | None = None, context: Context | None = None) -> Any:
    """Have `target` told before and after each checkpoint of this process; a decorator too. Returns `target`.

    It is a generator function with one yield, which is where the image is taken and which gives the
    `nbcr.Outcome`; or an object, or class without arguments, with any of the methods of `nbcr.Handler`. `layer`
    (default APPLICATION) places it among the others; `context` "thread" (the default) has it run in the checkpoint
    thread while the program goes on, "signal" in the main thread, in the middle of what that does.

    A function or class at the top level of a notebook replaces the earlier one of that name: cells are run again.

    From now on a request from outside (`nbcr checkpoint PID`) is heard by this process, so that its handlers are.
    """
    if target is None:
        return lambda decorated: on_checkpoint(decorated, layer=layer, context=context)
    handler = _handler(target, layer, context)
    for earlier in registry:
        if _is_written_again(_origin(earlier), target):
            registry.remove(earlier)
    if handler.context == "signal":
        from nbcr.handlers import main_thread

        main_thread.install()
    registry.register(handler)
    from nbcr.session import service

    service.start_if_possible()
    return target


def remove_handler(target: Any) -> None:
    """Undo `on_checkpoint`; what was never registered is ignored. From any thread, also from within a handler."""
    for handler in registry:
        if handler is target or _origin(handler) is target:
            registry.remove(handler)


def request_on_signal(number: int | None = None) -> None:
    """Take a checkpoint whenever POSIX signal `number` (None: SIGUSR2) arrives. Call in the main thread.

    Raises NotPossible when the program uses that signal itself.
    """
    import signal

    from nbcr.session import service

    service.request_on(signal.SIGUSR2 if number is None else number)


class _Adapted(Handler):
    """An object with some of a handler's methods."""

    def __init__(self, origin: Any, subject: Any) -> None:
        self.origin = origin
        self._subject = subject
        for method in _METHODS:
            if callable(getattr(subject, method, None)):
                setattr(self, method, getattr(subject, method))
        self.layer = getattr(subject, "layer", Layer.APPLICATION)
        self.context = getattr(subject, "context", "thread")
        self.__nbcr_name__ = type(subject).__qualname__
        codes = (getattr(getattr(type(subject), name, None), "__code__", None) for name in _METHODS)
        self.__nbcr_code__ = next((code for code in codes if code is not None), None)


def _handler(target: Any, layer: Layer | None, context: Context | None) -> Handler:
    if context not in (None, "thread", "signal"):
        raise ValueError(f"context {context!r} is not known: use 'thread' or 'signal'")
    handler: Handler
    if inspect.isgeneratorfunction(target):
        return GeneratorHandler(target, layer or Layer.APPLICATION, context or "thread")
    subject = target() if isinstance(target, type) else target
    if isinstance(subject, Handler) and subject is target and layer is None and context is None:
        return subject
    if not any(callable(getattr(subject, name, None)) for name in _METHODS):
        raise TypeError(
            f"{target!r} is no handler: a generator function with one yield, or an object with any of the methods "
            + ", ".join(_METHODS)
        )
    handler = _Adapted(target, subject)
    handler.layer = layer or handler.layer
    handler.context = context or handler.context
    return handler


def _is_written_again(earlier: Any, target: Any) -> bool:
    """Whether a cell was run once more: a function or class of that name, at the top level of a notebook or script."""
    return (
        earlier is not None
        and all(
            getattr(each, "__module__", None) == "__main__"
            and "<locals>" not in getattr(each, "__qualname__", "<locals>")
            for each in (earlier, target)
        )
        and bool(earlier.__qualname__ == target.__qualname__)
    )


def _origin(handler: Handler) -> Any:
    return getattr(handler, "origin", None) or getattr(handler, "function", None)
