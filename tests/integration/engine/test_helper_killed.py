"""The helper is killed at every step it makes in a tracee: nothing is left half done.

Not at random moments, which mostly fall between the steps, but before and after each ptrace(2) call in turn; between
two of them a tracee makes at most one system call, or returns from it. A dumped program goes on with its own registers,
a restored tree runs whole or not at all, and the process that it would have replaced goes on until it is given up.
"""

from __future__ import annotations

import random
import shutil
import signal

import pytest

from tests.integration.engine.faulty import Begin, Stand
from tests.integration.engine.harness import Engine, Life
from tests.integration.engine.test_catalogue import WHO
from tests.subjects.catalogue import BY_NAME
from tests.support import User

A_TREE = "trees/shared_memory"
PARTS = 5  # of a sweep that takes minutes; odd, so that each holds moments before calls and after
DUMPED = ["cpu/registers", "cpu/vectors", "threads/compute", "signals/handlers", A_TREE, "io_uring/busy"]


def dump_until(engine: Engine, life: Life, turn: int) -> int:
    """Dump the subject, killing the helper at `turn` (never, when it is negative); how many turns there are."""
    image = life.folder / "image"
    done = engine.run("dump", life.pid, image, "--leave", "running", fault=f"step:{turn}")
    # The number of calls varies a little with what the threads are at, so a late turn may not come at all.
    assert done.status in ((-signal.SIGKILL, 0) if turn >= 0 else (0,)), f"turn {turn}: {done}"
    for left in life.folder.glob("*image*"):
        shutil.rmtree(left)
    assert engine.warm is not None
    return engine.warm.steps


def begin_warm(name: str, begin: Begin, user: User) -> tuple[Engine, Life, int]:
    """A subject, and how many moments a dump of it has at which its helper can be killed."""
    engine, life = begin(BY_NAME[name], user)
    return engine, life, dump_until(engine, life, -1)


def sweep(engine: Engine, life: Life, turns: list[int]) -> None:
    for turn in turns:
        dump_until(engine, life, turn)
    dump_until(engine, life, -1)  # and it can still be dumped
    life.expect_pass()


@pytest.mark.parametrize("name", ["cpu/registers", "threads/compute", A_TREE])
def test_dump_killed_at_some_steps(name: str, begin: Begin, as_user: User, ourselves: User, rng: random.Random) -> None:
    engine, life, steps = begin_warm(name, begin, rng.choice([ourselves, as_user]))
    sweep(engine, life, sorted(rng.sample(range(steps), min(steps, 30))))


@pytest.mark.long
@pytest.mark.parametrize("who", WHO)
@pytest.mark.parametrize("name", DUMPED)
def test_dump_killed_at_every_step(name: str, who: str, begin: Begin, request: pytest.FixtureRequest) -> None:
    engine, life, steps = begin_warm(name, begin, request.getfixturevalue(who))
    sweep(engine, life, list(range(steps)))


def restore_until(stand: Stand, course: str, turns: list[int]) -> None:
    """From the last turn to the first: the process that is to be replaced goes on where the turns are early, and so
    the one that has gone through them is there in the end, and can say whether it is still what it was."""
    for turn in sorted(turns, reverse=True):
        stand.kill_at_step(course, turn)
    stand.finish()


@pytest.mark.parametrize("course", ["fresh", "in place"])
def test_restore_killed_at_some_steps(
    course: str, begin: Begin, as_user: User, ourselves: User, rng: random.Random
) -> None:
    stand = Stand(begin, BY_NAME[A_TREE], rng.choice([ourselves, as_user]))
    steps = stand.count_steps(course)
    restore_until(stand, course, rng.sample(range(steps), min(steps, 12)))


@pytest.mark.long
@pytest.mark.exhaustive
@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("who", WHO)
@pytest.mark.parametrize("course", ["fresh", "in place"])
@pytest.mark.parametrize("name", ["threads/compute", "trees/zombies", A_TREE])
def test_restore_killed_at_every_step(
    name: str, course: str, who: str, part: int, begin: Begin, request: pytest.FixtureRequest
) -> None:
    stand = Stand(begin, BY_NAME[name], request.getfixturevalue(who))
    restore_until(stand, course, list(range(part, stand.count_steps(course), PARTS)))
