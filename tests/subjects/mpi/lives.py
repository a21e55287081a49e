"""MPI set up and torn down in one process, as checkpoints do it: types, operations, an error handler, collectives.

python lives.py LIVES
"""

import sys

import numpy as np

from nbcr.mpi.errhandlers import GuardedErrhandler
from nbcr.mpi.world import MPI, world

lives = int(sys.argv[1])
errors: list[int] = []
handler = None
for life in range(lives):
    world.set_up()
    if handler is None:
        handler = GuardedErrhandler.of_function(lambda comm, code: errors.append(MPI.Get_error_class(code)))
    else:
        handler.make()
    pair = MPI.DOUBLE.Create_vector(2, 1, 3).Commit()
    largest = MPI.Op.Create(lambda one, other, datatype: None)
    comm = world.comm.Dup()
    total = np.zeros(1)
    comm.Allreduce(np.full(1, life + 0.5), total)
    assert total[0] == life + 0.5
    comm.Set_errhandler(handler)
    try:
        comm.Send(b"", 7)
    except MPI.Exception:
        assert errors == [MPI.ERR_RANK] * (life + 1)
    MPI.Errhandler(handler).Free()
    comm.Free()
    largest.Free()
    pair.Free()
    world.tear_down()
print("done", lives)
