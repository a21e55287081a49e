"""Dumps at moments nobody chose: in the middle of a computation, of a thread's birth, of a child's end."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.engine.harness import Engine, Life
from tests.subjects.catalogue import BY_NAME, Subject
from tests.support import User, wait_for_end

Begin = Callable[[Subject, User], tuple[Engine, Life]]
RUNNING = ["threads/compute", "threads/churn", "cpu/registers", "cpu/vectors", "timers/ticking", "trees/churn"]


def let_run(life: Life, rng: random.Random, at_most_s: float = 0.05) -> None:
    """Let it run for a random time; the wait ends at once if the subject does."""
    ended = wait_for_end(life.pid, rng.random() * at_most_s)
    assert not ended, f"{life.subject.name} ended: {life.verdict()}"


def dump_often(life: Life, engine: Engine, rng: random.Random, times: int) -> None:
    for _ in range(times):
        let_run(life, rng)
        image = life.folder / "image"
        engine.must("dump", life.pid, image, "--leave", "running")
        engine.must("verify", image)
        for path in sorted(image.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        image.rmdir()


@pytest.mark.parametrize("name", RUNNING)
def test_dumps_of_a_running_subject_do_not_disturb_it(
    name: str, begin: Begin, ourselves: User, rng: random.Random
) -> None:
    engine, life = begin(BY_NAME[name], ourselves)
    dump_often(life, engine, rng, 4)
    life.expect_pass()


@pytest.mark.long
@pytest.mark.parametrize("part", range(4))
@pytest.mark.parametrize("name", RUNNING)
def test_many_dumps_of_a_running_subject_do_not_disturb_it(
    name: str, part: int, begin: Begin, ourselves: User, rng: random.Random
) -> None:
    engine, life = begin(BY_NAME[name], ourselves)
    dump_often(life, engine, rng, 40)
    life.expect_pass()


def generations(life: Life, engine: Engine, rng: random.Random, folder: Path, count: int) -> None:
    for generation in range(count):
        let_run(life, rng)
        image = folder / f"image{generation}"
        engine.dump(life.pid, image)
        assert wait_for_end(life.pid, 10), "the dumped process lives on"
        life.processes.reap(life.pid)
        life.continue_as(engine.restore(image))
    let_run(life, rng)


@pytest.mark.parametrize("name", RUNNING)
def test_restored_at_a_random_moment(
    name: str, begin: Begin, ourselves: User, folder: Path, rng: random.Random
) -> None:
    engine, life = begin(BY_NAME[name], ourselves)
    generations(life, engine, rng, folder, 2)
    life.expect_pass()


@pytest.mark.long
@pytest.mark.parametrize("part", range(4))
@pytest.mark.parametrize("name", RUNNING)
def test_twenty_five_generations(
    name: str, part: int, begin: Begin, ourselves: User, folder: Path, rng: random.Random
) -> None:
    engine, life = begin(BY_NAME[name], ourselves)
    generations(life, engine, rng, folder, 25)
    life.expect_pass()
