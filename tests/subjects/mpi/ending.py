"""How jobs end, and windows that are freed again.

python ending.py early     rank 1 comes to its end at once, the others work on
python ending.py raises    rank 1 raises in the middle, the others wait for it
python ending.py aborts    rank 1 aborts the job, with 7
python ending.py windows   all look into each other's memory before, and after
"""

import sys
import time

import numpy as np
from mpi4py import MPI

HOW = sys.argv[1]
STEPS = 250

comm = MPI.COMM_WORLD
rank = comm.rank


def looked_into():
    window = MPI.Win.Allocate(8, comm=comm)
    np.frombuffer(window.tomemory())[:] = rank
    window.Fence()
    found = np.empty(1)
    window.Get(found, (rank + 1) % comm.size)
    window.Fence()
    window.Free()
    assert found[0] == (rank + 1) % comm.size


if HOW == "windows":
    looked_into()
if rank == 0:
    print("ready", flush=True)
if HOW == "early" and rank == 1:
    sys.exit(5)
for _ in range(STEPS):
    time.sleep(0.03)
if HOW == "raises" and rank == 1:
    raise ValueError("rank 1 has had enough")
if HOW == "aborts" and rank == 1:
    comm.Abort(7)
if HOW in ("raises", "aborts"):
    comm.recv(source=1)
if HOW == "windows":
    looked_into()
if rank == 0:
    print("done", flush=True)
