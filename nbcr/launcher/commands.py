"""The command of a job: started by us, or brought back from its image."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Callable, Mapping
from typing import Protocol

from nbcr.errors import NotPossible
from nbcr.runtime import readable
from nbcr.session import RestartResult


class Command(Protocol):
    """What of subprocess.Popen a launcher needs."""

    @property
    def pid(self) -> int: ...
    def poll(self) -> int | None: ...
    def wait(self, timeout: float | None = None) -> int: ...
    def send_signal(self, sig: int) -> None: ...
    def terminate(self) -> None: ...
    def kill(self) -> None: ...


def popen(argv: list[str], environ: Mapping[str, str], umask: int, cwd: str | None = None) -> subprocess.Popen[bytes]:
    """A command with our streams. Raises NotPossible."""
    try:
        return subprocess.Popen(argv, env=dict(environ), umask=umask, cwd=cwd)
    except OSError as error:
        raise NotPossible(f"{argv[0]} cannot be started: {error.strerror}") from error


class Restored:
    """The root of a process tree that we have brought back."""

    def __init__(self, result: RestartResult) -> None:
        assert result.wait is not None
        self.pid = result.pid
        self._wait: Callable[[], int] = result.wait
        self._pidfd = os.pidfd_open(result.pid)
        self._status: int | None = None

    def poll(self) -> int | None:
        """Its exit status, negative for a signal; None while it lives."""
        if self._status is None and readable(self._pidfd):
            return self.wait()
        return self._status

    def wait(self, timeout: float | None = None) -> int:
        """The same, once it has ended. Raises subprocess.TimeoutExpired."""
        if self._status is None:
            if not readable(self._pidfd, timeout):
                raise subprocess.TimeoutExpired(str(self.pid), timeout or 0.0)
            self._status = self._wait()
            os.close(self._pidfd)
        return self._status

    def send_signal(self, sig: int) -> None:
        """To it, and to nobody who has its pid after it."""
        if self._status is None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, sig)

    def terminate(self) -> None:
        """SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL."""
        self.send_signal(signal.SIGKILL)
