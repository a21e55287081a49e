"""The side of a checkpoint that is outside the process: lock, draft, image, manifest, publishing.

Runs in the helper, or in the command line for a process that knows nothing of nbcr.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nbcr import crs, runtime
from nbcr.crs import CheckpointOptions, Component, Progress, SnapshotReference, Taken
from nbcr.errors import UsageProblem
from nbcr.store import Draft, Entry, Store

LEAVES = ("running", "stopped", "killed")
FILES = ("keep", "rewind", "save")
DEFAULT_DEADLINE_S = 30.0


@dataclass(frozen=True)
class Order:
    """A checkpoint to take."""

    pid: int
    name: str | None = None
    replace: bool = False
    leave: str = "running"
    files: str = "keep"
    channel_fd: int | None = None
    parent: str | None = None
    note: str = ""
    deadline_s: float = DEFAULT_DEADLINE_S
    facts: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    @classmethod
    def from_message(cls, message: Mapping[str, Any]) -> Order:
        """The order in a channel message; keys it does not know are ignored."""
        known = {k: message[k] for k in cls.__dataclass_fields__ if k in message}
        known["warnings"] = tuple(known.get("warnings", ()))
        order = cls(**known)
        check_leave(order.leave)
        check_files(order.files)
        return order


def check_leave(leave: str) -> None:
    """Raise UsageProblem unless `leave` is one of LEAVES."""
    if leave not in LEAVES:
        raise UsageProblem(f"--leave {leave!r} is not known", hint="use running, stopped or killed")


def check_files(files: str) -> None:
    """Raise UsageProblem unless `files` is one of FILES."""
    if files not in FILES:
        raise UsageProblem(f"--files {files!r} is not known", hint="use keep, rewind or save")


def take(
    store: Store,
    order: Order,
    *,
    on_accept: Callable[[Draft], None] = lambda draft: None,
    on_resume: Callable[[Progress], None] = lambda progress: None,
    on_done: Callable[[Entry], None] = lambda entry: None,
) -> Entry:
    """Take the checkpoint and publish it; whatever fails, the draft is gone and the process unharmed.

    `on_accept` is called before the process is touched, `on_done` after publishing, while the target is
    still locked.
    """
    begun = time.monotonic()
    component = crs.select()
    with runtime.target_lock(order.pid, order.deadline_s):
        draft = store.draft(order.name, replace=order.replace)
        try:
            on_accept(draft)
            taken = _image(component, draft, order, on_resume)
            store.sync(draft)
            duration_ms = (time.monotonic() - begun) * 1000
            entry = _publish(store, draft, order, component, taken, duration_ms)
        except BaseException:
            store.discard(draft)
            raise
        on_done(entry)
    return entry


def _image(component: Component, draft: Draft, order: Order, on_resume: Callable[[Progress], None]) -> Taken:
    snapshot = SnapshotReference(component.name, draft.id, draft.image)
    options = CheckpointOptions(leave=order.leave, files=order.files, channel_fd=order.channel_fd, on_resume=on_resume)
    return component.checkpoint(order.pid, snapshot, options)


def _publish(store: Store, draft: Draft, order: Order, component: Component, taken: Taken, duration_ms: float) -> Entry:
    from nbcr.store.manifest import ComponentMark, Host, Manifest

    uname = os.uname()
    facts = order.facts
    manifest = Manifest(
        id=draft.id,
        name=draft.name,
        created=draft.created,
        parent=order.parent,
        kinds=["image"],
        size_bytes=store.size_bytes(draft),
        notebook=_text_or_none(facts.get("notebook")),
        pid=order.pid,
        pause_ms=round(taken.pause_ms, 3),
        duration_ms=round(duration_ms, 3),
        host=Host(socket.gethostname(), uname.release, uname.machine, str(facts.get("python", ""))),
        jupyter=facts.get("jupyter"),
        cell=facts.get("cell"),
        component=ComponentMark(component.name, component.version),
        warnings=list(dict.fromkeys([*order.warnings, *taken.warnings])),
        note=order.note,
        channel_fd=order.channel_fd,
    )
    return store.publish(draft, manifest)


def _text_or_none(value: Any) -> str | None:
    return None if value is None else str(Path(value)) if isinstance(value, os.PathLike) else str(value)
