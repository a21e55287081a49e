"""What the gate of `nbcr run` costs a job of two ranks while no checkpoint is taken.

The same program runs under mpiexec alone and under `nbcr run`, in turns; the ratio of neighbours is judged, so that a
noisy host disturbs both.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks import host
from benchmarks.commands import CommandFailed
from benchmarks.table import Report, Row, Verdict, median

_STATE = "two ranks of mpi4py"
_PROGRAM = """
import json, sys, time
import numpy as np
from mpi4py import MPI
comm = MPI.COMM_WORLD
rank, other = comm.rank, 1 - comm.rank
def ping_pong(room, times):
    begun = time.perf_counter()
    for _ in range(times):
        if rank == 0:
            comm.Send(room, 1)
            comm.Recv(room, 1)
        else:
            comm.Recv(room, 0)
            comm.Send(room, 0)
    return (time.perf_counter() - begun) / times / 2
def sums(times):
    one, total = np.ones(1), np.empty(1)
    begun = time.perf_counter()
    for _ in range(times):
        comm.Allreduce(one, total)
    return (time.perf_counter() - begun) / times
def best(call):
    return min(call() for _ in range(5))
found = {
    "8 bytes": best(lambda: ping_pong(np.zeros(1), 4000)),
    "4 MB": best(lambda: ping_pong(np.zeros(1 << 19), 50)),
    "Allreduce": best(lambda: sums(4000)),
}
if rank == 0:
    print(json.dumps(found))
"""
# How many times as long each may take: latency, transfer (0.97 of the bandwidth), Allreduce.
_BOUNDS = {"8 bytes": 1.3, "4 MB": 1 / 0.97, "Allreduce": 1.15}


def measure(folder: Path, report: Report, repetitions: int) -> None:
    """Run both in turns, and judge the ratios."""
    program = folder / "job.py"
    program.write_text(_PROGRAM)
    words = [str(Path(sys.executable).with_name("mpiexec")), "-n", "2", sys.executable, str(program)]
    gate = [sys.executable, "-m", "nbcr.cli", "run", "--name", "bench", "--"]
    pairs = [(_run(words), _run([*gate, *words])) for _ in range(repetitions)]
    for name, bound in _BOUNDS.items():
        bare, ours = [pair[0][name] for pair in pairs], [pair[1][name] for pair in pairs]
        ratios = [mine / other for mine, other in zip(ours, bare, strict=True)]
        report.rows.append(Row(_STATE, f"{name}, mpiexec alone", total=median(bare), samples={"total": bare}))
        report.rows.append(
            Row(_STATE, f"{name}, nbcr run", total=median(ours), samples={"total": ours, "ratio": ratios})
        )
        more = [ratio - 1 for ratio in ratios]
        report.verdicts.append(
            Verdict(f"{name} under nbcr run: more time", bound - 1, median(more), "%", best=min(more))
        )


def _run(words: list[str]) -> dict[str, float]:
    with tempfile.TemporaryDirectory(prefix="nbcr-") as run:  # the paths of sockets are short
        environ = {**host.environ(), "XDG_RUNTIME_DIR": run, "PYTHONPATH": str(Path(__file__).parents[1])}
        done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, env=environ)
    if done.returncode != 0:
        raise CommandFailed(f"the job: {done.stderr.strip()}")
    found: dict[str, float] = json.loads(done.stdout)
    return found
