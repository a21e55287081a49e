"""The panel as a user of JupyterLab sees it, in a real browser."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nbcr.store import Store
from tests.integration.lab.browser import (
    Notebook,
    PlainNotebook,
    Server,
    browser_page,
    chromium,
    jupyter_lab,
    write_notebook,
)
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

    def take(self, name: str) -> None:
        """A checkpoint by its button. A page that moves under the mouse may cost a click; a user sees that, too."""
        said = self.root.get_by_text(re.compile(f"^(checkpoint )?{re.escape(name)} is (being )?written$"))
        for patience_s in (PATIENCE_S / 3, PATIENCE_S):
            self.root.get_by_placeholder("of the next checkpoint").fill(name)
            self.press("Checkpoint")
            begun = time.monotonic()
            while time.monotonic() < begun + patience_s:
                if said.count():
                    return
                time.sleep(0.05)
        raise AssertionError(self.root.page.locator(".jp-Notebook").inner_text())

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
            assert time.monotonic() < begun + PATIENCE_S, self.root.page.locator(".jp-Notebook").inner_text()
            time.sleep(0.05)
        return time.monotonic() - begun


_LEAST_CONTRAST = """root => {
  const rgb = text => text.match(/[\\d.]+/g).map(Number);
  const linear = v => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const light = c => 0.2126 * linear(c[0]) + 0.7152 * linear(c[1]) + 0.0722 * linear(c[2]);
  const contrast = node => {
    let under = node, back = [0, 0, 0, 0];
    while (under && (back.length > 3 && back[3] === 0)) {
      back = rgb(getComputedStyle(under).backgroundColor); under = under.parentElement;
    }
    const both = [light(rgb(getComputedStyle(node).color)), light(back)].sort((a, b) => a - b);
    return (both[1] + 0.05) / (both[0] + 0.05);
  };
  return Math.min(...[...root.querySelectorAll('td, select, [role=status]')].map(contrast));
}"""


def contrast(panel: PanelView) -> float:
    """The least contrast of the panel's texts, as WCAG counts it: of those of one moment, it draws its lines anew."""
    return float(panel.root.evaluate(_LEAST_CONTRAST))


def test_checkpoint_and_go_back_by_buttons(lab: Server) -> None:
    executable = chromium()
    if executable is None:
        needs("chromium")
    variable = "globals()['<script>window.harm=2</script>'] = '<script>window.harm=3</script>'"
    cells = [f"import nbcr\nx = 1\n{variable}", "nbcr.panel()", "%checkpoint --panel", "x = 2", "print(x)"]
    write_notebook(lab.folder / "t.ipynb", cells)
    with browser_page(executable) as page:
        notebook = Notebook(page, lab, "t.ipynb")
        for index in range(3):
            assert not notebook.run(index)["error"]
        panel, other = PanelView(page, 1), PanelView(page, 2)
        # taken by its button, with a name that is no markup
        panel.take("<script>window.harm=1</script>")
        panel.wait_for(lambda: panel.line_of("<script>window.harm=1</script>").startswith("▶"))
        other.wait_for(lambda: other.lines() == panel.lines())
        panel.wait_for(lambda: "<script>window.harm=2</script> = '<script>" in panel.root.inner_text())
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
        # both live: one takes, the other sees it, and what differs; deleting asks first
        notebook.run(3)
        other.take("second")
        other.wait_for(lambda: bool(other.line_of("second")))
        panel.wait_for(lambda: bool(panel.line_of("second")))
        panel.select("second")
        panel.wait_for(lambda: "x (1 → 2)" in panel.root.get_by_label("The selected checkpoint").inner_text())
        panel.press("Delete…")
        panel.press("Keep it")
        assert panel.line_of("second")
        panel.press("Delete…")
        panel.press("Delete it")
        panel.wait_for(lambda: not panel.line_of("second"))
        other.wait_for(lambda: not other.line_of("second"))
        # tags, which the other sees; by the keyboard, with the labels that a screen reader reads
        panel.select("<script>window.harm=1</script>")
        panel.root.get_by_label("Tag", exact=True).fill("good")
        panel.root.get_by_label("pinned").check()
        panel.root.get_by_role("button", name="Add tag").focus()
        page.keyboard.press("Enter")
        other.wait_for(lambda: other.line_of("<script>window.harm=1</script>").endswith("#good"))
        panel.wait_for(lambda: "good (pinned)" in panel.root.get_by_label("The selected checkpoint").inner_text())
        panel.root.get_by_label("Checkpoints").focus()
        page.keyboard.press("End")
        panel.wait_for(lambda: "note\tbefore going back" in panel.root.locator("table").inner_text())
        other.take("third")
        panel.wait_for(lambda: "▶ third" in panel.line_of("third"))
        # pruning asks, and leaves what is pinned
        panel.root.get_by_label("Keep last").fill("1")
        page.keyboard.press("Tab")
        panel.press("Prune…")
        panel.wait_for(lambda: "Remove 1 checkpoint for good" in panel.root.get_by_role("alert").inner_text())
        page.keyboard.press("Enter")  # "Keep it" has the focus
        panel.press("Prune…")
        panel.press("Prune them")
        panel.wait_for(lambda: "1 removed" in panel.root.inner_text())
        panel.wait_for(lambda: len(panel.lines()) == 2)
        light = contrast(panel)
        page.evaluate("jupyterapp.commands.execute('apputils:change-theme', {theme: 'JupyterLab Dark'})")
        notebook.wait_for("document.body.dataset.jpThemeLight === 'false'")
        assert min(light, contrast(panel)) > 4.5, "WCAG AA, in the light and in the dark theme"
        notebook.screenshot(ARTIFACTS / "panel-dark.png")
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
        panel.wait_for(lambda: "]\n%checkpoint early --wait" in panel.root.locator("table").inner_text())
        panel.press("Restart here")
        panel.wait_for(lambda: any("restart: before going back" in line for line in panel.lines()))
        panel.wait_for(lambda: panel.line_of("early").startswith("▶"))
        assert notebook.run(4)["text"].strip() == "1"
        # the session back there never had this panel: it works all the same
        panel.take("branch")
        panel.wait_for(lambda: "▶ branch" in panel.line_of("branch"))
        panel.wait_for(lambda: "└" in panel.line_of("branch"))
        notebook.screenshot(ARTIFACTS / "panel-revived.png")


