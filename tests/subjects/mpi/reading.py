"""MPI-IO: what is wrong is called as MPI calls it, and views of all kinds of datatypes show the bytes that they should.
Its files are in FOLDER; prints what it has seen.

    python reading.py FOLDER
"""

import hashlib
import os
import sys
from pathlib import Path

import numpy as np
from mpi4py import MPI

FOLDER = Path(sys.argv[1])
SIZE = 4096
comm = MPI.COMM_WORLD
rank, size = comm.rank, comm.size
BLOCK, CYCLIC, NONE, DEFAULT = (
    MPI.DISTRIBUTE_BLOCK, MPI.DISTRIBUTE_CYCLIC, MPI.DISTRIBUTE_NONE, MPI.DISTRIBUTE_DFLT_DARG,
)  # fmt: skip
INT, SHORT = MPI.INT, MPI.SHORT
nested = INT.Create_vector(2, 1, 3)
TYPES = {
    "contiguous": (INT, INT.Create_contiguous(3)),
    "vector": (INT, INT.Create_vector(3, 2, 4)),
    "hvector": (INT, INT.Create_hvector(3, 2, 20)),
    "indexed": (INT, INT.Create_indexed([1, 0, 2], [3, 5, 9])),
    "hindexed": (INT, INT.Create_hindexed([1, 2], [12, 40])),
    "indexed block": (INT, INT.Create_indexed_block(2, [3, 9])),
    "hindexed block": (SHORT, SHORT.Create_hindexed_block(2, [12, 80])),
    "structure": (MPI.BYTE, MPI.Datatype.Create_struct([1, 2, 1], [0, 8, 32], [SHORT, INT, nested])),
    "vector of vectors": (INT, nested.Create_vector(2, 2, 3)),
    "contiguous vectors": (INT, nested.Create_contiguous(3)),
    "resized": (INT, nested.Create_resized(0, 28)),
    "subarray": (INT, INT.Create_subarray([4, 5, 3], [2, 3, 2], [1, 1, 0])),
    "columns first": (INT, INT.Create_subarray([4, 5, 3], [2, 3, 2], [1, 1, 1], MPI.ORDER_F)),
    "blocks": (INT, INT.Create_darray(4, rank, [9, 6], [BLOCK, BLOCK], [DEFAULT, DEFAULT], [2, 2])),
    "cycles": (INT, INT.Create_darray(4, 3 - rank, [9, 6], [CYCLIC, CYCLIC], [2, DEFAULT], [2, 2], MPI.ORDER_F)),
    "rows": (INT, INT.Create_darray(2, rank, [7, 3], [CYCLIC, NONE], [2, DEFAULT], [2, 1])),
    "pairs": (MPI.SHORT_INT, MPI.SHORT_INT.Create_contiguous(2)),
    "parts of pairs": (MPI.DOUBLE_INT, MPI.DOUBLE_INT),
    "etype with gaps": (nested.Dup(), nested.Create_vector(2, 1, 2)),
}
CLASSES = {getattr(MPI, name): name for name in dir(MPI) if name.startswith("ERR_") and name != "ERR_LASTCODE"}


def tell(*words):
    for each in comm.gather(" ".join(map(str, words)), 0) or ():
        print(each, flush=True)


def outcome(call, *args):
    try:
        return call(*args)
    except MPI.Exception as error:
        return CLASSES[error.Get_error_class()]


def look(name, etype, filetype):
    """Read and write by a view; ends, positions and offsets of it."""
    for each in (etype, filetype):
        if not each.is_predefined:
            each.Commit()
    file.Set_view(8 * rank, etype, filetype)
    read, status = np.zeros(40 * etype.size, "B"), MPI.Status()
    file.Read_at_all(2, read, status)
    digest = hashlib.sha256(read.tobytes())
    for at in (0, 3, 8):
        file.Seek(at)
        file.Read([read, 5 * etype.size, MPI.BYTE])
        digest.update(read.tobytes() + str([file.Get_position(), file.Get_byte_offset(at)]).encode())
    file.Seek(0, MPI.SEEK_END)
    tell(name, digest.hexdigest()[:16], status.Get_count(MPI.BYTE), status.Get_elements(MPI.BYTE), file.Get_position())
    path = FOLDER / f"{name}-{rank}"
    path.write_bytes(bytes(SIZE))  # what is between new data is anything
    out = MPI.File.Open(MPI.COMM_SELF, path, MPI.MODE_RDWR)
    out.Set_view(4, etype, filetype)
    out.Write_at(1, (np.arange(30 * etype.size) % 255 + 1).astype("B"))
    out.Close()
    tell(hashlib.sha256(path.read_bytes()).hexdigest())


