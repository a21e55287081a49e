"""The helper in waiting: there when it is wanted, used once, gone with the thread that wanted it."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import nbcr
from nbcr import session
from nbcr.errors import HelperLost
from nbcr.session import inprocess
from nbcr.session.spawning import Helper, spawn
from nbcr.store import Store
from tests.support import children_of

WAIT_S = 20.0


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline, vars(inprocess._life)
        time.sleep(0.005)


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def waiting() -> Helper:
    until(lambda: inprocess._life.standby.helper)
    helper = inprocess._life.standby.helper
    assert helper is not None
    return helper


@pytest.fixture(autouse=True)
def _thread(trees: pytest.MonkeyPatch) -> Iterator[None]:
    session.start_checkpoint_thread()
    yield
    session.stop_checkpoint_thread()


def starting() -> list[int]:
    """Helpers, and what starts them, that have become our children: where the fixture `processes` is used."""
    found = []
    for pid in children_of(os.getpid()):
        with contextlib.suppress(OSError):
            if b"nbcr.helper" in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.append(pid)
    return found


@pytest.mark.usefixtures("processes")
def test_while_it_starts_it_is_in_no_group_of_ours(store: Store) -> None:
    """Whoever interrupts or ends the program's group does not mean its helper."""
    groups: set[int] = set()
    helper = spawn()
    try:
        while not helper.channel.readable(0):
            for pid in starting():
                with contextlib.suppress(OSError):
                    groups.add(os.getpgid(pid))
    finally:
        helper.close()
    assert groups
    assert os.getpgid(0) not in groups


@pytest.mark.usefixtures("processes")
def test_one_that_dies_while_it_starts_leaves_no_descriptor(store: Store) -> None:
    waiting()
    before = set(os.listdir("/proc/self/fd"))
    helper = spawn()
    while not helper.channel.readable(0):
        for pid in starting():
            os.kill(pid, signal.SIGKILL)
    with pytest.raises(HelperLost):
        helper.ready()
    assert set(os.listdir("/proc/self/fd")) == before


def test_it_serves_one_checkpoint_and_is_replaced(store: Store) -> None:
    first = waiting()
    nbcr.checkpoint("a").wait(WAIT_S)
    until(lambda: gone(first.pid))
    second = waiting()
    assert second.pid != first.pid
    nbcr.checkpoint("b").wait(WAIT_S)
    assert [e.name for e in store.entries()] == ["a", "b"]


def test_one_that_died_is_not_missed(store: Store) -> None:
    helper = waiting()
    os.kill(helper.pid, signal.SIGKILL)
    until(lambda: gone(helper.pid))
    nbcr.checkpoint("a").wait(WAIT_S)


def test_it_serves_a_restart_too() -> None:
    nbcr.checkpoint("a").wait(WAIT_S)
    helper = waiting()
    with pytest.raises(nbcr.NbcrError, match="cannot replace"):
        nbcr.restart("a")
    until(lambda: gone(helper.pid))


def test_it_goes_with_the_thread() -> None:
    helper = waiting()
    session.stop_checkpoint_thread()
    until(lambda: gone(helper.pid))
    assert inprocess._life.standby.helper is None


def test_it_goes_with_the_process() -> None:
    """Its channel ends; a forked child that lives on does not keep it."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            session.start_checkpoint_thread()
            os.write(writing, f"{waiting().pid}\n".encode())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    os.close(writing)
    with os.fdopen(reading) as said:
        helper = int(said.readline())
    until(lambda: gone(helper))


def test_a_forked_child_holds_no_channel_of_its_parents() -> None:
    """Neither that of the helper in waiting nor of one at work: it would be in the child's own image."""
    helpers = [waiting(), spawn()]
    numbers = [helper.channel.fileno() for helper in helpers]
    child = os.fork()
    if child == 0:
        os._exit(sum(Path(f"/proc/self/fd/{number}").exists() for number in numbers))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert all(Path(f"/proc/self/fd/{number}").exists() for number in numbers)
    helpers[1].close()
