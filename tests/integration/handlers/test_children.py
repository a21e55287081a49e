"""A restored program goes on with its children, whatever their pids are now."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pytest

from tests.integration.handlers.conftest import Stage, until

pytestmark = pytest.mark.either("stage")

ALL_WELL = {
    "found": True, "cat": 0, "process": 7, "alive": False, "mapped": [9, 16], "computed": [25], "statuses": [5, 5],
}  # fmt: skip


def test_in_place(stage: Stage) -> None:
    program = stage.start("children.py", "in-place")
    assert program.wait(90) == 0, stage.output()
    assert stage.lines()[1:] == [ALL_WELL]


@pytest.mark.parametrize("old_pids_are_taken", [False, True])
def test_fresh(stage: Stage, old_pids_are_taken: bool) -> None:
    program = stage.start("children.py", "fresh", start_new_session=True)
    until(stage, "ready", program)
    if not old_pids_are_taken:
        os.killpg(program.pid, signal.SIGKILL)
        program.wait()
    argv = [sys.executable, "-m", "nbcr.cli", "restart", "here", "--detach", "--json"]
    done = subprocess.run(
        stage.user.command(argv, cwd=stage.folder), env=stage.environ, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=90, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for pid in json.loads(done.stdout)["pids"].values():
        stage.processes.adopt(pid)
    found = until(stage, "cat", timeout_s=60)
    assert found == ALL_WELL, stage.output()
