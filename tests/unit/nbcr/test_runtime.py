"""The runtime folder, and locks per target."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from nbcr import runtime
from nbcr.errors import Busy, NotPossible


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


def test_sockets_of_dead_processes_are_swept(runtime_dir: Path) -> None:
    folder = runtime.runtime_folder()
    (folder / f"{2**22 + 1}.5.sock").touch()
    (folder / f"{2**22 + 1}.5.lock").touch()
    (folder / "other.txt").touch()
    runtime.sweep()
    assert [p.name for p in folder.iterdir()] == ["other.txt"]
