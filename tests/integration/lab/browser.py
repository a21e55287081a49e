"""JupyterLab on a server of its own, and a real browser that shows it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat

from tests.support import ProcessTracker, User

TOKEN = "nbcr-test"
START_S = 60.0
STEP_S = 60.0
KEY_MS = 2000  # until a key shows
_LOOK_MS = 100


def chromium() -> str | None:
    """The system's Chromium: playwright brings none of its own."""
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def write_notebook(path: Path, sources: Sequence[str], kernel: str = "python3") -> None:
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in sources])
    notebook.metadata["kernelspec"] = {"name": kernel, "display_name": kernel, "language": "python"}
    nbformat.write(notebook, path)


def dismiss_word_of_crash(page: Any) -> None:
    """Wait until the page tells that the Jupyter kernel has died and will be restarted; take note."""
    told = page.locator(".jp-Dialog", has_text="died")
    told.first.wait_for()
    told.first.locator(".jp-mod-accept").click()
    told.first.wait_for(state="detached")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Server:
    """A Jupyter server whose files are in `folder`."""

    port: int
    folder: Path
    user: User
    environ: dict[str, str]
    process: subprocess.Popen[Any]

    def ask(self, path: str) -> Any:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/{path}", headers={"Authorization": f"token {TOKEN}"}
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.load(answer)

    def kernel(self) -> dict[str, Any]:
        """What the server knows of its one Jupyter kernel."""
        (found,) = self.ask("api/kernels")
        return dict(found)


_APPS = {
    "lab": ["jupyterlab", "--expose-app-in-browser", "--LabApp.news_url=", "--LabApp.check_for_updates_class="
            "jupyterlab.NeverCheckForUpdate"],
    "notebook": ["notebook", "--LabApp.news_url="],
}  # fmt: skip


@contextmanager
def jupyter_lab(user: User, folder: Path, processes: ProcessTracker, app: str = "lab") -> Iterator[Server]:
    """A running JupyterLab server of this user's; or one of Notebook 7."""
    work = folder / "work"
    environ = user.environ({"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"})
    places = {
        "JUPYTER_RUNTIME_DIR": folder / "runtime",
        "JUPYTER_CONFIG_DIR": folder / "config",
        "JUPYTER_DATA_DIR": folder / "data",
        "JUPYTERLAB_WORKSPACES_DIR": folder / "workspaces",
        "JUPYTERLAB_SETTINGS_DIR": folder / "settings",
        "IPYTHONDIR": folder / "ipython",
        "NBCR_STORE": folder / "store",
    }
    for place in (work, *places.values()):
        place.mkdir(mode=0o700, exist_ok=True)
        user.give(place)
    environ.update({name: str(place) for name, place in places.items()})
    port = free_port()
    argv = [
        sys.executable, "-m", *_APPS[app], "--allow-root", "--no-browser", "--ip=127.0.0.1", f"--port={port}",
        "--ServerApp.port_retries=0", f"--IdentityProvider.token={TOKEN}", f"--ServerApp.root_dir={work}",
    ]  # fmt: skip
    with (folder / "server.log").open("wb") as log:
        process = processes.start(user.command(argv, cwd=work), env=environ, stdout=log, stderr=log)
    server = Server(port, work, user, environ, process)
    deadline = time.monotonic() + START_S
    while True:
        try:
            server.ask("api/status")
            break
        except (urllib.error.URLError, ConnectionError):
            assert process.poll() is None, (folder / "server.log").read_text()
            assert time.monotonic() < deadline, (folder / "server.log").read_text()
            time.sleep(0.1)
    yield server


class Notebook:
    """An open notebook in the browser, worked as a user's clicks would."""

    def __init__(self, page: Any, server: Server, name: str) -> None:
        self._page = page
        page.set_default_timeout(STEP_S * 1000)
        page.goto(f"http://127.0.0.1:{server.port}/lab/workspaces/test/tree/{name}?token={TOKEN}&reset")
        self.wait_for("window.jupyterapp && jupyterapp.shell.currentWidget && jupyterapp.shell.currentWidget.content")
        self.wait_for(f"{_KERNEL} && {_KERNEL}.status === 'idle'")
        self.wait_until_idle()

    def wait_for(self, condition: str, timeout_s: float = STEP_S) -> None:
        self._page.wait_for_function(condition, timeout=timeout_s * 1000)

    def wait_until_idle(self, timeout_s: float = STEP_S) -> None:
        """What the toolbar shows: no cell runs, none waits."""
        indicator = '.jp-Notebook-ExecutionIndicator[data-status="idle"]'
        self._page.wait_for_selector(indicator, state="attached", timeout=timeout_s * 1000)
        # a cell that is out of sight may have no prompt yet
        self.wait_for(f"{_CELLS}.every(c => c.promptNode?.textContent?.trim() !== '[*]:')", timeout_s)

    def run(self, index: int) -> dict[str, Any]:
        """Run one cell and wait until it has ended; how it then looks."""
        self._page.evaluate("i => { jupyterapp.shell.currentWidget.content.activeCellIndex = i; }", index)
        self._command("notebook:run-cell")
        return self.cell(index)

    def run_all(self) -> None:
        self._command("notebook:run-all-cells")

    def _command(self, name: str) -> None:
        """Until the command has ended, which is when its cells have, and nothing is shown as running."""
        start = "n => { window.ended = null; jupyterapp.commands.execute(n).then(() => { window.ended = n; }); }"
        self._page.evaluate(start, name)
        self.wait_for(f"window.ended === '{name}'")
        self.wait_until_idle()

    def cell(self, index: int) -> dict[str, Any]:
        """Prompt, text of the outputs and whether one of them is an error, as they are on the screen."""
        return dict(
            self._page.evaluate(
                f"i => {{ const c = {_CELLS}[i]; return {{"
                " prompt: c.promptNode.textContent.trim(), count: c.model.executionCount,"
                " text: c.outputArea.node.innerText, html: c.outputArea.node.innerHTML,"
                " error: c.outputArea.model.toJSON().some(o => o.output_type === 'error') }; }",
                index,
            )
        )

    def wait_for_text(self, index: int, pattern: str) -> None:
        """Until what is shown below a cell matches a regular expression."""
        self.wait_for(f"{_CELLS}[{index}].outputArea.node.innerText.match({json.dumps(pattern)})")

    def status(self) -> str:
        """What Lab believes of its Jupyter kernel."""
        return str(self._page.evaluate(f"{_KERNEL}.status"))

    def dialogs(self) -> int:
        return int(self._page.evaluate("document.querySelectorAll('.jp-Dialog').length"))

    def screenshot(self, path: Path) -> None:
        path.parent.mkdir(exist_ok=True)
        self._page.screenshot(path=str(path))


