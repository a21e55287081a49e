"""Ranks that wait for each other as argv[1] says, for so many seconds; for tests of what goes wrong.

python waiting.py computing|blocked|window|locked|session|unequal|signal|threads|meeting SECONDS
"""

import sys
import threading
import time

import numpy as np
from mpi4py import MPI

how, seconds = sys.argv[1], float(sys.argv[2])
comm = MPI.COMM_WORLD
if how == "window":
    window = MPI.Win.Create_dynamic(comm=comm)
if how == "locked":
    window = MPI.Win.Create(np.zeros(8), comm=comm)
    if comm.rank == 0:
        window.Lock(1)
if how == "session":
    session = MPI.Session.Init()
    comm = MPI.Intracomm.Create_from_group(session.Create_group("mpi://WORLD"))
comm.Barrier()
if comm.rank == 0:
    print("ready", flush=True)
if how == "unequal" and comm.rank == 0:
    comm.Barrier()  # the others come to it after their sleep
rooms = [np.zeros(1), np.zeros(1)]
threads = [threading.Thread(target=comm.Recv, args=(room, 1, tag)) for tag, room in enumerate(rooms)]
if how == "threads" and comm.rank == 0:
    for thread in threads:
        thread.start()
if how == "meeting" and comm.rank == 0:
    MPI.COMM_SELF.Create_intercomm(0, comm, 1).Free()  # the other comes to it after its sleep
time.sleep(seconds)
if how == "meeting" and comm.rank == 1:
    MPI.COMM_SELF.Create_intercomm(0, comm, 0).Free()
if how == "threads" and comm.rank == 1:
    for tag in reversed(range(2)):
        comm.Send(np.full(1, tag + 1.0), 0, tag)
if how == "threads" and comm.rank == 0:
    for thread in threads:
        thread.join()
    assert [room[0] for room in rooms] == [1, 2]
if how == "unequal" and comm.rank != 0:
    comm.Barrier()
if how == "blocked" and comm.rank == 0:
    comm.recv(source=1)
if how == "blocked" and comm.rank == 1:
    comm.send("late", 0)
if how == "locked" and comm.rank == 0:
    window.Put(np.ones(8), 1)
    window.Unlock(1)
if how in ("window", "locked"):
    window.Free()
total = comm.allreduce(comm.rank)
if comm.rank == 0:
    print("done", total, flush=True)
