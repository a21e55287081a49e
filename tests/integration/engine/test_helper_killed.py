"""The helper is killed at every step it makes in a tracee: the program goes on with its own registers.

Not at random moments, which mostly fall between the steps, but before and after each ptrace(2) call in turn.
"""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.engine.harness import Engine, Life
from tests.subjects.catalogue import BY_NAME, Subject
from tests.support import User

Begin = Callable[[Subject, User], tuple[Engine, Life]]

# Counts ptrace calls; kills itself before (even) or after (odd) the one whose turn it is, or prints their number.
DRIVER = """
import os, signal, sys
from kernel_backend.host import libc
from kernel_backend.engine import dump

pid, folder, turn = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
real, made = libc.ptrace, 0

def counted(*words):
    global made
    if turn == 2 * made:
        os.kill(os.getpid(), signal.SIGKILL)
    result = real(*words)
    if turn == 2 * made + 1:
        os.kill(os.getpid(), signal.SIGKILL)
    made += 1
    return result

libc.ptrace = counted
dump(pid, folder, durable=False)
print(made)
"""


def dump_until(life: Life, turn: int) -> subprocess.CompletedProcess[str]:
    """Dump the subject, killing the helper at `turn` (never, when it is negative)."""
    image = life.folder / "image"
    argv = life.user.command([sys.executable, "-c", DRIVER, str(life.pid), str(image), str(turn)], cwd=life.folder)
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False)
    for left in life.folder.glob("*image*"):
        shutil.rmtree(left)
    return done


def steps_of(life: Life) -> int:
    """How many moments a dump of this subject has at which its helper can be killed."""
    done = dump_until(life, -1)
    assert done.returncode == 0, done.stderr
    return 2 * int(done.stdout)


def sweep(life: Life, turns: list[int]) -> None:
    for turn in turns:
        done = dump_until(life, turn)
        # The number of calls varies a little with what the threads are at, so a late turn may not come at all.
        assert done.returncode in (-signal.SIGKILL, 0), f"turn {turn}: {done.stderr}"
    steps_of(life)  # and it can still be dumped
    life.expect_pass()


@pytest.mark.parametrize("name", ["cpu/registers", "threads/compute"])
def test_killed_at_some_steps(name: str, begin: Begin, ourselves: User, rng: random.Random, folder: Path) -> None:
    _, life = begin(BY_NAME[name], ourselves)
    steps = steps_of(life)
    sweep(life, sorted(rng.sample(range(steps), min(steps, 40))))


@pytest.mark.long
@pytest.mark.parametrize("name", ["cpu/registers", "cpu/vectors", "threads/compute", "signals/handlers"])
def test_killed_at_every_step(name: str, begin: Begin, ourselves: User, folder: Path) -> None:
    _, life = begin(BY_NAME[name], ourselves)
    sweep(life, list(range(steps_of(life))))
