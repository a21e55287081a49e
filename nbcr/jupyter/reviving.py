"""Bring a crashed Jupyter kernel's last checkpoint back: ``python -m nbcr.jupyter.reviving``.

An order as JSON on stdin, an answer as JSON on stdout: {"pid", "what"}, or {"error"}. For `nbcr.jupyter.provisioner`.
"""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from typing import Any

from nbcr import session
from nbcr.errors import NbcrError
from nbcr.rendering import when_text


def revive(order: dict[str, Any]) -> dict[str, Any]:
    """What became of `order`; raises nothing."""
    try:
        mine = [e for e in session.checkpoints(order["store"]) if _is_of(e, order)]
        if not mine:
            return {"error": "it has no checkpoint with a process image"}
        entry = mine[-1]
        what = f"as it was at {when_text(entry.created)}, in checkpoint {entry.name!r}"
        crashed = when_text(datetime.now(UTC).isoformat())
        news = f"this Jupyter kernel ended unexpectedly (noticed {crashed}) and is {what}; what came after is gone"
        present = {"connection": order["connection"], "news": news}
        result = session.restart_fresh(entry.id, store=order["store"], present=present)
    except Exception as error:
        return {"error": error.line() if isinstance(error, NbcrError) else f"{type(error).__name__}: {error}"}
    return {"pid": result.pid, "what": what}


def _is_of(entry: session.Entry, order: dict[str, Any]) -> bool:
    facts, file = entry.jupyter or {}, order["connection"].get("connection_file")
    mine = facts.get("kernel_id") == order["kernel_id"] or (file and facts.get("connection_file") == file)
    return "image" in entry.kinds and bool(mine)


if __name__ == "__main__":
    print(json.dumps(revive(json.load(sys.stdin))))
