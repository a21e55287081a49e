"""Starting a helper so that the program that starts it never sees a child of its own.

An intermediate process (the interpreter's first moment) forks the helper, ends, and is reaped at once; the
helper belongs to init, has a session of its own, and shares with us one end of a socket pair, nothing else.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nbcr.channel import Channel, ChannelClosed
from nbcr.errors import HelperLost, NbcrError, NotPossible
from nbcr.store import Store

START_TIMEOUT_S = 20.0
CHANNEL_FD = 3  # in the helper
REPORT_FD = 4  # in the helper, when somebody outside wants to hear how it ends


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

    def command(self, log: Path | None) -> list[str]:
        """Command line of the helper.

        Without the user's own folders on the path: a ``select.py`` beside a notebook must not break the
        helper. Without site, because that costs time while the user waits.
        """
        return [self.executable, "-S", "-P", "-m", "nbcr.helper", str(log or ""), *self.paths]

    def environ(self) -> dict[str, str]:
        """Our environment without what would change how Python starts."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
        return {**kept, "PYTHONPATH": self.root}


class Helper:
    """A running helper and the channel to it."""

    def __init__(self, channel: Channel, log: Path | None) -> None:
        self.channel = channel
        self.log = log
        self.pid = 0  # once it is ready

    def ready(self) -> None:
        """Wait until it listens. Raises HelperLost."""
        answer = self.answer(START_TIMEOUT_S)
        self.pid = int(answer.get("pid", 0))
        _allow_tracing_by(self.pid)

    def answer(self, timeout_s: float | None = None) -> dict[str, Any]:
        """Next message from the helper; raises HelperLost when it ended or gave none in time."""
        try:
            return self.channel.receive(timeout_s)
        except (ChannelClosed, TimeoutError, ValueError) as error:
            raise self.lost(error) from error

    def lost(self, cause: BaseException) -> HelperLost:
        """The error for a helper that is gone."""
        what = "gave no answer in time" if isinstance(cause, TimeoutError) else "ended without an answer"
        log = self._log_if_any()
        return HelperLost(
            f"the helper {what}; this process goes on, nothing was checkpointed or restarted",
            hint=f"its last words are in {log}" if log else "it was killed, or ran out of memory: try again",
        )

    def _log_if_any(self) -> Path | None:
        with contextlib.suppress(OSError):
            if self.log is not None and self.log.stat().st_size:
                return self.log
            if self.log is not None:
                self.log.unlink()
        return None

    def close(self) -> None:
        """Close the channel; a helper that still waits for orders then ends."""
        self.channel.close()


def spawn(store: Store, *, interpreter: Interpreter | None = None, report: socket.socket | None = None) -> Helper:
    """Start a helper; `report` is a connection it answers on too. Raises HelperLost, NotPossible."""
    python = interpreter or Interpreter.ours()
    log = _log_path(store)
    channel, theirs = Channel.pair()
    actions = _descriptors(theirs, report, log)
    try:
        child = os.posix_spawn(python.executable, python.command(log), python.environ(), file_actions=actions)
    except OSError as error:
        channel.close()
        raise HelperLost(f"the helper cannot be started: {error}", hint="is the interpreter still there?") from error
    finally:
        theirs.close()
    with contextlib.suppress(ChildProcessError):  # the program ignores SIGCHLD, or another thread of it was faster
        os.waitpid(child, 0)
    return Helper(channel, log)


def _descriptors(theirs: socket.socket, report: socket.socket | None, log: Path | None) -> list[Any]:
    """File actions that leave the helper with 0-3, and 4 when there is a report (it closes whatever else it
    got).

    Out of the way first, then down: a dup2 must not overwrite a descriptor that a later one still needs.
    """
    sink = os.devnull if log is None else str(log)
    high = 1 + max(REPORT_FD, theirs.fileno(), -1 if report is None else report.fileno())
    actions: list[Any] = [(os.POSIX_SPAWN_DUP2, theirs.fileno(), high)]
    if report is not None:
        actions.append((os.POSIX_SPAWN_DUP2, report.fileno(), high + 1))
    actions += [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
        (os.POSIX_SPAWN_OPEN, 2, sink, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600),
        (os.POSIX_SPAWN_DUP2, high, CHANNEL_FD),
    ]
    if report is not None:
        actions.append((os.POSIX_SPAWN_DUP2, high + 1, REPORT_FD))
    return actions


def _log_path(store: Store) -> Path | None:
    """Where the helper's stderr goes: under the store, or nowhere when that can only be read."""
    try:
        return store.log_folder() / f"helper-{os.getpid()}-{time.monotonic_ns()}.log"
    except NbcrError:
        return None


def _allow_tracing_by(pid: int) -> None:
    """Where Yama lets only ancestors trace (scope 1), say that the helper may."""
    try:
        scope = Path("/proc/sys/kernel/yama/ptrace_scope").read_text(encoding="ascii").strip()
    except OSError:
        return
    if scope == "1" and pid:
        import ctypes

        pr_set_ptracer = 0x59616D61
        ctypes.CDLL(None).prctl(pr_set_ptracer, ctypes.c_ulong(pid), 0, 0, 0)
