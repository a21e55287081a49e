"""A child of ours that undoes what we have begun, should we be killed before it is whole.

What dies with its tracer or lives in memory needs no care. But a file, a System V segment, the folder of an image that
is being written and processes that already run would stay. So each is told to the guardian as soon as it is there. It
waits at the other end of a socket: `dismiss` tells it that all is well; the end of the stream alone means that we are
gone, or have given up, and then it undoes everything, the latest first.

It is forked when there is something to tell, holds nothing of ours open but the socket and what it was told with, and
cannot be interrupted by the signals of a terminal.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from kernel_backend.host import libc, messages, sysvipc

_IPC_RMID = 0
_MESSAGE_BYTES = 1 << 16
_MAX_FDS = 253
_DISMISSED = b"."
_PROCESSES, _MORE_FOLLOW = b"p", b"+"


class Guardian:
    """Told of things while they must not stay; use as a context manager: left with an error, they are undone.

    `more` are further sorts of things, each with what undoes it.
    """

    def __init__(self, more: Mapping[str, Callable[..., None]] | None = None) -> None:
        self._undo: dict[str, Callable[..., None]] = {
            "file": _remove_file, "folder": _remove_folder, "empty folder": os.rmdir,
            "moved aside": _move_back,
            "segments": _remove_segments, "queue": messages.unlink, "ipc": sysvipc.remove, **(more or {}),
        }  # fmt: skip
        self._line: socket.socket | None = None
        self._pid = 0

    def __enter__(self) -> Guardian:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.dismiss() if kind is None else self.undo()

    @property
    def is_there(self) -> bool:
        """Whether it was told anything."""
        return self._line is not None

    # --- telling it -------------------------------------------------------------------------------------------------
    def tell(self, what: str, *facts: Any, fds: Sequence[int] = ()) -> None:
        """Something is there now that must not stay when we are killed; descriptors that undoing takes come last."""
        assert what in self._undo
        self._send(json.dumps([what, *facts]).encode(), list(fds))

    def file(self, path: str | Path) -> None:
        """A file of ours; one that has taken its place meanwhile is spared."""
        found = os.lstat(path)
        self.tell("file", str(Path(path).absolute()), found.st_dev, found.st_ino)

    def processes(self, pidfds: Sequence[int]) -> None:
        """Processes that are to live all or none: they are killed when we end before it is said that all is well.

        When we end before all were told, which may take several messages, none is.
        """
        for first in range(0, len(pidfds), _MAX_FDS):
            part = list(pidfds[first : first + _MAX_FDS])
            self._send(_PROCESSES if first + len(part) == len(pidfds) else _MORE_FOLLOW, part)

    def dismiss(self) -> None:
        """All is well: nothing is undone."""
        if self._line is not None:
            with contextlib.suppress(OSError):  # it was killed: then there is nobody to tell
                self._line.send(_DISMISSED)
        self.undo()

    def undo(self) -> None:
        """Have everything undone that was told, and wait until it is."""
        if self._line is not None:
            self._line.close()
            self._line = None
            with contextlib.suppress(ChildProcessError):
                os.waitpid(self._pid, 0)

    def _send(self, message: bytes, fds: list[int] | None = None) -> None:
        if self._line is None:
            self._begin()
        assert self._line is not None
        socket.send_fds(self._line, [message], fds or [])

    # --- its own life -----------------------------------------------------------------------------------------------
    def _begin(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
            try:
                self._pid = os.fork()
                if self._pid == 0:
                    self._watch(theirs.detach())
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)
        self._line = ours

    def _watch(self, line: int) -> None:
        """The guardian's whole life."""
        try:
            os.setsid()
            os.closerange(0, line)
            os.closerange(line + 1, os.sysconf("SC_OPEN_MAX"))
            told = _listen(socket.socket(fileno=line))
            for message, fds in reversed(told or []):
                with contextlib.suppress(Exception):  # gone by itself; go on with the others
                    self._undo_one(message, fds)
        finally:
            os._exit(0)

    def _undo_one(self, message: bytes, fds: list[int]) -> None:
        if message != _PROCESSES:
            what, *facts = json.loads(message)
            self._undo[what](*facts, *([fds] if fds else []))
            return
        for pidfd in fds:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)


def _listen(line: socket.socket) -> list[tuple[bytes, list[int]]] | None:
    """What was told until the end; None when all is well."""
    told: list[tuple[bytes, list[int]]] = []
    some: list[int] = []  # the beginning of what is still being told
    while True:
        message, fds, _, _ = socket.recv_fds(line, _MESSAGE_BYTES, _MAX_FDS)
        if message == _DISMISSED:
            return None
        if not message:
            return told
        if message == _MORE_FOLLOW:
            some += fds
        else:
            told.append((message, some + fds))
            some = []


def _remove_file(path: str, device: int, inode: int) -> None:
    found = os.lstat(path)
    if (found.st_dev, found.st_ino) == (device, inode):
        os.unlink(path)  # noqa: PTH108


def _move_back(aside: str, path: str) -> None:
    if not os.path.lexists(path):
        os.rename(aside, path)  # noqa: PTH104


def _remove_folder(path: str) -> None:
    shutil.rmtree(path)


def _remove_segments(creator: int, spared: list[int]) -> None:
    """The System V segments that a process has created, but for some."""
    for line in Path("/proc/sysvipc/shm").read_text().splitlines()[1:]:
        _, number, _, _, made_by, *_ = map(int, line.split())
        if made_by == creator and number not in spared:
            libc.syscall("shmctl", number, _IPC_RMID, 0)
