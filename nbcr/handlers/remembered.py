"""Processes that the standard library and psutil remember, put right in a life where they are others.

A restored process may have another pid than in the image (it took over another Jupyter kernel's process), and so may
its children (an ordinary user cannot choose pids outside a namespace of one's own). multiprocessing then takes its own
objects for a forked child's and refuses to wait, and `subprocess.Popen.wait` waits for somebody else's process. So do
asyncio, joblib's loky and pexpect. Threads that wait already, in the OS kernel, are put right by the engine.

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


_LOKY = "joblib.externals.loky"
_HANDLES = (  # whose objects stand for a child, and where they note its pid
    ("subprocess", "Popen", "pid"),
    ("multiprocessing.popen_fork", "Popen", "pid"),
    ("asyncio.subprocess", "Process", "pid"),
    ("asyncio.base_subprocess", "BaseSubprocessTransport", "_pid"),
    (f"{_LOKY}.backend.popen_loky_posix", "Popen", "pid"),
    ("ptyprocess.ptyprocess", "PtyProcess", "pid"),
    ("pexpect.pty_spawn", "spawn", "pid"),
)
_SERVANTS = (
    ("multiprocessing.resource_tracker", "_resource_tracker", "_pid"),
    ("multiprocessing.forkserver", "_forkserver", "_forkserver_pid"),
    (f"{_LOKY}.backend.resource_tracker", "_resource_tracker", "_pid"),
)
_EXECUTORS = (
    ("concurrent.futures.process", "ProcessPoolExecutor"),
    (f"{_LOKY}.process_executor", "ProcessPoolExecutor"),
)


def _renew_children(pids: Mapping[int, int]) -> None:
    for module, holder, attribute in _SERVANTS:
        _renew(getattr(sys.modules.get(module), holder, None), attribute, pids)
    handles = {kind: attribute for module, name, attribute in _HANDLES if (kind := _loaded(module, name))}
    executors = tuple(kind for module, name in _EXECUTORS if (kind := _loaded(module, name)))
    waiting = _loaded("asyncio.events", "Handle")
    concerned = (*handles, *executors, *filter(None, [waiting]))
    for found in gc.get_objects():
        kind = type(found)
        if not issubclass(kind, concerned):
            continue
        for attribute in [attribute for known, attribute in handles.items() if issubclass(kind, known)]:
            _renew(found, attribute, pids)
        if issubclass(kind, executors):
            _renew_keys(found._processes, pids)
        elif kind is waiting:
            _renew_waiting(found, pids)


def _loaded(module: str, name: str) -> type | None:
    kind = getattr(sys.modules.get(module), name, None)
    return kind if isinstance(kind, type) else None


def _renew(owner: Any, attribute: str, pids: Mapping[int, int]) -> None:
    pid = getattr(owner, attribute, None)
    if isinstance(pid, int) and pid in pids:
        setattr(owner, attribute, pids[pid])


def _renew_keys(workers: Any, pids: Mapping[int, int]) -> None:
    """An executor's, which says by its pid which of them has ended; the same dictionary, as its thread has it, too."""
    if isinstance(workers, dict):
        renewed = {pids.get(pid, pid): worker for pid, worker in workers.items()}
        workers.clear()
        workers.update(renewed)


def _renew_waiting(handle: Any, pids: Mapping[int, int]) -> None:
    """asyncio's call for when a pidfd tells that a child has ended (from Python 3.12 on): it waits by pid then."""
    call: Any = getattr(handle._callback, "__func__", None)
    if getattr(call, "__module__", "") == "asyncio.unix_events" and call.__name__ == "_do_wait":
        pid, *others = handle._args
        if others:  # an older one, which nobody gets unasked, finds the others by the pid
            handle._args = (pids.get(pid, pid), *others)


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
