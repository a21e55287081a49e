"""The panel: checkpoints as a tree, in the notebook, to take, look at, go back to and delete.

    __init__  panel(); panels across restarts
    model     what a panel shows, as texts and escaped HTML. Knows no widgets
    view      the widgets

A panel is plain ipywidgets: it works wherever those do. It is part of the process and so of each image; a panel that
was opened later than the image was taken is made anew in the restored life, with the ids by which frontends know it.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from nbcr.errors import NotPossible
from nbcr.handlers import Handler, registry
from nbcr.states import Layer

if TYPE_CHECKING:
    from nbcr.panels.view import Panel

_panels: list[Panel] = []


class _Handover(Handler):
    """Tells the restored life which panels the frontends show."""

    layer = Layer.APPLICATION

    def prepare_restart(self) -> dict[str, Any]:
        return {"panels": [panel.document() for panel in _panels]}


_handover = _Handover()


def panel(*, store: str | None = None) -> Any:
    """A new panel of the checkpoints in `store` (None: the default one): show it as the last line of a cell.

    Raises NotPossible outside a Jupyter kernel, or without ipywidgets.
    """
    from IPython.core.getipython import get_ipython

    shell: Any = get_ipython()
    if getattr(shell, "kernel", None) is None:
        raise NotPossible("a panel needs a Jupyter kernel", hint="`nbcr list` shows the checkpoints in a terminal")
    try:
        from nbcr.panels.view import Panel
    except ImportError as error:
        raise NotPossible(f"a panel needs ipywidgets ({error})", hint="pip install 'nbcr[panel]'") from error
    if "NbcrAuto" not in shell.magics_manager.registry:
        shell.extension_manager.load_extension("nbcr")
    made = Panel(store)
    _add(made)
    return made.root


def _add(made: Panel) -> None:
    registry.register(_handover)
    _panels.append(made)
    made.start()


def revive(documents: Sequence[dict[str, Any]]) -> None:
    """In a restored life: make the panels that the present had, and this life has not. Does not wait for it."""
    if documents:
        threading.Thread(target=_revive, args=(list(documents),), name="nbcr-panel", daemon=True).start()


def _revive(documents: Sequence[dict[str, Any]]) -> None:
    from nbcr.panels.view import Panel

    here = {made.ids["root"] for made in _panels}
    for document in documents:
        if document["ids"]["root"] not in here:
            _add(Panel(document["store"], ids=document["ids"]))
