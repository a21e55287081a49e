"""Checkpoint and restart as a user of JupyterLab sees them, in a real browser."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.lab.browser import (
    Notebook,
    PlainNotebook,
    Server,
    browser_page,
    chromium,
    dismiss_word_of_crash,
    jupyter_lab,
    write_notebook,
)
from tests.support import CHECKOUT, ProcessTracker, User, needs

pytestmark = pytest.mark.either("lab")
ARTIFACTS = CHECKOUT / "artifacts"
RUN_ALL = [
    "%load_ext nbcr\nimport os",
    "def note(what):\n    with open('ran.txt', 'a') as f: f.write(what + '\\n')\n    print(what)",
    "note('a')",
    "%checkpoint all",
    "note('b')",
    "if not os.path.exists('once'):\n    open('once', 'w').close()\n    %restart all",
    "note('c')",
    "note('d')",
]


@pytest.fixture(params=["ourselves", "as_user"])
def lab(
    request: pytest.FixtureRequest, ourselves: User, as_user: User, processes: ProcessTracker, tmp_path: Path
) -> Iterator[Server]:
    """A JupyterLab server of our own, then one of an ordinary user without any capability."""
    user = ourselves if request.param == "ourselves" else as_user
    folder = tmp_path if user.is_ourselves else request.getfixturevalue("user_dir")
    with jupyter_lab(user, folder, processes) as server:
        yield server


@pytest.fixture
def executable() -> str:
    found = chromium()
    if found is None:
        needs("chromium")
    return found


def test_a_rewind_ends_cleanly(lab: Server, executable: str) -> None:
    write_notebook(
        lab.folder / "t.ipynb", ["%load_ext nbcr", "x = 1", "%checkpoint one", "x = 2", "%restart one", "print(x)"]
    )
    lab.user.give(lab.folder / "t.ipynb")
    with browser_page(executable) as page:
        notebook = Notebook(page, lab, "t.ipynb")
        for index in range(3):
            assert not notebook.run(index)["error"]
        # it was written, with its variables
        notebook.wait_for_text(2, r"CONTINUE\s+one.*size [\d.]+ \wiB.*duration [\d.]+ m?s\W+objects: 1 saved\s*$")
        before = lab.kernel()
        notebook.run(3)
        asked = notebook.run(4)
        notebook.screenshot(ARTIFACTS / f"lab-rewind-{lab.user.name}.png")
        assert not asked["error"]
        assert "RESTART" in asked["text"]
        assert asked["prompt"] == f"[{asked['count']}]:", "the prompt shows a number, not a star"
        assert notebook.status() == "idle"
        assert notebook.dialogs() == 0
        printed = notebook.run(5)
        notebook.screenshot(ARTIFACTS / f"lab-after-{lab.user.name}.png")
        assert printed["text"].strip() == "1"
        assert notebook.status() == "idle"
        after = lab.kernel()
        assert (after["id"], after["execution_state"]) == (before["id"], "idle")
        for _ in range(2):
            notebook.run(3)
            assert "RESTART" in notebook.run(4)["text"]
            assert notebook.run(5)["text"].strip() == "1"


def test_run_all_runs_no_cell_twice_and_loses_none(lab: Server, executable: str) -> None:
    write_notebook(lab.folder / "t.ipynb", RUN_ALL)
    lab.user.give(lab.folder / "t.ipynb")
    with browser_page(executable) as page:
        notebook = Notebook(page, lab, "t.ipynb")
        notebook.run_all()
        notebook.screenshot(ARTIFACTS / f"lab-run-all-{lab.user.name}.png")
        assert (lab.folder / "ran.txt").read_text().split() == ["a", "b", "c", "d"]
        looks = [notebook.cell(index) for index in range(len(RUN_ALL))]
        assert not any(look["error"] for look in looks)
        assert all(look["prompt"] == f"[{look['count']}]:" for look in looks), looks
        assert [looks[i]["text"].strip() for i in (2, 4, 6, 7)] == ["a", "b", "c", "d"]
        assert "CONTINUE" in looks[3]["text"]
        assert "RESTART" in looks[5]["text"]
        assert notebook.status() == "idle"


def test_run_all_in_notebook_7(ourselves: User, processes: ProcessTracker, tmp_path: Path, executable: str) -> None:
    with jupyter_lab(ourselves, tmp_path, processes, app="notebook") as server, browser_page(executable) as page:
        write_notebook(server.folder / "t.ipynb", RUN_ALL)
        texts = PlainNotebook(page, server, "t.ipynb").run_all()
        page.screenshot(path=str(ARTIFACTS / "notebook-7-run-all.png"))
        assert (server.folder / "ran.txt").read_text().split() == ["a", "b", "c", "d"]
        assert [texts[i] for i in (2, 4, 6, 7)] == ["a", "b", "c", "d"]
        assert "CONTINUE" in texts[3]
        assert "RESTART" in texts[5]


CRASH = [
    "import os, threading",
    "x, thread = [1], threading.Thread(target=threading.Event().wait, daemon=True)\nthread.start()",
    "%checkpoint before",
    "x.append(2)\nprint(os.getpid())",
    "print(x, thread.is_alive())",
]


@pytest.mark.either("app")
@pytest.mark.parametrize("app", ["lab", "notebook"])
def test_a_session_that_was_killed_is_back(
    app: str, ourselves: User, processes: ProcessTracker, tmp_path: Path, executable: str
) -> None:
    """By nbcr's kind of Jupyter kernel; whoever looks at the notebook is told."""
    with jupyter_lab(ourselves, tmp_path, processes, app=app) as server, browser_page(executable) as page:
        words = [sys.executable, "-m", "nbcr.cli", "kernelspec", "install", "--user"]
        subprocess.run(words, env=server.environ, check=True, stdout=subprocess.DEVNULL)
        write_notebook(server.folder / "t.ipynb", CRASH, kernel="nbcr")
        if app == "lab":
            lab = Notebook(page, server, "t.ipynb")
            run = lambda index: str(lab.run(index)["text"])  # noqa: E731
        else:
            run = PlainNotebook(page, server, "t.ipynb").run
        run(0)
        run(1)
        assert "CONTINUE" in run(2)
        os.kill(int(run(3)), signal.SIGKILL)
        dismiss_word_of_crash(page)
        said = run(4)
        page.screenshot(path=str(ARTIFACTS / f"{app}-crashed.png"))
        assert "[1] True" in said
        assert "ended unexpectedly" in said
        assert server.kernel()["execution_state"] == "idle"
