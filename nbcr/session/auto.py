"""Checkpoints that nobody asks for one by one, and their retention.

    auto            one automatic checkpoint; which of them are removed when newer ones are there
    auto_points     a point after each cell, and the way back to one of them (undo)
    auto_present    the present, kept before a restart replaces it
    auto_triggers   every so often, when memory runs out, on a signal

An automatic entry carries its reason as a mark in the manifest. What a user asked for carries none, and is never
removed by anything here.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from nbcr.errors import NbcrError
from nbcr.handlers import DEFAULT_DEADLINE_S
from nbcr.session import inprocess
from nbcr.session.results import CheckpointResult
from nbcr.states import Outcome
from nbcr.store import Entry, Store

KEEP = {"cell": 5, "timer": 3, "restart": 3, "memory": 2, "signal": 2}
_IMAGE_ONLY = ("cell", "restart")  # to go back to here and soon: the variables beside it would only cost time
_OF_JUPYTER = frozenset("ipykernel IPython zmq tornado asyncio nbcr debugpy pydevd".split())


@dataclass(frozen=True)
class Settings:
    """How automatic checkpoints are taken. Made anew for each, as users change it at any time."""

    store: Store = field(default_factory=Store)
    deadline_s: float = DEFAULT_DEADLINE_S
    keep: Mapping[str, int] = field(default_factory=lambda: KEEP)  # reason → how many entries stay
    share: float = 0.05  # of the time since they were switched on, how much points may take from the user


presents: list[str] = []  # ids of entries that hold a present which a restart replaced, as far as this life knows
news: list[str] = []  # of what happened to this process while it could not tell; told once, by the next cell

SettingsOf = Callable[[], Settings]


def take(
    reason: str,
    note: str,
    settings: Settings,
    *,
    spared: Callable[[], Collection[str]] = tuple,
    kinds: tuple[str, ...] | None = None,
    wait: bool = False,
) -> CheckpointResult:
    """One automatic checkpoint of this process. Returns twice. Raises NbcrError when nothing was checkpointed.

    `kinds`: other than usual for that reason. `spared`: ids that are removed last, when this one is written and there
    are more than settings keep.
    """
    wish = inprocess.Wish(
        store=settings.store,
        note=note,
        automatic=reason,
        origin="auto",
        kinds=kinds if kinds is not None else ("image",) if reason in _IMAGE_ONLY else (),
        deadline_s=settings.deadline_s,
    )
    result = inprocess.checkpoint(wish)
    if result.outcome is Outcome.CONTINUE:
        result.when_done(lambda written: _written(written, reason, settings, spared))
        if wait:
            result.wait()
    return result


def _written(result: CheckpointResult, reason: str, settings: Settings, spared: Callable[[], Collection[str]]) -> None:
    if result.entry is not None:
        with contextlib.suppress(NbcrError, OSError):  # the next one tries again
            retire(result.entry, settings.keep.get(reason, KEEP[reason]), settings.store, spared())


def retire(newest: Entry, keep: int, store: Store, spared: Collection[str] = ()) -> list[Entry]:
    """Remove all but `keep` automatic entries of the reason and the notebook of `newest`; returns those removed.

    The oldest go first, and those of `spared` (that somebody may still want to go back to) after all others. What
    holds a present that a restart replaced is not counted, and stays.
    """
    alike = [e for e in store.entries() if e.automatic == newest.automatic and _place(e) == _place(newest)]
    alike = [e for e in alike if e.automatic == "restart" or e.id not in presents]
    alike.sort(key=lambda e: (e.id == newest.id, e.id in spared, e.created, e.id))
    gone = alike[: max(0, len(alike) - max(1, keep))]
    for entry in gone:
        store.remove(entry)
    return gone


def _place(entry: Entry) -> tuple[object, ...]:
    """Whose entries are counted together: a job's, else a notebook's, else a Jupyter kernel's, else a process's."""
    if entry.job:
        return ("job", entry.job.get("name"))
    if entry.notebook:
        return ("notebook", entry.notebook)
    kernel = (entry.jupyter or {}).get("kernel_id")
    return ("kernel", kernel) if kernel else ("process", entry.host.get("hostname"), entry.pid)


def others_at_work() -> bool:
    """Whether threads, children or widgets of the user's may change this process while no cell runs."""
    if _has_widgets():
        return True
    here = (threading.main_thread(), threading.current_thread())
    if any(thread not in here and not _is_jupyters(thread) for thread in threading.enumerate()):
        return True
    with inprocess.no_start():
        return any(_lives(pid) for pid in _children())


def _children() -> Iterator[str]:
    for thread in os.listdir("/proc/self/task"):
        with contextlib.suppress(OSError):
            yield from Path(f"/proc/self/task/{thread}/children").read_text().split()


def _has_widgets() -> bool:
    module = sys.modules.get("ipywidgets.widgets.widget")
    theirs = [each for each in list(getattr(module, "_instances", {}).values()) if not getattr(each, "_nbcr", False)]
    return any(not str(each._model_name).endswith(("LayoutModel", "StyleModel")) for each in theirs)


def _is_jupyters(thread: threading.Thread) -> bool:
    target = getattr(thread, "_target", None)
    modules = (type(thread).__module__, getattr(target, "__module__", None) or "")
    return thread.name.startswith("nbcr") or any(module.partition(".")[0] in _OF_JUPYTER for module in modules)


def _lives(pid: str) -> bool:
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        return text.rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
