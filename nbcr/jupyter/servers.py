"""Which notebook belongs to which Jupyter kernel, as running Jupyter servers know it."""

from __future__ import annotations

import json
import os
import urllib.request
from collections.abc import Iterable
from pathlib import Path
from typing import Any

ANSWER_S = 1.0


def notebooks_by_kernel(folders: Iterable[Path]) -> dict[str, str]:
    """Jupyter kernel id → path of its notebook, from /api/sessions of every server that answers."""
    found: dict[str, str] = {}
    for folder in folders:
        for file in folder.glob("jpserver-*.json"):
            for session in _sessions(file):
                kernel, path = session.get("kernel") or {}, session.get("path")
                if kernel.get("id") and path:
                    found[str(kernel["id"])] = str(path)
    return found


def _sessions(file: Path) -> list[dict[str, Any]]:
    try:
        server = json.loads(file.read_text(encoding="utf-8"))
        os.kill(int(server["pid"]), 0)
        address = f"{server['url'].rstrip('/')}/api/sessions"
        request = urllib.request.Request(address, headers={"Authorization": f"token {server['token']}"})
        with urllib.request.urlopen(request, timeout=ANSWER_S) as answer:
            sessions = json.load(answer)
        root = Path(server.get("root_dir") or ".")
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return []  # it has ended, or keeps its sessions to itself
    whole = [session for session in sessions if isinstance(session, dict)]
    return [{**session, "path": str(root / str(session.get("path") or ""))} for session in whole]
