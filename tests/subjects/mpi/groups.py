"""Communicators of groups that come and go, half of the ranks at a time. Prints one digest for each rank.

python groups.py STEPS [PAUSE_S]
"""

import hashlib
import sys
import time

from mpi4py import MPI

STEPS = int(sys.argv[1])
PAUSE_S = float(sys.argv[2]) if len(sys.argv) > 2 else 0.0
comm = MPI.COMM_WORLD
digest = hashlib.sha256(f"{comm.name} {MPI.COMM_SELF.name}".encode())
if comm.rank == 0:
    print("ready", flush=True)
for step in range(STEPS):
    time.sleep(PAUSE_S * (comm.rank % 3))
    group = comm.group.Incl(range(step % 2, comm.size, 2))
    if comm.rank % 2 == step % 2:
        some = comm.Create_group(group)
        time.sleep(PAUSE_S * (some.rank % 2))
        digest.update(repr(some.allgather((step, comm.rank))).encode())
        some.Free()
    group.Free()
    if step % 7 == 0:
        digest.update(repr(comm.allreduce(step * comm.rank)).encode())
for line in comm.gather(digest.hexdigest()) or ():
    print(line)
if comm.rank == 0:
    print("done", flush=True)
