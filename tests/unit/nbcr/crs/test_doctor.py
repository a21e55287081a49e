"""What `nbcr doctor` says of components, in text and as JSON."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from nbcr import crs, doctor
from nbcr.store import Store
from tests.unit.nbcr.crs.conftest import Install, working


@pytest.fixture(autouse=True)
def _own_places(store: Store, runtime_dir: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NBCR_CRS", raising=False)
    monkeypatch.setenv("NBCR_CRIU", "/nowhere/criu")


def document(store: Store) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """All of it, and the components by name."""
    found = doctor.examine(store).document()
    return found, {component["name"]: component for component in found["components"]}


def test_every_component_is_there_with_state_and_reason(store: Store) -> None:
    whole, components = document(store)
    assert list(components)[:3] == ["ptrace", "criu", "objects"]
    assert set(components["ptrace"]) == {"name", "version", "priority", "state", "detail"}
    assert {name: found["state"] for name, found in components.items()} == {
        "ptrace": "selected",
        "criu": "unavailable",
        "objects": "available",
    }
    assert "NBCR_CRIU names /nowhere/criu" in components["criu"]["detail"]
    assert "variables of notebooks, by cloudpickle" in components["objects"]["detail"]
    assert components["ptrace"]["priority"] > components["criu"]["priority"] > components["objects"]["priority"]
    assert whole["ok"]


def test_third_parties_are_there_broken_or_not(store: Store, install: Install) -> None:
    install("acme", working("acme"))
    install("lame", "import there_is_no_such_module")
    whole, components = document(store)
    assert components["acme"]["state"] == "selected"
    assert components["acme"]["version"] == "7"
    assert components["ptrace"]["state"] == "available"
    assert components["lame"]["state"] == "broken"
    assert components["lame"]["priority"] is None
    assert "ModuleNotFoundError" in components["lame"]["detail"]
    assert whole["ok"]  # somebody else's fault


def test_a_choice_that_cannot_serve_is_said(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    for choice, told in (("criu", "component criu should take them, and cannot"), ("acme", "no CRS component named")):
        monkeypatch.setenv("NBCR_CRS", choice)
        whole, _ = document(store)
        [finding] = [found for found in whole["findings"] if found["name"] == "new checkpoints"]
        assert not finding["ok"]
        assert told in finding["detail"]
        assert not whole["ok"]


def test_the_command_shows_the_same(store: Store) -> None:
    def said(*words: str) -> str:
        return subprocess.run(
            [sys.executable, "-m", "nbcr.cli", "doctor", *words], capture_output=True, text=True
        ).stdout

    lines = said().splitlines()
    for component in json.loads(said("--json"))["components"]:
        head = f"component {component['name']} {component['version']}: {component['state']}, "
        assert any(f"{head}priority {component['priority']}: {component['detail']}" in line for line in lines), lines
    assert len([line for line in lines if "  component " in line]) == len(crs.components())
