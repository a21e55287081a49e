"""Two ranks that exchange numbers, with a handler below MPI's: it says when MPI is down, and takes its time.

python slow_below.py FILE [STEPS]
"""

import sys
import time
from pathlib import Path

from mpi4py import MPI

import nbcr
from nbcr.handlers import Handler, Layer, Request


class Slow(Handler):
    layer = Layer.TRANSPORT

    def checkpoint(self, request: Request) -> None:
        Path(sys.argv[1]).touch()
        time.sleep(6)


nbcr.registry.register(Slow())
comm = MPI.COMM_WORLD
if comm.rank == 0:
    print("ready", flush=True)
for step in range(int(sys.argv[2]) if len(sys.argv) > 2 else 1500):
    assert comm.allreduce(step) == step * comm.size
    time.sleep(0.02)
if comm.rank == 0:
    print("done", flush=True)
