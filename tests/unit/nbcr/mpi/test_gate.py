"""Who is inside MPI is seen on the threads' stacks; what was reported as begun may begin, and nothing else."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest

from nbcr.mpi.gate import Count, Gate, waited

SOON_S = 30.0


@pytest.fixture
def gate() -> Iterator[Gate]:
    made = Gate()
    yield made
    made.open()


def started(call: Callable[..., object], *args: object) -> threading.Thread:
    thread = threading.Thread(target=call, args=args, daemon=True)
    thread.start()
    return thread


def test_who_polls_stays_out_and_goes_on(gate: Gate) -> None:
    found = threading.Event()
    polls = []

    @gate.matches
    def receive() -> None:
        while not found.wait(0.001):
            if gate.closed:
                gate.stay_out()
            polls.append(gate.closed)

    thread = started(receive)
    assert waited(lambda: gate.matching == 1 and polls, SOON_S)
    assert gate.passing == 0
    gate.lock()
    assert waited(lambda: gate.matching == 0, SOON_S)
    found.set()
    assert thread.is_alive(), "it is at the gate"
    gate.open()
    thread.join(SOON_S)
    assert not thread.is_alive()


def test_a_call_in_another_is_inside(gate: Gate) -> None:
    go, ended = threading.Event(), threading.Event()

    @gate.matches
    def local() -> None:
        if gate.closed:
            gate.stay_out()

    @gate.passes
    def reduce() -> None:
        go.wait(SOON_S)
        local()  # as an operation written in Python does
        ended.set()

    started(reduce)
    assert waited(lambda: gate.passing == 1, SOON_S)
    gate.lock()
    go.set()
    assert ended.wait(SOON_S)
    assert waited(lambda: gate.passing == 0, SOON_S)


def collective(gate: Gate, comm: Count, began: threading.Event) -> Callable[[], None]:
    @gate.passes
    def call() -> None:
        comm._begun += 1
        if gate.alert:
            gate.await_turn(comm)
        began.set()

    return call


def test_a_collective_waits_for_its_target(gate: Gate) -> None:
    comm, began = Count("w", (0, 1), 3), threading.Event()
    gate.hold()
    started(collective(gate, comm, began))
    assert waited(lambda: gate.waiting_for() == ["w"], SOON_S)
    assert gate.report([comm]) == {"w": (3, (0, 1))}
    assert gate.passing == 0
    gate.raise_to({"w": 3})
    assert not began.wait(0.05)
    gate.raise_to({"w": 4})
    assert began.wait(SOON_S)
    assert comm._begun == 4


def test_what_was_reported_begins_at_a_closed_gate(gate: Gate) -> None:
    """Whoever has leave to begin has begun: the launcher counts on it, however late it wakes."""
    comm, began = Count("w", (0, 1), 3), threading.Event()
    gate.hold()
    started(collective(gate, comm, began))
    assert waited(lambda: gate.waiting_for() == ["w"], SOON_S)
    with gate._changed:  # it is told, and does not come to it
        gate.targets["w"] = 4
        assert gate.report([comm]) == {"w": (4, (0, 1))}
        assert gate.passing == 1, "it is certain to begin"
    gate.lock()
    gate.raise_to({})  # wakes it
    assert began.wait(SOON_S)
    late = threading.Event()
    started(collective(gate, comm, late))
    assert waited(lambda: gate.waiting_for() == ["w"], SOON_S)
    assert not late.is_set()
    assert comm._begun == 4
    gate.open()
    assert late.wait(SOON_S)
    assert comm._begun == 5
