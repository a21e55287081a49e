"""The request a thread of the Jupyter kernel is executing, and how another one takes its place.

`%restart` runs in a cell R of the present; the restored life wakes up inside another cell C, the one that
ran when the image was taken. R's client waits for a reply and an idle status with R's id, and nobody else
will ever send them. So C becomes R: its header and identities are overwritten **in place**. ipykernel hands
one and the same header object to stdout, stderr, the display publisher and every context that copied them,
so all that C still prints, displays and replies goes to R, whichever thread it comes from.

Contexts would be the official way to find the running request, but only the thread itself sees its own, and
a request served by a subshell meanwhile overwrites the shared fallback. The frame of
`Kernel.dispatch_shell` never lies: it holds the very objects from which the reply and the idle status will
be built.
"""

from __future__ import annotations

import asyncio
import base64
import sys
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import FrameType
from typing import Any

from nbcr.jupyter.living import Living


@dataclass(frozen=True)
class Running:
    """A request being executed: ipykernel's own message dict and list of identities."""

    parent: dict[str, Any]
    idents: list[bytes]

    def describe(self) -> dict[str, Any]:
        """What another life needs to answer this request, in JSON."""
        from jupyter_client.jsonutil import squash_dates

        return {
            "parent_header": squash_dates(self.parent["header"]),
            "metadata": squash_dates(self.parent.get("metadata") or {}),
            "idents": [base64.b64encode(ident).decode() for ident in self.idents],
        }

    @property
    def executes(self) -> bool:
        """Whether it is a cell; otherwise it is a widget's message, a completion, …"""
        return bool(self.parent["header"].get("msg_type") == "execute_request")

    @property
    def source(self) -> str:
        """The text of the cell; empty where it is none."""
        return str((self.parent.get("content") or {}).get("code") or "") if self.executes else ""

    def become(self, cell: Mapping[str, Any]) -> None:
        """Turn this request into the one that `cell` (see `describe`) tells of."""
        header, metadata, idents = _read(cell)
        _replace(self.parent["header"], header)
        if isinstance(self.parent.get("metadata"), dict):
            _replace(self.parent["metadata"], metadata)
        self.parent["msg_id"] = header.get("msg_id", "")
        self.parent["msg_type"] = header.get("msg_type", "execute_request")
        self.idents[:] = idents


def running_in(thread: int) -> Running | None:
    """The request that the thread with this ident is executing."""
    # not in a variable: a frame that holds itself stays until the garbage collector comes, with all that callers hold
    return _of_stack(sys._getframe() if thread == threading.get_ident() else sys._current_frames().get(thread))


def running_in_main(living: Living) -> Running | None:
    """The request that the main thread is executing: in its stack, or suspended at an await."""
    found = running_in(threading.main_thread().ident or 0)
    if found is not None:
        return found
    loop = getattr(living.kernel.io_loop, "asyncio_loop", None)
    tasks = asyncio.all_tasks(loop) if loop is not None else set()
    return next((found for task in tasks for found in _of_coroutine(task.get_coro())), None)


def take_over(living: Living, requester: int, cell: Mapping[str, Any]) -> None:
    """See that the request `cell` of the present gets its reply and its idle status in this life.

    `requester` is the ident of the thread that asked for the image.
    """
    asked = str(cell["parent_header"].get("msg_type", "execute_request"))
    running = running_in(requester) or running_in_main(living)
    if running is not None and (running.executes or asked != "execute_request"):
        running.become(cell)
    else:
        living.on_shell(lambda: answer_in_its_stead(living, cell))


def answer_in_its_stead(living: Living, cell: Mapping[str, Any]) -> None:
    """Reply and go idle for a request that nobody executes any more. Call on the shell thread."""
    header, metadata, idents = _read(cell)
    parent = {"header": header, "msg_id": header.get("msg_id", ""), "metadata": metadata}
    kernel = living.kernel
    if header.get("msg_type", "execute_request") != "execute_request":
        kernel._publish_status("idle", "shell", parent=parent)
        return
    content = {
        "status": "ok",
        "execution_count": kernel.execution_count,
        "user_expressions": {},
        "payload": [],
    }
    living.session.send(kernel.shell_stream, "execute_reply", content, parent, ident=idents)
    kernel._publish_status("idle", "shell", parent=parent)


def _read(cell: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any], list[bytes]]:
    from jupyter_client.jsonutil import extract_dates

    header = extract_dates(dict(cell["parent_header"]))
    idents = [base64.b64decode(ident) for ident in cell.get("idents") or ()]
    return header, dict(cell.get("metadata") or {}), idents


def _replace(target: dict[str, Any], source: Mapping[str, Any]) -> None:
    # Added first and stale keys removed last: a thread that copies the header meanwhile never sees it empty.
    target.update(source)
    for key in [key for key in target if key not in source]:
        del target[key]


def _of_stack(frame: FrameType | None) -> Running | None:
    while frame is not None:
        found = _of_frame(frame)
        if found is not None:
            return found
        frame = frame.f_back
    return None


def _of_coroutine(coroutine: Any) -> Iterator[Running]:
    while coroutine is not None:
        frame = getattr(coroutine, "cr_frame", None)
        found = _of_frame(frame) if frame is not None else None
        if found is not None:
            yield found
            return
        coroutine = getattr(coroutine, "cr_await", None)


def _of_frame(frame: FrameType) -> Running | None:
    from ipykernel.kernelbase import Kernel

    if frame.f_code is not Kernel.dispatch_shell.__code__:
        return None
    names = frame.f_locals
    parent, idents = names.get("msg"), names.get("idents")
    if isinstance(parent, dict) and isinstance(idents, list) and isinstance(parent.get("header"), dict):
        return Running(parent, idents)
    return None
