"""The contract around a checkpoint: lifecycle, threads, launching, disabling, and the session layer on top."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from nbcr.crs import CheckpointOptions, Component, RestartOptions, SnapshotReference
from nbcr.errors import Busy
from nbcr.session import usecases
from nbcr.session.bringing import RestartOrder, bring
from nbcr.session.taking import CheckpointOrder, take
from nbcr.store import Store
from tests.contract.conftest import BUILT_IN, LISTED, SERVABLE, STATES, settle
from tests.support import ProcessTracker, kill_told_as


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    run = tmp_path / "run"
    run.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(run))
    return Store(tmp_path / "store")


@pytest.fixture
def chosen(component: Component, monkeypatch: pytest.MonkeyPatch) -> Component:
    """The component, named by NBCR_CRS."""
    monkeypatch.setenv("NBCR_CRS", component.name)
    return component


@pytest.mark.parametrize("name", LISTED)
def test_who_cannot_serve_says_why(name: str, tmp_path: Path, subject: int) -> None:
    """On every host a component either serves, and passes this suite, or tells what is missing and does nothing."""
    component, state = LISTED[name], STATES[name]
    assert set(LISTED) >= BUILT_IN
    assert state.detail
    if name in SERVABLE:
        return
    snapshot = SnapshotReference(name, "s", tmp_path / "s")
    with pytest.raises(Exception) as caught:
        component.checkpoint(subject, snapshot, CheckpointOptions())
    assert getattr(caught.value, "exit_code", 0) > 0
    assert list(tmp_path.iterdir()) == []
    settle(subject)
    with pytest.raises(Exception) as caught:
        component.restart(snapshot, RestartOptions())
    assert getattr(caught.value, "exit_code", 0) > 0


def test_it_can_be_finalized_and_used_again(component: Component, snapshot: SnapshotReference, subject: int) -> None:
    component.finalize()
    component.init()
    component.checkpoint(subject, snapshot, CheckpointOptions())
    component.verify(snapshot)


def test_what_it_launches_runs_as_it_was_asked_to(
    component: Component, snapshot: SnapshotReference, processes: ProcessTracker
) -> None:
    said = "import os, sys; print(os.environ['A'], os.environ['RANK'], *sys.argv[1:], flush=True); sys.stdin.read()"
    wanted = {**os.environ, "A": "b", "RANK": "3"}
    argv, environ = component.prelaunch(3, [sys.executable, "-c", said, "x y", ""], wanted)
    devnull, pipe = subprocess.DEVNULL, subprocess.PIPE
    launched = processes.start(argv, env=environ, stdin=pipe, stdout=pipe, stderr=devnull)
    assert launched.stdout is not None
    assert launched.stdout.readline() == b"b 3 x y \n"
    settle(launched.pid)
    taken = component.checkpoint(launched.pid, snapshot, CheckpointOptions())
    assert launched.pid in taken.pids
    launched.communicate(timeout=60)
    assert launched.returncode == 0


def test_a_further_thread_may_use_it(component: Component, snapshot: SnapshotReference, subject: int) -> None:
    failures: list[BaseException] = []

    def further() -> None:
        try:
            component.register_thread()
            component.checkpoint(subject, snapshot, CheckpointOptions())
            component.verify(snapshot)
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=further)
    thread.start()
    thread.join()
    assert failures == []
    settle(subject)


def test_disabled_checkpoints_wait_and_say_for_whom(chosen: Component, store: Store, subject: int) -> None:
    chosen.disable_checkpoint(subject)
    chosen.disable_checkpoint(subject)  # a switch, no count
    with pytest.raises(Busy, match=rf"process {os.getpid()} has disabled checkpoints of process {subject}"):
        take(store, CheckpointOrder(subject, name="x", deadline_s=0.1))
    assert store.entries() == []
    waiting = threading.Thread(target=take, args=(store, CheckpointOrder(subject, name="x", deadline_s=60)))
    waiting.start()
    chosen.enable_checkpoint(subject)
    waiting.join()
    assert [entry.name for entry in store.entries()] == ["x"]
    chosen.enable_checkpoint(subject)
    settle(subject)


def test_whoever_disabled_checkpoints_and_ends_holds_up_nobody(
    chosen: Component, store: Store, subject: int, processes: ProcessTracker
) -> None:
    code = f"from nbcr import crs; crs.select().disable_checkpoint({subject}); print('disabled', flush=True); input()"
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    other = processes.start([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environ)
    assert other.stdout is not None
    assert other.stdout.readline() == b"disabled\n"
    with pytest.raises(Busy, match=f"process {other.pid} has disabled"):
        take(store, CheckpointOrder(subject, deadline_s=0))
    other.kill()
    other.wait()
    assert take(store, CheckpointOrder(subject, name="x", deadline_s=60)).name == "x"


def test_the_session_layer_knows_the_interface_only(
    chosen: Component, store: Store, subject: int, processes: ProcessTracker
) -> None:
    entry = take(store, CheckpointOrder(subject, name="x", leave="killed"))
    processes.reap(subject)
    assert entry.component == {"name": chosen.name, "version": chosen.version}
    assert entry.pid == subject
    shown = usecases.show("x", store=store)
    assert shown.image is not None
    assert shown.image.root_pid == subject
    result = bring(RestartOrder(entry))
    processes.adopt(result.pid)
    assert result.wait is not None
    told = kill_told_as(result.pid, signal.SIGKILL)
    assert result.wait() == told


@pytest.mark.keeps_memory
def test_a_command_lends_its_standard_streams(chosen: Component, store: Store, processes: ProcessTracker) -> None:
    pipe = subprocess.PIPE
    shell = processes.start(["sh", "-c", "read word; read word; echo $word; exit 7"], stdin=pipe, stdout=pipe)
    assert shell.stdin is not None
    shell.stdin.write(b"first\n")
    shell.stdin.flush()
    settle(shell.pid)
    take(store, CheckpointOrder(shell.pid, name="x", leave="killed"))
    processes.reap(shell.pid)
    command = [sys.executable, "-m", "nbcr.cli", "restart", "x", "--store", str(store.root)]
    restarting = processes.start(command, stdin=pipe, stdout=pipe, stderr=pipe)
    said, trouble = restarting.communicate(b"second\n", timeout=60)
    assert restarting.returncode == 7, trouble
    assert b"second" in said.splitlines()  # among what the command says itself
