"""The panel as a user of JupyterLab sees it, in a real browser."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nbcr.store import Store
from tests.integration.lab.browser import Notebook, Server, browser_page, chromium, jupyter_lab, write_notebook
from tests.support import CHECKOUT, ProcessTracker, User, needs

ARTIFACTS = CHECKOUT / "artifacts"
PATIENCE_S = 60.0


@pytest.fixture
def lab(ourselves: User, processes: ProcessTracker, tmp_path: Path) -> Iterator[Server]:
    with jupyter_lab(ourselves, tmp_path, processes) as server:
        yield server


class PanelView:
    """A panel in the output of one cell, worked by its labels."""

    def __init__(self, page: Any, cell: int) -> None:
        self.root = page.locator(".jp-Notebook .jp-CodeCell").nth(cell).locator(".jp-OutputArea")
        self.tree = self.root.locator("select").nth(1)
        self.tree.wait_for()

    def press(self, button: str) -> None:
        self.root.get_by_role("button", name=button, exact=True).click()

    def lines(self) -> list[str]:
        return [
            str(text).replace("\N{NO-BREAK SPACE}", " ") for text in self.tree.locator("option").all_text_contents()
        ]

    def line_of(self, name: str) -> str:
        found = [line for line in self.lines() if f" {name} " in line]
        return found[0] if found else ""

    def select(self, name: str) -> None:
        self.tree.select_option(index=self.lines().index(self.line_of(name)))

    def wait_for(self, condition: Any) -> float:
        begun = time.monotonic()
        while not condition():
            assert time.monotonic() < begun + PATIENCE_S, self.root.inner_text()
            time.sleep(0.05)
        return time.monotonic() - begun


def test_checkpoint_and_go_back_by_buttons(lab: Server) -> None:
    executable = chromium()
    if executable is None:
        needs("chromium")
    cells = ["import nbcr\nx = 1", "nbcr.panel()", "%checkpoint --panel", "x = 2", "print(x)"]
    write_notebook(lab.folder / "t.ipynb", cells)
    with browser_page(executable) as page:
        notebook = Notebook(page, lab, "t.ipynb")
        for index in range(3):
            assert not notebook.run(index)["error"]
        panel, other = PanelView(page, 1), PanelView(page, 2)
        # taken by its button, with a name that is no markup
        panel.root.get_by_placeholder("of the next checkpoint").fill("<script>window.harm=1</script>")
        panel.press("Checkpoint")
        panel.wait_for(lambda: panel.line_of("<script>window.harm=1</script>").startswith("▶"))
        other.wait_for(lambda: other.lines() == panel.lines())
        assert "variables" in panel.root.inner_text()
        assert page.evaluate("window.harm") is None
        notebook.run(3)
        # one that is taken elsewhere, by a cell of the same session, shows in both
        notebook.run(3)
        page.evaluate("i => { jupyterapp.shell.currentWidget.content.activeCellIndex = i; }", 4)
        assert notebook.run(4)["text"].strip() == "2"
        # back by its button
        panel.select("<script>window.harm=1</script>")
        panel.press("Restart here")
        panel.wait_for(lambda: any("restart: before going back" in line for line in panel.lines()))
        panel.wait_for(lambda: panel.line_of("<script>window.harm=1</script>").startswith("▶"))
        assert notebook.run(4)["text"].strip() == "1"
        notebook.screenshot(ARTIFACTS / "panel-back.png")
        # both live: one takes, the other sees it; deleting asks first
        other.root.get_by_placeholder("of the next checkpoint").fill("second")
        other.press("Checkpoint")
        other.wait_for(lambda: bool(other.line_of("second")))
        panel.wait_for(lambda: bool(panel.line_of("second")))
        panel.select("second")
        panel.wait_for(lambda: "second" in panel.root.inner_text())
        panel.press("Delete…")
        panel.press("Keep it")
        assert panel.line_of("second")
        panel.press("Delete…")
        panel.press("Delete it")
        panel.wait_for(lambda: not panel.line_of("second"))
        other.wait_for(lambda: not other.line_of("second"))
        assert "second" not in [entry.name for entry in Store(lab.folder.parent / "store").entries()]
        notebook.screenshot(ARTIFACTS / "panel.png")


def test_a_panel_opened_later_survives_going_back(lab: Server) -> None:
    executable = chromium()
    if executable is None:
        needs("chromium")
    cells = ["%load_ext nbcr\nx = 1", "%checkpoint early --wait", "x = 2", "%checkpoint --panel", "print(x)"]
    write_notebook(lab.folder / "t.ipynb", cells)
    with browser_page(executable) as page:
        notebook = Notebook(page, lab, "t.ipynb")
        for index in range(4):
            assert not notebook.run(index)["error"]
        panel = PanelView(page, 3)
        panel.select("early")
        panel.wait_for(lambda: "early" in panel.root.locator("table").inner_text())
        panel.press("Restart here")
        panel.wait_for(lambda: any("restart: before going back" in line for line in panel.lines()))
        panel.wait_for(lambda: panel.line_of("early").startswith("▶"))
        assert notebook.run(4)["text"].strip() == "1"
        # the session back there never had this panel: it works all the same
        panel.root.get_by_placeholder("of the next checkpoint").fill("branch")
        panel.press("Checkpoint")
        panel.wait_for(lambda: "▶ branch" in panel.line_of("branch"))
        panel.wait_for(lambda: "└" in panel.line_of("branch"))
        notebook.screenshot(ARTIFACTS / "panel-revived.png")
