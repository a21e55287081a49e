"""Dumps at moments nobody chose: in the middle of a computation, of a thread's birth, of a child's end."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.engine.harness import Engine, Life
from tests.subjects.catalogue import BY_NAME, Subject
from tests.support import User, wait_for_end

Begin = Callable[[Subject, User], tuple[Engine, Life]]
RUNNING = [
    "threads/compute", "threads/churn", "cpu/registers", "cpu/vectors", "timers/ticking", "trees/churn",
    "memory/forked_or_not", "io_uring/busy", "io_uring/busy:0x3000",
]  # fmt: skip


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
        engine.must("dump", life.pid, image, "--leave", "killed")
        assert wait_for_end(life.pid, 10), f"the dumped process of generation {generation} lives on"
        life.processes.reap(life.pid)
        life.continue_as(engine.restore(image))
        shutil.rmtree(image)
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


LIVES = ["py/generations", "threads/churn", "py/executor"]  # threads and joins in each; a pool of processes


@pytest.mark.parametrize("name", LIVES[:1])
def test_ten_generations_of_one_life(name: str, begin: Begin, as_user: User, folder: Path, rng: random.Random) -> None:
    """A restore of a restore of …, each at a random moment: nothing of one life piles up in the next."""
    many_generations(name, begin, as_user, folder, rng, 10)


@pytest.mark.long
@pytest.mark.timeout(1800)  # two commands a generation: a quarter of an hour on a crowded machine
@pytest.mark.parametrize("name", LIVES)
def test_a_hundred_generations_of_one_life(
    name: str, begin: Begin, ourselves: User, folder: Path, rng: random.Random
) -> None:
    many_generations(name, begin, ourselves, folder, rng, 100)


def many_generations(name: str, begin: Begin, user: User, folder: Path, rng: random.Random, count: int) -> None:
    engine, life = begin(BY_NAME[name], user)
    let_run(life, rng)
    before = belongings(life.pid)
    generations(life, engine, rng, folder, count)
    grown = {what: (before[what], now) for what, now in belongings(life.pid).items() if now > before[what] + 20}
    assert not grown, f"more in the last generation than in the first: {grown}"
    life.expect_pass()


def belongings(pid: int) -> dict[str, int]:
    """How many of each a process has; of mappings the threads' stacks make some come and go."""
    process = Path(f"/proc/{pid}")
    maps = (process / "maps").read_text().splitlines()
    return {
        "descriptors": len(list((process / "fd").iterdir())),
        "named mappings": sum("/" in line for line in maps),
        "deleted mappings": sum("(deleted)" in line for line in maps),
    }
