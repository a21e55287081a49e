"""Programs with handlers, run with the real engine, as root and as an ordinary user."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from nbcr.crs import components
from tests.support import CHECKOUT, ProcessTracker, User, needs

PROGRAMS = Path(__file__).parent / "programs"


@pytest.fixture(autouse=True)
def _engine() -> None:
    state = components()[0].availability()
    needs("process images", available=state.available, why=state.detail)


@dataclass
class Stage:
    """A folder, a store and a user; starts programs there."""

    user: User
    folder: Path
    processes: ProcessTracker
    environ: dict[str, str] = field(default_factory=dict)

    @property
    def log(self) -> Path:
        return self.folder / "log"

    def start(self, program: str, *argv: str | int, **options: Any) -> subprocess.Popen[bytes]:
        """Run a program with the log as its first argument; stdout and stderr go to the file ``out``."""
        for file in (self.log, self.folder / "out"):
            file.touch()
            self.user.give(file)
        words = [sys.executable, str(PROGRAMS / program), str(self.log), *map(str, argv)]
        with (self.folder / "out").open("ab") as out:
            return self.processes.start(
                self.user.command(words, cwd=self.folder), env=self.environ, stdin=subprocess.DEVNULL,
                stdout=out, stderr=out, **options,
            )  # fmt: skip

    def lines(self) -> list[dict[str, Any]]:
        """What the program's lives have noted so far."""
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    def output(self) -> str:
        return (self.folder / "out").read_text()


@pytest.fixture(params=["ourselves", "as_user"])
def stage(
    request: pytest.FixtureRequest,
    ourselves: User,
    as_user: User,  # asked for before `processes`, which ends at the test's end what was started after it
    processes: ProcessTracker,
    tmp_path: Path,
) -> Stage:
    user = ourselves if request.param == "ourselves" else as_user
    folder = tmp_path if user.is_ourselves else request.getfixturevalue("user_dir")
    run = folder / "run"
    run.mkdir(mode=0o700)
    user.give(run)
    places = {"NBCR_STORE": str(folder / "store"), "XDG_RUNTIME_DIR": str(run), "PYTHONPATH": str(CHECKOUT)}
    return Stage(user, folder, processes, user.environ(places))


def until(
    stage: Stage,
    key: str,
    program: subprocess.Popen[bytes] | None = None,
    times: int = 1,
    timeout_s: float = 60.0,
) -> dict[str, Any]:
    """The line of the log with `key` in it, once there are so many."""
    deadline = time.monotonic() + timeout_s
    while True:
        found = [line for line in stage.lines() if key in line]
        if len(found) >= times:
            return found[times - 1]
        assert program is None or program.poll() is None, stage.output()
        assert time.monotonic() < deadline, json.dumps(stage.lines()) + stage.output()
        time.sleep(0.01)
