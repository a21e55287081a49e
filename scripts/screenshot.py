"""Draw docs/panel.png anew: the panel in a real JupyterLab, in a real browser, beside a session that was rewound."""

from __future__ import annotations

import os
import pwd
import tempfile
from pathlib import Path

from tests.integration.lab.browser import Notebook, browser_page, chromium, jupyter_lab, write_notebook
from tests.support import CHECKOUT, ProcessTracker, User

CELLS = [
    "%load_ext nbcr\nimport numpy as np\nx = np.random.rand(128, 1024, 64)  # 64 MiB",
    "%checkpoint --wait before-fit",
    "x[:] = 0  # a mistake",
    "%restart before-fit",
    "nbcr.panel()",
]
HIDE = ".Toastify, #jp-bottom-panel { display: none !important; }"


def main() -> None:
    """Start all of it, run the cells, take the picture, end all of it."""
    who = pwd.getpwuid(os.geteuid())
    processes, user = ProcessTracker(), User(who.pw_name, who.pw_uid, who.pw_gid, Path.home())
    executable = chromium()
    assert executable is not None, "there is no Chromium"
    with tempfile.TemporaryDirectory() as folder:
        try:
            with jupyter_lab(user, Path(folder), processes) as server, browser_page(executable) as page:
                write_notebook(server.folder / "fit.ipynb", ["import nbcr", *CELLS])
                notebook = Notebook(page, server, "fit.ipynb")
                for index in range(len(CELLS) + 1):
                    notebook.run(index)
                page.add_style_tag(content=HIDE)
                page.wait_for_timeout(3000)
                page.locator("#jp-main-dock-panel").screenshot(path=str(CHECKOUT / "docs" / "panel.png"))
        finally:
            processes.end_all()


if __name__ == "__main__":
    main()
