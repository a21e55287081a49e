"""`nbcr execute`: a run that is killed goes on where it was, and the outputs are those of an undisturbed run."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import nbformat
import pytest

from nbcr.store import Store
from tests.support import ProcessTracker, family_of

PATIENCE_S = 120.0
CELLS = [
    "import os, random, threading\nrandom.seed(1)\nvalues = [random.random()]\nlock = threading.Lock()",
    "# nothing\n",
    "values.append(random.random()); print(values); shown = display('early', display_id='one')",
    "counter = iter(range(100)); next(counter), values[-1]",
    "if os.path.exists('die'):\n    os.remove('die')\n    os.kill(os.{whom}(), 9)\nprint(next(counter)); len(values)",
    "values.append(random.random()); print(values, lock.locked(), next(counter)); shown.update('late')",
]


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    made = dict(os.environ)
    for variable in ("NBCR_STORE", "IPYTHONDIR", "JUPYTER_RUNTIME_DIR"):
        (tmp_path / variable.lower()).mkdir(mode=0o700)
        made[variable] = str(tmp_path / variable.lower())
    return made


def notebook(path: Path, cells: list[str]) -> Path:
    made = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell, id=f"c{n}") for n, cell in enumerate(cells)])
    made.cells.insert(1, nbformat.v4.new_markdown_cell("words", id="words"))
    nbformat.write(made, path)
    return path


def run(environ: dict[str, str], *words: object) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "nbcr.cli", "execute", *map(str, words)]
    return subprocess.run(argv, env=environ, capture_output=True, text=True, timeout=PATIENCE_S, check=False)


def outputs(path: Path) -> list[Any]:
    cells = nbformat.read(path, as_version=4).cells
    return [(cell.id, cell.source, cell.get("outputs"), cell.get("execution_count")) for cell in cells]


@pytest.mark.either("whom")
@pytest.mark.parametrize("whom", ["getpid", "getppid"])  # the Jupyter kernel, the command itself
def test_it_goes_on_where_it_died(whom: str, environ: dict[str, str], tmp_path: Path) -> None:
    file = notebook(tmp_path / "in.ipynb", [cell.replace("{whom}", whom) for cell in CELLS])
    whole = run(environ, file, "-o", tmp_path / "whole.ipynb")
    assert whole.stdout == f"executed 7 cells into {tmp_path / 'whole.ipynb'}\n", whole.stderr
    (tmp_path / "die").touch()
    died = run(environ, file, "-o", tmp_path / "out.ipynb")
    assert died.returncode in (1, -signal.SIGKILL)
    if whom == "getpid":
        assert "died in cell 6" in died.stderr
        assert "--resume goes on with that cell" in died.stderr
    again = run(environ, file, "-o", tmp_path / "out.ipynb", "--resume")
    assert again.returncode == 0, again.stderr
    assert "goes on with cell 6" in again.stderr
    assert "executed 2 cells" in again.stdout
    assert outputs(tmp_path / "out.ipynb") == outputs(tmp_path / "whole.ipynb")
    assert "nbcr" not in nbformat.read(tmp_path / "out.ipynb", as_version=4).metadata
    assert Store(environ["NBCR_STORE"]).entries() == []
    written = (tmp_path / "out.ipynb").stat().st_mtime_ns
    done = run(environ, file, "-o", tmp_path / "out.ipynb", "--resume")
    assert "nothing is left to do" in done.stderr
    assert done.stdout == f"executed 0 cells into {tmp_path / 'out.ipynb'}\n"
    assert (tmp_path / "out.ipynb").stat().st_mtime_ns == written


WIDGETS = [
    "import ipywidgets, os\nout, picture = ipywidgets.Output(), ipywidgets.Image(value=b'abc')\nout",
    "with out:\n    print('caught'); display('early')",
    "if os.path.exists('die'):\n    os.remove('die')\n    os.kill(os.getpid(), 9)",
    "with out:\n    print('after'); display('late')\nprint('not caught')",
    "slider = ipywidgets.IntSlider(7); [output['output_type'] for output in out.outputs]",
]


def widgets(path: Path) -> list[tuple[str, Any, Any]]:
    """What a notebook says of its widgets, without the numbers that these have."""
    known = nbformat.read(path, as_version=4).metadata["widgets"]["application/vnd.jupyter.widget-state+json"]["state"]
    own = [
        (w["model_name"], [w["state"].get(k) for k in ("outputs", "value")], w.get("buffers")) for w in known.values()
    ]
    return sorted(own, key=str)


def test_widgets_of_cells_before_are_known(environ: dict[str, str], tmp_path: Path) -> None:
    """Above all those that take the output of later cells."""
    file = notebook(tmp_path / "in.ipynb", WIDGETS)
    assert run(environ, file, "-o", tmp_path / "whole.ipynb").returncode == 0
    (tmp_path / "die").touch()
    assert run(environ, file, "-o", tmp_path / "out.ipynb").returncode == 1
    again = run(environ, file, "-o", tmp_path / "out.ipynb", "--resume")
    assert again.returncode == 0, again.stderr
    assert "goes on with cell 4" in again.stderr
    assert widgets(tmp_path / "out.ipynb") == widgets(tmp_path / "whole.ipynb")
    whole, resumed = (outputs(tmp_path / name) for name in ("whole.ipynb", "out.ipynb"))
    assert resumed[2:] == whole[2:]
    assert [output["text"] for output in resumed[4][2]] == ["not caught\n"]


@pytest.mark.long
def test_a_cell_that_fails_can_be_mended(environ: dict[str, str], tmp_path: Path) -> None:
    file = notebook(tmp_path / "in.ipynb", ["x = [1]", "x.append(2); 1 / 0", "x"])
    failed = run(environ, file, "-o", tmp_path / "out.ipynb")
    assert failed.returncode == 1
    assert "cell 3" in failed.stderr
    assert "ZeroDivisionError" in failed.stderr
    changed = notebook(tmp_path / "in.ipynb", ["x = [5]", "x.append(3)", "x"])
    refused = run(environ, changed, "-o", tmp_path / "out.ipynb", "--resume")
    assert "have changed since" in refused.stderr
    mended = notebook(tmp_path / "in.ipynb", ["x = [1]", "x.append(3)", "x"])
    assert run(environ, mended, "-o", tmp_path / "out.ipynb", "--resume").returncode == 0
    assert outputs(tmp_path / "out.ipynb")[-1][2][0]["data"]["text/plain"] == "[1, 3]"


FIRST = (
    "import random, threading, time; random.seed(7); lock = threading.Lock(); lock.acquire(); told = iter(range(100))"
)
STEP = """
for _ in range(3):
    time.sleep(0.05); print(round(random.random(), 9), next(told), lock.locked(), flush=True)
