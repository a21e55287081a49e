"""The use cases: checkpoint, restart, list, show, get, diff, remove. Every face calls these; none of them prints.

    usecases     what faces call                            results       what they return
    terms        what is asked of a checkpoint, the same words on every way
    inprocess    checkpoint and restart of the own process (standard library only)
    announcing   its handlers                               service       what it does when asked from outside
    namespaces   its variables: saved by a child of it, and rolled back
    snapshots    the variables of an entry, wherever their bytes are
    outside      other processes, through their checkpoint thread (service) or from outside
    auto         checkpoints that nobody asks for one by one: auto_points, auto_present, auto_triggers
    taking       what the helper does for a checkpoint      bringing      … and for a restart
    spawning     starting a helper                          standby       the one that waits for an order
    importing    nobody forks while a thread of ours imports
    connections  Jupyter connection files                   leftover      what a killed Jupyter kernel has left behind
    overview     what lives and what is being written       upkeep        keeping a store: pack, prune, verify, send …

Names are loaded on first use: the helper imports `taking` while a user waits, and nothing else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nbcr.handlers import DEFAULT_DEADLINE_S
    from nbcr.session.announcing import on_checkpoint, remove_handler, request_on_signal
    from nbcr.session.inprocess import Wish, position, reports, writing
    from nbcr.session.results import (
        ChangeList,
        CheckpointResult,
        EntryList,
        LoadResult,
        RestartResult,
        VariableList,
    )
    from nbcr.session.service import start as start_checkpoint_thread
    from nbcr.session.service import stop as stop_checkpoint_thread
    from nbcr.session.terms import Limits, Terms
    from nbcr.session.usecases import (
        Details,
        checkpoint,
        checkpoint_other,
        checkpoints,
        diff,
        disk_use,
        facts_of,
        find,
        get,
        kinds_of,
        progress,
        remove,
        report_of,
        restart,
        restart_fresh,
        restart_into,
        show,
        variables,
    )
    from nbcr.states import Outcome
    from nbcr.store import Entry, Store

__all__ = [
    "DEFAULT_DEADLINE_S",
    "ChangeList",
    "CheckpointResult",
    "Details",
    "Entry",
    "EntryList",
    "Limits",
    "LoadResult",
    "Outcome",
    "RestartResult",
    "Store",
    "Terms",
    "VariableList",
    "Wish",
    "checkpoint",
    "checkpoint_other",
    "checkpoints",
    "diff",
    "disk_use",
    "facts_of",
    "find",
    "get",
    "kinds_of",
    "on_checkpoint",
    "position",
    "progress",
    "remove",
    "remove_handler",
    "report_of",
    "reports",
    "request_on_signal",
    "restart",
    "restart_fresh",
    "restart_into",
    "show",
    "start_checkpoint_thread",
    "stop_checkpoint_thread",
    "variables",
    "writing",
]

_HOMES = {
    "announcing": ("on_checkpoint", "remove_handler", "request_on_signal"),
    "inprocess": ("Wish", "position", "reports", "writing"),
    "results": ("ChangeList", "CheckpointResult", "EntryList", "LoadResult", "RestartResult", "VariableList"),
    "terms": ("Limits", "Terms"),
    "usecases": ("Entry", "Outcome", "Store"),
}


def __getattr__(name: str) -> Any:
    """Load a public name from its home the first time it is asked for."""
    if name not in __all__:
        raise AttributeError(f"module 'nbcr.session' has no attribute {name!r}")
    import importlib

    home, inside = next((h for h, names in _HOMES.items() if name in names), "usecases"), name
    if name.endswith("_checkpoint_thread"):
        home, inside = "service", name.removesuffix("_checkpoint_thread")
    value = getattr(importlib.import_module(f"nbcr.session.{home}"), inside)
    globals()[name] = value
    return value
