"""Component criu: finding the program, saying why it cannot serve, reporting its errors, and what we keep beside it.

The programs here only answer questions, or fail: that CRIU takes and restores processes is the contract suite's matter,
on hosts that have it.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from nbcr.crs import CheckpointOptions, RestartOptions, SnapshotReference, criu_program, criu_record, criu_tree
from nbcr.crs.criu import CriuComponent
from nbcr.errors import EntryDamaged, NotPossible, RestartFailed, TargetUnknown
from tests.contract.conftest import settle, sleeper, state_of
from tests.support import CHECKOUT, ProcessTracker, User, children_of

Criu = Callable[..., Path]
# As CRIU 4.1.1 wrote them: 94 µs to freeze, 14678 µs frozen; one process with two threads.
STATISTICS = bytes.fromhex("4059105506330957200000000a1e085e10d67218d302207128393000381e4000480050065806600068007000")
TREE = bytes.fromhex("19435654303027501600000008a99401100018a9940120a9940128a9940128aa9401")
LOG = """(00.000002) Version: 4.1.1 (gitid 0)
(00.019733) Error (criu/util.c:1533): rlimit: Can't setup RLIMIT_NOFILE for self: Operation not permitted
(00.069243) 23032 fdinfo 3: pos:                0 flags:                2/0x1
(00.069267) Error (criu/sk-inet.c:191): inet: Connected TCP socket, consider using --tcp-established option.
(00.069281) Error (criu/cr-dump.c:1681): Dump files (pid: 23032) failed with -1
(00.069563) Error (criu/cr-dump.c:2111): Dumping FAILED.
"""
TERSE_LOG = """Error (criu/util.c:1533): rlimit: Can't setup RLIMIT_NOFILE for self: Operation not permitted
 21863: Error (criu/tty.c:850): tty: Can't set tty params on 0x15: Inappropriate ioctl for device
