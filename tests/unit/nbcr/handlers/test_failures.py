"""Handlers that raise or are late: the checkpoint is aborted, the error says who, where, when, and the program goes on.

With a real helper and a small real component; the image is all that is missing.
"""

from __future__ import annotations

import hashlib
import logging
import re
import signal as signals
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import nbcr
from nbcr.errors import HandlerFailed, HandlersFailed, Held, InCriticalSection, NbcrError, from_wire, to_wire
from nbcr.handlers import registry
from nbcr.session import service
from nbcr.store import Store

WAIT_S = 20.0
HERE = Path(__file__).name


@pytest.fixture(autouse=True)
def _component(trees: pytest.MonkeyPatch) -> Iterator[None]:
    before = set(registry)
    yield
    service.stop()
    for handler in set(registry) - before:
        registry.remove(handler)


@pytest.fixture
def log() -> list[str]:
    return []


def noting(log: list[str], who: str, layer: nbcr.Layer = nbcr.Layer.APPLICATION, context: Any = "thread") -> None:
    @nbcr.on_checkpoint(layer=layer, context=context)
    def span(request: nbcr.Request) -> Iterator[None]:
        log.append(f"{who} CHECKPOINT")
        outcome = yield
        log.append(f"{who} {outcome}")


def line_of(text: str) -> int:
    return next(n for n, line in enumerate(Path(__file__).read_text().splitlines(), 1) if text in line)


def test_a_generator_that_raises(store: Store, log: list[str]) -> None:
    noting(log, "top")
    noting(log, "main", context="signal")

    @nbcr.on_checkpoint(layer=nbcr.Layer.MPI)
    def refuses(request: nbcr.Request) -> Iterator[None]:
        len(re.compile("a").sub("b", 1))  # type: ignore[call-overload]  # raises in a library
        yield

    with pytest.raises(HandlerFailed) as caught:
        nbcr.checkpoint("never")
    error = caught.value
    assert "refuses" in error.handler
    assert error.place == f"{__file__}:{line_of('# raises in a library')}"
    assert error.phase == "CHECKPOINT"
    assert 0 <= error.elapsed_s < WAIT_S
    assert "TypeError" in str(error)
    assert log == ["top CHECKPOINT", "top Outcome.ABORTED"]
    assert store.entries() == []
    nbcr.remove_handler(refuses)
    log.clear()
    nbcr.checkpoint("now").wait(WAIT_S)
    assert log == ["top CHECKPOINT", "main CHECKPOINT", "main Outcome.CONTINUE", "top Outcome.CONTINUE"]


def test_the_error_travels_with_its_facts() -> None:
    error = HandlerFailed.by("h", "f.py:3", "CHECKPOINT", 1.5, ValueError("x"))
    back = from_wire(to_wire(error))
    assert isinstance(back, HandlerFailed)
    assert (back.handler, back.place, back.phase, back.elapsed_s) == ("h", "f.py:3", "CHECKPOINT", 1.5)
    assert str(back) == str(error)


def test_one_that_is_late_is_abandoned(store: Store, log: list[str]) -> None:
    go_on, ended = threading.Event(), threading.Event()
    noting(log, "top")

    @nbcr.on_checkpoint(layer=nbcr.Layer.MPI)
    def hangs(request: nbcr.Request) -> Iterator[None]:
        go_on.wait(WAIT_S)  # it hangs here
        outcome = yield
        log.append(f"hangs {outcome}")
        ended.set()

    begun = time.monotonic()
    with pytest.raises(HandlerFailed, match="is late") as caught:
        nbcr.checkpoint("never", deadline_s=0.3)
    assert time.monotonic() - begun < WAIT_S / 2
    assert caught.value.place == f"{__file__}:{line_of('# it hangs here')}"
    assert caught.value.elapsed_s >= 0.2
    assert log == ["top CHECKPOINT", "top Outcome.ABORTED"]
    nbcr.remove_handler(hangs)
    nbcr.checkpoint("while it still hangs").wait(WAIT_S)
    go_on.set()
    assert ended.wait(WAIT_S)
    assert log[-1] == "hangs Outcome.ABORTED"  # told when it came back, so that it can undo what it began


