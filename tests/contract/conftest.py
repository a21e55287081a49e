"""The components that this host can serve, each in turn, and a process for them to work on.

Those that serve something else than process images keep the same contract where it applies: test_crs_objects.

A component that cannot serve here is no reason to skip: `test_who_cannot_serve_says_why` is its test. With NBCR_CRIU
naming a criu of at least version 4 the whole suite runs against it.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from nbcr import crs
from nbcr.crs import Availability, Component, SnapshotReference
from tests.support import ProcessTracker

PLUGIN = Path(__file__).parent / "plugin"
BUILT_IN = {"ptrace", "criu", "objects"}
WITHOUT_MEMORY = {"trees"}  # brings commands back, not processes


def _listed() -> dict[str, Component]:
    sys.path.insert(0, str(PLUGIN))
    try:
        return {component.name: component for component in crs.components()}
    finally:
        sys.path.remove(str(PLUGIN))


LISTED = _listed()
STATES: dict[str, Availability] = {name: crs.availability(component) for name, component in LISTED.items()}
SERVABLE = [name for name, state in STATES.items() if state.available and LISTED[name].serves == "image"]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "component" in metafunc.fixturenames:
        keeping_memory = metafunc.definition.get_closest_marker("keeps_memory") is not None
        names = [name for name in SERVABLE if not (keeping_memory and name in WITHOUT_MEMORY)]
        metafunc.parametrize("component", names, indirect=True)


@pytest.fixture
def component(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Component]:
    """A component between its init and its finalize."""
    monkeypatch.syspath_prepend(str(PLUGIN))
    found = LISTED[request.param]
    found.init()
    yield found
    found.finalize()


@pytest.fixture
def snapshot(component: Component, tmp_path: Path) -> SnapshotReference:
    """Where a snapshot may be written: the folder around it is otherwise empty."""
    (tmp_path / "around").mkdir()
    return SnapshotReference(component.name, "s", tmp_path / "around" / "s")


@pytest.fixture
def subject(processes: ProcessTracker) -> int:
    """The pid of a process that does nothing, for long."""
    return sleeper(processes)


def sleeper(processes: ProcessTracker) -> int:
    silent = dict.fromkeys(("stdin", "stdout", "stderr"), -3)  # subprocess.DEVNULL
    pid = processes.start(["sleep", "1000"], **silent).pid
    settle(pid)
    return pid


def state_of(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def settle(pid: int, state: str = "S") -> None:
    """Until the process sleeps (and has become the program that it is), or has heeded the signal that stops it."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if state_of(pid) == state and Path(f"/proc/{pid}/cmdline").read_bytes():
            return
        time.sleep(0.01)  # nothing tells others when a process falls asleep
    pytest.fail(f"process {pid} is in state {state_of(pid)}, not {state}", pytrace=False)
