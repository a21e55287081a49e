"""Who keeps the ports of a Jupyter kernel that was killed."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from nbcr.session.leftover import end_orphans, end_workers
from tests.support import ProcessTracker, wait_for_end

FORKS = """
import os, socket, time
here = socket.create_server(('127.0.0.1', 0))
{more}
child = os.fork()
if child == 0:
    time.sleep(600)
print(child, here.getsockname()[1], flush=True)
time.sleep(600)
"""
SERVES = "import zmq; context = zmq.Context(); context.socket(zmq.REP).bind('tcp://127.0.0.1:0')"


def start(processes: ProcessTracker, place: Path, more: str = "") -> tuple[int, int, int]:
    """Pids of one that listens and of its forked child, and the port."""
    out = place / "out"
    with out.open("wb") as file:
        pid = processes.start([sys.executable, "-c", FORKS.format(more=more)], stdout=file).pid
    while not out.read_text().endswith("\n"):
        pass
    child, port = map(int, out.read_text().split())
    return pid, child, port


def test_forked_children_are_ended(processes: ProcessTracker, tmp_path: Path) -> None:
    pid, child, port = start(processes, tmp_path, SERVES)
    assert end_orphans([port]) == []  # their parent can serve
    os.kill(pid, signal.SIGKILL)
    processes.reap(pid)
    assert end_orphans([port]) == [child]
    assert wait_for_end(child, 5)
    processes.reap(child)
    assert end_orphans([port]) == []


@pytest.mark.parametrize("number", [0, 1])
def test_nobody_is_ended_for_other_ports(processes: ProcessTracker, tmp_path: Path, number: int) -> None:
    pid, child, port = start(processes, tmp_path)
    assert end_orphans([port + 1] * number) == []
    os.kill(pid, 0)
    os.kill(child, 0)


def test_who_has_but_some_of_the_ports_is_not_ended(processes: ProcessTracker, tmp_path: Path) -> None:
    pid, child, port = start(processes, tmp_path, SERVES)
    os.kill(pid, signal.SIGKILL)
    processes.reap(pid)
    with socket.create_server(("127.0.0.1", 0)) as other:
        assert end_orphans([port, other.getsockname()[1]]) == []
    assert end_orphans([port, port + 1]) == []
    os.kill(child, signal.SIGKILL)
    processes.reap(child)


def test_a_program_of_its_own_is_not_ended(processes: ProcessTracker, tmp_path: Path) -> None:
    pid, child, port = start(processes, tmp_path)  # a server that does not use libzmq
    assert end_orphans([port]) == []
    os.kill(child, signal.SIGKILL)
    assert end_orphans([port]) == []
    os.kill(pid, 0)


LEADS = """
import os, subprocess, time
worker = os.fork()
if worker == 0:
    time.sleep(600)
print(worker, subprocess.Popen(["sleep", "600"]).pid, flush=True)
time.sleep(600)
"""


def test_workers_of_a_session_whose_leader_was_killed_are_ended_and_others_told(processes: ProcessTracker) -> None:
    leads = processes.start([sys.executable, "-c", LEADS], stdout=subprocess.PIPE, start_new_session=True)
    assert leads.stdout is not None
    with leads.stdout:
        worker, other = map(int, leads.stdout.readline().split())
    assert end_workers(leads.pid) == []
    os.kill(leads.pid, signal.SIGKILL)
    processes.reap(leads.pid)
    assert end_workers(other) == end_workers(worker) == []  # they led nobody
    ended, told = end_workers(leads.pid)
    assert ended.startswith(f"ended {worker}: ")
    assert told.endswith(f": {other} (sleep 600)")
    assert wait_for_end(worker, 5)
    os.kill(other, signal.SIGKILL)
    for pid in (worker, other):
        processes.reap(pid)
    assert end_workers(leads.pid) == []
