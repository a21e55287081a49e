"""A ring with messages in flight: every rank has several Isends of 8 B to 4 MB on their way to the next one, and checks
what it gets from the one before, the last under the highest tag. Prints one digest of everything received.

    python ring.py STEPS [PAUSE_S]
"""

import hashlib
import sys
import time

import numpy as np
from mpi4py import MPI

STEPS = int(sys.argv[1])
PAUSE_S = float(sys.argv[2]) if len(sys.argv) > 2 else 0.0
HIGHEST = MPI.COMM_WORLD.Get_attr(MPI.TAG_UB)
SIZES = (1, 100, 4_000, 60_000, 524_288)  # doubles

comm = MPI.COMM_WORLD
rank, size = comm.rank, comm.size
after, before = (rank + 1) % size, (rank - 1) % size


def contents(sender, step, tag):
    return np.full(SIZES[tag], sender * 1e6 + step + tag / 8)


digest = hashlib.sha256()
if rank == 0:
    print("ready", flush=True)
for step in range(STEPS):
    tags = [tag for tag in range(len(SIZES)) if tag < 4 or step % 10 == 0]
    going = [comm.Isend(contents(rank, step, tag), after, tag) for tag in tags]
    last = comm.Isend(np.zeros(step % 2), after, HIGHEST)
    if PAUSE_S:
        time.sleep(PAUSE_S)
    for tag in reversed(tags) if step % 2 else tags:
        room = np.empty(SIZES[tag])
        status = MPI.Status()
        comm.Recv(room, before, tag, status)
        assert np.array_equal(room, contents(before, step, tag)), (rank, step, tag)
        assert (status.Get_source(), status.Get_tag()) == (before, tag)
        assert status.Get_count(MPI.DOUBLE) == SIZES[tag]
        digest.update(room.tobytes())
    status = MPI.Status()
    comm.Recv(np.zeros(1), before, HIGHEST, status)
    assert status.Get_count(MPI.DOUBLE) == step % 2, (rank, step)
    MPI.Request.Waitall([*going, last])
for line in comm.gather(digest.hexdigest(), 0) or ():
    print(line)
if rank == 0:
    print("done", flush=True)
