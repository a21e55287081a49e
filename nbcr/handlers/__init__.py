"""Who is told before and after: layers, contexts, phases, and what may delay a checkpoint.

base, spanning   a handler as a class, and as a generator
registry         all handlers         passage      the order in which they are told, failures, lateness
places           where calls run      thread       … in the checkpoint thread    main_thread  … or there
sections         critical sections    deadline     how long all that may take
listening        requests by socket   signals      requests by signal
interrupts       where Ctrl-C may come
remembered       pids that Python's libraries note          pid_alias    … and what C libraries believe
parents          the parent's pid as forked children know it
"""

from __future__ import annotations

from nbcr.handlers.base import Context, Handler, Request, RestartEvent
from nbcr.handlers.deadline import DEFAULT_DEADLINE_S, Deadline
from nbcr.handlers.passage import HandlerProblem, Passage, Places
from nbcr.handlers.registry import Registry, registry
from nbcr.handlers.spanning import GeneratorHandler
from nbcr.states import Layer, Outcome, State

__all__ = [
    "DEFAULT_DEADLINE_S",
    "Context",
    "Deadline",
    "GeneratorHandler",
    "Handler",
    "HandlerProblem",
    "Layer",
    "Outcome",
    "Passage",
    "Places",
    "Registry",
    "Request",
    "RestartEvent",
    "State",
    "registry",
]