def test_it_works_in_notebook_7(ourselves: User, processes: ProcessTracker, tmp_path: Path) -> None:
    executable = chromium()
    if executable is None:
        needs("chromium")
    with jupyter_lab(ourselves, tmp_path, processes, app="notebook") as server, browser_page(executable) as page:
        write_notebook(server.folder / "t.ipynb", ["import nbcr\nx = 1", "nbcr.panel()", "x = 2", "print(x)"])
        notebook = PlainNotebook(page, server, "t.ipynb")
        notebook.run(0)
        notebook.run(1)
        panel = PanelView(page, 1)
        panel.take("first")
        panel.wait_for(lambda: panel.line_of("first").startswith("▶"))
        notebook.run(2)
        panel.select("first")
        panel.press("Restart here")
        panel.wait_for(lambda: any("restart: before going back" in line for line in panel.lines()))
        panel.wait_for(lambda: panel.line_of("first").startswith("▶"))
        assert notebook.run(3).strip().endswith("1")
        page.screenshot(path=str(ARTIFACTS / "panel-notebook-7.png"))


def test_a_checkpoint_opens_beside_the_session_and_shows_its_figure(lab: Server) -> None:
    executable = chromium()
    if executable is None:
        needs("chromium")
    cells = [
        "%load_ext nbcr\nimport matplotlib.pyplot as plt\nx = 1\ngenerator = iter(range(9)); next(generator)",
        "plt.plot([1, 2, 3])\nplt.show()",
        "%checkpoint early --wait",
        "x = 2",
        "%checkpoint --panel",
        "print(x, next(generator))",
    ]
    write_notebook(lab.folder / "t.ipynb", cells)
    with browser_page(executable) as page:
        notebook = Notebook(page, lab, "t.ipynb")
        for index in range(5):
            assert not notebook.run(index)["error"]
        panel = PanelView(page, 4)
        panel.select("early")
        figure = panel.root.get_by_alt_text("The last figure before this checkpoint")
        figure.wait_for()
        assert figure.evaluate("image => image.decode().then(() => image.naturalWidth)") in range(150, 241)
        panel.press("Open beside…")
        panel.wait_for(lambda: panel.root.get_by_text("It runs in t-Copy1.ipynb").count())
        notebook.screenshot(ARTIFACTS / "panel-beside.png")
        way = panel.root.get_by_role("link", name="JupyterLab").get_attribute("href")
        assert way == "/lab/tree/t-Copy1.ipynb"
        kernels = {each["path"]: each["kernel"]["id"] for each in lab.ask("api/sessions")}
        assert kernels["t-Copy1.ipynb"] in panel.root.inner_text()
        assert notebook.run(5)["text"].strip() == "2 1"
        # who opens the copy is in the checkpoint
        copy = Notebook(page, lab, "t-Copy1.ipynb")
        assert copy.run(5)["text"].strip() == "1 1"
        assert {each["path"]: each["kernel"]["id"] for each in lab.ask("api/sessions")} == kernels
