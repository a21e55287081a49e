"""Jacobi iterations on a grid of ranks (Cart communicator): halo exchange by Sendrecv and by Irecv/Isend, residuals by
Allreduce. Prints the digest of the field, gathered.

    python halo.py STEPS [PAUSE_S]
"""

import hashlib
import sys
import time

import numpy as np
from mpi4py import MPI

STEPS = int(sys.argv[1])
PAUSE_S = float(sys.argv[2]) if len(sys.argv) > 2 else 0.0
N = 96

world = MPI.COMM_WORLD
dims = MPI.Compute_dims(world.size, 2)
cart = world.Create_cart(dims, periods=[True, False], reorder=True)
row, column = cart.coords
field = np.zeros((N + 2, N + 2))
field[1:-1, 1:-1] = np.random.default_rng(cart.rank).random((N, N))
edge = MPI.DOUBLE.Create_vector(N, 1, N + 2).Commit()  # a column of the field
if world.rank == 0:
    print("ready", flush=True)
for _ in range(STEPS):
    up, down = cart.Shift(0, 1)
    left, right = cart.Shift(1, 1)
    cart.Sendrecv(field[N, 1:-1].copy(), down, 1, field[0, 1:-1], up, 1)
    cart.Sendrecv(field[1, 1:-1].copy(), up, 2, field[N + 1, 1:-1], down, 2)
    waiting = [
        cart.Irecv([field.ravel()[N + 2 :], 1, edge], left, 3),
        cart.Irecv([field.ravel()[N + 2 + N + 1 :], 1, edge], right, 4),
    ]
    if PAUSE_S:
        time.sleep(PAUSE_S)
    going = [
        cart.Isend([field.ravel()[N + 2 + N :], 1, edge], right, 3),
        cart.Isend([field.ravel()[N + 2 + 1 :], 1, edge], left, 4),
    ]
    MPI.Request.Waitall(waiting + going)
    new = (field[:-2, 1:-1] + field[2:, 1:-1] + field[1:-1, :-2] + field[1:-1, 2:]) / 4
    change = np.array([np.abs(new - field[1:-1, 1:-1]).max()])
    cart.Allreduce(MPI.IN_PLACE, change, MPI.MAX)
    assert change[0] >= 0
    field[1:-1, 1:-1] = new
whole = cart.gather((tuple(cart.coords), field[1:-1, 1:-1].tobytes()), 0)
if world.rank == 0:
    print(hashlib.sha256(repr(sorted(whole)).encode()).hexdigest())
    print("done", flush=True)
edge.Free()
cart.Free()
