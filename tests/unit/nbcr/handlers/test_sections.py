"""Critical sections: who is inside is waited for, and named; who comes later waits at the front."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import nbcr
from nbcr.errors import Held, InCriticalSection
from nbcr.handlers.deadline import Deadline
from nbcr.handlers.sections import Holder, all_left, handling, refuse_inside

WAIT_S = 20.0


@contextlib.contextmanager
def somebody_inside(label: str) -> Iterator[threading.Event]:
    """Another thread in a critical section until the event is set, or the block ends."""
    inside, leave = threading.Event(), threading.Event()

    def work() -> None:
        with nbcr.critical_section(label):
            inside.set()
            leave.wait(WAIT_S)

    thread = threading.Thread(target=work, name="worker")
    thread.start()
    assert inside.wait(WAIT_S)
    try:
        yield leave
    finally:
        leave.set()
        thread.join()


def nobody(holders: list[Holder]) -> None:
    raise AssertionError(holders)


def test_nobody_inside_nobody_to_wait_for() -> None:
    with nbcr.critical_section("over"):
        pass
    with all_left(Deadline(WAIT_S), nobody):
        pass


def test_who_is_inside_is_named_at_once_and_waited_for() -> None:
    told: list[Holder] = []
    with somebody_inside("db commit") as leave:

        def tell(holders: list[Holder]) -> None:
            told.extend(holders)
            leave.set()

        with all_left(Deadline(WAIT_S), tell):
            pass
    (holder,) = told
    assert (holder.label, holder.thread) == ("db commit", "worker")
    assert holder.file == __file__
    assert "with nbcr.critical_section(label):" in Path(__file__).read_text().splitlines()[holder.line - 1]
    assert 0 <= holder.since_s < WAIT_S
    assert f"'db commit' (thread worker, {__file__}:{holder.line}, for" in str(holder)


def test_who_does_not_leave_is_named_in_the_error() -> None:
    with (
        somebody_inside("long one"),
        pytest.raises(Held, match="long one") as caught,
        all_left(Deadline(0.05), lambda _: None),
    ):
        pass
    assert "thread worker" in caught.value.holders[0]
    with nbcr.critical_section(), nbcr.critical_section():  # the gate is open again
        pass


def test_who_comes_later_waits_at_the_front_until_after() -> None:
    log: list[str] = []

    def work() -> None:
        with nbcr.critical_section():
            log.append("inside")

    with all_left(Deadline(WAIT_S), nobody):
        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        threads[0].join(0.1)
        log.append("image")
    for thread in threads:
        thread.join(WAIT_S)
    assert log == ["image", *["inside"] * 4]


def test_trying_does_not_wait() -> None:
    with nbcr.try_critical_section("x") as entered, nbcr.try_critical_section("x") as again:
        assert entered
        assert again
    results: list[bool] = []

    def work() -> None:
        with nbcr.try_critical_section("x") as entered:
            results.append(entered)

    with all_left(Deadline(WAIT_S), nobody):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join(WAIT_S)
    assert results == [False]
    with all_left(Deadline(WAIT_S), nobody):  # nothing is left of it
        pass


def test_handlers_enter_freely() -> None:
    with all_left(Deadline(WAIT_S), nobody), handling(), nbcr.critical_section("mine"):
        pass
    with all_left(Deadline(WAIT_S), nobody):
        pass


def test_asking_inside_is_refused_at_once() -> None:
    with nbcr.critical_section("mine"):
        with pytest.raises(InCriticalSection, match="'mine'"):
            refuse_inside()
        with pytest.raises(InCriticalSection, match="'mine'"):
            nbcr.checkpoint("never")
    with handling(), pytest.raises(InCriticalSection, match="handler"):
        refuse_inside()
    refuse_inside()


def test_a_process_disabled_and_enabled() -> None:
    nbcr.disable_checkpoint("migration")
    nbcr.disable_checkpoint()
    with pytest.raises(InCriticalSection, match="migration"):
        refuse_inside()
    with pytest.raises(Held, match="migration"), all_left(Deadline(0), lambda _: None):
        pass
    nbcr.enable_checkpoint()
    told: list[Holder] = []

    def tell(holders: list[Holder]) -> None:
        told.extend(holders)
        nbcr.enable_checkpoint()

    with all_left(Deadline(WAIT_S), tell):
        pass
    assert [holder.label for holder in told] == ["migration"]
    assert told[0].file == __file__
    with pytest.raises(RuntimeError):
        nbcr.enable_checkpoint()


def test_a_decorator_of_functions_and_coroutines() -> None:
    @nbcr.critical_section("f")
    def function(x: int) -> int:
        with pytest.raises(InCriticalSection):
            refuse_inside()
        return x + 1

    @nbcr.critical_section("c")
    async def coroutine(x: int) -> int:
        with pytest.raises(InCriticalSection):
            refuse_inside()
        return function(x)

    assert function(1) == 2
    assert function.__name__ == "function"
    assert asyncio.run(coroutine(1)) == 2
    refuse_inside()


def test_a_thread_that_died_inside_holds_nobody_up() -> None:
    thread = threading.Thread(target=lambda: nbcr.critical_section("dead").__enter__())
    thread.start()
    thread.join(WAIT_S)
    with all_left(Deadline(WAIT_S), nobody):
        pass


def test_a_forked_child_is_free() -> None:
    with somebody_inside("parent's"), nbcr.critical_section("own"):
        pid = os.fork()
        if pid == 0:
            holders: list[Holder] = []
            with contextlib.suppress(Held), all_left(Deadline(0), holders.extend):
                pass
            os._exit(0 if [h.label for h in holders] == ["own"] else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_gate_and_threads_never_meet_inside() -> None:
    """Four threads enter and leave as fast as they can while the gate closes again and again."""
    inside = [0] * 4
    stop = threading.Event()
    met: list[list[int]] = []

    def work(n: int) -> None:
        section = nbcr.critical_section(f"w{n}")
        while not stop.is_set():
            with section:
                inside[n] = 1
                inside[n] = 0

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(300):
        with all_left(Deadline(WAIT_S), lambda _: None):
            met.extend([list(inside)] if any(inside) else [])
    stop.set()
    for thread in threads:
        thread.join(WAIT_S)
    assert met == []