def test_one_that_is_late_hears_nothing_more_until_it_has_ended(store: Store, log: list[str]) -> None:
    go_on = threading.Event()
    times = iter(range(1, 100))

    @nbcr.on_checkpoint
    def hangs(request: nbcr.Request) -> Iterator[None]:
        number = next(times)
        log.append(f"{number} begins")
        go_on.wait(WAIT_S)  # and hangs for ever
        outcome = yield
        log.append(f"{number} {outcome.value}")

    for _ in range(3):
        with pytest.raises(HandlerFailed, match="is late") as caught:
            nbcr.checkpoint("never", deadline_s=0.5)
        assert caught.value.place == f"{__file__}:{line_of('# and hangs for ever')}"
    assert "earlier call" in str(caught.value)
    assert log == ["1 begins"]
    assert len([thread for thread in threading.enumerate() if thread.name == "nbcr-late"]) == 1

    @nbcr.on_checkpoint
    def before(request: nbcr.Request) -> Iterator[None]:
        go_on.set()
        yield

    nbcr.checkpoint("now").wait(WAIT_S)
    assert log == ["1 begins", "1 ABORTED", "2 begins", "2 CONTINUE"]


def test_one_that_is_late_afterwards_does_not_spoil_the_order_of_the_others(store: Store, log: list[str]) -> None:
    go_on = threading.Event()

    def slow(who: str, layer: nbcr.Layer, wait: Callable[[], Any]) -> None:
        @nbcr.on_checkpoint(layer=layer)
        def span(request: nbcr.Request) -> Iterator[None]:
            yield
            log.append(f"{who} begins")
            wait()
            log.append(f"{who} ends")

    slow("top", nbcr.Layer.APPLICATION, lambda: time.sleep(0.1))
    slow("middle", nbcr.Layer.MPI, lambda: time.sleep(0.1))
    slow("late", nbcr.Layer.TRANSPORT, lambda: go_on.wait(WAIT_S))
    with pytest.raises(HandlersFailed) as caught:
        nbcr.checkpoint("taken", wait=True, deadline_s=2)
    (error,) = caught.value.exceptions
    assert f"{__file__}:" in error.__notes__[0]
    assert "had not ended" in str(error)
    assert log == ["late begins", "middle begins", "middle ends", "top begins", "top ends"]
    go_on.set()


def test_one_that_had_no_time_left_is_not_blamed_alone(store: Store) -> None:
    @nbcr.on_checkpoint(layer=nbcr.Layer.MPI)
    def quick(request: nbcr.Request) -> Iterator[None]:
        done.wait(WAIT_S)
        yield

    @nbcr.on_checkpoint
    def slow(request: nbcr.Request) -> Iterator[None]:
        time.sleep(1.8)
        yield

    done = threading.Event()
    with pytest.raises(HandlerFailed, match=r"quick.*of the deadline of 3 s others had taken [12]\.\d s"):
        nbcr.checkpoint("never", deadline_s=3)
    done.set()


def test_one_that_is_late_in_the_main_thread_when_that_asks(store: Store, log: list[str]) -> None:
    noting(log, "first", nbcr.Layer.MPI, "signal")

    @nbcr.on_checkpoint(layer=nbcr.Layer.TRANSPORT, context="signal")
    def slow(request: nbcr.Request) -> Iterator[None]:
        time.sleep(0.4)
        outcome = yield
        log.append(f"slow {outcome}")

    with pytest.raises(HandlerFailed, match=r"slow.*is late"):
        nbcr.checkpoint("never", deadline_s=0.2)
    assert log == ["first CHECKPOINT", "slow Outcome.ABORTED", "first Outcome.ABORTED"]


def in_another_thread(call: Callable[[], Any]) -> Callable[[], Any]:
    """Begin `call` in a thread; the result waits for its end and gives what it returned or raised."""
    result: list[Any] = []

    def work() -> None:
        try:
            result.append(call())
        except Exception as error:
            result.append(error)

    thread = threading.Thread(target=work)
    thread.start()

    def end() -> Any:
        thread.join(WAIT_S)
        return result[0]

    return end


def test_the_main_thread_is_interrupted_wherever_it_waits(store: Store, log: list[str]) -> None:
    noting(log, "main", context="signal")
    lock = threading.Lock()
    lock.acquire()
    for number, wait in enumerate((lambda: lock.acquire(timeout=1), lambda: time.sleep(1), lambda: busy(1))):
        end = in_another_thread(lambda number=number: nbcr.checkpoint(f"c{number}").outcome)  # type: ignore[misc]
        wait()
        assert end() is nbcr.Outcome.CONTINUE
    assert log == ["main CHECKPOINT", "main Outcome.CONTINUE"] * 3


