"""Receives that a signal's handler cuts short by an exception, just when the message has reached the buffer: it is
there for the next receive. For two ranks, and under nbcr only: mpi4py runs no handler while it waits.

    python interrupted.py STEPS [PAUSE_S]
"""

import signal
import sys
import time

import numpy as np
from mpi4py import MPI

STEPS = int(sys.argv[1])
PAUSE_S = float(sys.argv[2]) if len(sys.argv) > 2 else 0.0
DATA, NOW, NOBODYS = 1, 2, 3
PAIRS = MPI.DOUBLE.Create_vector(5, 2, 4).Commit()

comm = MPI.COMM_WORLD


class Interrupted(Exception):
    pass


def interrupt(*_):
    comm.Send(np.zeros(1), 0, NOW)
    until = time.monotonic() + 0.05
    while time.monotonic() < until:  # meanwhile MPI brings the message
        comm.Iprobe(0, NOBODYS)
    raise Interrupted


signal.signal(signal.SIGALRM, interrupt)
if comm.rank == 0:
    print("ready", flush=True)
cut = 0
for step in range(STEPS):
    if comm.rank == 0:
        comm.Recv(np.zeros(1), 1, NOW)
        comm.Send([np.arange(20.0) + step, 1, PAIRS], 1, DATA)
        comm.Send(np.full(10, -1.0), 1, DATA)
    else:
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.005)
            comm.Recv([np.zeros(20), 1, PAIRS], 0, DATA)
        except Interrupted:
            cut += 1
        if PAUSE_S:
            time.sleep(PAUSE_S)
        room, status = np.zeros(20), MPI.Status()
        comm.Recv([room, 1, PAIRS], MPI.ANY_SOURCE, MPI.ANY_TAG, status)
        assert (status.Get_source(), status.Get_tag(), status.Get_count(MPI.DOUBLE)) == (0, DATA, 10)
        assert room.reshape(5, 4)[:, :2].ravel().tolist() == [4 * i + j + step for i in range(5) for j in range(2)]
        assert not room.reshape(5, 4)[:, 2:].any()
        comm.Recv(room, 0, DATA)
        assert (room[:10] == -1).all()
total = comm.allreduce(cut)
if comm.rank == 0:
    print("done", total, flush=True)
