"""Carries the descriptors of a real process over its death: frozen, captured, killed, rebuilt in ours."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from kernel_backend.image.descriptions import Description
from kernel_backend.resources import descriptors
from kernel_backend.resources.descriptors import CaptureTables, RebuildTables
from kernel_backend.tracee.process import frozen

_WAIT = "\nprint('ready', flush=True)\nsys.stdin.read()\n"
_HEAD = "import array, fcntl, os, select, signal, socket, struct, sys, time\n"


@dataclass
class Held:
    """A process that holds something."""

    pid: int
    _popen: subprocess.Popen[str]

    def kill(self) -> None:
        self._popen.kill()
        self._popen.wait()


@contextmanager
def holding(code: str, *arguments: object, pass_fds: Sequence[int] = ()) -> Iterator[Held]:
    """A process that has run `code` and waits."""
    argv = [sys.executable, "-c", _HEAD + code + _WAIT, *map(str, arguments)]
    pipe = subprocess.PIPE
    with subprocess.Popen(argv, stdin=pipe, stdout=pipe, text=True, pass_fds=pass_fds) as popen:
        assert popen.stdout is not None
        assert popen.stdin is not None
        assert popen.stdout.readline() == "ready\n"
        try:
            yield Held(popen.pid, popen)
        finally:
            popen.kill()


@dataclass
class Captured:
    """What an image would hold."""

    pid: int
    folder: Path
    descriptions: list[Description]
    holders: dict[int, list[tuple[int, int]]]
    warnings: list[str]

    def at(self, fd: int) -> Description:
        """The description that the process had at `fd`."""
        return self.descriptions[self.index(fd)]

    def index(self, fd: int) -> int:
        return next(i for i, rows in self.holders.items() if (self.pid, fd) in rows)


def capture(pid: int, folder: Path, *, ending: bool = False) -> Captured:
    """Capture the descriptors of a process; it goes on."""
    folder = Path(tempfile.mkdtemp(dir=folder))
    with frozen(pid) as process:
        tables = CaptureTables(folder, {pid: process}, ending=ending)
        kinds = descriptors.all_kinds()
        descriptors.capture(tables, kinds)
        if ending:
            descriptors.read_last(tables, kinds)
    # through JSON, as an image does
    raw = msgspec.json.encode(tables.descriptions)
    found = msgspec.json.decode(raw, type=list[Description])
    return Captured(pid, folder, found, tables.holders, tables.warnings)


@dataclass
class Rebuilt:
    """The rebuilt descriptors, ours now, at the numbers' disposal: `rebuilt[fd]`."""

    captured: Captured
    tables: RebuildTables
    warnings: list[str] = field(default_factory=list)

    def __getitem__(self, fd: int) -> int:
        return self.tables.own[self.captured.index(fd)]


@contextmanager
def rebuilding(captured: Captured, **settings: object) -> Iterator[Rebuilt]:
    """Validate and rebuild; everything is closed afterwards."""
    tables = RebuildTables(captured.folder, captured.descriptions, holders=captured.holders, root_pid=captured.pid)
    for name, value in settings.items():
        setattr(tables, name, value)
    kinds = descriptors.all_kinds()
    descriptors.validate(tables, kinds)
    gc.collect()  # what others have left open, which would be closed at any time
    before = open_descriptors()
    with tables.guardian:
        descriptors.rebuild(tables, kinds)
        try:
            yield Rebuilt(captured, tables, tables.warnings)
        finally:
            tables.close()
    assert not (left := open_descriptors() - before), f"descriptors of the helper are left open: {left}"


def open_descriptors() -> set[str]:
    """What this process has open."""
    with os.scandir("/proc/self/fd") as found:
        return {f"{item.name} {link}" for item in found if not (link := _link(item.path)).startswith("/proc/")}


def _link(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return "/proc/gone"


Carry = Callable[..., Rebuilt]
