"""What a process does for whoever asks from outside: the same use cases that a magic would call.

Requests come by the socket of `nbcr.handlers.listening`, or as a POSIX signal. The requester's connection is handed
to the helper, which answers on it; it must not stay open here, where it would be a descriptor to outside in the
image. For the same reason a request that comes while another one is under way is not kept waiting but told BUSY, and
asks again. A connection that ends before HEARD was in the queue of a socket that was closed for a checkpoint: its
request is made again too.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import signal
import socket
import threading
from collections.abc import Callable
from typing import Any

from nbcr import __version__, runtime
from nbcr.channel import Channel, ChannelClosed
from nbcr.errors import Busy, NbcrError, NotPossible, UsageProblem, to_wire
from nbcr.handlers import DEFAULT_DEADLINE_S, main_thread, registry
from nbcr.handlers.contexts import checkpoint_thread
from nbcr.handlers.listening import REQUEST_THREAD_NAME, Listener
from nbcr.handlers.signals import RequestSignal, number_of
from nbcr.session import inprocess
from nbcr.session.inprocess import Wish
from nbcr.session.namespaces import Limits
from nbcr.session.spawning import Interpreter
from nbcr.store import Store

SIGNAL_VARIABLE = "NBCR_SIGNAL"  # which signal asks for a checkpoint; set for programs started by `nbcr run`
_REQUEST_TIMEOUT_S = 2.0

_log = logging.getLogger("nbcr")


Answer = Callable[[Callable[[], None]], None]  # called with what says that it has begun


class _Service:
    """What this process listens to."""

    def __init__(self) -> None:
        self.listener: Listener | None = None
        self.signal: RequestSignal | None = None
        self.asked_by_signal = False
        self.answer: Answer | None = None  # to the signal; None: a checkpoint


_service = _Service()


def start(*, standby: bool = True) -> None:
    """Start this process's checkpoint thread and its socket, unless they run. Raises NotPossible, OSError.

    `standby`: keep a helper waiting, so that the first checkpoint is as fast as the others.
    """
    checkpoint_thread.start()
    if _service.listener is None:
        runtime.sweep()
        listener = Listener(checkpoint_thread, serve)
        listener.open()
        registry.register(listener)
        _service.listener = listener
        atexit.register(listener.remove)
    if threading.current_thread() is threading.main_thread():
        main_thread.install()
        name = os.environ.get(SIGNAL_VARIABLE)
        if name and _service.signal is None:
            request_on(number_of(name))
    if standby:
        inprocess.keep_standby(True)


def start_if_possible() -> None:
    """As `start`, for a program that only has handlers: without a socket it is not asked from outside, and goes on."""
    with contextlib.suppress(OSError, NotPossible):
        start(standby=False)


def stop() -> None:
    """End the checkpoint thread and take its socket away; harmless when there is none."""
    inprocess.keep_standby(False)
    if _service.signal is not None and threading.current_thread() is threading.main_thread():
        _service.signal.remove()
        _service.signal = None
    if _service.listener is not None:
        registry.remove(_service.listener)
        _service.listener.remove()
        atexit.unregister(_service.listener.remove)
        _service.listener = None
    checkpoint_thread.stop()


def running() -> bool:
    """Whether requests from outside are, or will soon again be, served."""
    return _service.listener is not None and checkpoint_thread.alive


def request_on(number: int = signal.SIGUSR2, answer: Answer | None = None) -> None:
    """Take a checkpoint of this process, or do `answer`, whenever signal `number` arrives. Call in the main thread.

    Another signal that was chosen before is given back. Raises NotPossible when the program uses that signal itself. A
    failure is told by the logger ``nbcr``.
    """
    start(standby=False)
    before, former = _service.signal, _service.answer
    _service.answer = answer
    if before is not None and before.number == number:
        return
    if before is not None:
        before.remove()  # first: the two would contend for the wake-up descriptor
        _service.signal = None
    try:
        _service.signal = _taken(number)
    except NotPossible:
        _service.answer = former
        if before is not None:
            _service.signal = _taken(before.number)
        raise


def no_request_on_signal() -> None:
    """Undo `request_on`. Call in the main thread."""
    if _service.signal is not None:
        _service.signal.remove()
    _service.signal = _service.answer = None


def _taken(number: int) -> RequestSignal:
    taken = RequestSignal(number, checkpoint_thread, _asked_by_signal)
    taken.install()
    return taken


def _forget_in_child() -> None:
    """A forked child is a process of its own: nobody asks it by its parent's socket or signal."""
    global _service
    before, _service = _service, _Service()
    if before.listener is not None:
        registry.remove(before.listener)
        atexit.unregister(before.listener.remove)
        before.listener.forget()
    if before.signal is not None:
        before.signal.forget()


os.register_at_fork(after_in_child=_forget_in_child)


def _asked_by_signal() -> None:
    """In the checkpoint thread. While one request waits for its turn, further ones are the same request."""
    if not _service.asked_by_signal:
        _service.asked_by_signal = True
        threading.Thread(target=_answer_signal, name=REQUEST_THREAD_NAME, daemon=True).start()


def _answer_signal() -> None:
    def begun() -> None:
        _service.asked_by_signal = False

    try:
        if _service.answer is not None:
            _service.answer(begun)
        else:
            inprocess.checkpoint(Wish(origin="signal", on_begin=begun)).wait()
    except Exception as error:
        line = error.line() if isinstance(error, NbcrError) else str(error)
        _log.error("nbcr: the checkpoint asked for by a signal was not taken: %s", line)
    finally:
        begun()


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
    if operation == "facts":
        channel.send({"state": "FACTS", "facts": registry.facts()})
        return
    store = Store(request.get("store"))
    interpreter = Interpreter.from_document(request["helper"]) if "helper" in request else None
    deadline_s = float(request.get("deadline_s", DEFAULT_DEADLINE_S))
    if operation == "checkpoint":
        wish = Wish(
            name=request.get("name"),
            store=store,
            replace=bool(request.get("replace")),
            note=str(request.get("note", "")),
            automatic=request.get("automatic"),
            job=request.get("job"),
            leave=str(request.get("leave", "running")),
            kinds=tuple(request.get("kinds") or ()),
            limits=Limits(bool(request.get("history")), request.get("max_size_bytes"), request.get("max_total_bytes")),
            files=str(request.get("files", "keep")),
            tcp=str(request.get("tcp", "reset")),
            origin="thread",
            deadline_s=deadline_s,
            report=channel.sock,
            interpreter=interpreter,
            patient=False,
            on_wait=lambda holders: _answer(channel, {"state": "WAITING", "for": [str(h) for h in holders]}),
        )
        inprocess.checkpoint(wish)
    elif operation == "restart":
        entry = store.find(str(request["id"]))
        inprocess.replace_by(
            entry, store, deadline_s=deadline_s, report=channel.sock, interpreter=interpreter, patient=False,
            files=request.get("files"),
        )  # fmt: skip
    else:
        raise UsageProblem(f"this process's nbcr ({__version__}) does not know the request {operation!r}")
