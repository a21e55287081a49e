"""The contract of the CRS interface: every component that this host can serve passes the same tests."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from nbcr.crs import CheckpointOptions, Component, Progress, RestartOptions, SnapshotReference, State
from tests.contract.conftest import LISTED, settle
from tests.support import ProcessTracker, children_of, kill_told_as

TIMEOUT_S = 60.0
# Says what it is told, and how often it was told something; over its channel, descriptor 5.
PARROT = """
import os, socket
channel, heard = socket.socket(fileno=5), 0
while data := channel.recv(100):
    heard += 1
    channel.sendall(b"%d %s" % (heard, data))
"""


def exit_code(error: BaseException) -> int:
    return int(getattr(error, "exit_code", 0))


def around(snapshot: SnapshotReference) -> list[str]:
    """What there is where the snapshot was to be written."""
    return sorted(path.name for path in snapshot.local.parent.iterdir())


def test_it_says_who_it_is(component: Component) -> None:
    assert LISTED[component.name] is component
    assert component.version
    assert isinstance(component.priority, int)
    assert component.availability().detail


# --- checkpoint -------------------------------------------------------------------------------------------------------


def test_a_process_goes_on_after_its_checkpoint(
    component: Component, snapshot: SnapshotReference, subject: int
) -> None:
    told: list[Progress] = []
    taken = component.checkpoint(subject, snapshot, CheckpointOptions(on_resume=told.append))
    assert taken.state is State.CONTINUE
    assert subject in taken.pids
    assert taken.pause_ms >= 0
    assert taken.size_bytes > 0
    assert [progress.processes for progress in told] == [1]
    assert around(snapshot) == ["s"]
    settle(subject)
    component.verify(snapshot)


@pytest.mark.parametrize(("leave", "state"), [("stopped", State.CONTINUE), ("killed", State.TERM)])
def test_it_leaves_the_process_as_asked(
    component: Component,
    snapshot: SnapshotReference,
    subject: int,
    processes: ProcessTracker,
    leave: str,
    state: State,
) -> None:
    taken = component.checkpoint(subject, snapshot, CheckpointOptions(leave=leave))
    assert taken.state is state
    component.verify(snapshot)
    if leave == "killed":
        processes.reap(subject)
        assert not Path(f"/proc/{subject}").exists()
    else:
        settle(subject, "T")
        os.kill(subject, signal.SIGCONT)
        settle(subject)


def test_a_process_can_be_checkpointed_again(
    component: Component, snapshot: SnapshotReference, subject: int, processes: ProcessTracker
) -> None:
    second = replace(snapshot, local=snapshot.local.with_name("second"))
    component.checkpoint(subject, snapshot, CheckpointOptions())
    component.checkpoint(subject, second, CheckpointOptions(leave="killed"))
    processes.reap(subject)
    for each in (snapshot, second, snapshot):
        component.verify(each)
        end(component, each, processes)


def end(component: Component, snapshot: SnapshotReference, processes: ProcessTracker) -> None:
    """Bring a snapshot of the subject back, see that it is what it was, and end it."""
    brought = component.restart(snapshot, RestartOptions())
    processes.adopt(brought.pid)
    settle(brought.pid)
    assert Path(f"/proc/{brought.pid}/cmdline").read_bytes() == b"sleep\x001000\x00"
    assert brought.wait is not None
    told = kill_told_as(brought.pid, signal.SIGTERM)
    assert brought.wait() == told


def test_a_process_that_is_not_there_leaves_nothing(component: Component, snapshot: SnapshotReference) -> None:
    with pytest.raises(Exception, match=str(2**22 + 3)) as caught:
        component.checkpoint(2**22 + 3, snapshot, CheckpointOptions())
    assert exit_code(caught.value) > 0
    assert around(snapshot) == []


def test_a_process_that_has_ended_leaves_nothing(
    component: Component, snapshot: SnapshotReference, subject: int, processes: ProcessTracker
) -> None:
    os.kill(subject, signal.SIGKILL)
    os.waitid(os.P_PID, subject, os.WEXITED | os.WNOWAIT)  # and nobody has reaped it
    with pytest.raises(Exception, match=str(subject)) as caught:
        component.checkpoint(subject, snapshot, CheckpointOptions())
    assert exit_code(caught.value) > 0
    assert around(snapshot) == []


def test_what_is_there_is_not_overwritten(component: Component, snapshot: SnapshotReference, subject: int) -> None:
    snapshot.local.mkdir()
    (snapshot.local / "thesis").write_text("three years")
    with pytest.raises(Exception, match=r"\bs\b"):
        component.checkpoint(subject, snapshot, CheckpointOptions())
    assert (snapshot.local / "thesis").read_text() == "three years"
    assert around(snapshot) == ["s"]
    settle(subject)


def test_a_failing_callback_harms_nobody(component: Component, snapshot: SnapshotReference, subject: int) -> None:
    def hung_up(progress: Progress) -> None:
        raise ConnectionError("the requester is gone")

    with pytest.raises(Exception, match="the requester is gone"):
        component.checkpoint(subject, snapshot, CheckpointOptions(on_resume=hung_up))
    assert around(snapshot) == []
    settle(subject)


# --- what is in a snapshot --------------------------------------------------------------------------------------------


def test_what_is_in_a_snapshot_is_told_without_starting_it(
    component: Component, snapshot: SnapshotReference, subject: int, processes: ProcessTracker
) -> None:
    component.checkpoint(subject, snapshot, CheckpointOptions(leave="killed"))
    processes.reap(subject)
    before = children_of(os.getpid())
    summary = component.inspect(snapshot)
    assert summary.root_pid == subject
    assert [process.pid for process in summary.processes] == [subject]
    assert summary.processes[0].argv == ("sleep", "1000")
    assert summary.processes[0].cwd == str(Path.cwd())
    assert summary.processes[0].threads == 1
    assert children_of(os.getpid()) == before


def test_one_flipped_bit_is_found_in_any_file_and_nothing_starts(
    component: Component, snapshot: SnapshotReference, subject: int, processes: ProcessTracker
) -> None:
    component.checkpoint(subject, snapshot, CheckpointOptions(leave="killed"))
    processes.reap(subject)
    before = children_of(os.getpid())
    files = [path for path in sorted(snapshot.local.rglob("*")) if path.is_file() and path.stat().st_size]
    for path in files:
        whole = path.read_bytes()
        path.write_bytes(flipped(whole))
        for use in (component.verify, lambda s: component.restart(s, RestartOptions())):
            with pytest.raises(Exception) as caught:
                use(snapshot)
            assert exit_code(caught.value) > 0, path
        path.write_bytes(whole)
    component.verify(snapshot)
    assert children_of(os.getpid()) == before


def flipped(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


def test_a_missing_file_is_found(component: Component, snapshot: SnapshotReference, subject: int) -> None:
    component.checkpoint(subject, snapshot, CheckpointOptions())
    for path in [path for path in sorted(snapshot.local.rglob("*")) if path.is_file()]:
        aside = path.rename(snapshot.local.parent / "aside")
        with pytest.raises(Exception) as caught:
            component.verify(snapshot)
        assert exit_code(caught.value) > 0, path
        aside.rename(path)
    component.verify(snapshot)


# --- restart ----------------------------------------------------------------------------------------------------------


def test_a_snapshot_comes_back_as_a_fresh_process(
    component: Component, snapshot: SnapshotReference, subject: int, processes: ProcessTracker
) -> None:
    component.checkpoint(subject, snapshot, CheckpointOptions(leave="killed"))
    processes.reap(subject)
    happened: list[str] = []
    options = RestartOptions(on_ready=lambda: happened.append("ready"), on_commit=lambda: happened.append("commit"))
    brought = component.restart(snapshot, options)
    processes.adopt(brought.pid)
    assert happened == ["ready", "commit"]
    assert brought.pids[subject] == brought.pid
    assert brought.wait is not None
    told = kill_told_as(brought.pid, signal.SIGTERM)
    assert brought.wait() == told


def test_a_snapshot_comes_back_after_its_folder_moved(
    component: Component, snapshot: SnapshotReference, subject: int, processes: ProcessTracker, tmp_path: Path
) -> None:
    component.checkpoint(subject, snapshot, CheckpointOptions(leave="killed"))
    processes.reap(subject)
    (tmp_path / "elsewhere").mkdir()
    moved = replace(snapshot, local=snapshot.local.rename(tmp_path / "elsewhere" / "t"))
    component.verify(moved)
    end(component, moved, processes)


@pytest.mark.keeps_memory
@pytest.mark.parametrize("leave", ["running", "killed"])
def test_a_restored_process_talks_over_its_new_channel(
    component: Component, snapshot: SnapshotReference, processes: ProcessTracker, leave: str
) -> None:
    with channel() as (ours, theirs):
        parrot = start_parrot(processes, theirs)
        theirs.close()
        assert said(ours, b"first") == b"1 first"
        settle(parrot.pid)
        component.checkpoint(parrot.pid, snapshot, CheckpointOptions(leave=leave, channel_fd=5))
        if leave == "running":
            assert said(ours, b"second") == b"2 second"  # the life that went on has its old channel
    processes.reap(parrot.pid)
    with channel() as (ours, theirs):
        brought = component.restart(snapshot, RestartOptions(channel=theirs))
        processes.adopt(brought.pid)
        theirs.close()
        assert said(ours, b"again") == b"2 again"
        ours.close()
        assert brought.wait is not None
        assert brought.wait() == 0


@contextmanager
def channel() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(TIMEOUT_S)
        yield ours, theirs


def start_parrot(processes: ProcessTracker, theirs: socket.socket) -> subprocess.Popen[bytes]:
    silent = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
    launch = (
        f"import os, sys; os.dup2({theirs.fileno()}, 5); os.execv(sys.executable, [sys.executable, '-c', {PARROT!r}])"
    )
    return processes.start([sys.executable, "-c", launch], pass_fds=[theirs.fileno()], **silent)


def said(ours: socket.socket, word: bytes) -> bytes:
    ours.sendall(word)
    return ours.recv(100)


@pytest.mark.keeps_memory
def test_standard_streams_that_led_outside_lead_to_what_is_given(
    component: Component, snapshot: SnapshotReference, processes: ProcessTracker
) -> None:
    shell = processes.start(
        ["sh", "-c", "read word; read word; echo $word"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert shell.stdin is not None
    shell.stdin.write(b"first\n")
    shell.stdin.flush()
    settle(shell.pid)
    component.checkpoint(shell.pid, snapshot, CheckpointOptions(leave="killed"))
    processes.reap(shell.pid)
    word, to_word = os.pipe()
    from_echo, echo = os.pipe()
    brought = component.restart(snapshot, RestartOptions(stdio=(word, echo, -1)))
    processes.adopt(brought.pid)
    for fd in (word, echo):
        os.close(fd)
    os.write(to_word, b"second\n")
    assert os.read(from_echo, 100) == b"second\n"
    for fd in (to_word, from_echo):
        os.close(fd)
    assert brought.wait is not None
    assert brought.wait() == 0
