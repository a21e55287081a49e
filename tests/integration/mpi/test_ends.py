"""Restored jobs end as they would without us."""

from __future__ import annotations

import shlex
import sys

import pytest

from tests.integration.mpi.conftest import END_S, MPIEXEC, SUBJECTS, Stage, program, undisturbed


def check(stage: Stage, how: str, status: int, said: str, *options: str, ranks: int = 2) -> None:
    words = [str(MPIEXEC), "-n", str(ranks), sys.executable, *options, str(SUBJECTS / "ending.py"), how]
    launcher = stage.run(how, words)
    stage.checkpoint(how, "saved", leave="killed")
    launcher.communicate(timeout=END_S)
    again = stage.nbcr("restart", "saved")
    out, err = again.communicate(timeout=END_S)
    assert (again.returncode, out.startswith(said)) == (status, True), (out, err)


def test_who_waits_for_the_others_ends_is_checkpointed(stage: Stage) -> None:
    check(stage, "early", 5, "done\n")


def test_a_rank_that_raises_ends_the_others(stage: Stage) -> None:
    """With `python -m mpi4py`, which is there for that."""
    check(stage, "raises", 1, "", "-m", "mpi4py")


def test_a_rank_that_aborts_ends_the_job_with_its_status(stage: Stage) -> None:
    check(stage, "aborts", 7, "", ranks=4)


@pytest.mark.long
def test_windows_that_were_freed_are_not_in_the_way(stage: Stage) -> None:
    check(stage, "windows", 0, "done\n")


@pytest.mark.either("ranks")
@pytest.mark.parametrize("ranks", [4, 5, 7])
def test_pickled_reductions_combine_in_the_order_of_mpi4py(stage: Stage, ranks: int) -> None:
    launcher = stage.nbcr("run", "--name", "job", "--", *program("combining", ranks))
    assert launcher.communicate(timeout=END_S)[0] == undisturbed("combining", ranks)


def test_what_a_rank_was_started_by_is_named_when_it_is_in_no_image(stage: Stage) -> None:
    line = shlex.join([sys.executable, str(SUBJECTS / "looping.py"), "100", "0.03"])
    launcher = stage.run("job", [str(MPIEXEC), "-n", "2", "sh", "-c", f"{line}; true"])
    entry = stage.checkpoint("job", "saved", leave="killed")
    launcher.communicate(timeout=END_S)
    assert [warning for warning in entry.warnings if "its parent (sh -c) is not in the image" in warning]


def test_a_pool_without_workers_says_so_to_who_waits_for_its_results(stage: Stage) -> None:
    """In a program that is started without `-m mpi4py.futures`: mpi4py asks for them in a thread."""
    launcher = stage.nbcr("run", "--name", "job", "--", *program("pool", 1))
    _, err = launcher.communicate(timeout=END_S)
    assert launcher.returncode == 1
    assert "BrokenExecutor: Intracomm.Spawn is not possible" in err


@pytest.mark.either("chosen")
@pytest.mark.parametrize("chosen", ["later", "errors=default", "errors=fatal"])
def test_what_a_program_chose_of_mpi4py_stands(stage: Stage, chosen: str) -> None:
    """That it initialises MPI itself, and what errors do."""
    launcher = stage.nbcr("run", "--name", "job", "--", *program("chosen", 1, chosen))
    assert launcher.communicate(timeout=END_S)[0] == undisturbed("chosen", 1, chosen)


def test_calls_have_the_names_that_mpi4py_gives_to_what_they_take(stage: Stage) -> None:
    launcher = stage.nbcr("run", "--name", "job", "--", *program("parameters", 1))
    out, err = launcher.communicate(timeout=END_S)
    assert out == "done\n", err
