"""A child of ours that undoes what we began, when we are killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from kernel_backend.host.guardian import Guardian
from tests.support import ProcessTracker, wait_for_end

MANY = 600  # pidfds; one message takes 253


def victim(processes: ProcessTracker) -> subprocess.Popen[bytes]:
    return processes.start([sys.executable, "-c", "import signal; signal.pause()"])


def killed_after(work: Callable[[Guardian], object], processes: ProcessTracker) -> None:
    """Have a child of ours do something with a guardian and kill itself; return when the guardian has ended."""
    pid = os.fork()
    if pid == 0:
        try:
            work(Guardian())
            os.kill(os.getpid(), signal.SIGKILL)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
    for left in processes.strays():  # the guardian has become our child
        assert processes.reap(left) == 0


def test_many_processes_end_with_us(processes: ProcessTracker) -> None:
    first, last = victim(processes), victim(processes)
    pidfds = [os.pidfd_open(first.pid)] * MANY + [os.pidfd_open(last.pid)]
    killed_after(lambda guardian: guardian.processes(pidfds), processes)
    assert [first.wait(10), last.wait(10)] == [-signal.SIGKILL] * 2


def test_those_that_are_half_told_of_live(processes: ProcessTracker) -> None:
    lucky = victim(processes)
    pidfd = os.pidfd_open(lucky.pid)

    def tell(guardian: Guardian) -> None:
        sent = 0

        def send(message: bytes, fds: list[int] | None = None) -> None:
            nonlocal sent
            Guardian._send(guardian, message, fds)
            sent += 1
            if sent == 2:
                os.kill(os.getpid(), signal.SIGKILL)

        guardian._send = send  # type: ignore[method-assign]
        guardian.processes([pidfd] * MANY)

    killed_after(tell, processes)
    assert not wait_for_end(lucky.pid, 0)


def test_dismissed_it_undoes_nothing(processes: ProcessTracker, tmp_path: Path) -> None:
    kept, gone = tmp_path / "kept", tmp_path / "gone"
    for path, well in ((kept, True), (gone, False)):
        guardian = Guardian()
        path.write_text("")
        guardian.file(path)
        guardian.dismiss() if well else guardian.undo()
    assert kept.exists()
    assert not gone.exists()
