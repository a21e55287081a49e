"""Programs that start an mpiexec themselves: a script, make, a driver. They are taken as one process tree, their ranks
with them at one instant, without a gate; so all of them must be on this host."""

from __future__ import annotations

import contextlib
from pathlib import Path

import psutil

from nbcr.errors import NotPossible
from nbcr.launcher import placing
from nbcr.launcher.schema import MPIEXECS

_LOCAL = "hydra_pmi_proxy"  # an mpiexec's child for the ranks of its own host; others are reached by ssh and the like


def check(pid: int) -> None:
    """Raise NotPossible when an mpiexec below process `pid` has ranks on other hosts."""
    with contextlib.suppress(psutil.Error):
        for process in psutil.Process(pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                _check_one(process)


def _check_one(process: psutil.Process) -> None:
    argv = process.cmdline()
    if not argv or Path(argv[0]).name not in MPIEXECS or not placing.is_spread(argv, process.environ()):
        return
    if any(child.name()[:15] != _LOCAL[:15] for child in process.children()):
        raise NotPossible(
            f"process {process.pid} ({Path(argv[0]).name}) of the program has ranks on other hosts, which no image of "
            "its processes here can hold",
            hint="let `nbcr run` start it: `nbcr run -- mpiexec …`, see docs/mpi.md",
        )
