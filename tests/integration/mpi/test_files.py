"""Jobs with MPI-IO: what is in their files is what an undisturbed run writes."""

from __future__ import annotations

import random
import shlex
import subprocess
import time
from pathlib import Path

import pytest

from tests.integration.mpi.conftest import END_S, Stage, program
from tests.integration.mpi.hosts import SpreadStage
from tests.support import ProcessTracker

WELL = "interleaved log ordered table\ndone\n"  # what a job says that has found all in its files, and no others


def made(folder: Path) -> Path:
    folder.mkdir()
    return folder


@pytest.mark.parametrize("leave", ["killed", "running"])
def test_files_are_written_on(stage: Stage, rng: random.Random, tmp_path: Path, leave: str) -> None:
    """Also when the original has come to its end meanwhile, with all its files written and the shared pointer gone."""
    launcher = stage.run("files", program("filing", rng.choice([2, 3]), made(tmp_path / "files"), 100, 0.03))
    time.sleep(rng.random())
    stage.checkpoint("files", "half", leave=leave)
    out, err = launcher.communicate(timeout=END_S)
    assert launcher.returncode == 0, err
    if leave == "running":
        assert out == WELL
    out, err = stage.nbcr("restart", "half").communicate(timeout=END_S)
    assert out == WELL, err


@pytest.mark.long
@pytest.mark.parametrize("where", [("h3", 4), ("h1,h2,h3", 1)])
def test_hosts_share_files(
    processes: ProcessTracker, rng: random.Random, tmp_path: Path, where: tuple[str, int]
) -> None:
    spread = SpreadStage.built(tmp_path, processes)
    launcher = spread.run(
        "files", spread.program("filing", 4, spread.placing("h1,h2", 2), made(tmp_path / "files"), 80, 0.05)
    )
    time.sleep(rng.random())
    spread.checkpoint("files", "half", leave="killed")
    launcher.communicate(timeout=END_S)
    out, err = spread.nbcr("restart", "half", "--mpiexec", shlex.join(spread.placing(*where))).communicate(
        timeout=END_S
    )
    assert out == WELL, err


def test_errors_are_those_of_mpi_and_views_its_own(stage: Stage, tmp_path: Path) -> None:
    """The same program with mpi4py's own files."""
    words = program("reading", 2, made(tmp_path / "expected"))
    expected = subprocess.run(words, capture_output=True, text=True, timeout=END_S, check=True).stdout
    launcher = stage.run("reading", program("reading", 2, made(tmp_path / "files")))
    out, err = launcher.communicate(timeout=END_S)
    assert "ready\n" + out == expected, err