if rank == 0:
    (FOLDER / "numbers").write_bytes(np.random.default_rng(1).bytes(SIZE))
    (FOLDER / "short").write_bytes(bytes(range(10)))
    print("ready", flush=True)
comm.Barrier()
Open, File = MPI.File.Open, MPI.File
there, nowhere, new = FOLDER / "short", FOLDER / "nowhere", MPI.MODE_CREATE | MPI.MODE_RDWR
tell(outcome(Open, comm, nowhere), outcome(Open, comm, there, MPI.MODE_CREATE))
own = MPI.COMM_SELF  # of several ranks, MPICH's own files mix these errors up
tell(outcome(Open, own, there, new | MPI.MODE_EXCL), outcome(Open, own, there / "below"))
tell(outcome(Open, comm, there, MPI.MODE_RDONLY | MPI.MODE_EXCL), outcome(Open, comm, there, new | MPI.MODE_SEQUENTIAL))
tell(outcome(Open, comm, FOLDER, MPI.MODE_RDWR), outcome(Open, comm, there, MPI.MODE_RDWR | MPI.MODE_WRONLY))
tell(outcome(File.Delete, nowhere), outcome(MPI.FILE_NULL.Get_size), bool(MPI.FILE_NULL))
some = bytearray(4)
with_status = MPI.Status()
file = Open(comm, there)
tell(outcome(file.Write, some), outcome(file.Set_size, 3), outcome(file.Seek, -1), outcome(file.Seek, 0, 77))
tell(outcome(file.Read_at, -1, some), outcome(file.Read_all_end, some), outcome(file.Get_byte_offset, -1))
tell(outcome(file.Set_view, -1), outcome(file.Set_view, 0, MPI.DATATYPE_NULL), outcome(file.Set_view, 0, INT, SHORT))
tell(outcome(file.Set_view, 0, INT, INT, "unheard of"), outcome(file.Set_view, 0, SHORT.Create_contiguous(2)))
tell(outcome(file.Set_size, -1), file.Get_size(), file.amode, file.group_rank, file.group_size, file.atomicity)
file.Read_at(7, some, with_status)
tell(some, with_status.Get_count(MPI.BYTE), with_status.Get_count(INT), file.Get_position())
file.Set_view(0, INT)
tell(outcome(file.Read, [some, 3, MPI.BYTE]))
file.Set_view()
file.Seek(5)
file.Seek(2, MPI.SEEK_CUR)
tell(file.Get_position(), outcome(file.Seek, -8, MPI.SEEK_CUR), file.Get_position())
file.Seek(-1, MPI.SEEK_END)
tell(file.Get_position(), outcome(file.Read, some), file.Get_position())
file.Read_all_begin(some)
tell(outcome(file.Read_all_begin, some))
file.Read_all_end(some)
tell(file == MPI.FILE_NULL, file == File(file), bool(file))
file.Close()
tell(file == MPI.FILE_NULL, bool(file), outcome(file.Close))
file = Open(comm, FOLDER / "log", MPI.MODE_CREATE | MPI.MODE_WRONLY | MPI.MODE_SEQUENTIAL)
tell(
    outcome(file.Write, some),
    outcome(file.Seek, 0),
    outcome(file.Write_at_all, 0, some),
    outcome(file.Read_shared, some),
)
file.Write_ordered(np.full(3, rank, "b"))
file.Close()
file = Open(comm, FOLDER / "log", MPI.MODE_WRONLY | MPI.MODE_APPEND)
tell(file.Get_position(), file.Get_position_shared())
file.Write_ordered(np.full(rank + 1, 7, "b"))
file.Preallocate(12)
file.Close()
tell((FOLDER / "log").read_bytes(), oct(os.stat(FOLDER / "log").st_mode))
file = Open(comm, FOLDER / "numbers", MPI.MODE_RDONLY)
for each in TYPES.items():
    look(each[0], *each[1])
file.Close()
if rank == 0:
    print("done", flush=True)
