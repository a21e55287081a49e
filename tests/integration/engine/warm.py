"""Commands of the engine by a process that has it loaded: it forks for each, which saves the start of Python.

Run as a program it is that process, one for all tests of a user: an order is one line of JSON on its standard input
(the command's words, folder and environment among it), the answer one line with the command's exit status (negative:
the signal that ended it) and how many steps it made.

The fault "step:N" is its own: ptrace(2) calls are counted, and the command kills itself before (N even) or after (odd)
the one whose turn it is, N // 2. With "step:-1" they are only counted.

Nothing is synced to the disk: no test cuts the power, and a sync takes longer than a dump.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from tests.support import User


class Warm:
    """That process, seen from the tests. `steps` is how many the latest command made."""

    def __init__(self, user: User) -> None:
        argv = user.command([sys.executable, str(Path(__file__))], cwd="/")
        self._process = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0, env=user.environ(), start_new_session=True
        )
        self.pid = self._process.pid
        self.steps = 0

    @property
    def is_living(self) -> bool:
        return self._process.poll() is None

    def run(
        self, words: list[str], fault: str, out: Path, err: Path, folder: Path, environ: dict[str, str], limit_s: float
    ) -> int:
        """Run one command; its exit status. Raises TimeoutError, after which the process is gone."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        order = {"words": words, "fault": fault, "out": str(out), "err": str(err)}
        order |= {"folder": str(folder), "environ": environ}
        self._process.stdin.write(json.dumps(order).encode() + b"\n")
        if not select.select([self._process.stdout], [], [], limit_s)[0]:
            self._process.kill()  # the command becomes ours, and a stray of the test's
            self.end()
            raise TimeoutError
        status, self.steps = map(int, self._process.stdout.readline().split())
        return status

    def end(self) -> None:
        """Have it end: it reads no more orders."""
        with self._process:
            assert self._process.stdin is not None
            self._process.stdin.close()


def _serve() -> None:
    import kernel_backend.engine
    import kernel_backend.summary  # noqa: F401
    from kernel_backend.resources import descriptors

    descriptors.all_kinds()  # loads the rest
    os.fsync = os.fdatasync = lambda fd: None
    steps = mmap.mmap(-1, 8)  # shared with the commands
    for line in sys.stdin.buffer:
        steps[:] = bytes(8)
        order = json.loads(line)
        pid = os.fork()
        if pid == 0:
            _command(order, steps)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        print(status, int.from_bytes(steps[:], "little"), flush=True)


def _command(order: dict[str, Any], steps: mmap.mmap) -> NoReturn:
    from kernel_backend import stages
    from kernel_backend.__main__ import run_and_leave

    os.chdir(order["folder"])
    os.environ.clear()
    os.environ.update(order["environ"])
    with _opened(Path(os.devnull), os.O_RDONLY) as fd:
        os.dup2(fd, 0)
    for number, name in ((1, "out"), (2, "err")):
        with _opened(Path(order[name]), os.O_WRONLY) as fd:
            os.dup2(fd, number)
    if order["fault"].startswith("step:"):
        _count_steps(int(order["fault"].removeprefix("step:")), steps)
    else:
        stages.inject(order["fault"])
    sys.argv[1:] = order["words"]
    run_and_leave()


def _count_steps(turn: int, steps: mmap.mmap) -> None:
    """Count ptrace(2) calls, and die at the one whose turn it is."""
    from kernel_backend.host import libc

    real, made = libc.ptrace, 0

    def counted(request: int, tid: int, addr: int = 0, data: object = 0) -> int:
        nonlocal made
        if turn == 2 * made:
            os.kill(os.getpid(), signal.SIGKILL)
        try:
            return real(request, tid, addr, data)
        finally:
            if turn == 2 * made + 1:
                os.kill(os.getpid(), signal.SIGKILL)
            made += 1
            steps[:] = (2 * made).to_bytes(8, "little")

    libc.ptrace = counted


@contextlib.contextmanager
def _opened(path: Path, flags: int) -> Iterator[int]:
    fd = os.open(path, flags)
    try:
        yield fd
    finally:
        os.close(fd)


if __name__ == "__main__":
    _serve()
