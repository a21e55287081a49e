"""Jobs of real mpiexecs with the real engine."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from nbcr.crs import components
from nbcr.launcher import jobs
from nbcr.session import Terms
from nbcr.store import Entry, Store
from tests.support import CHECKOUT, ProcessTracker, first_line, needs

SUBJECTS = CHECKOUT / "tests" / "subjects" / "mpi"
BIN = Path(sys.executable).parent
MPIEXEC = BIN / "mpiexec"
NBCR = (sys.executable, "-P", "-m", "nbcr.cli")  # without the working folder, as the command `nbcr`
END_S = 100.0


@pytest.fixture(autouse=True)
def _engine() -> None:
    state = components()[0].availability()
    needs("process images", available=state.available, why=state.detail)


def program(name: str, ranks: int, *argv: object) -> list[str]:
    """The command line of a subject, without us."""
    return [str(MPIEXEC), "-n", str(ranks), sys.executable, str(SUBJECTS / f"{name}.py"), *map(str, argv)]


def undisturbed(name: str, ranks: int, *argv: object) -> str:
    """What a subject prints when nothing of ours is there."""
    done = subprocess.run(program(name, ranks, *argv), capture_output=True, text=True, timeout=END_S, check=True)
    return done.stdout


@dataclass
class Stage:
    """A store, a runtime folder, and jobs in them."""

    folder: Path
    processes: ProcessTracker

    @property
    def store(self) -> Store:
        return Store(self.folder / "store")

    @property
    def environ(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("NBCR_")}
        return {**kept, "NBCR_STORE": str(self.store.root), "PYTHONPATH": str(CHECKOUT)}

    def nbcr(self, *words: str, mode: str = "") -> subprocess.Popen[str]:
        """A command of ours that runs on, with its streams piped."""
        environ = {**self.environ, "NBCR_MPI_MODE": mode} if mode else self.environ
        return self.processes.start(
            [*NBCR, *words], env=environ, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True,
        )  # fmt: skip

    def run(self, job: str, words: list[str], mode: str = "") -> subprocess.Popen[str]:
        """A job that has said that it is ready."""
        launcher = self.nbcr("run", "--name", job, "--", *words, mode=mode)
        assert first_line(launcher) == "ready\n", launcher.communicate(timeout=END_S)
        return launcher

    def checkpoint(self, job: str, name: str, leave: str = "running", deadline_s: float = 30.0) -> Entry:
        """As `nbcr checkpoint`."""
        sock = jobs.connect(job)
        assert sock is not None, f"there is no job {job}"
        return jobs.checkpoint(
            job, sock, Terms(name=name, leave=leave), store=self.store, deadline_s=deadline_s,
            on_plain=lambda pid, job: pytest.fail("plain"),
        )  # fmt: skip


@pytest.fixture
def stage(processes: ProcessTracker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    """With a runtime folder of its own: tests beside us have jobs of the same names."""
    with tempfile.TemporaryDirectory(prefix="nbcr-") as run:  # the paths of sockets are short
        monkeypatch.setenv("XDG_RUNTIME_DIR", run)
        yield Stage(tmp_path, processes)


def until(condition: object, timeout_s: float = 30.0) -> None:
    """Poll; there is no event."""
    assert callable(condition)
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)
