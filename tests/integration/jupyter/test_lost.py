"""A restart that fails past the point of no return: the present is gone, a fresh process goes on in its place."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from nbcr.crs import Brought, RestartOptions, SnapshotReference
from nbcr.crs.ptrace import PtraceComponent
from nbcr.errors import RestartFailed
from nbcr.session.bringing import RestartOrder, bring
from nbcr.session.connections import facts_from_file
from nbcr.store import Store
from tests.integration.jupyter.faults import living_strays
from tests.integration.jupyter.lives import assert_usable, assert_whole, kill, nbcr, set_up, spoil
from tests.integration.jupyter.sessions import Jupyter, Stage


@pytest.fixture
def at_commit(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], None]], None]:
    """What a test does in the instant before the point of no return of a restart in place."""
    usual = PtraceComponent.restart

    def arrange(what: Callable[[], None]) -> None:
        def restart(self: PtraceComponent, snapshot: SnapshotReference, options: RestartOptions) -> Brought:
            return usual(self, snapshot, options if options.into is None else replace(options, on_commit=what))

        monkeypatch.setattr(PtraceComponent, "restart", restart)

    return arrange


def test_the_checkpoint_comes_back_in_a_fresh_process(
    stage: Stage, at_commit: Callable[[Callable[[], None]], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(stage.folder))
    jupyter = stage.start()
    client = jupyter.client
    set_up(client)
    nbcr(stage, "checkpoint", jupyter.pid, "--name", "a")
    spoil(client)
    at_commit(lambda: os.kill(jupyter.pid, signal.SIGKILL))
    entry = Store(stage.folder / "store").find("a")
    result = bring(RestartOrder(entry, into=jupyter.pid, present={"connection": _connection(jupyter)}))
    stage.processes.adopt(result.pid)
    assert any("brought back in a fresh process instead" in warning for warning in result.warnings)
    assert_whole(client)
    assert_usable(client)
    assert living_strays(stage) == []


def test_another_jupyter_kernel_that_was_to_be_replaced_is_stood_in_for(
    stage: Stage, at_commit: Callable[[Callable[[], None]], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was lost, so the restored one serves its client, on its ports and with its key."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(stage.folder))
    old = stage.start()
    set_up(old.client)
    nbcr(stage, "checkpoint", old.pid, "--name", "a")
    kill(stage, old)
    other = stage.start()
    at_commit(lambda: os.kill(other.pid, signal.SIGKILL))
    entry = Store(stage.folder / "store").find("a")
    result = bring(RestartOrder(entry, into=other.pid, present={"connection": _connection(other)}))
    stage.processes.adopt(result.pid)
    assert result.connection_file == other.connection_file
    assert_whole(other.client)
    assert living_strays(stage) == []


def test_when_even_that_fails_both_reasons_are_said(
    stage: Stage, at_commit: Callable[[Callable[[], None]], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(stage.folder))
    jupyter = stage.start()
    entry_id = nbcr(stage, "checkpoint", jupyter.pid, "--name", "a")["id"]
    image = stage.folder / "store" / "entries" / entry_id / "image"

    def lose_both() -> None:
        os.kill(jupyter.pid, signal.SIGKILL)
        image.rename(image.with_name("away"))

    at_commit(lose_both)
    with pytest.raises(RestartFailed, match=rf"process {jupyter.pid} was lost .*could not be brought back"):
        bring(RestartOrder(Store(stage.folder / "store").find("a"), into=jupyter.pid))
    assert living_strays(stage) == []


def _connection(jupyter: Jupyter) -> dict[str, Any]:
    return facts_from_file(jupyter.connection_file)
