"""The order of handlers in real lives: layers, contexts, phases, in the life that goes on and in restored ones."""

from __future__ import annotations

import random
import signal
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest

from tests.integration.handlers.conftest import Stage, until

LAYERS = ("APPLICATION", "MPI", "TRANSPORT")  # top to bottom
PER_ROUND_S = 6.0
LONG = (pytest.mark.long, pytest.mark.timeout(1500))
FOR_AN_HOUR = (pytest.mark.long, pytest.mark.exhaustive, pytest.mark.timeout(5400))

# What seeds 002 and 004 demand, written down once more. Handlers 1 and 3 of each layer are classes, which hear of
# RESTART_PRE, 2 is a generator.
THREAD = [f"{layer}-thread-{n}" for layer in LAYERS for n in (3, 2, 1)]
SIGNAL = [f"{layer}-signal-{n}" for layer in LAYERS for n in (3, 2, 1)]
DOWN = [(who, "CHECKPOINT") for who in (*THREAD, *SIGNAL)]
CONTINUE = [(who, "CONTINUE") for who in (*reversed(SIGNAL), *reversed(THREAD))]
RESTART = [(who, "RESTART_PRE") for who in (*SIGNAL, *THREAD) if not who.endswith("2")] + [
    (who, "RESTART") for who in (*reversed(SIGNAL), *reversed(THREAD))
]


@pytest.mark.parametrize("count", [12, pytest.param(200, marks=LONG)])
def test_every_order_is_the_specified_one(stage: Stage, count: int, rng: random.Random) -> None:
    program = stage.start("orders.py", count, rng.randrange(2**31))
    assert program.wait(60 + PER_ROUND_S * count) == 0, stage.output()
    lines = stage.lines()
    assert lines[-1] == {"finished": 1000}
    rounds = list(passages(lines))
    assert [(n, outcome) for n, outcome, _ in rounds] == [
        (n, outcome) for n in range(count) for outcome in ("CONTINUE", "RESTART")[: 1 + n % 2]
    ]
    for n, outcome, steps in rounds:
        wanted = DOWN + CONTINUE if outcome == "CONTINUE" else RESTART
        assert [(step["who"], step["state"]) for step in steps] == wanted, (n, outcome)
        for step in steps:
            assert step["thread"] == ("nbcr-checkpoint" if "-thread-" in step["who"] else "MainThread"), step
            assert step["whole"], step


def passages(lines: list[dict[str, Any]]) -> Iterator[tuple[int, str, list[dict[str, Any]]]]:
    """Number, outcome and steps of each passage, in order."""
    marks = [at for at, line in enumerate(lines) if "who" not in line]
    for begin, end in pairwise(marks):
        if "end" in lines[end]:
            assert lines[end]["whole"], lines[end]
            yield lines[end]["end"], lines[end]["outcome"], lines[begin + 1 : end]
        else:
            assert end == begin + 1, lines[begin : end + 1]  # between two passages no handler is told anything


@pytest.mark.parametrize(("phase", "usable"), [("restart", False), ("restart_pre", True)])
def test_restart_pre_keeps_an_upper_layer_from_closing_a_number_used_again(
    stage: Stage, phase: str, usable: bool
) -> None:
    """Seed 004's bug, which is there when the upper layer closes in RESTART, and gone when in RESTART_PRE."""
    program = stage.start("stale.py", phase)
    assert program.wait(60) == 0, stage.output()
    assert stage.lines() == [{"lower_is_usable": usable, "same_number": True}]


@pytest.mark.either("stage")
@pytest.mark.parametrize("requests", [100, pytest.param(10_000, marks=FOR_AN_HOUR)])
def test_a_signal_that_asks_never_meets_a_lock(stage: Stage, requests: int) -> None:
    """Signals arrive while malloc's and logging's locks are held; each sends all handlers down and up."""
    program = stage.start("signals.py", requests)
    # The program itself ends with an error when a request is not answered; how quickly all are is the host's affair.
    assert program.wait(60 + requests * 0.5) == 0, stage.output()
    (line,) = stage.lines()
    assert line["served"] >= requests
    assert line["logged"] > 0


def test_checkpoints_asked_for_by_signal_are_taken(stage: Stage) -> None:
    program = stage.start("asked.py", "SIGUSR2")
    until(stage, "ready", program)
    for n in range(1, 4):
        program.send_signal(signal.SIGUSR2)
        until(stage, "published", program, n)
    program.send_signal(signal.SIGTERM)
    assert program.wait(30) == -signal.SIGTERM, stage.output()
    assert [line["outcome"] for line in stage.lines() if "outcome" in line] == ["CONTINUE"] * 3
