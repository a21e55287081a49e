"""What a program chose of mpi4py (rc) before it imported MPI: prints how it stands.

python chosen.py errors=NAME|later
"""

import sys

import mpi4py

name, _, value = sys.argv[1].partition("=")
if name == "later":
    mpi4py.rc.initialize = False
else:
    setattr(mpi4py.rc, name, value)
from mpi4py import MPI  # noqa: E402

if name == "later":
    print("before:", MPI.Is_initialized(), MPI.Is_finalized())
    MPI.Init()
    try:
        MPI.Init_thread()
        print("begun twice")
    except MPI.Exception as error:
        print("begun twice:", error.Get_error_class() == MPI.ERR_OTHER)
world = MPI.COMM_WORLD
handlers = [(MPI.ERRORS_RETURN, "return"), (MPI.ERRORS_ARE_FATAL, "fatal"), (MPI.ERRORS_ABORT, "abort")]
made = [world.Dup(), world.Split(0), world.Create_cart([world.size])]
for comm in (world, MPI.COMM_SELF, *made):
    print(next(text for handler, text in handlers if handler == comm.Get_errhandler()))
print("after:", MPI.Is_initialized(), MPI.Is_finalized(), flush=True)
MPI.Finalize()
print("at the end:", MPI.Is_initialized(), MPI.Is_finalized())
