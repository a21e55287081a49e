"""Critical sections: who is inside is waited for, and named; who comes later waits at the front."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import functools
import gc
import os
import signal
import threading
import traceback
import weakref
from collections.abc import Iterator
from pathlib import Path

import greenlet
import pytest

import nbcr
from nbcr.errors import Held, InCriticalSection
from nbcr.handlers import sections
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

    section = nbcr.try_critical_section("x")

    def work_twice() -> None:
        with section as outer, section as inner:
            results.extend((outer, inner))
        with nbcr.critical_section():  # waits: what was refused twice was left twice
            results.append(True)

    with all_left(Deadline(WAIT_S), nobody):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join(WAIT_S)
        twice = threading.Thread(target=work_twice)
        twice.start()
        twice.join(0.1)
    twice.join(WAIT_S)
    assert results == [False, False, False, True]
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


def test_a_decorated_function_is_named_itself() -> None:
    inside, leave = threading.Event(), threading.Event()

    @nbcr.critical_section("f")
    def held() -> None:
        inside.set()
        leave.wait(WAIT_S)

    thread = threading.Thread(target=held)
    thread.start()
    assert inside.wait(WAIT_S)
    with pytest.raises(Held) as caught, all_left(Deadline(0), lambda _: None):
        pass
    leave.set()
    thread.join(WAIT_S)
    assert f"{__file__}:{held.__wrapped__.__code__.co_firstlineno}," in caught.value.holders[0]  # type: ignore[attr-defined]


def test_a_generator_is_no_stretch_of_code() -> None:
    with pytest.raises(TypeError, match="inside it"):

        @nbcr.critical_section()
        def generator() -> Iterator[None]:
            yield


class Interrupt:
    """``-Interrupt()`` sends one that is raised only after the operation: no call, so Python does not look for it."""

    __neg__ = staticmethod(functools.partial(getattr(ctypes.CDLL(None), "raise"), signal.SIGINT))


def interrupted_on_the_way_out(times: int) -> list[str]:
    """Where interrupts were raised that came during the last operation of a section."""
    raised = []
    for _ in range(times):
        try:
            with nbcr.critical_section("interrupted"):
                -Interrupt()  # type: ignore[operator]
        except KeyboardInterrupt as interrupt:
            raised.append(traceback.extract_tb(interrupt.__traceback__)[-1].name)
    return raised


def test_what_callers_hold_ends_with_them() -> None:
    """Whoever looks where all threads are must not keep himself, and them."""
    entered, leave = threading.Event(), threading.Event()

    def inside() -> None:
        with nbcr.critical_section("waited for"):
            entered.set()
            leave.wait(WAIT_S)

    def caller() -> weakref.ref[Large]:
        held = Large()
        with all_left(Deadline(WAIT_S), lambda holders: leave.set()):
            return weakref.ref(held)

    class Large:
        pass

    thread = threading.Thread(target=inside)
    thread.start()
    entered.wait(WAIT_S)
    gc.disable()
    try:
        assert caller()() is None
    finally:
        gc.enable()
        thread.join()


def test_an_interrupt_on_the_way_out_leaves_nobody_inside() -> None:
    assert interrupted_on_the_way_out(1) == ["__exit__"]
    refuse_inside()
    with all_left(Deadline(WAIT_S), nobody):
        pass


def test_after_an_interrupt_on_the_way_out_sections_are_as_before() -> None:
    assert interrupted_on_the_way_out(3) == ["__exit__"] * 3  # the same statement, again and again
    with nbcr.critical_section("next"):
        with nbcr.critical_section("nested"), pytest.raises(InCriticalSection, match="'next'"):
            refuse_inside()
        with pytest.raises(InCriticalSection, match="'next'"):
            refuse_inside()
    refuse_inside()


def test_what_no_with_statement_entered_is_held_wherever_its_function_went() -> None:
    def enter(stack: contextlib.ExitStack) -> None:
        stack.enter_context(nbcr.critical_section("stack"))

    def suspended() -> Iterator[None]:
        with nbcr.critical_section("generator"):
            yield

    with contextlib.ExitStack() as stack:
        enter(stack)
        with pytest.raises(InCriticalSection, match="'stack'"):
            refuse_inside()
    refuse_inside()
    generator = suspended()
    next(generator)
    with pytest.raises(InCriticalSection, match="'generator'"):
        refuse_inside()
    generator.close()  # type: ignore[attr-defined]
    refuse_inside()


def test_a_greenlet_that_was_put_aside_is_inside_until_it_leaves() -> None:
    def work() -> None:
        with nbcr.critical_section("aside"):
            main.switch()

    main = greenlet.getcurrent()
    worker = greenlet.greenlet(work)
    worker.switch()
    with pytest.raises(InCriticalSection, match="'aside'"):
        refuse_inside()
    worker.switch()
    assert worker.dead
    refuse_inside()


def test_an_interrupt_on_the_way_out_of_a_greenlet_leaves_nobody_inside() -> None:
    worker = greenlet.greenlet(interrupted_on_the_way_out)
    assert worker.switch(2) == ["__exit__"] * 2
    refuse_inside()


def test_threads_that_ended_leave_nothing() -> None:
    def work() -> None:
        with nbcr.critical_section():
            pass

    before = len(sections._gate.records)
    for _ in range(50):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join(WAIT_S)
    assert len(sections._gate.records) <= before + 1


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