_RUNS = "[*]"


def _count(prompt: str) -> int | None:
    """The number in a cell's prompt; None of a cell that has not run, runs, or is not drawn yet."""
    found = re.search(r"\[(\d+)\]", prompt)
    return int(found[1]) if found else None


class PlainNotebook:
    """An open notebook of Notebook 7, which hides its inside: worked by mouse and keyboard alone."""

    def __init__(self, page: Any, server: Server, name: str) -> None:
        self._page = page
        page.set_default_timeout(STEP_S * 1000)
        page.goto(f"http://127.0.0.1:{server.port}/notebooks/{name}?token={TOKEN}")
        page.wait_for_selector('.jp-Notebook-ExecutionIndicator[data-status="idle"]', state="attached")

    def run(self, index: int) -> str:
        """Run one cell and wait until it has ended; the text below it."""
        cell = self._page.locator(".jp-Notebook .jp-CodeCell").nth(index)
        prompt = cell.locator(".jp-InputPrompt").first
        before = _count(prompt.inner_text())
        deadline = time.monotonic() + STEP_S
        # a page that has only just been opened may overhear a key; its prompts are empty, then without a number
        while _count(prompt.inner_text()) == before and _RUNS not in prompt.inner_text():
            assert time.monotonic() < deadline, f"no cell runs: {prompt.inner_text()!r}"
            self._choose_kernel_if_asked()
            cell.locator(".cm-content").click()
            self._page.keyboard.press("Control+Enter")
            self._page.wait_for_timeout(KEY_MS)
        while _count(prompt.inner_text()) in (None, before):
            assert time.monotonic() < deadline, f"the cell does not end: {prompt.inner_text()!r}"
            self._page.wait_for_timeout(_LOOK_MS)
        return str(cell.locator(".jp-OutputArea").inner_text())

    def _choose_kernel_if_asked(self) -> None:
        """On a busy host a page that is idle may have no Jupyter kernel yet, and ask for one at the first key."""
        asked = self._page.locator(".jp-Dialog")
        if asked.count():
            said = asked.first.inner_text()
            assert "Select Kernel" in said, said
            asked.first.locator(".jp-mod-accept").click()
            asked.first.wait_for(state="detached")

    def run_all(self) -> list[str]:
        """By the menu, until every cell has a number; the texts below them."""
        from playwright.sync_api import TimeoutError

        page, prompts = self._page, ".jp-Notebook .jp-CodeCell .jp-InputPrompt"
        every = f"[...document.querySelectorAll('{prompts}')].map(node => node.innerText)"
        deadline = time.monotonic() + STEP_S
        # a page may overhear a click, and shows no prompts at first
        while not page.evaluate(f"{every}.some(text => /\\[(\\d+|\\*)\\]/.test(text))"):
            assert time.monotonic() < deadline, "no cell runs"
            page.keyboard.press("Escape")  # a menu that opened late would be in the way
            with contextlib.suppress(TimeoutError):
                page.get_by_role("menuitem", name="Run", exact=True).click(timeout=KEY_MS)
                page.get_by_role("menuitem", name="Run All Cells", exact=True).click(timeout=KEY_MS)
            page.wait_for_timeout(KEY_MS)
        while not page.evaluate(f"{every}.every(text => /\\[\\d+\\]/.test(text))"):
            assert time.monotonic() < deadline, page.evaluate(every)  # which cells have not ended
            page.wait_for_timeout(_LOOK_MS)
        page.wait_for_selector('.jp-Notebook-ExecutionIndicator[data-status="idle"]', state="attached")
        cells = page.locator(".jp-Notebook .jp-CodeCell")
        return [str(cells.nth(n).locator(".jp-OutputArea").inner_text()).strip() for n in range(cells.count())]


_KERNEL = "jupyterapp.shell.currentWidget.sessionContext?.session?.kernel"
_CELLS = "jupyterapp.shell.currentWidget.content.widgets"


@contextmanager
def browser_page(executable: str) -> Iterator[Any]:
    """A page of a headless Chromium."""
    from playwright.sync_api import sync_playwright

    arguments = ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=arguments)
        try:
            yield browser.new_page(viewport={"width": 1200, "height": 900})
        finally:
            browser.close()
