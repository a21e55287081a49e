"""The checkpoint thread: asleep until asked, named, and not taken down by what it runs."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from nbcr.handlers.deadline import Deadline
from nbcr.handlers.places import Here, Job, LateError
from nbcr.handlers.thread import LATE_NAME, THREAD_NAME, CheckpointThread

WAIT_S = 20.0


@pytest.fixture
def thread() -> Iterator[CheckpointThread]:
    thread = CheckpointThread()
    thread.start()
    yield thread
    thread.stop()
    assert not thread.alive


def nothing() -> None:
    pass


def ours() -> dict[str, threading.Thread]:
    return {t.name: t for t in threading.enumerate() if t.name.startswith("nbcr-")}


def test_it_runs_calls_and_hands_back_what_they_raise(thread: CheckpointThread) -> None:
    seen: list[str] = []
    for _ in range(3):
        thread.run(Job(lambda: seen.append(threading.current_thread().name), nothing), Deadline(WAIT_S))
    assert seen == [THREAD_NAME] * 3
    with pytest.raises(ZeroDivisionError):
        thread.run(Job(lambda: [1 / 0, None][1], nothing), Deadline(WAIT_S))
    thread.run(Job(nothing, nothing), Deadline(WAIT_S))


def test_it_is_named_wherever_threads_are_listed(thread: CheckpointThread) -> None:
    native = ours()[THREAD_NAME].native_id
    assert Path(f"/proc/self/task/{native}/comm").read_text() == "nbcr-checkpoint\n"


def test_it_takes_no_cycles_while_idle(thread: CheckpointThread) -> None:
    stat = Path(f"/proc/self/task/{ours()[THREAD_NAME].native_id}/schedstat")
    thread.run(Job(nothing, nothing), Deadline(WAIT_S))
    ran_before = -1
    while (ran := int(stat.read_text().split()[0])) != ran_before:  # until it sleeps
        ran_before = ran
        time.sleep(0.02)
    time.sleep(0.5)
    assert int(stat.read_text().split()[0]) == ran


def test_a_late_call_is_left_alone_and_told_when_it_ends(thread: CheckpointThread) -> None:
    go_on, told = threading.Event(), threading.Event()
    with pytest.raises(LateError) as caught:
        thread.run(Job(lambda: [go_on.wait(WAIT_S), None][1], told.set), Deadline(0.05))
    assert caught.value.frame is not None
    late = ours()[LATE_NAME]
    thread.run(Job(nothing, nothing), Deadline(WAIT_S))  # another thread has taken over
    assert not told.is_set()
    go_on.set()
    late.join(WAIT_S)
    assert told.is_set()
    assert not late.is_alive()


def test_what_ends_in_time_is_not_told_that_it_was_late(thread: CheckpointThread) -> None:
    told: list[int] = []
    for _ in range(200):
        try:
            thread.run(Job(nothing, lambda: told.append(1)), Deadline(0.0001))
        except LateError:
            told.append(-1)  # and then once more, from there
    thread.run(Job(nothing, nothing), Deadline(WAIT_S))
    for late in [t for t in threading.enumerate() if t.name == LATE_NAME]:
        late.join(WAIT_S)
    assert sum(told) == 0


def test_here_says_afterwards_that_it_was_late() -> None:
    told: list[int] = []
    with pytest.raises(LateError):
        Here().run(Job(nothing, lambda: told.append(1)), Deadline(0.0))
    assert told == [1]


def test_a_child_gets_a_thread_of_its_own(thread: CheckpointThread) -> None:
    pid = os.fork()
    if pid == 0:
        thread.forget()
        thread.start()
        ran: list[str] = []
        thread.run(Job(lambda: ran.append(threading.current_thread().name), nothing), Deadline(WAIT_S))
        os._exit(0 if ran == [THREAD_NAME] else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    thread.run(Job(nothing, nothing), Deadline(WAIT_S))
