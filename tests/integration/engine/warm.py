"""Commands of the engine by a process that has it loaded: it forks for each, which saves the start of Python.

Run as a program it is that process: an order is one line of JSON on its standard input, the answer one line with the
command's exit status (negative: the signal that ended it).
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from tests.integration.engine.harness import Engine


class Warm:
    """That process, seen from a test; it ends with the test."""

    def __init__(self, engine: Engine) -> None:
        argv = engine.user.command([sys.executable, Path(__file__)], cwd=engine.folder)
        self._process: subprocess.Popen[bytes] = engine.processes.start(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0, env=engine.environ()
        )

    def run(self, words: list[str], fault: str, out: Path, err: Path, limit_s: float) -> int:
        """Run one command; its exit status. Raises TimeoutError."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        order = {"words": words, "fault": fault, "out": str(out), "err": str(err)}
        self._process.stdin.write(json.dumps(order).encode() + b"\n")
        if not select.select([self._process.stdout], [], [], limit_s)[0]:
            raise TimeoutError
        return int(self._process.stdout.readline())


def _serve() -> None:
    import kernel_backend.engine
    import kernel_backend.summary  # noqa: F401

    for line in sys.stdin.buffer:
        order = json.loads(line)
        pid = os.fork()
        if pid == 0:
            _command(order)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


def _command(order: dict[str, str]) -> NoReturn:
    from kernel_backend import stages
    from kernel_backend.__main__ import run_and_leave

    with _opened(Path(os.devnull), os.O_RDONLY) as fd:
        os.dup2(fd, 0)
    for number, name in ((1, "out"), (2, "err")):
        with _opened(Path(order[name]), os.O_WRONLY) as fd:
            os.dup2(fd, number)
    stages.inject(order["fault"])
    sys.argv[1:] = order["words"]
    run_and_leave()


@contextlib.contextmanager
def _opened(path: Path, flags: int) -> Iterator[int]:
    fd = os.open(path, flags)
    try:
        yield fd
    finally:
        os.close(fd)


if __name__ == "__main__":
    _serve()
