"""A checkpoint beside the session that runs: in a new Jupyter kernel of the same server, with a copy of the notebook.

A frontend that opens a notebook joins the Jupyter kernel of that path. So the server is asked to copy the notebook (as
it was last saved) and to start a Jupyter kernel for the copy; that one becomes the checkpoint, and whoever opens the
copy is there. What fails on the way leaves neither behind.
"""

from __future__ import annotations

import contextlib
import time
import urllib.error
import urllib.parse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nbcr import session
from nbcr.errors import NotPossible, TargetUnknown
from nbcr.handlers.sections import critical_section
from nbcr.jupyter.attach import ensure_loaded
from nbcr.jupyter.finding import Target, find_target, runtime_folders
from nbcr.jupyter.servers import Server, server_of
from nbcr.session.usecases import StoreLike

START_S = 60.0
_LOOK_S = 0.2


@dataclass(frozen=True)
class Branch:
    """Where it is."""

    kernel_id: str
    notebook: str  # of the copy, as the server calls it
    base: str  # of the server's pages
    warnings: tuple[str, ...] = ()

    def page(self, kind: str) -> str:
        """The path at which a frontend shows it; `kind`: lab/tree, notebooks."""
        return f"{self.base}{kind}/{urllib.parse.quote(self.notebook)}"


def branch(
    name: str,
    kernel_id: str,
    notebook: str | None,
    *,
    store: StoreLike = None,
    say: Callable[[str], None] = lambda text: None,
) -> Branch:
    """Bring checkpoint `name` back beside Jupyter kernel `kernel_id`, whose notebook is at `notebook`.

    Raises NbcrError when that cannot be; then nothing is left of it.
    """
    entry = session.find(name, store=store)
    if "image" not in entry.kinds:
        raise NotPossible(f"{entry.name!r} holds no process image", hint="its variables can be loaded into any session")
    server = server_of(kernel_id, runtime_folders())
    path = _path_of(notebook, server)
    with critical_section("a new Jupyter kernel is being started"), contextlib.ExitStack() as undo:
        try:
            folder = path.rpartition("/")[0]
            copy = server.ask(f"contents/{folder}", {"copy_from": path}, method="POST")["path"]
            undo.callback(_quietly, lambda: server.ask(f"contents/{copy}", method="DELETE"))
            say(f"a Jupyter kernel is started for {copy} …")
            kind = server.ask(f"kernels/{kernel_id}")["name"]
            wish = {"path": copy, "name": Path(copy).name, "type": "notebook", "kernel": {"name": kind}}
            made = server.ask("sessions", wish)
            undo.callback(_quietly, lambda: server.ask(f"sessions/{made['id']}", method="DELETE"))
        except urllib.error.HTTPError as error:
            raise NotPossible(f"the Jupyter server answers {error.code} {error.reason} for {path}") from error
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise NotPossible(f"the Jupyter server cannot be asked for a new Jupyter kernel: {error}") from error
        new = str(made["kernel"]["id"])
        say(f"the Jupyter kernel {new} becomes {entry.name} …")
        result = session.restart_into(entry.id, _started(new), store=store, load=ensure_loaded)
        undo.pop_all()
    return Branch(new, copy, server.base, result.warnings)


def _path_of(notebook: str | None, server: Server) -> str:
    """The notebook as the server calls it."""
    try:
        return Path(notebook or "").resolve().relative_to(server.root.expanduser().resolve()).as_posix()
    except ValueError:
        raise NotPossible(
            f"the notebook {notebook!r} is not below the folder of its Jupyter server, {server.root}"
            if notebook
            else "it is not known which notebook this is",
            hint="`%restart` in a new notebook does the same",
        ) from None


def _started(kernel_id: str) -> Target:
    deadline = time.monotonic() + START_S
    while True:
        try:
            return find_target(kernel_id)
        except TargetUnknown:
            if time.monotonic() > deadline:
                raise
            time.sleep(_LOOK_S)


def _quietly(act: Callable[[], Any]) -> None:
    with contextlib.suppress(OSError, ValueError):
        act()
