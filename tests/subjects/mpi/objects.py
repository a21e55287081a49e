"""What hangs on MPI's objects (attributes, names, hints, error handlers), pickles of them, and libraries of mpi4py's
own that call it in their ways (mpi4py.util.pkl5). Prints a digest of everything received.

    python objects.py STEPS [PAUSE_S]
"""

import hashlib
import pickle
import sys
import time

import numpy as np
from mpi4py import MPI
from mpi4py.util import pkl5

STEPS = int(sys.argv[1])
PAUSE_S = float(sys.argv[2]) if len(sys.argv) > 2 else 0.0

world = MPI.COMM_WORLD
rank, size = world.rank, world.size
after, before = (rank + 1) % size, (rank - 1) % size
deleted, heard = [], []
key = MPI.Comm.Create_keyval(
    copy_fn=lambda comm, key, value: value + 1, delete_fn=lambda *args: deleted.append(args[2])
)
comm = world.Dup()
comm.Set_attr(key, 100)
comm.Set_name("named")
minding = world.Dup()
minding.Set_errhandler(MPI.Comm.Create_errhandler(lambda comm, code: heard.append(code)))
hints = MPI.Info.Create({"alpha": "1"})
column = MPI.DOUBLE.Create_vector(4, 1, 4).Commit()
column.Set_name("column")
by_code = MPI._typedict[np.dtype("d").char].Create_vector(3, 1, 5).Commit()
by_letter = MPI.Datatype.fromcode("f").Create_vector(2, 1, 6).Commit()
made_of = MPI.Datatype.Create_struct([1], [8], [MPI.SHORT.Create_vector(2, 1, 7)]).decode()[2]["datatypes"][0]
large = pkl5.Intracomm(world)
digest = hashlib.sha256()
if rank == 0:
    print("ready", flush=True)
for step in range(STEPS):
    assert comm.Get_attr(key) == 100
    assert comm.name == "named"
    assert column.name == "column"
    assert [each.extent for each in (column, by_code, by_letter, made_of)] == [104, 88, 28, 16]
    assert dict(hints) == {"alpha": "1"}
    minding.Call_errhandler(MPI.ERR_OTHER)
    assert len(heard) == step + 1
    given = {"step": step, "values": np.full(20_000, rank + 0.5)}
    sent = large.isend(given, after, 1)
    if PAUSE_S and (rank + step) % 2:
        time.sleep(PAUSE_S)
    got = large.recv(source=before, tag=1)
    sent.wait()
    assert (got["values"] == before + 0.5).all()
    assert large.bcast(given if rank == 0 else None)["step"] == step
    grid, edge = np.arange(16.0).reshape(4, 4) + rank, np.zeros((4, 4))
    comm.Sendrecv([grid, 1, pickle.loads(pickle.dumps(column)).Commit()], after, 2, [edge, 1, column], before, 2)
    assert (edge[:, 0] == np.arange(0, 16, 4) + before).all()
    room = comm.Irecv(np.zeros(2), before, 3)
    comm.Send(np.zeros(9), after, 3)
    if PAUSE_S and step % 3 == 0:
        time.sleep(PAUSE_S)
    try:
        room.Wait()
    except MPI.Exception as error:
        if error.Get_error_class() != MPI.ERR_TRUNCATE:
            raise
    else:
        raise AssertionError("a message of nine numbers fitted into two")
    if step % 10 == 0:
        copy = comm.Dup()
        assert copy.Get_attr(key) == 101
        copy.Free()
    assert MPI.Intracomm(comm) == comm
    assert isinstance(MPI.SUM, MPI.Op)
    digest.update(edge.tobytes() + str(len(heard)).encode())
    world.Barrier()
for line in world.gather(digest.hexdigest()) or ():
    print(line)
if rank == 0:
    print("done", flush=True)
