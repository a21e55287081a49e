"""What runs inside a Jupyter kernel into which `attach` loads nbcr."""

from __future__ import annotations

import contextlib
import contextvars
import sys
import threading
from collections.abc import Iterator
from typing import Any

from nbcr.jupyter.living import Living, living
from nbcr.jupyter.running import running_in_main


def arrive() -> None:
    """Start the checkpoint thread and the handler, and leave everything else as it was."""
    here = living()
    if here is None:
        return
    with _undisturbed(here):
        from nbcr.jupyter import start_service

        start_service()


def tell(text: str) -> None:
    """Show the user a line with the next cell, once."""
    here = living()
    if here is None:
        return
    with _undisturbed(here):
        events = here.kernel.shell.events

        def show(info: Any) -> None:
            events.unregister("pre_run_cell", show)
            print(f"nbcr: {text}", file=sys.stderr, flush=True)

        events.register("pre_run_cell", show)


@contextlib.contextmanager
def _undisturbed(here: Living) -> Iterator[None]:
    """Leave everything as it was but for what the block does."""
    _give_back_parent(here)  # at once: what background threads print meanwhile is the running cell's
    try:
        yield
    finally:
        _give_back_parent(here)
        _give_back_stdin(here)
        _spare_post_execute(here.kernel.shell)


def _give_back_parent(here: Living) -> None:
    """Output of background threads belongs to the last request of the main thread again.

    ipykernel keeps that in the context in which the main thread handles its requests, and a copy beside it
    for threads which have no context: the copy is what our request has overwritten.
    """
    main = here.main_context
    shell = here.kernel.shell
    if main is None:
        return
    for holder in (sys.stdout, sys.stderr, shell, shell.displayhook, shell.display_pub):
        variable = getattr(holder, "_parent_header", None)
        if isinstance(variable, contextvars.ContextVar) and variable in main:
            holder._parent_header_global = main[variable]  # type: ignore[union-attr]
    here.kernel._shell_context = main.copy()


def _give_back_stdin(here: Living) -> None:
    """Whether the cell that runs in the main thread may ask the user something."""
    running = running_in_main(here)
    if running is not None:
        content = running.parent.get("content") or {}
        here.kernel._allow_stdin = bool(content.get("allow_stdin", False))


def _spare_post_execute(shell: Any) -> None:
    """Skip the post_execute callbacks at the end of this request: they are for the user's cells.

    matplotlib's would show and close the figures on which the running cell still draws.
    """
    events, me = shell.events, threading.get_ident()
    usual = events.trigger

    def trigger(event: str, *args: Any, **kwargs: Any) -> None:
        if threading.get_ident() != me:
            usual(event, *args, **kwargs)
        elif event == "post_execute":
            del events.trigger

    events.trigger = trigger
