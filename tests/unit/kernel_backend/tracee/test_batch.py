"""Several calls of one thread without a stop in between: what they return, and what becomes of a thread held up."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence

import pytest

from kernel_backend.abi import arch, linux
from kernel_backend.errors import TargetBusy
from kernel_backend.host import proc
from kernel_backend.tracee import batch
from kernel_backend.tracee.chorus import Asking, Chorus, together
from kernel_backend.tracee.inject import Borrowed, Call, failed_with
from kernel_backend.tracee.process import frozen

COUNTER = """
import sys
sys.set_int_max_str_digits(0)
print("ready", flush=True)
number = int(sys.stdin.readline())
print(sum(1 / (n + 1) for n in range(number)), flush=True)
sys.stdin.read()
"""
UP_TO = 3_000_000


@pytest.fixture
def computing() -> Iterator[subprocess.Popen[str]]:
    """A process in the midst of sums of fractions, which it tells in the end."""
    words = [sys.executable, "-c", COUNTER]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.stdin.write(f"{UP_TO}\n")
        process.stdin.flush()
        yield process
        process.kill()


def asking(borrowed: Borrowed, *calls: Call, unsure: Sequence[Call] = ()) -> Asking[list[int]]:
    return (yield from together(borrowed, *calls, unsure=unsure))


def its_sum(process: subprocess.Popen[str]) -> float:
    assert process.stdout is not None
    return float(process.stdout.readline())


def expected() -> float:
    return float(sum(1 / (n + 1) for n in range(UP_TO)))


@pytest.mark.parametrize("way", ["batch", "one by one"])
def test_each_call_has_its_result_and_the_thread_is_as_it_was(computing: subprocess.Popen[str], way: str) -> None:
    calls = [Call("getpid"), Call("gettid"), Call("prctl", linux.PR_GET_TIMERSLACK)]
    for _ in range(20):
        with frozen(computing.pid) as process, Chorus([member := process.borrow()]) as chorus:
            if way == "one by one":
                member.gadgets.store = 0
            found = chorus.run({member: asking(member, *calls)})[member]
            assert found == [computing.pid, computing.pid, 50_000]
            assert chorus.run({member: asking(member, *calls * 3)})[member] == found * 3
    assert its_sum(computing) == expected()


def test_where_returns_are_checked_no_batch_is_made(
    computing: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    status = proc.status

    def with_shadow_stack(pid: int, tid: int | None = None) -> dict[str, str]:
        return {**status(pid, tid), arch.SHADOW_STACK[0]: "wrss shstk"}

    with frozen(computing.pid) as process:
        assert process.gadgets.store
    monkeypatch.setattr(proc, "status", with_shadow_stack)
    with frozen(computing.pid) as process:
        assert not process.gadgets.store
    assert its_sum(computing) == expected()


SLEEPER = """
import select, time
print("ready", flush=True)
begun = time.monotonic()
found = select.poll().poll(3000)
print(time.monotonic() - begun, flush=True)
"""


def test_a_thread_that_sleeps_with_a_limit_sleeps_on() -> None:
    with subprocess.Popen([sys.executable, "-c", SLEEPER], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        while proc.blocked_call(process.pid, process.pid)[:1] != (arch.SYS["poll"],):
            time.sleep(0.01)
        with frozen(process.pid) as tracee, Chorus([member := tracee.borrow()]) as chorus:
            assert chorus.run({member: asking(member, Call("getpid"), Call("gettid"))})[member] == [process.pid] * 2
        assert its_sum(process) >= 3


def test_the_first_call_that_fails_is_told(computing: subprocess.Popen[str]) -> None:
    with frozen(computing.pid) as process, Chorus([member := process.borrow()]) as chorus:
        assert member.gadgets.store, "this C library lacks what batches need"
        with pytest.raises(OSError, match="fcntl in the tracee") as caught:
            chorus.run({member: asking(member, Call("getpid"), Call("fcntl", 999, 1), Call("close", 998))})
        assert caught.value.errno == errno.EBADF
    assert its_sum(computing) == expected()


@pytest.mark.parametrize("way", ["batch", "one by one"])
def test_what_may_fail_is_made_to_the_end(computing: subprocess.Popen[str], way: str) -> None:
    unsure = [Call("fcntl", 999, 1), *[Call("getpid")] * batch.Batch.MOST, Call("close", 998)]
    with frozen(computing.pid) as process, Chorus([member := process.borrow()]) as chorus:
        if way == "one by one":
            member.gadgets.store = 0
        found = chorus.run({member: asking(member, Call("gettid"), unsure=unsure)})[member]
    failed = failed_with(errno.EBADF)
    assert found == [computing.pid, failed, *[computing.pid] * batch.Batch.MOST, failed]
    assert its_sum(computing) == expected()


def test_a_thread_that_went_on_because_we_were_held_up_is_told(
    computing: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch, "WAIT_S", 0.05)
    monkeypatch.setattr(batch, "_WAIT", Call("poll", 0, 0, 50))
    look = batch.BatchRun.interrupt

    def late(run: batch.BatchRun) -> None:
        time.sleep(0.3)
        look(run)

    monkeypatch.setattr(batch.BatchRun, "interrupt", late)
    with (
        frozen(computing.pid) as process,
        Chorus([member := process.borrow()]) as chorus,
        pytest.raises(TargetBusy, match="could not be looked at"),
    ):
        chorus.run({member: asking(member, Call("getpid"))})
    assert its_sum(computing) == expected()


def test_who_is_killed_meanwhile_leaves_a_thread_that_heals(computing: subprocess.Popen[str]) -> None:
    tracer = os.fork()
    if tracer == 0:
        with frozen(computing.pid) as process, process.borrow() as borrowed:
            batch.BatchRun(borrowed, batch.Batch([Call("getpid")] * batch.Batch.MOST)).begin()
            os._exit(0)
    os.waitpid(tracer, 0)
    begun = time.monotonic()
    assert its_sum(computing) == expected()
    assert time.monotonic() - begun < batch.WAIT_S + 20
