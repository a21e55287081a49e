"""This process's own namespace: IPython's, where there is a shell, else that of ``__main__``. Imports nothing."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any


def shell() -> Any:
    """The IPython shell of this process, or None; from any thread."""
    home = sys.modules.get("IPython.core.interactiveshell")
    try:
        kind = home.InteractiveShell if home is not None else None
        return kind.instance() if kind is not None and kind.initialized() else None
    except Exception:  # one that is half-imported
        return None


def namespace() -> dict[str, Any]:
    """Where this session keeps its variables."""
    here = shell()
    return vars(sys.modules["__main__"]) if here is None else here.user_ns


def hidden() -> Mapping[str, Any] | None:
    """What of it is not the user's; None: nobody says."""
    here = shell()
    return None if here is None else dict(here.user_ns_hidden)
