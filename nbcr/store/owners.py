"""Who made a draft, a writer's mark or a reader's: told so that others can see whether that process still lives."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nbcr import runtime


def ourselves(name: str = "") -> dict[str, Any]:
    """This process as an owner of what is called `name`."""
    mark = runtime.Mark.of(runtime.own_pid())
    return {
        "pid": mark.pid,
        "start_ticks": mark.start_ticks,
        "namespace": mark.namespace,
        "boot_id": runtime.boot_id(),
        "host": socket.gethostname(),
        "name": name,
    }


def encoded(name: str = "") -> bytes:
    """The same, as it is written."""
    return json.dumps(ourselves(name)).encode()


def read(path: Path) -> dict[str, Any] | None:
    """The owner that file `path` tells of; None where it cannot be read."""
    try:
        owner = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return owner if isinstance(owner, dict) else None


def lives(owner: Mapping[str, Any] | None) -> bool | None:
    """Whether the owner is there; None where that cannot be told from here."""
    if owner is None or owner.get("host") != socket.gethostname():
        return None
    if owner.get("boot_id") != runtime.boot_id():
        return False
    try:
        numbers = (int(owner.get("pid", 0)), int(owner.get("start_ticks") or 0), int(owner.get("namespace", 0)))
    except (TypeError, ValueError):
        return None
    return runtime.Mark(*numbers).lives


def is_dead(path: Path, *, untold_after_s: float, now_s: float) -> bool:
    """Whether the owner that file `path` tells of is gone; who cannot be looked for lives while it touches the file."""
    alive = lives(read(path))
    if alive is not None:
        return not alive
    try:
        return now_s - path.stat().st_mtime > untold_after_s
    except FileNotFoundError:
        return True


def touch(path: Path) -> None:
    """Say that its owner, we, still lives."""
    os.utime(path)
