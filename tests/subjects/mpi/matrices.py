"""Products of matrices, whose parts travel as derived types: columns (vector, resized) by Scatterv and Gatherv, blocks
(subarray) by Isend and Irecv, a transposition by Alltoallw, triangles (indexed) by Ibcast, records (struct) by
Allgather. Prints one digest for each rank.

    python matrices.py STEPS [PAUSE_S]
"""

import hashlib
import sys
import time

import numpy as np
from mpi4py import MPI

STEPS = int(sys.argv[1])
PAUSE_S = float(sys.argv[2]) if len(sys.argv) > 2 else 0.0
COLUMNS = 6  # of each rank

comm = MPI.COMM_WORLD
rank, size = comm.rank, comm.size
n = COLUMNS * size
after, before = (rank + 1) % size, (rank - 1) % size
mine = slice(rank * COLUMNS, (rank + 1) * COLUMNS)
double = MPI.DOUBLE
column = double.Create_vector(n, 1, n).Create_resized(0, 8).Commit()
blocks = [double.Create_subarray([n, n], [n, COLUMNS], [0, k * COLUMNS]).Commit() for k in range(size)]
bands = [double.Create_subarray([n, n], [COLUMNS, n], [k * COLUMNS, 0]).Commit() for k in range(size)]
square = double.Create_vector(COLUMNS, 1, n).Create_resized(0, 8).Commit()  # a column of a square block …
turned = square.Create_contiguous(COLUMNS).Commit()  # … and the block, transposed
straight = double.Create_vector(COLUMNS, COLUMNS, n).Commit()
lower = double.Create_indexed(list(range(1, n + 1)), [n * k for k in range(n)]).Commit()
kind = np.dtype([("rank", "i4"), ("trace", "f8")], align=True)
record = MPI.Datatype.Create_struct([1, 1], [0, kind.fields["trace"][1]], [MPI.INT, double]).Commit()
digest = hashlib.sha256()
if rank == 0:
    print("ready", flush=True)
for step in range(STEPS):
    random = np.random.default_rng(step)
    a, b = (random.integers(-9, 9, (n, n)).astype(float) for _ in range(2))
    whole = a @ b
    # Columns of B to each; A in blocks of columns that go round
    columns = np.zeros((COLUMNS, n))  # transposed
    comm.Scatterv([b if rank == 0 else None, [COLUMNS] * size, None, column], columns)
    part, turning = np.zeros((n, COLUMNS)), np.full((n, n), np.nan)
    turning[:, mine] = a[:, mine]
    for turn in range(size):
        has, comes = (rank - turn) % size, (rank - turn - 1) % size
        going = comm.Isend([turning, 1, blocks[has]], after, turn)
        coming = comm.Irecv([turning, 1, blocks[comes]], before, turn)
        part += a[:, has * COLUMNS : (has + 1) * COLUMNS] @ columns.T[has * COLUMNS : (has + 1) * COLUMNS]
        if PAUSE_S and (turn + rank + step) % 3 == 0:
            time.sleep(PAUSE_S)
        MPI.Request.Waitall([going, coming])
    assert np.array_equal(turning, a), (rank, step)
    assert np.array_equal(part, whole[:, mine]), (rank, step)
    root = step % size
    product = np.zeros((n, n)) if rank == root else None
    comm.Gatherv(np.ascontiguousarray(part.T), [product, [COLUMNS] * size, None, column], root)
    if rank == root:
        assert np.array_equal(product, whole), (rank, step)
    # What is transposed: each band of it comes as turned blocks
    band, across = np.ascontiguousarray(whole[mine]), np.zeros((n, n))
    where = [k * COLUMNS * 8 for k in range(size)]
    comm.Alltoallw(
        [band, ([1] * size, where), [straight] * size],
        [across, ([1] * size, [(k * COLUMNS + rank * COLUMNS * n) * 8 for k in range(size)]), [turned] * size],
    )
    assert np.array_equal(across[mine], whole.T[mine]), (rank, step)
    triangle = whole.copy() if rank == root else np.zeros((n, n))
    waiting = comm.Ibcast([triangle, 1, lower], root)
    every = np.zeros((n, n))
    every[mine] = band
    for k in range(size):
        comm.Bcast([every, 1, bands[k]], k)
    assert np.array_equal(every, whole), (rank, step)
    waiting.Wait()
    assert np.array_equal(np.tril(triangle), np.tril(whole)), (rank, step)
    own, traces = np.array([(rank, np.trace(whole) + rank)], kind), np.zeros(size, kind)
    comm.Allgather([own, 1, record], [traces, 1, record])
    assert list(traces["trace"] - traces["rank"]) == [np.trace(whole)] * size
    digest.update(part.tobytes() + across.tobytes() + traces["trace"].tobytes())
for line in comm.gather(digest.hexdigest()) or ():
    print(line)
if rank == 0:
    print("done", flush=True)
