"""Hold outgoing messages back from just before the image until the clients are there to hear them.

A restored Jupyter kernel has lost its TCP connections; clients come back 0.1 to 0.2 s later, and whatever
is sent before that is lost without a word: outputs, the reply, the idle status that ends a cell. The main
thread, however, runs on the instant the process is restored, perhaps in the middle of a cell that prints.
So the gates are closed *in the image*: nothing of a restored life can slip out before its handler has run
and clients have subscribed again. In the life that goes on they open after some tens of milliseconds, and
everything leaves in order.

What was built when the image was taken has been sent by the life that went on: a restored life drops it
(clients refuse a message that they have seen). It knows the image's last moment by a clock that ticks while
the gates are closed, and when a message was built by its header: it may have been on its way to the gate.

A gate replaces the one method through which its socket sends. It is closed, opened and passed on the thread
that owns the socket, so it needs no lock.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

RETRY_S = 0.02
UNROUTABLE_S = 2.0
RETURN_S = 1.0
ZMQ_EHOSTUNREACH = 113

DELIMITER = b"<IDS|MSG>"

_in_child = False


def _forked() -> None:
    global _in_child
    _in_child = True


os.register_at_fork(after_in_child=_forked)


class Gate:
    """Holds what `owner.method` would send. Use on the owner's thread only."""

    def __init__(self, owner: Any, method: str) -> None:
        self._owner = owner
        self._method = method
        self._held: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
        self.closed = False

    @property
    def held(self) -> int:
        """How many messages."""
        return len(self._held)

    def close(self) -> None:
        """Hold back from now on."""
        if not self.closed:
            self.closed = True
            setattr(self._owner, self._method, self._hold)

    def _hold(self, *args: Any, **kwargs: Any) -> None:
        if _in_child:  # forked while the gate was closed: nobody will ever open this copy of it
            getattr(type(self._owner), self._method)(self._owner, *args, **kwargs)
        else:
            self._held.append((args, kwargs))

    def open(self) -> None:
        """Send what was held, in order, and hold nothing any more."""
        if not self.closed:
            return
        self.closed = False
        delattr(self._owner, self._method)
        send = getattr(self._owner, self._method)
        held, self._held = self._held, []
        for args, kwargs in held:
            send(*args, **kwargs)

    def drop(self, session: Any, until: float) -> None:
        """Forget what was built up to that moment."""
        self._held = [held for held in self._held if _built(session, held[0][0]) > until]

    def resign(self, session: Any) -> None:
        """Sign the held messages anew: the key has changed since they were built."""
        for args, _ in self._held:
            _resign(session, args[0])


class RouterGate(Gate):
    """A gate of a ROUTER, which drops silently what is addressed to a client that is not connected (yet).

    On opening, ROUTER_MANDATORY makes such a send fail instead, and it is tried again until the client is
    back or `UNROUTABLE_S` has passed: one client may be back later than another whose subscription opened
    the gate.
    """

    def __init__(self, stream: Any) -> None:
        super().__init__(stream, "send_multipart")
        self._retrying = False
        self._patient_until = 0.0

    def close(self) -> None:
        """Hold back from now on, also what is still being retried."""
        if self._retrying:
            self._retrying = False
            self._owner.socket.router_mandatory = False
        super().close()

    def open_when_routable(self, patient_s: float = 0.0) -> None:
        """Send what was held, and what comes within `patient_s`, as the addressees come back; then open."""
        if self.closed and not self._retrying:
            self._retrying = True
            self._owner.socket.router_mandatory = True
            now = time.monotonic()
            self._patient_until = now + patient_s
            self._release(now + UNROUTABLE_S)

    def open(self) -> None:
        """Send what was held, in order, and hold nothing any more."""
        if self._retrying:
            self._retrying = False
            self._owner.socket.router_mandatory = False
        super().open()

    def _release(self, deadline: float) -> None:
        import zmq

        socket = self._owner.socket
        if not self._retrying or socket is None:
            return
        while self._held:
            (message, *_), _ = self._held[0]
            try:
                socket.send_multipart(message)
            except zmq.ZMQError as error:
                if error.errno != ZMQ_EHOSTUNREACH:
                    raise
                if time.monotonic() < deadline:
                    break
            self._held.pop(0)
        if self._held or time.monotonic() < self._patient_until:
            self._owner.io_loop.call_later(RETRY_S, lambda: self._release(deadline))
        else:
            self.open()
        _rearm(self._owner)


