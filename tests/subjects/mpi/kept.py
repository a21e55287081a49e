"""Requests that are kept and started again and again: persistent, partitioned, persistent collectives; buffered sends
that nobody waits for. Prints a digest of everything received.

    python kept.py STEPS [PAUSE_S]
"""

import hashlib
import sys
import time

import numpy as np
from mpi4py import MPI

STEPS = int(sys.argv[1])
PAUSE_S = float(sys.argv[2]) if len(sys.argv) > 2 else 0.0

comm = MPI.COMM_WORLD
rank, size = comm.rank, comm.size
after, before = (rank + 1) % size, (rank - 1) % size
small, large, got_small, got_large = np.empty(100), np.empty(200_000), np.empty(100), np.empty(200_000)
parts, got_parts = np.empty(8), np.empty(8)
total, one = np.empty(2), np.empty(2)
messages = [
    comm.Send_init(small, after, 1), comm.Recv_init(got_small, before, 1),
    comm.Ssend_init(large, after, 2), comm.Recv_init(got_large, before, 2),
]  # fmt: skip
sums = comm.Allreduce_init(one, total)
going = comm.Psend_init(parts, 4, after, 3)
coming = comm.Precv_init(got_parts, 4, before, 3)
MPI.Attach_buffer(bytearray(1 << 16))
digest = hashlib.sha256()
if rank == 0:
    print("ready", flush=True)
for step in range(STEPS):
    small[:], large[:], one[:], parts[:] = rank + step, rank - step, step, rank * step
    MPI.Prequest.Startall(messages)
    for request in (sums, going, coming):
        request.Start()
    comm.Bsend(np.full(10, step + rank * 1.0), after, 4)
    comm.bsend({"step": step}, after, 5)
    going.Pready_range(0, 2)
    if PAUSE_S and (rank + step) % 2:
        time.sleep(PAUSE_S)
    going.Pready(3)
    if step % 3 == 0:
        MPI.Request.Waitall(messages)
    else:
        while not MPI.Request.Testall(messages):
            time.sleep(PAUSE_S / 10)
    MPI.Request.Waitall([sums, going, coming])
    assert (got_small == before + step).all()
    assert (got_large == before - step).all()
    assert (got_parts == before * step).all()
    assert (total == size * step).all()
    assert all(request != MPI.REQUEST_NULL for request in messages)
    if PAUSE_S and step % 5 == 0:
        time.sleep(PAUSE_S)
    room = np.empty(10)
    comm.Recv(room, before, 4)
    assert (room == step + before).all()
    assert comm.recv(source=before, tag=5) == {"step": step}
    digest.update(got_small.tobytes() + got_large.tobytes() + got_parts.tobytes() + total.tobytes())
for request in [*messages, sums, going, coming]:
    request.Free()
    assert request == MPI.REQUEST_NULL
assert len(MPI.Detach_buffer()) == 1 << 16
for line in comm.gather(digest.hexdigest()) or ():
    print(line)
if rank == 0:
    print("done", flush=True)
