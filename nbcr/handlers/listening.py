"""The socket on which a process is asked from outside. A handler of layer TRANSPORT, like all that owns descriptors.

It lies in the runtime folder, and is closed while an image is taken: a listening socket restored from an image would
sit at the path of another life. Each life, the one that goes on or a restored one, opens one of its own.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path

from nbcr import runtime
from nbcr.errors import NotPossible
from nbcr.handlers.base import Handler, Request, RestartEvent
from nbcr.handlers.thread import CheckpointThread
from nbcr.states import Layer

REQUEST_THREAD_NAME = "nbcr-request"
_SERVING_BOUND_S = 10.0


class Listener(Handler):
    """Gives each connection of our own user to `serve`, in a thread that lives as long as the request."""

    layer = Layer.TRANSPORT

    def __init__(self, thread: CheckpointThread, serve: Callable[[socket.socket], None]) -> None:
        self._thread = thread
        self._serve = serve
        self._socket: socket.socket | None = None
        self._path: Path | None = None
        self._serving: set[int] = set()  # idents of request threads: each holds a descriptor to outside
        self._settled = threading.Condition()

    @property
    def path(self) -> Path | None:
        """Where it listens just now, or did last."""
        return self._path

    def open(self) -> None:
        """Listen; returns when the socket is there. Raises NotPossible or OSError."""
        if self._socket is not None:
            return
        path = runtime.socket_path(runtime.own_pid())
        path.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(os.fspath(path))
        path.chmod(0o600)
        listener.listen(8)
        listener.setblocking(False)
        self._socket, self._path = listener, path
        self._thread.watch(listener.fileno(), self._accept)

    def close(self) -> None:
        """Listen no more."""
        listener, self._socket = self._socket, None
        if listener is not None:
            self._thread.unwatch(listener.fileno())
            listener.shutdown(socket.SHUT_RDWR)  # at once, though the checkpoint thread may still be polling it
            listener.close()

    def remove(self) -> None:
        """Listen no more, and take the socket's file away."""
        self.close()
        if self._path is not None:
            self._path.unlink(missing_ok=True)

    def forget(self) -> None:
        """In a forked child: its copy of the socket would keep those waiting whom we no longer serve."""
        listener, self._socket = self._socket, None
        if listener is not None:
            listener.close()

    # Handler of the lowest layer: the last to be told on the way down, the first on the way up.

    def checkpoint(self, request: Request) -> None:
        """Close the socket, and wait until no connection is open but that of whoever asked."""
        self.close()
        with self._settled:
            others = self._serving - {request.requester}
            settled = self._settled.wait_for(lambda: not (self._serving & others), _SERVING_BOUND_S)
        if not settled:
            self._open_again()
            raise TimeoutError("another request from outside is still being served")

    def continue_(self) -> None:
        """Listen again."""
        self._open_again()

    def aborted(self) -> None:
        """Listen again."""
        self._open_again()

    def restart(self, event: RestartEvent) -> None:
        """Listen again, under this life's pid."""
        self._open_again()

    def _open_again(self) -> None:
        with contextlib.suppress(OSError, NotPossible):  # nobody can ask in this life, the program goes on
            self.open()

    def _accept(self) -> None:
        listener = self._socket
        if listener is None:
            return
        try:
            connection, _ = listener.accept()
        except OSError:  # the requester gave up between our waking and now
            return
        if runtime.peer_uid(connection) != os.geteuid():
            connection.close()
            return
        thread = threading.Thread(target=self._serve_one, args=(connection,), name=REQUEST_THREAD_NAME, daemon=True)
        with self._settled:
            thread.start()
            self._serving.add(thread.ident or 0)

    def _serve_one(self, connection: socket.socket) -> None:
        try:
            self._serve(connection)
        except Exception:  # the requester hung up, or its request made no sense: the next one is served
            pass
        finally:
            connection.close()
            with self._settled:
                self._serving.discard(threading.get_ident())
                self._settled.notify_all()
