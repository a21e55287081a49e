"""RMA by Post, Start, Complete, Wait and Test: neighbours, one to all, epochs that stay open for long. Each step's
values are known. Prints one digest for each rank.

python exposing.py STEPS [PAUSE_S]
"""

import hashlib
import os
import sys
import time
from array import array

os.environ["UCX_LOG_LEVEL"] = "error"  # it warns of windows on standard output, in words that differ

from mpi4py import MPI

STEPS = int(sys.argv[1])
PAUSE_S = float(sys.argv[2]) if len(sys.argv) > 2 else 0.0
comm = MPI.COMM_WORLD
rank, size = comm.rank, comm.size
before, after = (rank - 1) % size, (rank + 1) % size
digest = hashlib.sha256()

everybody = comm.Get_group()
turned = comm.Split(0, -rank)  # its ranks are not those of the world
mine = array("d", [0.0] * 4)
ring = MPI.Win.Create(mine, 8, MPI.INFO_NULL, turned)
shared = MPI.Win.Allocate(8 * size, 8, MPI.INFO_NULL, comm)
seen = memoryview(shared.tomemory()).cast("q")
seen[:] = array("q", [0] * size)


def said(call, *args):
    """By which error a call ends."""
    try:
        call(*args)
    except MPI.Exception as error:
        return MPI.Get_error_string(error.Get_error_class())
    return "nothing"


digest.update(repr([said(call) for call in (ring.Complete, ring.Wait, ring.Test)]).encode())
if rank == 0:
    print("ready", flush=True)
for step in range(STEPS):
    # what the rank before puts here, and the one after adds to it
    ring.Post(everybody.Incl(sorted({before, after})))
    time.sleep(PAUSE_S * (rank % 2) / 2)
    ring.Start(everybody.Incl(sorted({before, after})))
    digest.update(repr([said(ring.Start, everybody), said(ring.Post, everybody), said(ring.Lock_all)]).encode())
    ring.Put([array("d", [step + rank / 8]), MPI.DOUBLE], turned.size - 1 - after, 1)
    time.sleep(PAUSE_S / 2)
    ring.Accumulate([array("d", [rank + 1.0]), MPI.DOUBLE], turned.size - 1 - before, 2)
    ring.Complete()
    ring.Wait()
    assert mine[1] == step + before / 8, (step, mine)
    assert mine[2] == (after + 1.0) * (step + 1), (step, mine)
    # one exposes its memory to all others, who come late; it looks whether they are through
    root = step % size
    others = everybody.Excl([root])
    if rank == root:
        shared.Post(others)
        while not shared.Test():
            time.sleep(PAUSE_S / 8)
        assert all(number >= step // size for at, number in enumerate(seen) if at != root), (step, seen.tolist())
        digest.update(seen.tobytes())
    else:
        time.sleep(PAUSE_S * rank / size)
        shared.Start(everybody.Incl([root]))
        got = array("q", [0])
        request = shared.Rget_accumulate(
            [array("q", [1]), MPI.INT64_T], [got, MPI.INT64_T], root, rank, op=MPI.SUM
        )  # fmt: skip
        time.sleep(PAUSE_S / 4)
        request.Wait()
        shared.Complete()
        assert got[0] == step // size, (step, got)
    if step % 4 == 3:  # all know that the memory is exposed
        ring.Post(everybody, MPI.MODE_NOCHECK)
        comm.Barrier()
        ring.Start(everybody, MPI.MODE_NOCHECK)
        ring.Put([array("d", [rank + step]), MPI.DOUBLE], turned.size - 1 - after, 3)
        time.sleep(PAUSE_S / 4)
        ring.Complete()
        ring.Wait()
        assert mine[3] == before + step, (step, mine)
    ring.Post(MPI.GROUP_EMPTY)
    assert ring.Test()
ring.Free()
shared.Free()
for line in comm.gather(digest.hexdigest()) or ():
    print(line)
if rank == 0:
    print("done", flush=True)
