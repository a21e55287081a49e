"""The checkpoint thread: asleep until somebody outside asks, then serving while the program runs on.

It listens on a Unix socket in the runtime folder. While an image is taken the socket is closed, because a
listening socket restored from an image would sit at the path of another life; the thread then waits at an
eventfd, which is part of the image, and in each life, the one that went on or a restored one, a socket of
its own is opened again.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import threading
from collections.abc import Callable
from pathlib import Path

from nbcr import runtime
from nbcr.errors import NotPossible
from nbcr.handlers.base import Handler, Request, RestartEvent
from nbcr.states import Layer

THREAD_NAME = "nbcr-checkpoint"
_SERVING_BOUND_S = 10.0


class CheckpointThread(Handler):
    """One daemon thread per process. `serve` gets each accepted connection of our own user, and closes it."""

    layer = Layer.TRANSPORT

    def __init__(self, serve: Callable[[socket.socket], None]) -> None:
        self._serve = serve
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._serving = False
        self._ending = False
        self._listener: socket.socket | None = None
        self._path: Path | None = None
        self._settled = threading.Condition()
        self._thread = threading.Thread(target=self._run, name=THREAD_NAME, daemon=True)

    def start(self) -> None:
        """Start listening; returns when the socket is there. Raises NotPossible or OSError."""
        runtime.sweep()
        self._open()
        self._thread.start()

    def stop(self) -> None:
        """End the thread and take its socket away (called from the thread itself: after this request)."""
        self._ending = True
        os.eventfd_write(self._wake, 1)
        if threading.current_thread() is not self._thread:
            self._thread.join(_SERVING_BOUND_S)

    @property
    def alive(self) -> bool:
        """Whether requests are, or will soon again be, served."""
        return self._thread.is_alive()

    @property
    def path(self) -> Path | None:
        """Where it listens just now."""
        return self._path

    # Handler of the lowest layer: the last to be told on the way down, the first on the way up.

    def checkpoint(self, request: Request) -> None:
        """Close the listening socket for the length of the checkpoint."""
        self._want(False)

    def continue_(self) -> None:
        """Listen again."""
        self._want(True)

    def aborted(self) -> None:
        """Listen again."""
        self._want(True)

    def restart(self, event: RestartEvent) -> None:
        """Listen again, under this life's pid."""
        self._want(True)

    def _want(self, listening: bool) -> None:
        with self._settled:
            if not listening:
                self._close()
            elif self._listener is None:
                with contextlib.suppress(OSError, NotPossible):  # nobody can ask in this life, the program goes on
                    self._open()
            if threading.current_thread() is self._thread:
                return
            os.eventfd_write(self._wake, 1)
            # A connection being served is a descriptor to outside: it must be gone before the image is taken.
            if not listening and not self._settled.wait_for(lambda: not self._serving, _SERVING_BOUND_S):
                raise TimeoutError("the checkpoint thread is busy with another request")

    def _open(self) -> None:
        path = runtime.socket_path(runtime.own_pid())
        path.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(os.fspath(path))
        path.chmod(0o600)
        listener.listen(8)
        listener.setblocking(False)
        self._listener, self._path = listener, path

    def _close(self) -> None:
        if self._listener is not None:
            self._listener.close()
        self._listener = None

    def _run(self) -> None:
        try:
            while not self._ending:
                connection = self._next()
                if connection is not None:
                    self._serve_one(connection)
        finally:
            with self._settled:
                self._close()
                if self._path is not None:
                    self._path.unlink(missing_ok=True)
                self._settled.notify_all()

    def _next(self) -> socket.socket | None:
        """Sleep until a connection or a change of mind; a connection of our own user, or None."""
        poller = select.poll()
        poller.register(self._wake, select.POLLIN)
        with self._settled:
            if self._listener is not None:
                poller.register(self._listener, select.POLLIN)
        ready = {descriptor for descriptor, _ in poller.poll()}
        if self._wake in ready:
            with contextlib.suppress(BlockingIOError):
                os.eventfd_read(self._wake)
            return None
        with self._settled:
            connection = self._accept()
            self._serving = connection is not None
        return connection

    def _accept(self) -> socket.socket | None:
        if self._listener is None:
            return None
        try:
            connection, _ = self._listener.accept()
        except OSError:  # the requester gave up between our waking and now
            return None
        if runtime.peer_uid(connection) == os.geteuid():
            return connection
        connection.close()
        return None

    def _serve_one(self, connection: socket.socket) -> None:
        try:
            self._serve(connection)
        except Exception:  # the requester hung up, or its request made no sense: the next one is served
            pass
        finally:
            connection.close()
            with self._settled:
                self._serving = False
                self._settled.notify_all()