pie: 24542: Error (criu/pie/restorer.c:316): Unable to drop capability 0: -1
Error (criu/cr-restore.c:2320): Restoring FAILED.
"""


@pytest.fixture
def component() -> CriuComponent:
    return CriuComponent()


@pytest.fixture
def snapshot(tmp_path: Path) -> SnapshotReference:
    (tmp_path / "around").mkdir()
    return SnapshotReference("criu", "s", tmp_path / "around" / "s")


# --- availability -----------------------------------------------------------------------------------------------------


def test_it_is_not_installed(component: CriuComponent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NBCR_CRIU", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(criu_program, "_SYSTEM_FOLDERS", (str(tmp_path),))
    told = "CRIU is not installed here (there is no command `criu`): install CRIU 4.0 or newer, or name its program"
    assert component.availability().detail.startswith(told)
    assert not component.availability().available


def test_it_is_found_where_ordinary_users_do_not_look(
    component: CriuComponent, criu: Criu, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    criu()
    monkeypatch.delenv("NBCR_CRIU")
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(criu_program, "_SYSTEM_FOLDERS", ("/nowhere/too", str(tmp_path)))
    assert component.availability().available
    assert component.availability().detail == f"process images by CRIU 4.1.1 ({tmp_path}/criu)"


def test_what_is_named_is_no_program(component: CriuComponent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for named in (tmp_path, tmp_path / "nothing", Path("/etc/passwd")):
        monkeypatch.setenv("NBCR_CRIU", str(named))
        assert f"NBCR_CRIU names {named}, which is no program that we may run" in component.availability().detail


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("Version: 3.17.1\nGitID: v3.17.1", "CRIU 3.17.1 ({}) is too old: 4.0 or newer is needed"),
        ("Version: 3.9", "CRIU 3.9 ({}) is too old"),
        ("Version: 4.0", ""),
        ("Version: 10.2.1", ""),
        ("Version: v4.2-rc1", ""),
        ("GNU coreutils 9.1", "{} does not say which version of CRIU it is"),
    ],
)
def test_its_version(component: CriuComponent, criu: Criu, said: str, told: str) -> None:
    path = criu(version=said)
    state = component.availability()
    assert state.available == (not told)
    assert told.format(path) in state.detail


@pytest.mark.parametrize(
    ("check", "told"),
    [
        ("echo 'Error (criu/cr-check.c:1): no MAP_SHARED' >&2; exit 1", "Error (criu/cr-check.c:1): no MAP_SHARED"),
        ("echo 'CRIU needs:'; echo '  setcap   x'; exit 1", "CRIU needs: setcap x"),
        ("exit 1", "criu ended with status 1"),
        ("kill -9 $$", "criu was ended by signal 9"),
    ],
)
def test_its_check_fails(component: CriuComponent, criu: Criu, check: str, told: str) -> None:
    path = criu(check=check)
    state = component.availability()
    assert not state.available
    assert state.detail.startswith("`criu ")
    assert state.detail.endswith(f"check` ({path}) says: {told}")


def test_it_does_not_answer(component: CriuComponent, criu: Criu, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(criu_program, "_ANSWER_TIMEOUT_S", 0.5)
    criu(check="exec sleep 1000")
    assert "did not answer within 0.5 s" in component.availability().detail


def test_an_ordinary_user_tells_criu_to_be_one(as_user: User, criu: Criu, user_dir: Path) -> None:
    path = shutil.copy(criu(check="exit 1"), user_dir)
    as_user.give(Path(path))
    code = "from nbcr.crs.criu import CriuComponent; print(CriuComponent().availability().detail)"
    environ = as_user.environ({"NBCR_CRIU": path, "PYTHONPATH": str(CHECKOUT)})
    done = subprocess.run(
        as_user.command([sys.executable, "-c", code], cwd=user_dir), env=environ, capture_output=True, text=True
    )
    assert done.stdout.startswith(f"`criu --unprivileged check` ({path}) says:"), done.stderr


def test_who_cannot_serve_does_nothing(component: CriuComponent, criu: Criu, snapshot: SnapshotReference) -> None:
    criu(version="Version: 3.17.1")
    with pytest.raises(NotPossible, match="too old"):
        component.checkpoint(os.getpid(), snapshot, CheckpointOptions())
    with pytest.raises(NotPossible, match="too old"):
        component.restart(snapshot, RestartOptions())
    assert list(snapshot.local.parent.iterdir()) == []


# --- failures ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("log", "reason"),
    [
        (
            LOG,
            "inet: Connected TCP socket, consider using --tcp-established option.; "
            "Dump files (pid: 23032) failed with -1",
        ),
        (
            TERSE_LOG,
            "tty: Can't set tty params on 0x15: Inappropriate ioctl for device; Unable to drop capability 0: -1",
        ),
        ("", "what it printed"),
    ],
)
def test_a_failed_dump_is_told_in_one_line(
    component: CriuComponent, criu: Criu, snapshot: SnapshotReference, processes: ProcessTracker, log: str, reason: str
) -> None:
    (snapshot.local.parent.parent / "log").write_text(log)
    criu(work=f'echo what it printed; cp {snapshot.local.parent.parent}/log "$WORK/criu.log"; exit 1')
    pid = sleeper(processes)
    with pytest.raises(NotPossible) as caught:
        component.checkpoint(pid, snapshot, CheckpointOptions())
    assert str(caught.value) == f"CRIU cannot checkpoint process {pid}: {reason}"
    assert list(snapshot.local.parent.iterdir()) == []


def test_who_was_left_stopped_goes_on_when_nothing_came_of_it(
    component: CriuComponent, criu: Criu, snapshot: SnapshotReference, processes: ProcessTracker
) -> None:
    pid = sleeper(processes)
    criu(work=f"kill -STOP {pid}; exit 1")
    with pytest.raises(NotPossible, match="criu ended with status 1"):
        component.checkpoint(pid, snapshot, CheckpointOptions(leave="killed"))
    settle(pid, "S")
    os.kill(pid, signal.SIGSTOP)
    settle(pid, "T")
    with pytest.raises(NotPossible):
        component.checkpoint(pid, snapshot, CheckpointOptions(leave="stopped"))
    assert state_of(pid) == "T"  # it was before


def test_an_interrupt_waits_for_criu(criu: Criu, tmp_path: Path, processes: ProcessTracker) -> None:
    """A criu that is killed midway would leave its code in the processes it works on."""
    os.mkfifo(tmp_path / "go")
    criu(work=f"echo at work; read word < {tmp_path}/go; echo $word > {tmp_path}/done")
    code = "from pathlib import Path; from nbcr.crs import criu_program as p; p.find().run('dump', [], Path('.'))"
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    waiting = processes.start([sys.executable, "-c", code], cwd=tmp_path, env=environ, stderr=subprocess.PIPE)
    said = tmp_path / "said"
    eventually(lambda: said.exists() and said.read_text() != "")
    for _ in range(2):
        os.killpg(waiting.pid, signal.SIGINT)  # as a terminal does it: to all of the group
    (tmp_path / "go").write_text("finished\n")
    _, trace = waiting.communicate(timeout=60)
    assert waiting.returncode == -signal.SIGINT
    assert b"KeyboardInterrupt" in trace
    assert (tmp_path / "done").read_text() == "finished\n"


def test_a_process_that_has_ended_is_not_even_tried(
    component: CriuComponent, criu: Criu, snapshot: SnapshotReference, tmp_path: Path
) -> None:
    criu(work=f"touch {tmp_path}/tried; exit 1")
    with pytest.raises(TargetUnknown, match="no living process 4194307"):
        component.checkpoint(2**22 + 3, snapshot, CheckpointOptions())
    assert not (tmp_path / "tried").exists()


def test_what_criu_has_no_way_to_do_is_refused_by_name(component: CriuComponent, snapshot: SnapshotReference) -> None:
    for options, what in (
        (RestartOptions(into=os.getpid()), "cannot replace a living process"),
        (RestartOptions(lazy=True), r"cannot map memory from the snapshot \(lazy\)"),
        (RestartOptions(pid="any"), "cannot give processes new pids"),
        (RestartOptions(files="save"), "cannot rewind or put back files"),
    ):
        with pytest.raises(NotPossible, match=f"taken by component criu, which {what}"):
            component.restart(snapshot, options)


# --- what stands next to the images -----------------------------------------------------------------------------------


@pytest.fixture
def image(snapshot: SnapshotReference) -> Path:
    """An image as far as we read it, of a process that is long gone, with its record."""
    folder = snapshot.local
    folder.mkdir()
    (folder / criu_record.TREE).write_bytes(TREE)
    process = criu_record.ProcessRecord(2**22 + 5, 1, "/bin/x", ["x", "y"], [2**22 + 5], 4096, "/")
    write(folder, [process], [])
    return folder


def write(folder: Path, processes: list[criu_record.ProcessRecord], outside: list[criu_record.OutsideRecord]) -> None:
    digests = criu_record.digests(folder)
    pid = processes[0].pid
    criu_record.write(folder, criu_record.Record("4.1.1", "2026", "here", pid, processes, outside, digests))


def test_criu_s_own_images_are_understood(tmp_path: Path) -> None:
    (tmp_path / criu_record.STATISTICS).write_bytes(STATISTICS)
    (tmp_path / criu_record.TREE).write_bytes(TREE)
    assert criu_record.pause_ms(tmp_path) == pytest.approx(14.772)
    assert criu_record.tids(tmp_path) == {18985: [18985, 18986]}


def test_what_was_added_or_is_of_a_later_format_is_noticed(
    component: CriuComponent, snapshot: SnapshotReference, image: Path
) -> None:
    component.verify(snapshot)
    (image / "core-1.img").write_bytes(b"planted")
    with pytest.raises(EntryDamaged, match=r"core-1\.img is not as it was written"):
        component.verify(snapshot)
    (image / "core-1.img").unlink()
    shutil.copy("/bin/true", image / criu_record.RECORD)
    with pytest.raises(EntryDamaged, match="no record of a CRIU snapshot"):
        component.inspect(snapshot)


def test_a_failed_restore_is_told_in_one_line(
    component: CriuComponent, criu: Criu, snapshot: SnapshotReference, image: Path
) -> None:
    criu(work=f"printf '%s' '{TERSE_LOG.splitlines()[2]}' > \"$WORK/criu.log\"; exit 1")
    with pytest.raises(RestartFailed, match=r"bring snapshot s back: Unable to drop capability 0: -1$"):
        component.restart(snapshot, RestartOptions())


def test_a_pid_that_is_in_use_is_named(
    component: CriuComponent, criu: Criu, snapshot: SnapshotReference, image: Path, processes: ProcessTracker
) -> None:
    criu(work="echo tried; exit 1")
    pid = sleeper(processes)
    write(image, [criu_record.ProcessRecord(pid, 1, "/bin/x", ["x"], [pid], 4096, "/")], [])
    with pytest.raises(NotPossible, match=f"pid {pid}, which the snapshot needs, is in use"):
        component.restart(snapshot, RestartOptions())


def test_a_terminal_can_only_be_a_terminal_again(
    component: CriuComponent, criu: Criu, snapshot: SnapshotReference, image: Path
) -> None:
    criu(work="echo tried; exit 1")
    process = criu_record.read(image).processes
    write(image, process, [criu_record.OutsideRecord("tty[8800:1a]", 1)])
    with pytest.raises(NotPossible, match="standard stream 1 was a terminal"):
        component.restart(snapshot, RestartOptions())
    master, slave = os.openpty()
    with pytest.raises(RestartFailed, match="tried"):
        component.restart(snapshot, RestartOptions(stdio=(-1, slave, -1)))
    os.close(master)
    os.close(slave)


def test_what_leads_outside_is_seen(processes: ProcessTracker) -> None:
    """A pipe between two of the tree stays inside; our pipe and our terminal do not."""
    master, slave = os.openpty()
    shell = processes.start(
        ["sh", "-c", "sleep 1000 | sleep 1000"], stdin=slave, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    os.close(slave)
    eventually(lambda: len(sleepers_below(shell.pid)) == 2)
    tree = criu_tree.look(shell.pid)
    keys = {other.stream: other.key.partition("[")[0] for other in criu_tree.leading_outside(tree, None)}
    assert keys == {0: "tty", 1: "pipe:"}
    alone = [criu_tree.leading_outside(criu_tree.look(pid), None) for pid in sleepers_below(shell.pid)]
    pipes = [other.stream for others in alone for other in others if other.key.startswith("pipe")]
    assert sorted(pipes) == [0, 1, 1]  # without the other, the pipe between them leads outside
    os.close(master)


def sleepers_below(pid: int) -> list[int]:
    return [child for child in children_of(pid) if Path(f"/proc/{child}/cmdline").read_bytes().startswith(b"sleep")]


def eventually(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_channel_must_be_a_unix_socket(processes: ProcessTracker) -> None:
    tree = criu_tree.look(sleeper(processes))
    for fd in (0, 77):
        with pytest.raises(NotPossible, match=f"descriptor {fd} of process {tree.root} as a channel"):
            criu_tree.leading_outside(tree, fd)
