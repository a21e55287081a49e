"""A program that says where it can be saved, and what. Prints a digest of everything received.

python cooperating.py STEPS [PAUSE_S] [unpicklable]
"""

import hashlib
import sys
import time

import numpy as np
from mpi4py import MPI

import nbcr.mpi

STEPS = int(sys.argv[1])
PAUSE_S = float(sys.argv[2]) if len(sys.argv) > 2 else 0.0

comm = MPI.COMM_WORLD
rank, size = comm.Get_rank(), comm.Get_size()
state = {"step": 0, "field": np.full(1000, rank * 1.0), "digest": ""}
if "unpicklable" in sys.argv:
    state["going"] = (number for number in range(3))
if rank == 0:
    print("ready", flush=True)
while state["step"] < STEPS:
    state = nbcr.mpi.checkpoint_here(state)
    field, got = state["field"], np.empty(1000)
    comm.Sendrecv(field, (rank + 1) % size, 0, got, (rank - 1) % size, 0)
    total = comm.allreduce(float(got[0]))
    assert total == sum(range(size)) + size * state["step"]
    field[:] = got + 1
    state["digest"] = hashlib.sha256((state["digest"] + str(got[0])).encode()).hexdigest()
    state["step"] += 1
    if PAUSE_S:
        time.sleep(PAUSE_S)
for line in comm.gather(state["digest"]) or ():
    print(line)
if rank == 0:
    print("done", flush=True)
