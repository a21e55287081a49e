"""What every Python subject shares: the protocol of c/subject.h, in Python."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from typing import NoReturn

BASE = sys.argv[1]


def path(suffix: str) -> str:
    return f"{BASE}.{suffix}"


def _finish(status: int, verdict: str) -> NoReturn:
    part = path(f"part.{os.getpid()}")
    with open(part, "w") as file:  # noqa: PTH123 - pathlib would be one more thing that has to survive
        file.write(verdict + "\n")
    try:
        os.link(part, path("result"))
    except FileExistsError:
        status = status or 1
    os.unlink(part)  # noqa: PTH108
    sys.stdout.flush()
    os._exit(status)


def passed() -> NoReturn:
    _finish(0, "PASS")


def skipped(capability: str) -> NoReturn:
    _finish(77, f"SKIP: {capability}")


def expect(condition: object, otherwise: str) -> None:
    if not condition:
        _finish(1, f"FAIL: {otherwise}")


def announce(what: str) -> None:
    os.close(os.open(path(what), os.O_WRONLY | os.O_CLOEXEC))


def wait(spoil: Callable[[], object] | None = None) -> None:
    """Be ready, and wait to go on. `spoil` breaks the state under test."""
    announce("ready")
    go, spoil_file = path("go"), path("spoil")
    while not os.access(go, os.F_OK):
        if spoil is not None and os.access(spoil_file, os.F_OK):
            spoil()
            os.unlink(spoil_file)  # noqa: PTH108
            announce("spoiled")
        time.sleep(0.002)


def main(body: Callable[[], None]) -> NoReturn:
    """Run the subject; an exception is a failure that names it."""
    try:
        body()
    except Exception as error:
        _finish(1, f"FAIL: {type(error).__name__}: {error}".replace("\n", " "))
    passed()