def ask_when_routable(router: Any) -> None:
    """Make the stdin ROUTER wait with every question until the client that it goes to is connected.

    It has no loop, and needs no gate: the main thread uses it, and waits without a bound for the user's answer
    anyway. A question that is dropped, however, is never asked again.
    """
    import zmq

    send = type(router).send_multipart

    def send_multipart(message: Any, *args: Any, **kwargs: Any) -> Any:
        while True:
            router.router_mandatory = True
            try:
                return send(router, message, *args, **kwargs)
            except zmq.ZMQError as error:
                if error.errno != ZMQ_EHOSTUNREACH:
                    raise
            finally:
                router.router_mandatory = False
            time.sleep(RETRY_S)  # an interrupt ends it; no event tells that a peer has connected

    router.send_multipart = send_multipart


def _rearm(stream: Any) -> None:
    """Make the stream look at its socket again: a raw send may have swallowed the edge of a request."""
    callback = stream._recv_callback
    if callback is not None:
        stream.on_recv(callback, copy=stream._recv_copy)


def _built(session: Any, frames: list[Any]) -> float:
    """When a message was built, as `time.time`; now where it does not say so."""
    from jupyter_client.jsonutil import parse_date

    _, signed = _signed(frames)
    date = parse_date(session.unpack(signed[0]).get("date")) if signed else None
    return date.timestamp() if isinstance(date, datetime) else time.time()


def _resign(session: Any, frames: list[Any]) -> None:
    at, signed = _signed(frames)
    if signed:
        frames[at - 1] = session.sign(signed)


def _signed(frames: list[Any]) -> tuple[int, list[bytes]]:
    """Where the header of a message is, and the four parts from there on; none where it is not one of Jupyter's."""
    raw = [bytes(memoryview(frame)) for frame in frames]
    at = raw.index(DELIMITER) + 2 if DELIMITER in raw else len(raw)
    return at, raw[at : at + 4]


def _reply_by_stream(living: Any) -> None:
    """Replies of cells go through the stream, where the gate is, as they do since ipykernel 7.4; before, past it."""
    if hasattr(living.manager, "_shell_socket"):
        living.manager._shell_socket = living.shell_stream


class Outgoing:
    """The three gates of a Jupyter kernel: iopub, shell, control."""

    def __init__(self, living: Any) -> None:
        self._living = living
        _reply_by_stream(living)
        self._iopub = Gate(living.iopub, "_really_send")
        self._shell = RouterGate(living.shell_stream)
        self._control = RouterGate(living.control_stream)

    def _each(self) -> list[tuple[Callable[[Callable[[], None]], None], Gate]]:
        on = self._living
        return [(on.on_iopub, self._iopub), (on.on_shell, self._shell), (on.on_control, self._control)]

    def close(self) -> None:
        """Hold everything back."""
        for run, gate in self._each():
            run(gate.close)

    def open(self, *, published: bool = True) -> None:
        """Send everything now: this life goes on. `published` False: outputs wait as before for who reads them."""
        for run, gate in self._each():
            if published or gate is not self._iopub:
                run(gate.open)

    def part(self) -> None:
        """Hold replies: the shell channel's clients are about to be sent away."""
        self._living.on_shell(self._shell.close)

    def open_after_parting(self, *, published: bool = True) -> None:
        """The same where the shell channel's clients may have been sent away for nothing: they are soon back."""
        here = self._living
        if published:
            here.on_iopub(self._iopub.open)
        here.on_control(self._control.open)
        here.on_shell(lambda: self._shell.open_when_routable(RETURN_S))

    def drop(self, until: float) -> None:
        """Forget what was built up to that moment."""
        for run, gate in self._each():
            run(lambda gate=gate: gate.drop(self._living.session, until))  # type: ignore[misc]

    def resign(self) -> None:
        """Sign what is held with the session's new key."""
        for run, gate in self._each():
            run(lambda gate=gate: gate.resign(self._living.session))  # type: ignore[misc]

    @property
    def published(self) -> int:
        """How many messages wait to be published."""
        return self._iopub.held

    def publish(self) -> None:
        """Send what was held for those who listen. Call on the IOPub thread."""
        self._iopub.open()

    def reply_to_returning(self) -> None:
        """Send replies as clients come back. From any thread; nobody is waited for."""
        self._living.shell_loop.add_callback(self._shell.open_when_routable)
        self._living.kernel.control_thread.io_loop.add_callback(self._control.open_when_routable)
