"""The contract where it applies to variables: a component that saves the process it is in, and nobody else."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from nbcr.crs import CheckpointOptions, Component, Progress, RestartOptions, SnapshotReference, State
from nbcr.errors import NotPossible
from tests.contract.conftest import LISTED, STATES, settle
from tests.contract.test_crs import around, exit_code, flipped

US = os.getpid()


@pytest.fixture(params=[name for name, state in STATES.items() if state.available and LISTED[name].serves == "objects"])
def keeper(request: pytest.FixtureRequest) -> Component:
    return LISTED[str(request.param)]


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The variables of this process: those of a program of its own."""
    program = ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", program)
    names = vars(program)
    names.update(a=[1, 2], generator=(n for n in ()), large=bytes(range(256)) * 8192)
    names["b"] = names["a"]
    return names


@pytest.fixture
def place(keeper: Component, tmp_path: Path) -> SnapshotReference:
    (tmp_path / "around").mkdir()
    return SnapshotReference(keeper.name, "s", tmp_path / "around" / "s")


def test_variables_are_saved_and_come_back(
    keeper: Component, place: SnapshotReference, names: dict[str, Any], tmp_path: Path
) -> None:
    told: list[Progress] = []
    taken = keeper.checkpoint(US, place, CheckpointOptions(on_resume=told.append))
    assert (taken.state, taken.pids, len(told)) == (State.CONTINUE, (US,), 1)
    assert taken.size_bytes > len(names["large"])
    assert [line for line in taken.warnings if line.startswith("generator: lost")]
    assert around(place) == ["s"]
    names.update(a=0, new=1)
    moved = replace(place, local=place.local.rename(tmp_path / "moved"))
    keeper.verify(moved)
    happened: list[str] = []
    brought = keeper.restart(
        moved,
        RestartOptions(US, on_ready=lambda: happened.append("ready"), on_commit=lambda: happened.append("commit")),
    )
    assert (brought.pid, dict(brought.pids), happened) == (US, {US: US}, ["ready", "commit"])
    assert names["a"] == [1, 2]
    assert names["a"] is names["b"]
    assert "new" not in names
    assert any("generator: lost" in line for line in (*brought.warnings, *keeper.inspect(moved).warnings))


def test_other_processes_are_out_of_its_reach(keeper: Component, place: SnapshotReference, subject: int) -> None:
    with pytest.raises(NotPossible, match=str(subject)):
        keeper.checkpoint(subject, place, CheckpointOptions())
    with pytest.raises(NotPossible, match="killed"):
        keeper.checkpoint(US, place, CheckpointOptions(leave="killed"))
    for options in (RestartOptions(), RestartOptions(into=subject)):
        with pytest.raises(NotPossible):
            keeper.restart(place, options)
    assert around(place) == []
    settle(subject)


def test_failures_leave_nothing(keeper: Component, place: SnapshotReference, names: dict[str, Any]) -> None:
    def hung_up(progress: Progress) -> None:
        raise ConnectionError("the requester is gone")

    with pytest.raises(ConnectionError):
        keeper.checkpoint(US, place, CheckpointOptions(on_resume=hung_up))
    assert around(place) == []
    place.local.mkdir()
    (place.local / "thesis").write_text("three years")
    with pytest.raises(Exception, match=r"\bs\b"):
        keeper.checkpoint(US, place, CheckpointOptions())
    assert (place.local / "thesis").read_text() == "three years"


def test_damage_is_found_before_anything_is_touched(
    keeper: Component, place: SnapshotReference, names: dict[str, Any]
) -> None:
    keeper.checkpoint(US, place, CheckpointOptions())
    names["a"] = 0
    for path in sorted(place.local.iterdir()):
        whole = path.read_bytes()
        path.write_bytes(flipped(whole))
        assert_damaged(keeper, place)
        path.write_bytes(whole)
        aside = path.rename(path.with_name("aside"))
        assert_damaged(keeper, place)
        aside.rename(path)
    keeper.verify(place)
    assert names["a"] == 0


def assert_damaged(keeper: Component, place: SnapshotReference) -> None:
    for use in (keeper.verify, lambda s: keeper.restart(s, RestartOptions(US))):
        with pytest.raises(Exception) as caught:
            use(place)
        assert exit_code(caught.value) > 0
