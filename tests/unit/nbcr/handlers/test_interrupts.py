"""Interrupts are put off, let in where something is waited for, and never lost."""

from __future__ import annotations

import dis
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import pytest

import nbcr
from nbcr.handlers import registry, sections
from nbcr.handlers.deadline import Deadline
from nbcr.handlers.interrupts import uninterrupted, waiting
from nbcr.handlers.sections import all_left
from nbcr.session import inprocess, service
from nbcr.store import Store

WAIT_S = 20.0


def interrupt() -> None:
    signal.raise_signal(signal.SIGINT)


def test_one_comes_at_the_end_of_the_outermost_block() -> None:
    log: list[int] = []

    def work() -> None:
        with uninterrupted(but_in_waits=True):
            with uninterrupted():
                interrupt()
                log.append(1)
            log.append(2)

    usual = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        work()
    assert log == [1, 2]
    assert signal.getsignal(signal.SIGINT) is usual


def test_one_comes_where_something_is_waited_for() -> None:
    log: list[int] = []
    with uninterrupted(but_in_waits=True):
        with pytest.raises(KeyboardInterrupt), waiting():
            interrupt()
        interrupt()
        with pytest.raises(KeyboardInterrupt), waiting():
            log.append(1)  # it was put off just before
        with pytest.raises(KeyboardInterrupt), waiting():
            wait_firmly(log)
    assert log == [2]


def wait_firmly(log: list[int]) -> None:
    with uninterrupted(), waiting():  # the innermost block decides
        interrupt()
        log.append(2)
    log.append(3)


def test_one_comes_to_what_would_never_end() -> None:
    log: list[int] = []

    def work() -> None:
        with uninterrupted(unless=lambda: bool(log)):
            interrupt()
            log.append(1)
            interrupt()
            log.append(2)

    with pytest.raises(KeyboardInterrupt):
        work()
    assert log == [1]


def test_an_error_does_not_swallow_one() -> None:
    def work() -> None:
        with uninterrupted():
            interrupt()
            raise ValueError("meanwhile")

    with pytest.raises(KeyboardInterrupt) as caught:
        work()
    assert isinstance(caught.value.__context__, ValueError)


def test_a_child_that_another_thread_forks_meanwhile_hears_them() -> None:
    statuses: list[int] = []

    def fork() -> None:
        pid = os.fork()
        if pid == 0:
            try:
                interrupt()
            except KeyboardInterrupt:
                os._exit(0)
            os._exit(1)
        statuses.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))

    with uninterrupted():
        thread = threading.Thread(target=fork)
        thread.start()
        thread.join(WAIT_S)
    assert statuses == [0]


# --- at every place ----------------------------------------------------------------------------------------

OURS = str(Path(nbcr.__file__).parent)
LOOKS = ("CALL", "CALL_FUNCTION_EX", "CALL_KW", "RESUME", "JUMP_BACKWARD")  # after these Python looks for signals
Where = tuple[str, int]


class Tracer:
    """Notes where in nbcr the interpreter looks for signals, and interrupts the first time it is at `target`."""

    def __init__(self, target: Where | None = None) -> None:
        self.seen: dict[Where, None] = {}
        self.hit = False
        self._target = target
        self._before: dict[FrameType, str] = {}
        self._operations: dict[CodeType, dict[int, str]] = {}

    def __enter__(self) -> Tracer:
        self._outside = sys.gettrace()
        sys.settrace(self._call)
        return self

    def __exit__(self, *exc: object) -> None:
        sys.settrace(self._outside)

    def _call(self, frame: FrameType, event: str, arg: object) -> Any:
        if not frame.f_code.co_filename.startswith(OURS):
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        return self._step

    def _step(self, frame: FrameType, event: str, arg: object) -> Any:
        if event == "return":
            self._before.pop(frame, None)
        elif event == "opcode":
            before = self._before.get(frame)
            self._before[frame] = self._operation(frame.f_code, frame.f_lasti)
            if before in LOOKS:
                self._at((frame.f_code.co_qualname, frame.f_lasti), frame)
        return self._step

    def _operation(self, code: CodeType, offset: int) -> str:
        if code not in self._operations:
            self._operations[code] = {step.offset: step.opname for step in dis.get_instructions(code)}
        return self._operations[code].get(offset, "")

    def _at(self, where: Where, frame: FrameType) -> None:
        self.seen[where] = None
        if where == self._target and not self.hit:
            self.hit = True
            handler = signal.getsignal(signal.SIGINT)
            assert callable(handler)
            handler(signal.SIGINT, frame)


class Balance(nbcr.Handler):
    """Goes up by one before an image, and down after it."""

    def __init__(self, context: Any) -> None:
        self.context = context
        self.value = 0

    def checkpoint(self, request: nbcr.Request) -> None:
        self.value += 1

    def continue_(self) -> None:
        self.value -= 1

    def aborted(self) -> None:
        self.value -= 1


@pytest.fixture
def balances(trees: pytest.MonkeyPatch) -> Iterator[list[Balance]]:
    before = set(registry)
    found = [Balance("thread"), Balance("signal")]
    for handler in found:
        nbcr.on_checkpoint(handler)
    yield found
    service.stop()
    for handler in set(registry) - before:
        registry.remove(handler)


@pytest.mark.parametrize("share", [0.04, pytest.param(0.5, marks=pytest.mark.long)])
def test_one_at_any_place_leaves_everything_as_it_was(
    store: Store, balances: list[Balance], share: float, rng: random.Random
) -> None:
    nbcr.checkpoint("first", wait=True)
    with Tracer() as tracer:
        nbcr.checkpoint("c").wait(WAIT_S)
    places = list(tracer.seen)
    assert len(places) > 100
    for place in rng.sample(places, round(len(places) * share)):
        raised: BaseException | None = None  # kept, as IPython does: its frames must not matter
        try:
            with Tracer(place):
                nbcr.checkpoint("c", force=True)
        except KeyboardInterrupt as interrupt:
            raised = interrupt
        until(lambda: not any(balance.value for balance in balances), f"{place}: {raised!r}")
        assert not sections._gate.closed, place
        until(lambda: not inprocess.writing(), str(place))
        with all_left(Deadline(0), lambda holders: None):
            pass
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler, place
    nbcr.checkpoint("last").wait(WAIT_S)


def until(condition: Any, what: str) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.005)
