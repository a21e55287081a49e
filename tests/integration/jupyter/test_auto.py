"""Checkpoints that nobody asks for one by one, in real Jupyter kernels: undoing cells, losing nothing by a restart."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

import pytest

from nbcr.store import Entry
from tests.integration.jupyter.lives import kill, nbcr, revive
from tests.integration.jupyter.sessions import Jupyter, Stage
from tests.support import wait_for_end

PATIENCE_S = 120.0


def with_extension(stage: Stage) -> Jupyter:
    jupyter = stage.start()
    jupyter.client.run("%load_ext nbcr")
    return jupyter


def entries(stage: Stage) -> list[Entry]:
    """Of a store that may be another user's, which `Store` refuses."""
    folders = (path.parent for path in (stage.folder / "store" / "entries").glob("[0-9]*/manifest.json"))
    return [Entry.read(folder) for folder in sorted(folders)]


def automatic(stage: Stage, reason: str) -> list[Entry]:
    return [entry for entry in entries(stage) if entry.automatic == reason]


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def run_and_wait_for_point(stage: Stage, jupyter: Jupyter, code: str) -> None:
    """A cell, and the pause a user makes: until the point after it is written."""
    before = {entry.id for entry in automatic(stage, "cell")}
    jupyter.client.run(code)
    wait_until(lambda: bool({entry.id for entry in automatic(stage, "cell")} - before))


def error_of(jupyter: Jupyter, code: str) -> str:
    (cell,) = jupyter.client.wait(jupyter.client.send(code), timeout_s=PATIENCE_S)
    assert cell.status == "error"
    return cell.error


def test_cells_are_undone_one_by_one_and_points_are_few(stage: Stage) -> None:
    jupyter = with_extension(stage)
    client = jupyter.client
    assert "--each-cell" in error_of(jupyter, "%undo")
    client.run("%config NbcrAuto.keep_cells = 4")
    run_and_wait_for_point(stage, jupyter, "%nbcr auto --each-cell --before-restart")
    run_and_wait_for_point(stage, jupyter, "import threading; seen = [1]; data = bytearray(1 << 20)")
    run_and_wait_for_point(stage, jupyter, "generator = iter(range(100)); next(generator)")
    client.run("%checkpoint named --wait", PATIENCE_S)
    run_and_wait_for_point(stage, jupyter, "seen.append(2); data[:] = bytes([7]) * len(data); next(generator)")
    run_and_wait_for_point(stage, jupyter, "del data; seen = None")
    said = client.run("%undo", PATIENCE_S)
    assert "goes back to what it was after cell" in said
    assert "goes forward again" in said
    assert client.run("print(seen, data[5], next(generator))") == "[1, 2] 7 2\n"
    # that cell counts, and asking nbcr something does not
    client.run("%checkpoints")
    client.run("%undo 2", PATIENCE_S)
    assert client.run("print(seen, data[5], next(generator))") == "[1] 0 1\n"
    forward = said.partition("%restart ")[2].partition("`")[0]
    client.run(f"%restart {forward}", PATIENCE_S)
    assert client.run("print(seen, 'data' in globals())") == "None False\n"
    assert "no point was kept before the last 40 cells" in error_of(jupyter, "%undo 40")
    assert len(automatic(stage, "cell")) <= 4 + 2 + 1  # two hold a present that was replaced, one may be about to go
    assert [entry.name for entry in entries(stage) if not entry.automatic] == ["named"]
    assert client.value("os.getpid()" if client.run("import os") == "" else "") == jupyter.pid


