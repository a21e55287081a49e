"""Processes that the standard library and psutil remember, put right in a life where they are others.

A restored process may have another pid than in the image (it took over another Jupyter kernel's process), and so may
its children (an ordinary user cannot choose pids outside a namespace of one's own). multiprocessing then takes its own
objects for a forked child's and refuses to wait, and `subprocess.Popen.wait` waits for somebody else's process.

psutil knows a process by its pid and by when it began, which is new in every life: it takes all that it knows for gone.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from nbcr.handlers.base import Handler, RestartEvent
from nbcr.states import Layer


class RememberedPids(Handler):
    """A handler of the lowest layer: those above may wait for children."""

    layer = Layer.TRANSPORT

    def restart(self, event: RestartEvent) -> None:
        """Renew what is remembered."""
        _renew_beginnings(event.pids)
        pids = {old: new for old, new in event.pids.items() if old != new}
        _renew_parent(pids)
        children = {old: new for old, new in pids.items() if new != os.getpid()}
        if children:
            _renew_children(pids)
            event.warnings.extend(_silent(children))


def _renew_parent(pids: Mapping[int, int]) -> None:
    """multiprocessing notes in each object which process made it."""
    process = sys.modules.get("multiprocessing.process")
    if process is not None:
        for one in list(process._dangling):
            one._parent_pid = pids.get(one._parent_pid, one._parent_pid)
    util = sys.modules.get("multiprocessing.util")
    if util is not None:
        for finalizer in list(util._finalizer_registry.values()):
            finalizer._pid = pids.get(finalizer._pid, finalizer._pid)


def _renew_children(pids: Mapping[int, int]) -> None:
    for child in _handles():
        child.pid = pids.get(child.pid, child.pid)
    for name in ("resource_tracker._resource_tracker._pid", "forkserver._forkserver._forkserver_pid"):
        module, holder, attribute = name.split(".")
        owner = getattr(sys.modules.get(f"multiprocessing.{module}"), holder, None)
        pid = getattr(owner, attribute, None)
        if isinstance(pid, int) and pid in pids:
            setattr(owner, attribute, pids[pid])


def _handles() -> Iterator[Any]:
    """Every handle of a child process, whoever holds it."""
    kinds = tuple(
        kind
        for module, name in (("subprocess", "Popen"), ("multiprocessing.popen_fork", "Popen"))
        if isinstance(kind := getattr(sys.modules.get(module), name, None), type)
    )
    for found in gc.get_objects():
        if kinds and issubclass(type(found), kinds):
            yield found


def _silent(children: Mapping[int, int]) -> Iterator[str]:
    """What nobody can put right from here: libzmq takes itself for a forked child's under another pid."""
    for old, new in children.items():
        with suppress(OSError):
            if "/libzmq" in Path(f"/proc/{new}/maps").read_text(encoding="utf-8", errors="replace"):
                words = Path(f"/proc/{new}/cmdline").read_bytes().rstrip(b"\0").split(b"\0")
                command = b" ".join(words).decode(errors="replace")
                yield (
                    f"process {old} ({command}) is {new} now and uses ZeroMQ, which falls silent under another pid: "
                    "start it again, or restart with `nbcr restart` from a shell, which keeps pids"
                )


def _renew_beginnings(pids: Mapping[int, int]) -> None:
    """psutil's objects for processes that this life has, too."""
    kind = getattr(sys.modules.get("psutil"), "Process", None)
    if not isinstance(kind, type):
        return
    for found in gc.get_objects():
        if issubclass(type(found), kind) and found._pid in pids and not found._gone:
            with suppress(Exception):  # it has ended, or this psutil looks different inside
                fresh = kind(pids[found._pid])
                found._pid, found._proc, found._ident = fresh._pid, fresh._proc, fresh._ident
                found._create_time = None
