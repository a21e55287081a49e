"""Starting a helper so that the program that starts it never sees a child of its own.

An intermediate process (a shell, which needs a millisecond where an interpreter needs twenty) starts the helper in the
background, ends, and is reaped at once; the helper belongs to init, has a session of its own, and shares with us one
end of a socket pair, nothing else.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nbcr import runtime
from nbcr.channel import Channel, ChannelClosed
from nbcr.errors import HelperLost, NbcrError, NotPossible, from_wire
from nbcr.handlers.interrupts import waiting
from nbcr.store import Entry, Store

START_TIMEOUT_S = 20.0
_SHELL = "/bin/sh"
_IN_BACKGROUND = (_SHELL, "-c", '"$@" &', "nbcr")
CHANNEL_FD = 3  # in the helper


@dataclass(frozen=True)
class Interpreter:
    """The Python that runs the helper, and where it finds nbcr and its libraries."""

    executable: str
    root: str  # folder that holds the nbcr package
    paths: tuple[str, ...]  # further folders to import from, after the standard library

    @classmethod
    def ours(cls) -> Interpreter:
        """The interpreter we run in ourselves. Raises NotPossible in an embedded one."""
        if not sys.executable:
            raise NotPossible("this interpreter does not know its own executable", hint="use `nbcr checkpoint PID`")
        root = str(Path(__file__).resolve().parents[2])
        packages = [p for p in sys.path if p.endswith(("site-packages", "dist-packages")) and Path(p).is_absolute()]
        extra = [p for p in os.environ.get("PYTHONPATH", "").split(os.pathsep) if Path(p).is_absolute()]
        return cls(sys.executable, root, tuple(dict.fromkeys([*extra, *packages])))

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Interpreter:
        """As a requester outside named it."""
        return cls(str(document["executable"]), str(document["root"]), tuple(document["paths"]))

    def document(self) -> dict[str, Any]:
        """As it goes over a channel."""
        return {"executable": self.executable, "root": self.root, "paths": list(self.paths)}

    def command(self) -> list[str]:
        """Command line of the helper.

        Without the user's own folders on the path: a ``select.py`` beside a notebook must not break the
        helper. Without site, because that costs time while the user waits.
        """
        return [self.executable, "-S", "-P", "-m", "nbcr.helper", *self.paths]

    def environ(self) -> dict[str, str]:
        """Our environment without what would change how Python starts."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
        return {**kept, "PYTHONPATH": self.root}


class Helper:
    """A running helper and the channel to it."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.pid = 0  # once it is ready
        self._store: Store | None = None  # of its order
        _running.add(self)

    def ready(self) -> None:
        """Wait until it listens; done before, nothing happens. Raises HelperLost or what it says, and hangs up then."""
        if not self.pid:
            try:
                answer = self.answer(START_TIMEOUT_S)
                if answer.get("state") == "ERROR":
                    raise from_wire(answer)
            except NbcrError:
                self.close()
                raise
            self.pid = int(answer.get("pid", 0))
            runtime.allow_tracing_by(self.pid)

    @property
    def alive(self) -> bool:
        """Whether a helper that has no order yet still waits for one: it says nothing, its channel is open."""
        return not self.channel.readable(0)

    def order(self, message: Mapping[str, Any], store: Store, report: socket.socket | None = None) -> None:
        """Send its order; `report` is a connection it answers on too. Raises ChannelClosed."""
        self._store = store
        self.channel.send({**message, "store": str(store.root), "report": report is not None})
        if report is not None:
            socket.send_fds(self.channel.sock, [b"\0"], [report.fileno()])

    def answer(self, timeout_s: float | None = None) -> dict[str, Any]:
        """Next message from the helper; raises HelperLost when it ended or gave none in time."""
        try:
            with waiting():
                return self.channel.receive(timeout_s)
        except (ChannelClosed, TimeoutError, ValueError) as error:
            raise self.lost(error) from error

    def lost(self, cause: BaseException) -> HelperLost:
        """The error for a helper that is gone."""
        what = "gave no answer in time" if isinstance(cause, TimeoutError) else "ended without an answer"
        log = None if self._store is None else self._store.helper_log(self.pid)
        said_something = log is not None and log.exists() and log.stat().st_size
        return HelperLost(
            f"the helper {what}; this process goes on, nothing was checkpointed or restarted",
            hint=f"its last words are in {log}" if said_something else "it was killed, or ran out of memory: try again",
        )

    def tell(self, message: Mapping[str, Any]) -> None:
        """Send a message to a helper at work; raises HelperLost when it ended."""
        try:
            self.channel.send(message)
        except ChannelClosed as error:
            raise self.lost(error) from error

    def published(self, entry_id: str) -> Entry | None:
        """The entry, when the helper was lost only after it had published it."""
        try:
            return None if self._store is None else self._store.find(entry_id)
        except NbcrError:
            return None

    def close(self) -> None:
        """Close the channel; a helper that still waits for orders then ends."""
        self.channel.close()


_running: weakref.WeakSet[Helper] = weakref.WeakSet()


def _forget_in_child() -> None:
    """A forked child's copies of our channels would hide from helpers that we are gone, and be in its own image."""
    for helper in list(_running):
        helper.close()


os.register_at_fork(after_in_child=_forget_in_child)


def spawn(interpreter: Interpreter | None = None) -> Helper:
    """Start a helper. Raises HelperLost, NotPossible."""
    python = interpreter or Interpreter.ours()
    channel, theirs = Channel.pair()
    spare = 1 + max(CHANNEL_FD, theirs.fileno())
    actions = [  # out of the way first, so that nothing overwrites it
        (os.POSIX_SPAWN_DUP2, theirs.fileno(), spare),
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
        (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0),
        (os.POSIX_SPAWN_DUP2, spare, CHANNEL_FD),
    ]
    try:
        words = python.command()
        if os.access(_SHELL, os.X_OK):  # otherwise the helper's own first process is the intermediate one
            words = [*_IN_BACKGROUND, *words]
        # In a group of its own from the first moment: a signal to the program's group is not meant for it.
        child = os.posix_spawn(words[0], words, python.environ(), file_actions=actions, setpgroup=0)
    except OSError as error:
        channel.close()
        raise HelperLost(f"the helper cannot be started: {error}", hint="is the interpreter still there?") from error
    finally:
        theirs.close()
    with contextlib.suppress(ChildProcessError):  # the program ignores SIGCHLD, or another thread of it was faster
        os.waitpid(child, 0)
    return Helper(channel)


def start_packer(store: Store) -> None:
    """Have the store packed in the background, unless its settings forbid that. Never raises."""
    from nbcr import packer
    from nbcr.store import settings

    null = [(os.POSIX_SPAWN_OPEN, stream, os.devnull, os.O_RDWR, 0) for stream in range(3)]
    with contextlib.suppress(NbcrError, OSError):  # it is packed after the next checkpoint then
        if settings.read(store.root).packs_in_background and os.access(_SHELL, os.X_OK):
            python = Interpreter.ours()
            words = [*_IN_BACKGROUND, *packer.command(store.root, python.paths)]
            child = os.posix_spawn(_SHELL, words, python.environ(), file_actions=null, setpgroup=0)
            os.waitpid(child, 0)
