"""The side of a restart that is outside the process: validate, restore, tell the restored life what changed.

Runs in the helper for a restart in place, in the command line for a fresh process tree.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nbcr import crs, runtime
from nbcr.channel import Channel, ChannelClosed
from nbcr.crs import Brought, Component, RestartOptions, SnapshotReference
from nbcr.errors import NotPossible, RestartFailed, is_damage
from nbcr.session import connections, leftover
from nbcr.session.results import RestartResult
from nbcr.store import Entry, journal, opening, trust, waiting
from nbcr.store.entry import packed_parts

ANSWER_TIMEOUT_S = 30.0
_LIFTED = (
    "connection",
    "cell",
    "environ",
    "handed",
)  # keys of `present` that are keys of the RESTART message


@dataclass(frozen=True)
class RestartOrder:
    """Which entry is to come back, and how. Its counterpart for checkpoints is taking.CheckpointOrder."""

    entry: Entry
    into: int | None = None  # a living process to replace; None: a fresh process tree
    present: Mapping[str, Any] | None = None  # what the present hands over
    pid: str = "auto"
    files: str | None = None  # about files being written, instead of what the checkpoint said
    stdio: tuple[int, int, int] = (-1, -1, -1)
    parting: bool = False  # the caller ends soon, and leaves a fresh tree to itself
    deadline_s: float = 30.0


def bring(order: RestartOrder, *, on_ready: Callable[[], list[Any]] = list) -> RestartResult:
    """Bring an entry back and tell its root process RESTART.

    `on_ready` is called while the present still runs; what it returns is handed over behind the rest.

    Whatever fails before the point of no return leaves the present as it was. What fails after it has cost the
    present: then the entry comes back in a fresh process, which goes on in the present's place, and a warning
    says so. Raises NbcrError or what the component raises.
    """
    entry = order.entry
    with journal.told(entry.store_root, "restart", id=entry.id, name=entry.name, into=order.into) as told:
        try:
            result = _bring_with_fallback(order, on_ready)
        except Exception as error:
            _point_to_other_copy(error, entry)
            raise
        told.update(pid=result.pid, warnings=list(result.warnings))
    return result


def _point_to_other_copy(error: Any, entry: Entry) -> None:
    """Files that are damaged are not all there is of an entry that is packed, too."""
    if is_damage(error) and (entry.path / "image").is_dir() and "image" in packed_parts(entry.path):
        error.hint = f"it is packed, too: `nbcr verify {entry.name} --mend` drops the files where that copy is whole"


def _bring_with_fallback(order: RestartOrder, on_ready: Callable[[], list[Any]]) -> RestartResult:
    """With the target locked; where the present is lost half-way, as a fresh process."""
    if "image" not in order.entry.kinds:
        raise NotPossible(
            f"{order.entry.name!r} holds no process image",
            hint=f"`%restart {order.entry.name}` in a notebook loads its objects",
        )
    order = replace(order, entry=trust.proved(order.entry))
    component = crs.maker_of(order.entry.name, order.entry.component.get("name"))
    late: list[Any] = []
    if order.into is None:
        ended = connections.check_free(order.entry)
        return _bring(component, order, late, on_ready, *ended, *_end_workers(order))
    with runtime.target_lock(order.into, order.deadline_s):
        try:
            return _bring(component, order, late, on_ready, *_end_workers(order))
        except Exception as error:
            if not getattr(error, "past_no_return", False):
                raise
            return _bring_instead(component, order, late, error)


def _end_workers(order: RestartOrder) -> list[str]:
    return [] if order.entry.jupyter is None else leftover.end_workers(order.entry.pid, order.into)


def _bring_instead(component: Component, order: RestartOrder, late: list[Any], failure: Exception) -> RestartResult:
    """A fresh process in the place of the present, which was lost. Raises RestartFailed."""
    name, lost = order.entry.name, f"process {order.into} was lost when its restart failed half-way ({failure})"
    try:
        told = f"{lost}: {name!r} was brought back in a fresh process instead"
        result = _bring(component, replace(order, into=None, parting=True), late, list, told)
    except Exception as second:
        raise RestartFailed(
            f"{lost}, and {name!r} could not be brought back in a fresh process either ({second})",
            hint=f"`nbcr restart {name} --detach` tries again; the checkpoint itself is whole",
        ) from second
    return replace(result, wait=None)


def _bring(
    component: Component, order: RestartOrder, late: list[Any], on_ready: Callable[[], list[Any]], *said: str
) -> RestartResult:
    entry = order.entry
    answers = entry.channel_fd is not None
    ours, theirs = Channel.pair() if answers else (None, None)
    with _connection_file(order) as file, contextlib.ExitStack() as closing:
        if ours is not None:
            closing.callback(ours.close)
        if theirs is not None:
            closing.callback(theirs.close)
        image = closing.enter_context(opening.proved_files(entry, component.roots))
        snapshot = SnapshotReference(component.name, entry.id, image, cold_start=order.into is None)
        options = RestartOptions(
            into=order.into,
            pid=order.pid,
            files=order.files,
            channel=theirs,
            stdio=order.stdio,
            parting=order.parting,
            on_ready=lambda: late.extend(on_ready()),
        )
        began = time.time()
        brought = component.restart(snapshot, options)
        waiting.came_back(entry)  # before its program is told, which may look at once
        if theirs is not None:
            theirs.close()  # the restored process has its own: its end must be heard
        brought = replace(brought, warnings=(*said, *brought.warnings))
        warnings = brought.warnings
        if ours is not None:
            warnings = _tell(ours, _message(order, brought, late, began))
    return RestartResult(
        entry,
        brought.pid,
        brought.pids,
        warnings=warnings,
        facts=brought.facts,
        connection_file=file,
        wait=brought.wait,
    )


@contextlib.contextmanager
def _connection_file(order: RestartOrder) -> Iterator[Path | None]:
    """The connection file of a Jupyter kernel that comes back fresh: there before it is, gone if it fails.

    One that takes the place of another Jupyter kernel serves on that one's connection, whose file is there.
    """
    connection = (order.present or {}).get("connection")
    if order.into is not None or order.entry.jupyter is None or connection is not None:
        yield Path(connection["connection_file"]) if connection and order.into is None else None
        return
    was_there = Path(order.entry.jupyter.get("connection_file") or "/").exists()
    file = connections.rewrite_file(order.entry.jupyter)
    try:
        yield file
    except BaseException:
        if file is not None and not was_there:
            file.unlink(missing_ok=True)
        raise


def _message(order: RestartOrder, brought: Brought, late: list[Any], began: float) -> dict[str, Any]:
    entry, present = order.entry, dict(order.present or {})
    return {
        "state": "RESTART",
        "pids": {str(old): runtime.number_inside(new) for old, new in brought.pids.items()},
        "ppid": _parent_of(brought.pid),
        "began": began,
        "in_place": order.into is not None,
        "entry": entry.document(),
        "warnings": list(brought.warnings),
        "present": present,
        **{key: present.get(key) for key in _LIFTED},
        "handed": [*(present.get("handed") or ()), *late],
    }


def _tell(channel: Channel, message: Mapping[str, Any]) -> tuple[str, ...]:
    """Send RESTART and wait until the restored life is ready; what remains to be warned of: those warnings of the
    restore that its handlers have not put right, and what they could not do.
    """
    warnings: tuple[str, ...] = tuple(message["warnings"])
    with channel:
        try:
            channel.send(message)
            answer = channel.receive(ANSWER_TIMEOUT_S)
        except ChannelClosed:
            return (*warnings, "the restored process ended, or closed its channel, before it said it was ready")
        except TimeoutError:
            return (*warnings, f"the restored process did not say within {ANSWER_TIMEOUT_S:g} s that it was ready")
        return tuple(str(w) for w in (*answer.get("left", warnings), *answer.get("warnings", ())))


def _parent_of(pid: int) -> int:
    with contextlib.suppress(OSError, ValueError, IndexError):
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        return int(text[text.rindex(")") + 2 :].split()[1])
    return 0
