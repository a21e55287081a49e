"""Who is told before and after: layers, phases, the registry and the checkpoint thread."""

from __future__ import annotations

from nbcr.handlers.base import Handler, Request, RestartEvent
from nbcr.handlers.registry import HandlerProblem, Passage, Registry, registry
from nbcr.states import Layer, Outcome, State

__all__ = [
    "Handler",
    "HandlerProblem",
    "Layer",
    "Outcome",
    "Passage",
    "Registry",
    "Request",
    "RestartEvent",
    "State",
    "registry",
]
