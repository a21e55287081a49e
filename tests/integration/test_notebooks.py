"""The tour's notebooks, executed cell by cell in real Jupyter kernels."""

from __future__ import annotations

import os
import random
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from kernel_backend.host import features
from nbcr.store import Store
from tests.support import needs

FOLDER = Path(__file__).resolve().parents[2] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("[0-9]*.ipynb"))


@pytest.fixture
def private_folders(tmp_path: Path) -> dict[str, str]:
    """An environment in which nothing of the user's own is read or written."""
    environ = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    for variable in ("NBCR_STORE", "IPYTHONDIR", "JUPYTER_RUNTIME_DIR", "XDG_RUNTIME_DIR"):
        folder = tmp_path / ("run" if variable == "XDG_RUNTIME_DIR" else variable.lower())  # a socket's path is short
        folder.mkdir(mode=0o700)
        environ[variable] = str(folder)
    return environ


def outputs(notebook: nbformat.NotebookNode, source: str) -> str:
    """What the one cell that contains `source` printed and returned."""
    (cell,) = [c for c in notebook.cells if c.cell_type == "code" and source in c.source]
    said = ""
    for output in cell.outputs:
        said += output.text if output.output_type == "stream" else output.data["text/plain"]
    return said


def execute(path: Path, environ: dict[str, str], work: Path) -> nbformat.NotebookNode:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    runner = NotebookClient(notebook, timeout=200, kernel_name="python3", resources={"metadata": {"path": str(work)}})
    runner.execute(env=environ)
    return notebook


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_is_committed_without_outputs(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    assert not any(cell.outputs for cell in notebook.cells if cell.cell_type == "code")


def test_save_and_rewind(private_folders: dict[str, str], tmp_path: Path) -> None:
    notebook = execute(FOLDER / "01_save_and_rewind.ipynb", private_folders, tmp_path)
    assert outputs(notebook, "%checkpoint tour").startswith("CONTINUE  tour  id ")
    assert outputs(notebook, "%restart tour").startswith("RESTART  tour  id ")
    assert "as it was" in outputs(notebook, "assert thread.is_alive()")
    assert outputs(notebook, "nbcr.checkpoint(").strip() == "CONTINUE 1"
    assert outputs(notebook, "nbcr.restart(").strip() == "RESTART 2"
    assert "tour-api" in outputs(notebook, "%checkpoints")
    assert "removed tour-api" in outputs(notebook, "!nbcr remove")
    left = Store(private_folders["NBCR_STORE"]).entries()
    assert {entry.automatic for entry in left} <= {"restart"}, "what was kept before %restart, and nothing else"


def test_a_long_fit(private_folders: dict[str, str], tmp_path: Path) -> None:
    notebook = execute(FOLDER / "02_a_long_fit.ipynb", private_folders, tmp_path)
    assert "CONTINUE  fit  id " in outputs(notebook, "!nbcr checkpoint")
    monday, tuesday = outputs(notebook, "monday = Session"), outputs(notebook, "tuesday = Session")
    assert "epoch 0 " in monday
    assert "fitted" not in monday
    assert "epoch 0 " not in tuesday
    assert "fitted [" in tuesday
    assert "ended as if nothing had happened" in outputs(notebook, "again True")
    assert Store(private_folders["NBCR_STORE"]).entries() == []


@pytest.mark.long
def test_headless(private_folders: dict[str, str], tmp_path: Path) -> None:
    notebook = execute(FOLDER / "06_headless_and_preempted.ipynb", private_folders, tmp_path)
    assert "ended by signal 9" in outputs(notebook, "os.killpg")
    resumed = outputs(notebook, "--resume")
    assert "goes on with cell 3" in resumed
    assert "executed 1 cells" in resumed
    random.seed(3)
    drawn = [random.random() for _ in range(10)]
    assert outputs(notebook, "nbformat.read") == f"1 \n2 taken {sum(drawn[:5])}\n3 taken {sum(drawn)}\n"
    assert outputs(notebook, "!nbcr restart counted").endswith("counted 150\n")
    again = outputs(notebook, "!nbcr restart ring")
    assert "step 0" not in again
    assert f"totals [{sum(range(150))}, 0]" in again
    assert Store(private_folders["NBCR_STORE"]).entries() == []


def test_undo_and_branches(private_folders: dict[str, str], tmp_path: Path) -> None:
    notebook = execute(FOLDER / "03_undo_and_branches.ipynb", private_folders, tmp_path)
    assert "the session goes back to what it was after cell" in outputs(notebook, "%undo")
    assert "as it was" in outputs(notebook, "next(stream) == readings[3]")
    assert "changed  result" in outputs(notebook, "%checkpoint --diff")
    assert "way a: 100 · way b: 4" in outputs(notebook, "nbcr.get(")
    assert outputs(notebook, "here again") == "here again: 100 means, window 10\n"
    assert not [entry for entry in Store(private_folders["NBCR_STORE"]).entries() if entry.automatic is None]


def test_native_state(private_folders: dict[str, str], tmp_path: Path) -> None:
    notebook = execute(FOLDER / "04_threads_pools_native_state.ipynb", private_folders, tmp_path)
    assert "three threads go on" in outputs(notebook, "before = dict(progress)")
    assert "the worker remembers: 42" in outputs(notebook, "total == 42")
    drawn = outputs(notebook, "expected = generator").strip()
    assert outputs(notebook, "C's heap").strip().endswith(drawn)


def test_what_cannot_be_saved(private_folders: dict[str, str], tmp_path: Path) -> None:
    notebook = execute(FOLDER / "05_what_cannot_be_saved.ipynb", private_folders, tmp_path)
    assert "a running generator cannot be copied" in outputs(notebook, "%checkpoint partly")
    assert "rows" in outputs(notebook, "--vars")
    assert "numbers are back" in outputs(notebook, 'is table["numbers"]')
    assert "a telescope of that name: north" in outputs(notebook, "found = nbcr.get")
    assert "the shutter is open" in outputs(notebook, "def shutter")
    assert "could not be kept" in outputs(notebook, "%restart good")
    assert "still here: of an hour" in outputs(notebook, "%restart good")
    assert "did you mean 'good'?" in outputs(notebook, "goood")
    assert "log.txt" in outputs(notebook, "%restart writing")
    assert "['one', 'three']" in outputs(notebook, 'print("three"')


def test_a_cluster_of_engines(private_folders: dict[str, str], tmp_path: Path) -> None:
    needs("CAP_CHECKPOINT_RESTORE, to keep the engines' pids", available=features.probe_one("set_tid").available)
    notebook = execute(FOLDER / "07_a_cluster_of_engines.ipynb", private_folders, tmp_path)
    assert "went on: True" in outputs(notebook, "went on:")
    assert "[None, 400]" in outputs(notebook, "done = None")
    assert outputs(notebook, "%restart half").startswith("RESTART  half  id ")
    assert "went on from the middle: True\n[400, 400]" in outputs(notebook, "went on from the middle:")
    assert "ranks: [[0, 1], [0, 1]]" in outputs(notebook, "def ranks")
    assert "removed half" in outputs(notebook, "cluster.stop_cluster_sync")
