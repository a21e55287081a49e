"""The side of a restart that is outside the process: validate, restore, tell the restored life what changed.

Runs in the helper for a restart in place, in the command line for a fresh process tree.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nbcr import crs, runtime
from nbcr.channel import Channel, ChannelClosed
from nbcr.crs import Brought, Component, RestartOptions, SnapshotReference
from nbcr.errors import EntryDamaged, NotPossible
from nbcr.session import connections
from nbcr.session.results import RestartResult
from nbcr.store import Entry

ANSWER_TIMEOUT_S = 30.0
_LIFTED = (
    "connection",
    "cell",
    "environ",
    "handed",
)  # keys of `present` that are keys of the RESTART message


@dataclass(frozen=True)
class Return:
    """How an entry is to come back."""

    entry: Entry
    into: int | None = None  # a living process to replace; None: a fresh process tree
    present: Mapping[str, Any] | None = None  # what the present hands over
    pid: str = "auto"
    stdio: tuple[int, int, int] = (-1, -1, -1)
    deadline_s: float = 30.0


def bring(order: Return, *, on_ready: Callable[[], list[Any]] = list) -> RestartResult:
    """Bring an entry back and tell its root process RESTART.

    `on_ready` is called while the present still runs; what it returns is handed over behind the rest.

    Whatever fails before the point of no return leaves the present as it was. Raises NbcrError or what the
    component raises.
    """
    if "image" not in order.entry.kinds:
        raise NotPossible(f"{order.entry.name!r} holds no process image", hint="it can be loaded, not restarted")
    component = crs.by_name(order.entry.component.get("name", ""))
    if order.into is not None:
        with runtime.target_lock(order.into, order.deadline_s):
            return _bring(component, order, on_ready)
    connections.check_free(order.entry)
    return _bring(component, order, on_ready)


def _bring(component: Component, order: Return, on_ready: Callable[[], list[Any]]) -> RestartResult:
    entry = order.entry
    late: list[Any] = []
    if not entry.image.is_dir():
        raise EntryDamaged(f"the image of {entry.name!r} is missing", hint=f"`nbcr remove {entry.name}`")
    snapshot = SnapshotReference(component.name, entry.id, entry.image, cold_start=order.into is None)
    answers = entry.channel_fd is not None
    ours, theirs = Channel.pair() if answers else (None, None)
    with _connection_file(order) as file, contextlib.ExitStack() as closing:
        if theirs is not None:
            closing.callback(theirs.close)
        options = RestartOptions(
            into=order.into,
            pid=order.pid,
            channel=theirs,
            stdio=order.stdio,
            on_ready=lambda: late.extend(on_ready()),
        )
        brought = component.restart(snapshot, options)
    told = _tell(ours, _message(order, brought, late)) if ours is not None else ()
    warnings = (*brought.warnings, *told)
    return RestartResult(entry, brought.pid, brought.pids, warnings, file, brought.wait)


@contextlib.contextmanager
def _connection_file(order: Return) -> Iterator[Path | None]:
    """The connection file of a Jupyter kernel that comes back fresh: there before it is, gone if it fails."""
    if order.into is not None or order.entry.jupyter is None:
        yield None
        return
    was_there = Path(order.entry.jupyter.get("connection_file") or "/").exists()
    file = connections.rewrite_file(order.entry.jupyter)
    try:
        yield file
    except BaseException:
        if file is not None and not was_there:
            file.unlink(missing_ok=True)
        raise


def _message(order: Return, brought: Brought, late: list[Any]) -> dict[str, Any]:
    entry, present = order.entry, dict(order.present or {})
    return {
        "state": "RESTART",
        "pids": {str(old): new for old, new in brought.pids.items()},
        "ppid": _parent_of(brought.pid),
        "in_place": order.into is not None,
        "entry": {**entry.taken(), "warnings": list(entry.warnings)},
        "warnings": list(brought.warnings),
        "present": present,
        **{key: present.get(key) for key in _LIFTED},
        "handed": [*(present.get("handed") or ()), *late],
    }


def _tell(channel: Channel, message: Mapping[str, Any]) -> tuple[str, ...]:
    """Send RESTART and wait until the restored life is ready; what its handlers could not do, as warnings."""
    with channel:
        try:
            channel.send(message)
            answer = channel.receive(ANSWER_TIMEOUT_S)
        except ChannelClosed:
            return ("the restored process ended, or closed its channel, before it said it was ready",)
        except TimeoutError:
            return (f"the restored process did not say within {ANSWER_TIMEOUT_S:g} s that it was ready",)
        return tuple(str(w) for w in answer.get("warnings", ()))


def _parent_of(pid: int) -> int:
    with contextlib.suppress(OSError, ValueError, IndexError):
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        return int(text[text.rindex(")") + 2 :].split()[1])
    return 0