@pytest.mark.either("any_stage")
def test_a_restart_loses_nothing(any_stage: Stage) -> None:
    jupyter = with_extension(any_stage)
    client = jupyter.client
    client.run("%nbcr auto --before-restart")
    client.run("x = 1")
    client.run("%checkpoint one --wait", PATIENCE_S)
    client.run("x = 2")
    (cell,) = client.wait(client.send("%restart one"), timeout_s=PATIENCE_S)
    assert "the present is kept" in str(cell.displays)
    assert client.run("print(x)") == "1\n"
    (kept,) = automatic(any_stage, "restart")
    assert (kept.note, kept.kinds) == ("before %restart one", ("image",))
    client.run(f"%restart {kept.id} --discard", PATIENCE_S)
    assert client.run("print(x)") == "2\n"
    # what is saved already is not saved again
    client.run("%checkpoint two --wait", PATIENCE_S)
    client.run("%restart one", PATIENCE_S)
    client.run("%restart two", PATIENCE_S)
    assert len(automatic(any_stage, "restart")) == 1
    # nor is anything replaced that could not be kept
    client.run("import nbcr\n@nbcr.on_checkpoint\ndef refuses():\n    raise OSError('not now')\n    yield\nx = 3")
    error = error_of(jupyter, "%restart one")
    assert "could not be kept, so nothing was done" in error
    assert "not now" in error
    assert "%restart one --discard" in error
    assert client.run("print(x)") == "3\n"
    client.run("%restart one --discard", PATIENCE_S)
    assert client.run("print(x)") == "1\n"


def test_a_checkpoint_every_so_often_and_on_signals(stage: Stage) -> None:
    jupyter = with_extension(stage)
    client = jupyter.client
    client.run("%nbcr auto --every 1s --on-memory 0.01% --on-signal TERM")
    client.run("x = 'worth keeping'")
    wait_until(lambda: bool(automatic(stage, "timer") and automatic(stage, "memory")))
    client.run("%nbcr auto --every never")
    os.kill(jupyter.pid, signal.SIGTERM)
    assert wait_for_end(jupyter.pid, PATIENCE_S)
    stage.processes.reap(jupyter.pid)
    (entry,) = automatic(stage, "signal")
    assert entry.note == "SIGTERM came"
    revive(stage, entry.id)
    assert client.run("print(x)", PATIENCE_S) == "worth keeping\n"
    assert "TERM" in client.run("%nbcr auto")
    assert "no" in client.run("%nbcr auto off")
    assert not any(line.endswith("yes") for line in client.run("%nbcr auto").splitlines())


def test_a_cell_with_a_checkpoint_after_it(stage: Stage) -> None:
    jupyter = with_extension(stage)
    client = jupyter.client
    client.run("%%checkpoint after --every 1s\nimport time\nfor step in range(30):\n    time.sleep(.1)\ndone = True")
    nbcr(stage, "list")
    client.run("done = False")
    client.run("%restart after", PATIENCE_S)
    assert client.run("print(step, done)") == "29 True\n"
    assert "no checkpoint was taken after it" in error_of(jupyter, "%%checkpoint failed\n1 / 0")
    assert [entry.name for entry in entries(stage)] == ["after"]
    kill(stage, jupyter)


def test_a_cell_that_goes_back_to_the_end_of_a_failed_one_has_not_failed(stage: Stage) -> None:
    jupyter = with_extension(stage)
    client = jupyter.client
    client.run("%nbcr auto --each-cell --always --no-before-restart")
    (failed,) = client.wait(client.send("kept = 1; 1 / 0"), timeout_s=PATIENCE_S)
    assert failed.status == "error"
    client.run("kept = 2", PATIENCE_S)
    assert "goes back to what it was after cell" in client.run("%undo", PATIENCE_S)
    assert client.run("print(kept)") == "1\n"
    # a point that is not kept any more is missed before anything is said or written
    client.run("%config NbcrAuto.keep_cells = 2")
    client.run("%nbcr auto --before-restart")
    for value in range(3, 6):
        client.run(f"kept = {value}", PATIENCE_S)
    (gone,) = client.wait(client.send("%undo 3"), timeout_s=PATIENCE_S)
    assert "not in the store any more" in gone.error
    assert "`%undo 1` goes back to the oldest of them" in gone.error
    assert gone.text == ""
    assert not automatic(stage, "restart")
