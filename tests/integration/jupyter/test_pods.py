"""Containers as Kubernetes ends them: SIGTERM to the first process, SIGKILL to all after the grace period, and another
day the next one on the same volume. The first process is Jupyter's server, in a pid namespace of its own.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from nbcr.store import Store
from tests.integration.jupyter.test_server import PATIENCE_S, Server
from tests.support import ProcessTracker, children_of, needs, wait_for_end

STATE = (
    "import threading; x = 41; generator = iter(range(10)); next(generator); lock = threading.Lock(); lock.acquire()"
)


class Pod(Server):
    """A server as the first process of a pid namespace."""

    def __init__(self, folder: Path, processes: ProcessTracker, *more: str) -> None:
        if os.geteuid():
            needs("root, for a pid namespace")
        namespace = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child")
        super().__init__(folder, processes, *more, inside=namespace)
        (self.first,) = children_of(self.process.pid)

    def evict(self, grace_s: float) -> None:
        """End all there is in it; whatever has not ended by itself in time is killed."""
        os.kill(self.first, signal.SIGTERM)
        wait_for_end(self.first, grace_s)
        self.process.kill()
        wait_for_end(self.first, PATIENCE_S)
        self.process.wait(PATIENCE_S)


@pytest.mark.long
def test_evicted_in_time(tmp_path: Path, processes: ProcessTracker) -> None:
    pod = Pod(tmp_path, processes)
    client = pod.session("fit.ipynb")
    client.run(STATE)
    client.close()
    pod.evict(PATIENCE_S)
    (entry,) = Store(tmp_path / "nbcr_store").entries()
    # the next pod: the same numbers, other processes
    pod = Pod(tmp_path, processes)
    client = pod.session("fit.ipynb")
    client.run("%load_ext nbcr")
    client.run(f"%restart {entry.id}", PATIENCE_S)
    assert client.run("print(x + 1, next(generator), lock.locked())") == "42 1 True\n"
    client.close()
    pod.evict(0.1)


def test_killed_before_it_was_kept(tmp_path: Path, processes: ProcessTracker) -> None:
    pod = Pod(tmp_path, processes)
    client = pod.session("fit.ipynb")
    client.run(STATE)
    client.run("%load_ext nbcr")
    client.run("%checkpoint whole --wait", PATIENCE_S)
    client.run("import os; ballast = os.urandom(900 << 20)", PATIENCE_S)
    client.close()
    entries = tmp_path / "nbcr_store" / "entries"
    os.kill(pod.first, signal.SIGTERM)
    deadline = time.monotonic() + PATIENCE_S
    while not list(entries.glob(".tmp-*")):
        assert time.monotonic() < deadline
        time.sleep(0.005)
    os.kill(pod.first, signal.SIGKILL)
    assert wait_for_end(pod.first, PATIENCE_S)
    pod.process.wait(PATIENCE_S)
    assert list(entries.glob(".tmp-*")), "it was written to the end: more ballast is needed"
    assert [entry.name for entry in Store(tmp_path / "nbcr_store").entries()] == ["whole"]
    # the next pod offers nothing half-made, and goes on from what is whole
    pod = Pod(tmp_path, processes)
    assert pod.ask("nbcr/kept") == []
    client = pod.session("fit.ipynb")
    client.run("%load_ext nbcr")
    client.run("%restart whole", PATIENCE_S)
    assert client.run("print(x + 1, next(generator), lock.locked(), 'ballast' in globals())") == "42 1 True False\n"
    (draft,) = entries.glob(".tmp-*")
    os.utime(draft, (0, 0))  # who wrote it cannot be looked for from another namespace: it is cleaned away a day later
    client.run("%checkpoint after --wait", PATIENCE_S)
    client.close()
    assert list(entries.glob(".tmp-*")) == []
    pod.evict(0.1)
