"""nbcr: checkpoint, list and restart living Jupyter sessions.

What may import what (top to bottom):

    jupyter, panels, cli    faces: parse and render, nothing else
    session                 the use cases; never prints
    crs, handlers, store    how an image is taken, who is told, where it is kept
    objects                 the variables beside it, saved and loaded
    channel, errors, states the words they all share

Everything below is loaded on first use, so that ``import nbcr`` costs next to nothing in a user's Jupyter
kernel. What runs inside that Jupyter kernel uses the standard library (and IPython) only, but for `objects`, which is
loaded by the first checkpoint, or before it in idle time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nbcr.errors import HandlersFailed, NbcrError
    from nbcr.handlers import Handler, Request, RestartEvent, registry
    from nbcr.handlers.sections import critical_section, disable_checkpoint, enable_checkpoint, try_critical_section
    from nbcr.objects import register_saver
    from nbcr.panels import panel
    from nbcr.session import (
        CheckpointResult,
        Entry,
        checkpoint,
        checkpoints,
        diff,
        get,
        on_checkpoint,
        remove_handler,
        request_on_signal,
        restart,
    )
    from nbcr.states import Layer, Outcome, State

__version__ = "0.1.0"

__all__ = [
    "CheckpointResult",
    "Entry",
    "Handler",
    "HandlersFailed",
    "Layer",
    "NbcrError",
    "Outcome",
    "Request",
    "RestartEvent",
    "State",
    "__version__",
    "checkpoint",
    "checkpoints",
    "critical_section",
    "diff",
    "disable_checkpoint",
    "enable_checkpoint",
    "get",
    "on_checkpoint",
    "panel",
    "register_saver",
    "registry",
    "remove_handler",
    "request_on_signal",
    "restart",
    "try_critical_section",
]

_HOMES = {
    "CheckpointResult": "nbcr.session",
    "Entry": "nbcr.session",
    "Handler": "nbcr.handlers",
    "HandlersFailed": "nbcr.errors",
    "Layer": "nbcr.states",
    "NbcrError": "nbcr.errors",
    "Outcome": "nbcr.states",
    "Request": "nbcr.handlers",
    "RestartEvent": "nbcr.handlers",
    "State": "nbcr.states",
    "checkpoint": "nbcr.session",
    "checkpoints": "nbcr.session",
    "critical_section": "nbcr.handlers.sections",
    "diff": "nbcr.session",
    "disable_checkpoint": "nbcr.handlers.sections",
    "enable_checkpoint": "nbcr.handlers.sections",
    "get": "nbcr.session",
    "on_checkpoint": "nbcr.session",
    "panel": "nbcr.panels",
    "register_saver": "nbcr.objects",
    "registry": "nbcr.handlers",
    "remove_handler": "nbcr.session",
    "request_on_signal": "nbcr.session",
    "restart": "nbcr.session",
    "try_critical_section": "nbcr.handlers.sections",
}


def __getattr__(name: str) -> Any:
    """Load a public name from its home the first time it is asked for."""
    if name not in _HOMES:
        raise AttributeError(f"module 'nbcr' has no attribute {name!r}")
    import importlib

    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)


def load_ipython_extension(ip: Any) -> None:
    """``%load_ext nbcr``: magics, checkpoint thread and the Jupyter handler."""
    from nbcr import jupyter

    jupyter.load(ip)


def unload_ipython_extension(ip: Any) -> None:
    """``%unload_ext nbcr``: take away everything that loading brought."""
    from nbcr import jupyter

    jupyter.unload(ip)


def _jupyter_server_extension_points() -> list[dict[str, Any]]:
    """``jupyter server extension enable nbcr``: sessions are kept before the server stops."""
    from nbcr.jupyter.serverextension import NbcrServer

    return [{"module": "nbcr", "app": NbcrServer}]
