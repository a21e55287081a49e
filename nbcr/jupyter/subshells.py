"""Subshells of the present, made anew in a restored life that was captured before they were.

A frontend asks for a subshell once, and addresses messages to it by its id from then on: JupyterLab does so for its
widgets. In a Jupyter kernel that does not know the id they are lost without a word.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

from nbcr.jupyter.living import Living


def known(living: Living) -> list[str]:
    """Ids of this Jupyter kernel's subshells."""
    return list(living.manager.list_subshell())


def make(living: Living, ids: Iterable[str]) -> None:
    """Make those subshells that are missing, with these very ids."""
    missing = [each for each in ids if each not in known(living)]
    if missing:
        living.on_shell(lambda: _make(living.manager, missing))


def _make(manager: Any, ids: Iterable[str]) -> None:
    """On the shell channel's thread, which alone makes subshells: so nobody else meets our source of ids."""
    home: Any = sys.modules[type(manager).__module__]
    usual = home.uuid
    try:
        for each in ids:
            home.uuid = SimpleNamespace(uuid4=lambda each=each: each)
            manager._create_subshell()
    finally:
        home.uuid = usual