len(_ih) and next(told)
"""


@pytest.mark.long
@pytest.mark.exhaustive
@pytest.mark.timeout(1800)
def test_killed_at_random_moments(
    environ: dict[str, str], tmp_path: Path, processes: ProcessTracker, rng: random.Random
) -> None:
    """20 cells, killed 20 times: all of it at once, as by the end of a container, or the Jupyter kernel alone."""
    file = notebook(tmp_path / "in.ipynb", [FIRST, *[STEP] * 19])
    begun = time.monotonic()
    assert run(environ, file, "-o", tmp_path / "whole.ipynb").returncode == 0
    took_s = time.monotonic() - begun
    argv = [sys.executable, "-m", "nbcr.cli", "execute", str(file), "-o", str(tmp_path / "out.ipynb"), "--resume"]
    kills = ends = 0
    while kills < 20:
        command = processes.start(argv, env=environ, stderr=subprocess.PIPE, stdout=subprocess.PIPE)
        try:
            command.wait(rng.uniform(0.0, took_s))
        except subprocess.TimeoutExpired:
            kills += 1
            everybody = family_of(command.pid)
            for pid in everybody if rng.random() < 0.5 else everybody[1:2]:
                os.kill(pid, signal.SIGKILL)
        status = command.wait(PATIENCE_S)
        assert status in (0, 1, -signal.SIGKILL), command.communicate()
        if status == 0:
            ends += 1
            assert outputs(tmp_path / "out.ipynb") == outputs(tmp_path / "whole.ipynb")
            (tmp_path / "out.ipynb").unlink()
    end = run(environ, file, "-o", tmp_path / "out.ipynb", "--resume")
    assert end.returncode == 0, end.stderr
    assert outputs(tmp_path / "out.ipynb") == outputs(tmp_path / "whole.ipynb")
    print(f"{kills} times killed, {ends + 1} times through")
