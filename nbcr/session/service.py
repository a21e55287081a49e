"""What the checkpoint thread does for whoever connects: the same use cases that a magic would call.

The requester's connection is handed to the helper, which answers on it; it must not stay open here, where
it would be a descriptor to outside in the image. For the same reason a request that comes while another one
is under way is not kept waiting but told BUSY, and asks again. A connection that ends before HEARD was in
the queue of a socket that was closed for a checkpoint: its request is made again too.
"""

from __future__ import annotations

import contextlib
import socket
from typing import Any

from nbcr import __version__, runtime
from nbcr.channel import Channel, ChannelClosed
from nbcr.errors import Busy, NbcrError, UsageProblem, to_wire
from nbcr.handlers import registry
from nbcr.handlers.thread import CheckpointThread
from nbcr.session import inprocess
from nbcr.session.inprocess import Wish
from nbcr.session.spawning import Interpreter
from nbcr.store import Store

_REQUEST_TIMEOUT_S = 2.0

_thread: CheckpointThread | None = None


def start() -> CheckpointThread:
    """Start this process's checkpoint thread, or return the one that runs. Raises NotPossible, OSError."""
    global _thread
    if _thread is None or not _thread.alive:
        if _thread is not None:
            registry.remove(_thread)
        _thread = CheckpointThread(serve)
        _thread.start()
        registry.register(_thread)
        inprocess.keep_standby(True)
    return _thread


def stop() -> None:
    """End the checkpoint thread and take its socket away; harmless when there is none."""
    global _thread
    inprocess.keep_standby(False)
    if _thread is not None:
        registry.remove(_thread)
        _thread.stop()
    _thread = None


def serve(connection: socket.socket) -> None:
    """One request from outside."""
    channel = Channel(connection)
    request = channel.receive(_REQUEST_TIMEOUT_S)
    channel.send({"state": "HEARD"})
    try:
        _do(channel, request)
    except Busy as error:
        _answer(channel, {"state": "BUSY", **to_wire(error)})
    except NbcrError as error:
        _answer(channel, {"state": "ERROR", **to_wire(error)})


def _answer(channel: Channel, message: dict[str, Any]) -> None:
    if channel.fileno() >= 0:  # else the helper has the connection, and answers
        with contextlib.suppress(ChannelClosed):
            channel.send(message)


def _do(channel: Channel, request: dict[str, Any]) -> None:
    operation = request.get("op")
    if operation == "ping":
        channel.send({"state": "READY", "pid": runtime.own_pid(), "version": __version__})
        return
    store = Store(request.get("store"))
    interpreter = Interpreter.from_document(request["helper"]) if "helper" in request else None
    deadline_s = float(request.get("deadline_s", inprocess.DEFAULT_DEADLINE_S))
    if operation == "checkpoint":
        wish = Wish(
            name=request.get("name"),
            store=store,
            replace=bool(request.get("replace")),
            note=str(request.get("note", "")),
            leave=str(request.get("leave", "running")),
            origin="thread",
            deadline_s=deadline_s,
            report=channel.sock,
            interpreter=interpreter,
            patient=False,
        )
        inprocess.checkpoint(wish)
    elif operation == "restart":
        entry = store.find(str(request["id"]))
        inprocess.replace_by(
            entry, store, deadline_s=deadline_s, report=channel.sock, interpreter=interpreter, patient=False
        )
    else:
        raise UsageProblem(f"this process's nbcr ({__version__}) does not know the request {operation!r}")
