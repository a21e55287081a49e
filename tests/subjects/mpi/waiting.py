"""Ranks that wait for each other as argv[1] says, for so many seconds; for tests of what goes wrong.

python waiting.py computing|blocked|window|unequal|signal SECONDS
"""

import sys
import time

import numpy as np
from mpi4py import MPI

how, seconds = sys.argv[1], float(sys.argv[2])
comm = MPI.COMM_WORLD
if how == "window":
    window = MPI.Win.Create(np.zeros(8), comm=comm)
comm.Barrier()
if comm.rank == 0:
    print("ready", flush=True)
if how == "unequal" and comm.rank == 0:
    comm.Barrier()  # the others come to it after their sleep
time.sleep(seconds)
if how == "unequal" and comm.rank != 0:
    comm.Barrier()
if how == "blocked" and comm.rank == 0:
    comm.recv(source=1)
if how == "blocked" and comm.rank == 1:
    comm.send("late", 0)
if how == "window":
    window.Free()
total = comm.allreduce(comm.rank)
if comm.rank == 0:
    print("done", total, flush=True)
