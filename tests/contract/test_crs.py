"""The contract of the CRS interface: every component that this host can serve passes the same tests."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from nbcr.crs import CheckpointOptions, Component, Progress, RestartOptions, SnapshotReference, State, components
from tests.support import needs

PLUGIN = Path(__file__).parent / "plugin"
COMPONENTS = ["ptrace", "trees"]


@pytest.fixture(params=COMPONENTS)
def component(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Component]:
    monkeypatch.syspath_prepend(str(PLUGIN))
    found = {c.name: c for c in components()}[request.param]
    state = found.availability()
    if not state.available:
        needs(f"CRS component {request.param}", False, state.detail)
    found.init()
    yield found
    found.finalize()


@pytest.fixture
def subject() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "1000"], start_new_session=True) as process:
        yield process
        process.kill()


@pytest.fixture
def snapshot(component: Component, tmp_path: Path) -> SnapshotReference:
    return SnapshotReference(component.name, "s", tmp_path / "s")


def state_of(pid: int) -> str:
    text = Path(f"/proc/{pid}/stat").read_text()
    return text[text.rindex(")") + 2]


def settle(pid: int, state: str = "S") -> None:
    """Until the process sleeps again, or has heeded the signal that stops it."""
    deadline = time.monotonic() + 5
    while state_of(pid) != state and time.monotonic() < deadline:
        time.sleep(0.01)
    assert state_of(pid) == state


def test_it_says_who_it_is(component: Component) -> None:
    assert component.name in COMPONENTS
    assert component.version
    assert isinstance(component.priority, int)
    assert component.availability().detail


def test_a_process_goes_on_after_its_checkpoint(
    component: Component, snapshot: SnapshotReference, subject: subprocess.Popen[bytes]
) -> None:
    told: list[Progress] = []
    taken = component.checkpoint(subject.pid, snapshot, CheckpointOptions(on_resume=told.append))
    assert taken.state is State.CONTINUE
    assert subject.pid in taken.pids
    assert taken.pause_ms >= 0
    assert taken.size_bytes > 0
    assert len(told) == 1
    assert snapshot.local.is_dir()
    settle(subject.pid)
    component.verify(snapshot)


def test_what_is_in_a_snapshot_is_told_without_starting_it(
    component: Component, snapshot: SnapshotReference, subject: subprocess.Popen[bytes]
) -> None:
    component.checkpoint(subject.pid, snapshot, CheckpointOptions())
    summary = component.inspect(snapshot)
    assert summary.root_pid == subject.pid
    assert summary.processes[0].argv == ("sleep", "1000")


@pytest.mark.parametrize(("leave", "state"), [("stopped", State.CONTINUE), ("killed", State.TERM)])
def test_it_leaves_the_process_as_asked(
    component: Component,
    snapshot: SnapshotReference,
    subject: subprocess.Popen[bytes],
    leave: str,
    state: State,
) -> None:
    taken = component.checkpoint(subject.pid, snapshot, CheckpointOptions(leave=leave))
    assert taken.state is state
    if leave == "killed":
        subject.wait(10)
        assert not Path(f"/proc/{subject.pid}").exists()
    else:
        settle(subject.pid, "T")


def test_a_snapshot_comes_back_as_a_fresh_process(
    component: Component, snapshot: SnapshotReference, subject: subprocess.Popen[bytes]
) -> None:
    component.checkpoint(subject.pid, snapshot, CheckpointOptions(leave="killed"))
    subject.wait(10)
    brought = component.restart(snapshot, RestartOptions())
    assert brought.pids[subject.pid] == brought.pid
    words = Path(f"/proc/{brought.pid}/cmdline").read_bytes()
    assert words == b"sleep\x001000\x00"
    os.kill(brought.pid, signal.SIGTERM)
    assert brought.wait is not None
    assert brought.wait() == -signal.SIGTERM


def test_a_process_that_is_not_there_leaves_nothing(component: Component, snapshot: SnapshotReference) -> None:
    with pytest.raises(Exception, match=str(2**22 + 3)) as caught:
        component.checkpoint(2**22 + 3, snapshot, CheckpointOptions())
    assert getattr(caught.value, "exit_code", 0) > 0
    assert not snapshot.local.exists()


def test_damage_is_found_and_nothing_starts(
    component: Component, snapshot: SnapshotReference, subject: subprocess.Popen[bytes]
) -> None:
    component.checkpoint(subject.pid, snapshot, CheckpointOptions())
    biggest = max((p for p in snapshot.local.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    data = bytearray(biggest.read_bytes())
    data[len(data) // 2] ^= 1
    biggest.write_bytes(data)
    before = set(os.listdir("/proc"))
    for use in (component.verify, lambda s: component.restart(s, RestartOptions())):
        with pytest.raises(Exception) as caught:
            use(snapshot)
        assert getattr(caught.value, "exit_code", 0) > 0
    mine = [p for p in set(os.listdir("/proc")) - before if p.isdecimal()]
    assert all(_parent(int(p)) != os.getpid() for p in mine)


def test_a_failing_callback_harms_nobody(
    component: Component, snapshot: SnapshotReference, subject: subprocess.Popen[bytes]
) -> None:
    def hung_up(progress: Progress) -> None:
        raise ConnectionError("the requester is gone")

    with pytest.raises(ConnectionError):
        component.checkpoint(subject.pid, snapshot, CheckpointOptions(on_resume=hung_up))
    assert not snapshot.local.exists()
    settle(subject.pid)


def test_it_prepares_launches(component: Component) -> None:
    argv, environ = component.prelaunch(0, [sys.executable, "-c", ""], {"A": "b"})
    assert argv[-2:] == ["-c", ""]
    assert environ["A"] == "b"
    component.register_thread()
    component.disable_checkpoint(os.getpid())
    component.enable_checkpoint(os.getpid())


def _parent(pid: int) -> int:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0
    return int(text[text.rindex(")") + 2 :].split()[1])
