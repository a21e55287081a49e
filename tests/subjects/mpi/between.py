"""Two groups that talk over an intercommunicator, and communicators that are made while others go on (Idup). Prints a
digest of everything received.

    python between.py STEPS [PAUSE_S]
"""

import hashlib
import sys
import time

import numpy as np
from mpi4py import MPI

STEPS = int(sys.argv[1])
PAUSE_S = float(sys.argv[2]) if len(sys.argv) > 2 else 0.0

comm = MPI.COMM_WORLD
half = (comm.size + 1) // 2
is_low = comm.rank < half
local = comm.Split(int(is_low), comm.rank)
inter = local.Create_intercomm(0, comm, half if is_low else 0, tag=12)
merged = inter.Merge(high=not is_low)
peers = inter.Get_remote_size()
digest = hashlib.sha256()


def note(what):
    digest.update(repr(what).encode())


if comm.rank == 0:
    print("ready", flush=True)
for step in range(STEPS):
    assert inter.Is_inter()
    assert inter.size + peers == comm.size
    if inter.rank < min(peers, inter.size):
        sent = inter.isend({"from": comm.rank, "step": step}, inter.rank, 1)
        if PAUSE_S and (comm.rank + step) % 2:
            time.sleep(PAUSE_S)
        note(inter.recv(source=MPI.ANY_SOURCE, tag=1))
        sent.wait()
    total = np.empty(3)
    inter.Allreduce(np.full(3, comm.rank + step * 1.0), total)
    note(total.tolist())
    root = (MPI.ROOT if local.rank == 0 else MPI.PROC_NULL) if is_low else 0
    told = inter.bcast({"step": step} if root == MPI.ROOT else None, root=root)
    assert is_low or told == {"step": step}
    note(inter.allgather((comm.rank, step)))
    note(inter.alltoall([(comm.rank, peer) for peer in range(peers)]))
    note(inter.gather(comm.rank, root=root))
    note(merged.allreduce([comm.rank]))
    if step % 10 == 0:
        made, request = comm.Idup()
        if PAUSE_S:
            time.sleep(PAUSE_S)
        request.Wait()
        note(made.allgather(step))
        made.Free()
    if step % 25 == 5:
        other = inter.Dup()
        other.Barrier()
        other.Free()
for line in comm.gather(digest.hexdigest()) or ():
    print(line)
if comm.rank == 0:
    print("done", flush=True)
