"""Jobs checkpointed at random moments: what goes on and what is brought back end as if nothing had been."""

from __future__ import annotations

import contextlib
import random
import time
from pathlib import Path

import pytest

from nbcr.errors import NbcrError
from nbcr.launcher import jobs
from tests.integration.mpi.conftest import END_S, Stage, program, undisturbed, until
from tests.integration.store.test_s3 import s3  # noqa: F401 (a fixture)

# Steps, and how long each rests at the least: all run for two seconds or more.
SUBJECTS = {
    "ring": (200, 0.02),
    "halo": (400, 0.006),
    "workers": (2400, 0.004),
    "splits": (250, 0.02),
    "outstanding": (120, 0.03),
    "kept": (120, 0.03),
    "between": (120, 0.03),
    "objects": (100, 0.03),
    "looping": (150, 0.02),
    "likeness": (60, 0.1),
    "windows": (60, 0.06),
    "exposing": (100, 0.04),
    "matrices": (100, 0.04),
    "threads": (60, 0.12),
}


# What jobs do most, each time; of the rest one.
OFTEN = ("ring", "halo", "workers", "splits", "outstanding", "matrices", "threads")


@pytest.mark.parametrize("subject", OFTEN)
def test_a_job_goes_on_in_the_middle(stage: Stage, rng: random.Random, subject: str) -> None:
    check(stage, rng, subject, rng.choice([2, 3, 4]), 1)


@pytest.mark.either("subject")
@pytest.mark.parametrize("subject", [subject for subject in SUBJECTS if subject not in OFTEN])
def test_another_job_goes_on_in_the_middle(stage: Stage, rng: random.Random, subject: str) -> None:
    check(stage, rng, subject, rng.choice([2, 3, 4]), 1)


@pytest.mark.long
@pytest.mark.parametrize("ranks", [2, 3, 4])
@pytest.mark.parametrize("subject", SUBJECTS)
def test_a_job_goes_on_in_the_middle_every_time(stage: Stage, rng: random.Random, subject: str, ranks: int) -> None:
    check(stage, rng, subject, ranks, 3)


def check(stage: Stage, rng: random.Random, subject: str, ranks: int, times: int) -> None:
    steps, rest_s = SUBJECTS[subject]
    expected = undisturbed(subject, ranks, steps).removeprefix("ready\n")
    for turn in range(times):
        job, name = f"{subject}-{turn}", f"saved-{turn}"
        launcher = stage.run(job, program(subject, ranks, steps, rest_s))
        time.sleep(rng.random() * 1.2)
        stopped = rng.random() < 0.6
        entry = stage.checkpoint(job, name, leave="killed" if stopped else "running")
        assert entry.kinds == ("job",)
        out, err = launcher.communicate(timeout=END_S)
        assert launcher.returncode == 0, err
        if not stopped:
            assert out == expected
        returned = stage.nbcr("restart", name)
        again, err = returned.communicate(timeout=END_S)
        assert returned.returncode == 0, err
        assert again == expected, (out, err)


@pytest.mark.long
@pytest.mark.parametrize("how", ["threads", "meeting"])
def test_who_waits_long_is_not_waited_for(stage: Stage, how: str) -> None:
    """Two threads in Recv; one side of an intercommunicator that the other has not come to."""
    launcher = stage.run("waits", program("waiting", 2, how, 20))
    stage.checkpoint("waits", "while", leave="killed", deadline_s=15.0)
    launcher.communicate(timeout=END_S)
    returned = stage.nbcr("restart", "while")
    out, err = returned.communicate(timeout=END_S)
    assert (returned.returncode, out) == (0, "done 1\n"), err


def test_one_launcher_takes_several_checkpoints(stage: Stage) -> None:
    """Of ranks that share much memory: it is hashed by processes that the launcher forks."""
    launcher = stage.run("often", program("looping", 2, 100, 0.03))
    for name in ("one", "two", "three"):
        stage.checkpoint("often", name)
    out, err = launcher.communicate(timeout=END_S)
    assert (launcher.returncode, out) == (0, undisturbed("looping", 2, 100).removeprefix("ready\n")), err


def test_mpi_is_set_up_as_often_as_one_likes() -> None:
    """MPICH has 256 places for what its end calls, and fills some of them in each of its lives."""
    assert undisturbed("lives", 1, 70) == "done 70\n"


def test_communicators_of_groups_are_counted_on_after_each_checkpoint(stage: Stage, rng: random.Random) -> None:
    """Also after one that fails in the middle: ranks that have made one more than others go on from there."""
    launcher = stage.run("often", program("groups", 4, 400, 0.01))
    for turn in range(3):
        time.sleep(rng.random() / 10)
        with contextlib.suppress(NbcrError):
            stage.checkpoint("often", f"hasty-{turn}", deadline_s=rng.random() / 20)
        time.sleep(rng.random() / 10)
        stage.checkpoint("often", f"saved-{turn}")
    expected = undisturbed("groups", 4, 400).removeprefix("ready\n")
    out, err = launcher.communicate(timeout=END_S)
    assert (launcher.returncode, out) == (0, expected), err
    out, err = stage.nbcr("restart", "saved-2").communicate(timeout=END_S)
    assert out == expected, err


def test_a_restored_job_is_checkpointed_again(stage: Stage, rng: random.Random) -> None:
    expected = undisturbed("outstanding", 2, 150).removeprefix("ready\n")
    launcher = stage.run("first", program("outstanding", 2, 150, 0.03))
    stage.checkpoint("first", "one", leave="killed")
    launcher.communicate(timeout=END_S)
    second = stage.nbcr("restart", "one")
    until(lambda: "first" in dict(jobs.running()))
    stage.checkpoint("first", "two", leave="killed")  # its ranks need not be back yet
    second.communicate(timeout=END_S)
    third = stage.nbcr("restart", "two")
    out, err = third.communicate(timeout=END_S)
    assert (third.returncode, out) == (0, expected), err


def test_a_message_whose_receive_was_interrupted_is_received_again(stage: Stage, rng: random.Random) -> None:
    launcher = stage.run("cut", program("interrupted", 2, 60, 0.04))
    time.sleep(rng.random() / 2)
    stage.checkpoint("cut", "saved")
    out, err = launcher.communicate(timeout=END_S)
    assert (launcher.returncode, out) == (0, "done 60\n"), err
    out, err = stage.nbcr("restart", "saved").communicate(timeout=END_S)
    assert out == "done 60\n", err


@pytest.mark.long
def test_a_job_is_brought_back_from_a_bucket(stage: Stage, tmp_path: Path, s3: str) -> None:  # noqa: F811
    expected = undisturbed("ring", 2, 150).removeprefix("ready\n")
    launcher = stage.run("job", program("ring", 2, 150, 0.02))
    stage.checkpoint("job", "one", leave="killed")
    launcher.communicate(timeout=END_S)
    pushed = stage.nbcr("push", s3, "one")
    assert "sent     one" in pushed.communicate(timeout=END_S)[0]
    stage.store.remove(stage.store.find("one"))
    other = ["--store", str(tmp_path / "elsewhere")]
    pulled = stage.nbcr("pull", s3, "one", *other)
    assert "fetched  one" in pulled.communicate(timeout=END_S)[0]
    out, err = stage.nbcr("restart", "one", *other).communicate(timeout=END_S)
    assert out == expected, err
