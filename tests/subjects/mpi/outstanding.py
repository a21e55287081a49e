"""Non-blocking collectives, receives and matched messages that stay outstanding while other work is done; user-made
operations and structures. Prints a digest of everything received.

    python outstanding.py STEPS [PAUSE_S]
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
record = np.dtype([("number", "i4"), ("value", "f8"), ("name", "S6")], align=True)
struct = MPI.Datatype.Create_struct(
    [1, 1, 6], [record.fields[name][1] for name in record.names], [MPI.INT, MPI.DOUBLE, MPI.CHAR]
)
struct = struct.Create_resized(0, record.itemsize).Commit()


def furthest(one, other, datatype):
    mine, theirs = np.frombuffer(one, "f8"), np.frombuffer(other, "f8")
    theirs[:] = np.where(np.abs(mine) > np.abs(theirs), mine, theirs)


operation = MPI.Op.Create(furthest, commute=True)
neighbours = MPI.COMM_WORLD.Get_group().Incl(sorted({rank, after, before}))
digest = hashlib.sha256()
apart = comm.Dup()
if rank == 0:
    print("ready", flush=True)
for step in range(STEPS):
    sums, every = np.empty(1000), np.full(64, rank * 1.0)
    root = step % size
    given = np.full(5000, step * 1.0) if rank == root else np.empty(5000)
    going = [comm.Iallreduce(np.full(1000, rank + step * 1.0), sums), comm.Ibcast(given, root), comm.Ibarrier()]
    early = [np.zeros(3, record), np.zeros(3, record), np.empty(4)]
    waiting = [
        comm.Irecv([early[0], 3, struct], before, MPI.ANY_TAG),
        comm.Irecv([early[1], 3, struct], MPI.ANY_SOURCE, 7),
        comm.Irecv(early[2], before, 9),
    ]
    large, room, small = np.full(200_000, step + rank * 1.0), np.empty(200_000), np.empty(2)
    both = apart.Isendrecv(large, after, 10, small, before, 11)  # half of it ends long before the other
    apart.Isend(np.full(2, step - rank * 1.0), after, 11)
    if PAUSE_S and (rank + step) % 2:
        time.sleep(PAUSE_S)
    for turn in range(2):
        records = np.array([(step + turn, rank + 0.5, b"abcdef")] * 3, record)
        comm.Send([records, 3, struct], after, 7)
    request = comm.isend({"step": step, "from": rank}, after, 8)
    status = MPI.Status()
    message = comm.mprobe(before, 8, status)
    if PAUSE_S and step % 3 == 0:
        time.sleep(PAUSE_S)
    apart.Recv(room, before, 10)
    both.Wait()
    assert (room == step + before).all()
    assert (small == step - before).all()
    comm.Isend(np.full(4, step + rank / 4), after, 9)
    assert message.recv() == {"step": step, "from": before}
    assert status.Get_source() == before
    index = MPI.Request.Waitany(going)
    assert 0 <= index < 3
    MPI.Request.Waitall(going + waiting)
    assert request.wait() is None
    comm.Allreduce(MPI.IN_PLACE, every, operation)
    assert every[0] == size - 1
    for turn in range(2):  # posted first, matched first
        assert (early[turn]["number"] == step + turn).all(), (early[turn]["number"], step, turn)
        assert (early[turn]["value"] == before + 0.5).all()
    assert (early[2] == step + before / 4).all()
    assert sums[0] == sum(range(size)) + size * step
    assert (given == step).all()
    assert neighbours.rank == sorted({rank, after, before}).index(rank)
    digest.update(early[0].tobytes() + early[1].tobytes() + early[2].tobytes() + sums.tobytes() + given.tobytes())
for line in comm.gather(digest.hexdigest()) or ():
    print(line)
if rank == 0:
    print("done", flush=True)
operation.Free()
struct.Free()
