"""Overlapping communicators with unequal numbers of collectives: by parity, by halves, pairs made anew and freed,
and the whole; pickled and buffer forms. Prints a digest of everything that was computed.

    python splits.py STEPS [PAUSE_S]
"""

import hashlib
import sys
import time

import numpy as np
from mpi4py import MPI

STEPS = int(sys.argv[1])
PAUSE_S = float(sys.argv[2]) if len(sys.argv) > 2 else 0.0

world = MPI.COMM_WORLD
parity = world.Split(world.rank % 2, world.rank)
halves = world.Split(world.rank >= world.size // 2, -world.rank)
digest = hashlib.sha256()
if world.rank == 0:
    print("ready", flush=True)
for step in range(STEPS):
    for turn in range(1 + (world.rank % 2) * (step % 3)):  # the odd ones do more of them
        got = np.empty(parity.size)
        parity.Allgather(np.array([world.rank * 1000.0 + step + turn]), got)
        members = [rank for rank in range(world.size) if rank % 2 == world.rank % 2]
        assert list(got) == [rank * 1000.0 + step + turn for rank in members]
        digest.update(got.tobytes())
    if PAUSE_S and (world.rank + step) % 3 == 0:
        time.sleep(PAUSE_S)
    if step % 4 == (world.rank >= world.size // 2):
        total = halves.allreduce({"rank": world.rank}["rank"] + step)
        digest.update(str(total).encode())
    if step % 7 == 0:
        new = world.Dup() if step % 2 else world.Split(step % 5, world.size - world.rank)
        everybody = new.allgather((world.rank, step))
        digest.update(repr(everybody).encode())
        new.Free()
    if step % 5 == 0:
        root = step % world.size
        assert world.bcast(("step", step) if world.rank == root else None, root) == ("step", step)
        texts = world.alltoall([f"{world.rank}>{peer}:{step}" for peer in range(world.size)])
        assert texts == [f"{peer}>{world.rank}:{step}" for peer in range(world.size)]
        part = world.scatter([[peer] * step for peer in range(world.size)] if world.rank == 0 else None)
        assert part == [world.rank] * step
        digest.update("".join(texts).encode())
for line in world.gather(digest.hexdigest()) or ():
    print(line)
if world.rank == 0:
    print("done", flush=True)
