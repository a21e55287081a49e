"""Jobs whose ranks save their own state at a safe point: MPICH is taken for one that cannot be initialised again."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from nbcr.errors import NotPossible
from nbcr.mpi import modes
from tests.integration.mpi.conftest import END_S, MPIEXEC, Stage, program, undisturbed


def test_a_job_goes_on_and_is_run_anew_from_its_safe_point(stage: Stage) -> None:
    expected = undisturbed("cooperating", 2, 80).removeprefix("ready\n")
    launcher = stage.run("job", program("cooperating", 2, 80, 0.03), mode=modes.COOPERATIVE)
    time.sleep(0.5)
    assert stage.checkpoint("job", "one").component["name"] == "cooperative"
    stage.checkpoint("job", "two", leave="killed")
    out, err = launcher.communicate(timeout=END_S)
    assert (launcher.returncode, out) == (0, ""), err
    for name in ("one", "two"):
        returned = stage.nbcr("restart", name)
        out, err = returned.communicate(timeout=END_S)
        assert (returned.returncode, out.removeprefix("ready\n")) == (0, expected), err


def test_a_state_that_cannot_be_saved_fails_the_checkpoint_alone(stage: Stage) -> None:
    launcher = stage.run("job", program("cooperating", 2, 60, 0.03, "unpicklable"), mode=modes.COOPERATIVE)
    with pytest.raises(NotPossible, match="generator"):
        stage.checkpoint("job", "never")
    assert launcher.communicate(timeout=END_S)[0].endswith("done\n")
    assert not stage.store.entries()


def test_a_program_that_never_comes_to_a_safe_point_is_told(stage: Stage) -> None:
    launcher = stage.run("job", program("waiting", 2, "blocked", 3), mode=modes.COOPERATIVE)
    with pytest.raises(NotPossible, match="within 1 s"):
        stage.checkpoint("job", "never", deadline_s=1)
    assert launcher.communicate(timeout=END_S)[0] == "done 1\n"


def test_the_mode_is_tried_out_once(tmp_path: Path) -> None:
    tried = modes.mode_of(str(MPIEXEC), sys.executable, os.environ, tmp_path)
    assert tried.name == modes.IMAGES
    assert "MPICH" in tried.why
    assert modes.mode_of(str(MPIEXEC), sys.executable, {}, tmp_path) == tried