def busy(seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


def test_a_main_thread_that_does_not_come_is_named(store: Store, log: list[str]) -> None:
    noting(log, "thread")
    noting(log, "main", context="signal")
    end = in_another_thread(lambda: nbcr.checkpoint("never", deadline_s=0.3))
    begun = time.monotonic()
    while time.monotonic() - begun < 1.0:
        hashlib.pbkdf2_hmac("sha256", b"a", b"b", 6_000_000)  # the main thread is here, in C
    error = end()
    assert isinstance(error, HandlerFailed), error
    assert "main thread" in str(error)
    assert f"{HERE}:{line_of('# the main thread is here, in C')}" in str(error)
    assert log == ["thread CHECKPOINT", "thread Outcome.ABORTED"]
    nbcr.checkpoint("now").wait(WAIT_S)
    assert log[2:] == ["thread CHECKPOINT", "main CHECKPOINT", "main Outcome.CONTINUE", "thread Outcome.CONTINUE"]


def test_an_interrupt_of_the_main_thread_is_put_off_while_it_is_borrowed(store: Store, log: list[str]) -> None:
    borrowed = threading.Event()

    @nbcr.on_checkpoint(context="signal")
    def main(request: nbcr.Request) -> Iterator[None]:
        borrowed.set()
        outcome = yield
        log.append(str(outcome))

    def interrupt() -> None:
        assert borrowed.wait(WAIT_S)
        signals.pthread_kill(threading.main_thread().ident or 0, signals.SIGINT)

    ready = threading.Event()

    def ask() -> nbcr.Outcome:
        assert ready.wait(WAIT_S)
        return nbcr.checkpoint("c").outcome

    def sleep() -> None:
        ready.set()  # not before: the interrupt may come at once
        time.sleep(WAIT_S)

    end_interrupt = in_another_thread(interrupt)
    end = in_another_thread(ask)
    with pytest.raises(KeyboardInterrupt):
        sleep()
    assert end() is nbcr.Outcome.CONTINUE
    assert end_interrupt() is None
    assert log == ["Outcome.CONTINUE"]


@pytest.mark.parametrize("who_asks", ["main", "other"])
def test_an_interrupt_ends_a_late_handler_that_has_the_main_thread(store: Store, log: list[str], who_asks: str) -> None:
    noting(log, "first", context="signal")
    begun, ended = threading.Event(), threading.Event()

    @nbcr.on_checkpoint(layer=nbcr.Layer.TRANSPORT, context="signal")
    def hangs(request: nbcr.Request) -> Iterator[None]:
        begun.set()
        try:
            while True:
                time.sleep(0.01)
            yield
        finally:
            ended.set()

    def ask() -> Any:
        with pytest.raises(HandlerFailed, match="hangs") as caught:
            nbcr.checkpoint("never", deadline_s=0.3)
        return caught.value

    def interrupt() -> None:
        assert begun.wait(WAIT_S)
        signals.pthread_kill(threading.main_thread().ident or 0, signals.SIGINT)  # put off: it is not late yet
        while not ended.wait(1.0):
            signals.pthread_kill(threading.main_thread().ident or 0, signals.SIGINT)

    end_interrupt = in_another_thread(interrupt)
    if who_asks == "main":
        with pytest.raises(KeyboardInterrupt):  # the one put off
            ask()
    else:
        end = in_another_thread(ask)
        with pytest.raises(KeyboardInterrupt):
            end()
        assert isinstance(end(), HandlerFailed)
    assert end_interrupt() is None
    assert log == ["first CHECKPOINT", "first Outcome.ABORTED"]


@pytest.mark.parametrize("context", ["thread", "signal"])
def test_failures_after_the_image_stop_nobody_and_come_together(store: Store, log: list[str], context: Any) -> None:
    noting(log, "top", context=context)

    class Breaks(nbcr.Handler):
        def continue_(self) -> None:
            raise ValueError("first")

    breaks = Breaks()
    breaks.context = context
    nbcr.on_checkpoint(breaks)

    @nbcr.on_checkpoint(layer=nbcr.Layer.MPI, context=context)
    def twice(request: nbcr.Request) -> Iterator[None]:
        yield
        yield

    with pytest.raises(HandlersFailed) as caught:
        nbcr.checkpoint("taken", wait=True)
    assert isinstance(caught.value, ExceptionGroup)
    assert [type(error) for error in caught.value.exceptions] == [RuntimeError, ValueError]
    assert caught.value.result.outcome is nbcr.Outcome.CONTINUE
    assert "twice" in caught.value.exceptions[0].__notes__[0]
    assert log == ["top CHECKPOINT", "top Outcome.CONTINUE"]
    assert [entry.name for entry in store.entries()] == ["taken"]


def test_who_holds_it_up_is_told_at_once(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    inside, leave = threading.Event(), threading.Event()

    def work() -> None:
        with nbcr.critical_section("db commit"):
            inside.set()
            leave.wait(WAIT_S)

    worker = threading.Thread(target=work, name="committer")
    worker.start()
    assert inside.wait(WAIT_S)
    with pytest.raises(Held, match=r"'db commit' \(thread committer, .*test_failures.py:\d+, for"):
        nbcr.checkpoint("never", deadline_s=0.1)
    told: list[str] = []

    def tell(holders: list[Any]) -> None:
        told.extend(map(str, holders))
        leave.set()

    nbcr.session.checkpoint("c", on_wait=tell).wait(WAIT_S)  # type: ignore[attr-defined]
    worker.join(WAIT_S)
    assert len(told) == 1
    assert "db commit" in told[0]
    records = [record for record in caplog.records if record.name == "nbcr" and record.levelno == logging.WARNING]
    assert len(records) == 1  # the first request had nobody else to tell
    assert "db commit" in records[0].getMessage()


def test_a_handler_cannot_ask_for_a_checkpoint(store: Store, log: list[str]) -> None:
    @nbcr.on_checkpoint
    def asks(request: nbcr.Request) -> Iterator[None]:
        try:
            nbcr.checkpoint("within")
        except NbcrError as error:
            log.append(error.type_name)
        yield

    nbcr.checkpoint("c").wait(WAIT_S)
    assert log == ["InCriticalSection"]


def test_the_programs_own_signals_meet_no_gate_in_the_thread_that_asks(store: Store, log: list[str]) -> None:
    """What the main thread interrupts is its own checkpoint: waiting for that to end would be for ever."""

    def tick(number: int, frame: object) -> None:
        with nbcr.critical_section("tick"):
            log.append("tick")
        with pytest.raises(InCriticalSection):
            nbcr.checkpoint("within", deadline_s=WAIT_S)
        log.append("refused")

    @nbcr.on_checkpoint
    def sends(request: nbcr.Request) -> Iterator[None]:
        signals.pthread_kill(threading.main_thread().ident or 0, signals.SIGALRM)
        while not log:
            time.sleep(0.01)
        yield

    before = signals.signal(signals.SIGALRM, tick)
    try:
        nbcr.checkpoint("c").wait(WAIT_S)
    finally:
        signals.signal(signals.SIGALRM, before)
    assert log == ["tick", "refused"]


def test_what_is_no_handler_is_refused() -> None:
    with pytest.raises(TypeError, match="generator"):
        nbcr.on_checkpoint(lambda request: None)
    with pytest.raises(ValueError, match="context"):
        nbcr.on_checkpoint(context="fork")(test_what_is_no_handler_is_refused)  # type: ignore[arg-type]


def test_any_object_with_some_of_the_methods_will_do(store: Store, log: list[str]) -> None:
    class Pool:
        layer = nbcr.Layer.MPI

        def checkpoint(self, request: nbcr.Request) -> None:
            log.append(f"{request.name} {threading.current_thread().name}")

    pool = Pool()
    assert nbcr.on_checkpoint(pool) is pool
    assert nbcr.on_checkpoint(Pool, layer=nbcr.Layer.APPLICATION) is Pool
    nbcr.checkpoint("c").wait(WAIT_S)
    assert log == ["c nbcr-checkpoint"] * 2
    nbcr.remove_handler(pool)
    nbcr.remove_handler(Pool)
    nbcr.checkpoint("d").wait(WAIT_S)
    assert len(log) == 2


def test_a_cell_run_again_replaces_its_handler(store: Store, log: list[str]) -> None:
    code = """
import nbcr
@nbcr.on_checkpoint
def note(request):
    log.append(version)
    yield
@nbcr.on_checkpoint
class Pool:
    def checkpoint(self, request):
        log.append(version)
def maker():
    @nbcr.on_checkpoint(layer=nbcr.Layer.TRANSPORT)
    def made(request):
        log.append("made")
        yield
maker()
"""
    for version in (1, 2):
        exec(code, {"__name__": "__main__", "log": log, "version": version})
    nbcr.checkpoint("c").wait(WAIT_S)
    assert log == [2, 2, "made", "made"]
    assert "APPLICATION thread  note" in repr(registry)
