"""The papermill engine `nbcr`: parameters and reports are papermill's, and a run that died goes on where it was."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from nbcr.store import Store

PATIENCE_S = 120.0
CELLS = [
    "start = 1",
    "import os\nstream = iter(range(start, 100))\nprint('began', next(stream))",
    "if os.path.exists('die'):\n    os.remove('die')\n    os.kill(os.getpid(), 9)\nprint('went on', next(stream))",
    "if os.path.exists('fail'):\n    os.remove('fail')\n    1 / 0\nprint('ended', next(stream))",
]


def papermill(folder: Path, target: str, **more: str) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, **more}
    for variable in ("NBCR_STORE", "IPYTHONDIR", "JUPYTER_RUNTIME_DIR"):
        (folder / variable.lower()).mkdir(mode=0o700, exist_ok=True)
        environ[variable] = str(folder / variable.lower())
    argv = [sys.executable, "-m", "papermill", "in.ipynb", target, "--engine", "nbcr", "-p", "start", "7"]
    return subprocess.run(
        [*argv, "--no-progress-bar"], cwd=folder, env=environ, capture_output=True, text=True, timeout=PATIENCE_S
    )


@pytest.mark.long
@pytest.mark.parametrize("what", ["die", "fail"])
def test_a_run_that_ended_half_way_goes_on(what: str, tmp_path: Path) -> None:
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in CELLS])
    book.cells[0].metadata["tags"] = ["parameters"]
    book.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(book, tmp_path / "in.ipynb")
    (tmp_path / what).touch()
    assert papermill(tmp_path, "out.ipynb").returncode != 0
    assert len(Store(tmp_path / "nbcr_store").entries()) == 2  # that of the output file, and the one before
    again = papermill(tmp_path, "out.ipynb", NBCR_RESUME="1")
    assert again.returncode == 0, again.stderr
    assert f"goes on with cell {4 if what == 'die' else 5}" in again.stderr
    texts = ["".join(o.text for o in cell.outputs) for cell in nbformat.read(tmp_path / "out.ipynb", 4).cells]
    assert texts == ["", "", "began 7\n", "went on 8\n", "ended 9\n"]
    assert "nbcr" not in nbformat.read(tmp_path / "out.ipynb", as_version=4).metadata
    assert Store(tmp_path / "nbcr_store").entries() == []
