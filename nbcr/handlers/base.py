"""What a handler is told, and what it may add.

A handler spans the checkpoint: it runs before the image is taken and after, in the life that went on and in
each restored one. Subclass `Handler` and override what you need; every method has a harmless default.

    state        when                                                    order of layers
    CHECKPOINT   before the image is taken                               top first
    CONTINUE     after it, in the life that went on                      bottom first
    RESTART_PRE  in a restored life: close what is stale, open nothing   top first
    RESTART      in a restored life: open again                          bottom first
    (aborted)    no image was taken after all                            reverse of those entered

A handler's context says which thread runs it (seeds 000 and 002). Those of context "thread" run in the checkpoint
thread while the program goes on; when they are done, those of context "signal" run in the main thread, in the middle
of whatever it does, and nothing of it happens until the image is taken. Coming back, the signal context goes first.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import CodeType
from typing import Any, Literal

from nbcr.states import Layer

Context = Literal["thread", "signal"]


@dataclass
class Request:
    """A checkpoint about to be taken. Handlers of the way down may fill `facts` and `warnings`.

    Known facts, all JSON-ready, copied into the entry's manifest: ``jupyter`` (connection info:
    ``connection_file``, ``kernel_id``, ``transport``, ``ip``, ``ports`` {name: number}, ``key``),
    ``notebook`` (path), ``cell`` (execution count).
    """

    name: str | None = None
    origin: str = "api"  # "magic", "api", "signal" or "thread" (asked for from outside, through the socket)
    requester: int = field(default_factory=threading.get_ident)  # ident of the thread that waits for the checkpoint
    facts: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    leave: str = "running"  # what becomes of the process when its image is taken: "running", "stopped" or "killed"
    event: RestartEvent | None = None  # in a restored life: what changed around it


@dataclass(frozen=True)
class RestartEvent:
    """What changed around a restored process. Its fields are the RESTART message's keys."""

    pid: int  # this process's pid now
    pids: Mapping[int, int]  # pid in the image -> pid now, for the whole tree; all as this process may use them
    ppid: int
    began: float = 0.0  # when the restore began: between the image's last moment and this life's first (time.time)
    in_place: bool = False  # a living process was replaced; False: a fresh process tree
    connection: Mapping[str, Any] | None = None  # Jupyter connection info to serve on, None: the image's own
    cell: Mapping[str, Any] | None = None  # {"parent_header": …, "idents": […]} of the cell that asked, None: nobody
    environ: Mapping[str, str] | None = None  # environment of the present, None: keep the image's
    handed: tuple[Any, ...] = ()  # requests queued in the present, in order
    entry: Mapping[str, Any] = field(default_factory=dict)  # id, name, created of the checkpoint
    present: Mapping[str, Any] = field(default_factory=dict)  # all that the present's handlers prepared
    warnings: list[str] = field(default_factory=list)  # of the restore; a handler strikes out what it puts right

    @classmethod
    def from_message(cls, message: Mapping[str, Any], *, pid: int, ppid: int) -> RestartEvent:
        """The event that a RESTART message tells of; `pid` and `ppid` come from the system itself."""
        environ = message.get("environ")
        return cls(
            pid=pid,
            pids={int(old): int(new) for old, new in dict(message.get("pids") or {}).items()},
            ppid=ppid,
            began=float(message.get("began") or 0.0),
            in_place=bool(message.get("in_place")),
            connection=message.get("connection"),
            cell=message.get("cell"),
            environ=dict(environ) if environ else None,
            handed=tuple(message.get("handed") or ()),
            entry=dict(message.get("entry") or {}),
            present=dict(message.get("present") or {}),
            warnings=[str(warning) for warning in message.get("warnings") or ()],
        )


class Handler:
    """Base of all handlers; `layer` places it among the others, `context` says which thread runs it."""

    layer: Layer = Layer.APPLICATION
    context: Context = "thread"

    def checkpoint(self, request: Request) -> None:
        """Before the image is taken. Raising here aborts the checkpoint; then undo first what was begun here."""

    def continue_(self) -> None:
        """The image is taken; this life goes on."""

    def restart_pre(self, event: RestartEvent) -> None:
        """A restored life: close what is stale, open nothing."""

    def restart(self, event: RestartEvent) -> None:
        """A restored life: open again what was closed."""

    def aborted(self) -> None:
        """The checkpoint, or the restart prepared for, does not take place: undo what was prepared."""

    def prepare_restart(self) -> dict[str, Any]:
        """What the present hands to the life that will replace it (in place): keys of the RESTART message.

        Values are what the channel carries: JSON, bytes, datetimes. When the restart then fails, `aborted`
        is called.
        """
        return {}

    def facts(self) -> dict[str, Any]:
        """Facts (see `Request`) for a checkpoint without an image, of which no handler is told. Within milliseconds."""
        return {}

    def part(self) -> None:
        """The last word before the image with which the process ends: what is sent from now on must wait elsewhere
        for the restored life. Within milliseconds; `aborted` and `continue_` may still follow."""

    def late_requests(self) -> list[Any]:
        """What arrived since `prepare_restart`, or the last call: handed over behind the rest."""
        return []


def name_of(handler: Handler) -> str:
    """What a handler is called in messages; not an attribute, whose name a subclass might want for itself."""
    return str(getattr(handler, "__nbcr_name__", type(handler).__qualname__))


def code_of(handler: Handler) -> CodeType | None:
    """Where a handler is written."""
    code: CodeType | None = getattr(handler, "__nbcr_code__", None)
    return code or getattr(type(handler).checkpoint, "__code__", None)
