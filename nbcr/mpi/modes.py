"""How a job is checkpointed with the MPI of this host: by images of its ranks, or in cooperation with the program.

Images need an MPI that can be initialised again in a process. Whether it can is tried out, in a job of one rank of its
own, and remembered until mpiexec changes. Standard library only.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

VARIABLE = "NBCR_MPI_MODE"  # forces one
IMAGES, COOPERATIVE = "images", "cooperative"

_TIMEOUT_S = 60.0
_TWICE = """
import mpi4py
mpi4py.rc.initialize = mpi4py.rc.finalize = False
from mpi4py import MPI
print(MPI.Get_library_version().strip(chr(0)).splitlines()[0], flush=True)
for turn in range(2):
    session = MPI.Session.Init()
    group = session.Create_group("mpi://WORLD")
    comm = MPI.Intracomm.Create_from_group(group, "nbcr")
    comm.Barrier()
    comm.Free()
    group.Free()
    session.Finalize()
print("twice", flush=True)
"""


@dataclass(frozen=True)
class Mode:
    """One of the two, and why."""

    name: str
    library: str
    why: str


def mode_of(mpiexec: str, python: str, environ: Mapping[str, str], memory: Path | None = None) -> Mode:
    """The mode of jobs that `mpiexec` starts with `python`. `memory`: a private folder where the outcome is kept."""
    forced = environ.get(VARIABLE, "")
    if forced in (IMAGES, COOPERATIVE):
        return Mode(forced, "", f"{VARIABLE} says so")
    remembered = None if memory is None else memory / f"mpi-{_mark(mpiexec, python)}.json"
    if remembered is not None:
        with contextlib.suppress(OSError, ValueError, TypeError):
            return Mode(**json.loads(remembered.read_text(encoding="utf-8")))
    mode, is_sure = _tried(mpiexec, python, environ)
    if remembered is not None and is_sure:
        with contextlib.suppress(OSError):
            remembered.write_text(json.dumps(asdict(mode)), encoding="utf-8")
    return mode


def python_of(argv: Sequence[str], otherwise: str) -> str:
    """The interpreter in an mpiexec's command line."""
    found = next((word for word in argv[1:] if Path(word).name.startswith("python")), None)
    return (found and shutil.which(found)) or otherwise


def _mark(mpiexec: str, python: str) -> str:
    facts = [(path, Path(path).stat().st_mtime_ns) for path in (mpiexec, python) if Path(path).exists()]
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:16]


def _tried(mpiexec: str, python: str, environ: Mapping[str, str]) -> tuple[Mode, bool]:
    """The mode, and whether the library itself has decided it."""
    try:
        done = subprocess.run(
            [mpiexec, "-n", "1", python, "-c", _TWICE],
            env=dict(environ), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_TIMEOUT_S,
            check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        return Mode(IMAGES, "", f"what MPI can do could not be tried out: {error}"), False
    lines = done.stdout.splitlines()
    if not lines:
        return Mode(IMAGES, "", "what MPI can do could not be tried out: mpi4py did not load"), False
    library = " ".join(lines[0].split(", package")[0].replace(" Version:", "").split())
    if lines[-1] == "twice":
        return Mode(IMAGES, library, f"{library} can be initialised again in a process"), True
    return Mode(COOPERATIVE, library, f"{library} cannot be initialised a second time in a process"), True


def is_rank(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether an mpiexec started this process."""
    return any(name in environ for name in ("PMI_RANK", "PMIX_RANK", "OMPI_COMM_WORLD_RANK"))
