"""How a rank, or what stands in for one, starts the launcher's agent on its host. Standard library only."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from nbcr import sealed

_MODULE = "nbcr.launcher.agent"
_ROOT = Path(__file__).resolve().parents[2]


def start(network: str) -> None:
    """Start it, as nobody's child, with none of our streams. It says itself whether it has come."""
    python = sealed.Network.of(network).python
    environ = {**os.environ, sealed.VARIABLE: network, "PYTHONPATH": str(_ROOT)}
    nowhere = [(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDWR, 0), *((os.POSIX_SPAWN_DUP2, 0, n) for n in (1, 2))]
    with contextlib.suppress(OSError):  # the launcher waits for it, and says that it has not come
        pid = os.posix_spawn(python, [python, "-P", "-m", _MODULE], environ, file_actions=nowhere, setsigmask=())
        os.waitpid(pid, 0)  # it forks and ends
