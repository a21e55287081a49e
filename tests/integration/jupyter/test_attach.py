"""nbcr is loaded into a live Jupyter kernel that never heard of it, and disturbs nothing there."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import pytest

from nbcr.jupyter import attach, finding
from tests.integration.jupyter.sessions import Jupyter, Stage
from tests.support import ProcessTracker


@pytest.fixture(autouse=True)
def _environ(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("JUPYTER_RUNTIME_DIR", "NBCR_STORE"):
        monkeypatch.setenv(name, stage.environ[name])


def target(jupyter: Jupyter) -> finding.Target:
    return finding.find_target(str(jupyter.pid))


def test_an_idle_jupyter_kernel_gets_a_checkpoint_thread_and_nothing_else(jupyter: Jupyter) -> None:
    client = jupyter.client
    client.run("import sys, threading; path = list(sys.path); names = set(globals())")
    count = client.value("get_ipython().execution_count")
    assert attach.ensure_loaded(target(jupyter))
    assert client.value("get_ipython().execution_count") == count + 1
    assert client.value("[t.name for t in threading.enumerate()]").count("nbcr-checkpoint") == 1
    assert client.value("sys.path == path")
    assert client.value("sorted(n for n in set(globals()) - names if not n.startswith('_'))") == ["names"]
    assert not client.value("'checkpoint' in get_ipython().magics_manager.magics['line']")
    assert client.control("list_subshell_request", {})["subshell_id"] == []


def test_a_running_cell_is_not_disturbed(jupyter: Jupyter) -> None:
    client = jupyter.client
    client.run(  # lines are printed as one, since two threads print
        "import time, threading, matplotlib.pyplot as plt\n"
        "def background():\n    for i in range(40): print(f'bg {i}\\n', end=''); time.sleep(.05)"
    )
    cell = client.send(
        "threading.Thread(target=background).start()\nfig = plt.figure(); plt.plot([1, 2])\n"
        "print('up\\n', end=''); time.sleep(1.5)\nname = input('who? ')\n"
        "print(f'still {plt.get_fignums()} {name}\\n', end='')",
        allow_stdin=True,
    )
    assert client.listen(lambda: "up\n" in client.cells[cell].text, 20)
    assert attach.ensure_loaded(target(jupyter))
    client.is_asked(cell, "who? ", timeout_s=10)
    client.client.input("me")
    client.wait(cell)
    assert client.listen(lambda: "bg 39\n" in client.cells[cell].text, 10)
    done = client.cells[cell]
    assert "still [1] me\n" in done.text
    assert [line for line in done.text.splitlines() if line.startswith("bg")] == [f"bg {i}" for i in range(40)]
    assert len(done.displays) == 1, "the figure is shown once, at the end of the cell"


def test_loading_twice_is_loading_once(jupyter: Jupyter) -> None:
    assert attach.ensure_loaded(target(jupyter))
    assert attach.ensure_loaded(target(jupyter))
    assert jupyter.client.value("__import__('threading').active_count()") > 0
    names = jupyter.client.value("[t.name for t in __import__('threading').enumerate()]")
    assert names.count("nbcr-checkpoint") == 1


def test_where_nbcr_is_not_installed_it_is_found_beside_us_and_sys_path_stays(stage: Stage) -> None:
    """A Jupyter kernel that cannot import nbcr: its finder is hidden, the checkout is not on its path."""
    hide = stage.folder / "work" / "hide.py"
    hide.write_text(
        "import sys\n"
        "sys.meta_path[:] = [f for f in sys.meta_path if 'editable' not in str(f).lower()]\n"
        f"sys.path[:] = [p for p in sys.path if p != {str(Path(attach.__file__).parents[2])!r}]\n"
    )
    jupyter = stage.start(arguments=[f"--IPKernelApp.exec_files={hide}"])
    client = jupyter.client
    assert client.run("import importlib.util; print(importlib.util.find_spec('nbcr'))") == "None\n"
    client.run("import sys; path = list(sys.path)")
    assert attach.ensure_loaded(target(jupyter))
    assert client.value("sys.path == path")
    assert client.value("'nbcr.jupyter.handler' in sys.modules")


def test_a_process_that_is_no_jupyter_kernel_cannot_be_loaded_into(processes: ProcessTracker) -> None:
    process = processes.start([sys.executable, "-c", "import time; time.sleep(60)"])
    assert not attach.ensure_loaded(finding.find_target(str(process.pid)))


def test_one_that_does_not_answer_in_time_is_given_up(jupyter: Jupyter) -> None:
    os.kill(jupyter.pid, signal.SIGSTOP)
    try:
        begun = time.monotonic()
        assert not attach.ensure_loaded(target(jupyter), timeout_s=0.5)
        assert time.monotonic() - begun < 5
    finally:
        os.kill(jupyter.pid, signal.SIGCONT)
