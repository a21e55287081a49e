"""Ranks 0 and 1 that talk by TCP as well, and by MPI with all others.

python talking.py STEPS PAUSE_S HOST
"""

import socket
import sys
import time

from mpi4py import MPI

STEPS, PAUSE_S, host = int(sys.argv[1]), float(sys.argv[2]), sys.argv[3]
comm = MPI.COMM_WORLD
if comm.rank == 0:
    both = {"family": socket.AF_INET6, "dualstack_ipv6": True} if host == "::" else {}
    listener = socket.create_server((host, 0), **both)
    comm.bcast(listener.getsockname()[1])
    connection, _ = listener.accept()
else:
    port = comm.bcast(None)
    if comm.rank == 1:
        connection = socket.create_connection(("127.0.0.1", port))
comm.Barrier()
if comm.rank == 0:
    print("ready", flush=True)
for step in range(STEPS):
    assert comm.allreduce(step) == step * comm.size
    time.sleep(PAUSE_S)
    if comm.rank < 2:
        connection.sendall(b"%8d" % step)
        assert connection.recv(8, socket.MSG_WAITALL) == b"%8d" % step
if comm.rank == 0:
    print("done", flush=True)
