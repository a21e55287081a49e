"""The runtime folder, locks per target, and the checkpoint thread's socket."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nbcr import runtime
from nbcr.channel import Channel, ChannelClosed
from nbcr.errors import Busy, NotPossible
from nbcr.handlers import Request, RestartEvent
from nbcr.handlers.thread import THREAD_NAME, CheckpointThread


def test_the_folder_is_made_private(runtime_dir: Path) -> None:
    old = os.umask(0)
    try:
        assert runtime.runtime_folder() == runtime_dir
    finally:
        os.umask(old)
    assert runtime_dir.stat().st_mode & 0o777 == 0o700


def test_a_folder_that_others_reach_is_not_used(
    runtime_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime_dir.mkdir(mode=0o700)
    runtime_dir.chmod(0o755)
    (tmp_path / "t").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "t"))
    assert runtime.runtime_folder() != runtime_dir


def test_without_any_private_folder_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "candidate_folders", lambda: [tmp_path / "no" / "where"])
    with pytest.raises(NotPossible, match="no private runtime folder"):
        runtime.runtime_folder()


def test_start_ticks_tell_processes_apart() -> None:
    assert runtime.start_ticks(os.getpid()) == runtime.start_ticks(os.getpid())
    assert runtime.start_ticks(2**22 + 1) is None
    dead = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, dead.pid, os.WEXITED | os.WNOWAIT)
    assert runtime.start_ticks(dead.pid) is None  # a zombie is nobody
    dead.wait()


def test_one_lock_per_target_and_a_bound_on_waiting(runtime_dir: Path) -> None:
    pid = os.getpid()
    with runtime.target_lock(pid, 1), pytest.raises(Busy), runtime.target_lock(pid, 0.05):
        pass
    with runtime.target_lock(pid, 0), runtime.target_lock(1, 0):
        pass
    assert [p for p in runtime_dir.iterdir() if p.suffix == ".lock"] == []


def test_a_lock_passes_on_and_is_never_held_twice(runtime_dir: Path) -> None:
    holders, most = 0, 0
    guard = threading.Lock()

    def work() -> None:
        nonlocal holders, most
        for _ in range(20):
            with runtime.target_lock(os.getpid(), 30):
                with guard:
                    holders += 1
                    most = max(most, holders)
                with guard:
                    holders -= 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1


def test_a_killed_holder_lets_go(runtime_dir: Path) -> None:
    code = (
        "import sys; from nbcr import runtime\n"
        f"with runtime.target_lock({os.getpid()}, 1): print('held', flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stdin=subprocess.PIPE)
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(Busy), runtime.target_lock(os.getpid(), 0):
            pass
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        with runtime.target_lock(os.getpid(), 1):
            pass


# --- the checkpoint thread


def echo(connection: socket.socket) -> None:
    channel = Channel(connection)
    channel.send({"echo": channel.receive(5)})


@pytest.fixture
def thread(runtime_dir: Path) -> Iterator[CheckpointThread]:
    thread = CheckpointThread(echo)
    thread.start()
    yield thread
    thread.stop()


def ask(message: dict[str, object]) -> dict[str, object]:
    sock = runtime.connect_to_thread(os.getpid())
    assert sock is not None
    with Channel(sock) as channel:
        channel.send(message)
        return channel.receive(5)


def until(condition: Callable[[], bool], timeout_s: float = 5.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_it_serves_one_request_after_another(thread: CheckpointThread) -> None:
    for n in range(3):
        assert ask({"n": n}) == {"echo": {"n": n}}
    assert THREAD_NAME in [t.name for t in threading.enumerate()]


def test_its_socket_is_the_users_alone(thread: CheckpointThread) -> None:
    assert thread.path is not None
    assert thread.path.stat().st_mode & 0o777 == 0o600
    assert thread.path.parent.stat().st_mode & 0o777 == 0o700


def test_no_socket_is_open_while_an_image_is_taken(thread: CheckpointThread) -> None:
    for end in (thread.continue_, thread.aborted, lambda: thread.restart(RestartEvent(1, {}, 0))):
        thread.checkpoint(Request())
        with pytest.raises(runtime.ThreadAway):
            runtime.connect_to_thread(os.getpid())
        end()
        assert ask({"again": 1}) == {"echo": {"again": 1}}


def test_a_connection_being_served_is_waited_for(thread: CheckpointThread) -> None:
    sock = runtime.connect_to_thread(os.getpid())
    assert sock is not None
    until(lambda: thread._serving)
    quiet = threading.Event()
    waiter = threading.Thread(target=lambda: [thread.checkpoint(Request()), quiet.set()])
    waiter.start()
    assert not quiet.wait(0.1)
    with Channel(sock) as channel:
        channel.send({"now": 1})
        channel.receive(5)
    assert quiet.wait(5)
    waiter.join()
    thread.continue_()


def test_nonsense_and_hanging_up_harm_nobody(thread: CheckpointThread) -> None:
    for raw in (b"", b"\x00\x00\x00\x02[]", b"\xff\xff\xff\xff"):
        sock = runtime.connect_to_thread(os.getpid())
        assert sock is not None
        sock.sendall(raw)
        sock.shutdown(socket.SHUT_WR)
        with pytest.raises(ChannelClosed):
            Channel(sock).receive(5)
        sock.close()
    assert ask({"fine": 1}) == {"echo": {"fine": 1}}


def test_stopping_takes_the_socket_away(runtime_dir: Path) -> None:
    thread = CheckpointThread(echo)
    thread.start()
    thread.stop()
    assert not thread.alive
    assert list(runtime_dir.glob("*.sock")) == []
    assert runtime.connect_to_thread(os.getpid()) is None


def test_sockets_of_dead_processes_are_swept(runtime_dir: Path) -> None:
    folder = runtime.runtime_folder()
    (folder / f"{2**22 + 1}.5.sock").touch()
    (folder / f"{2**22 + 1}.5.lock").touch()
    (folder / "other.txt").touch()
    runtime.sweep()
    assert [p.name for p in folder.iterdir()] == ["other.txt"]


def test_it_costs_nothing_while_idle(thread: CheckpointThread) -> None:
    before = time.process_time()
    until(lambda: True)
    threading.Event().wait(0.3)
    assert time.process_time() - before < 0.05
