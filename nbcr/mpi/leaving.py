"""How a rank that ends says so to its mpiexec (PMI-1, what MPICH and its mpiexec speak)."""

from __future__ import annotations

import contextlib
import os
import socket
from typing import Any

from nbcr.mpi.guarding import guarded_call
from nbcr.mpi.world import Comm, world

_LEAVE_TIMEOUT_S = 5.0
_END_TIMEOUT_S = 10.0


def in_order() -> None:
    """As MPICH does when it ends; else mpiexec would kill the others."""
    with contextlib.suppress(OSError, KeyError, ValueError), _pmi() as pmi:
        pmi.settimeout(_LEAVE_TIMEOUT_S)
        pmi.sendall(b"cmd=finalize\n")
        pmi.recv(100)  # the acknowledgement


def abort(comm: Any, status: int = 0) -> None:
    """MPI_Abort of MPI_COMM_WORLD: mpiexec ends all ranks, and itself with `status`.

    `comm` is what stands for it here, of which MPICH itself would say to mpiexec that one rank has died.
    """
    with contextlib.suppress(OSError, KeyError, ValueError), _pmi() as pmi:
        what = f"application called MPI_Abort(MPI_COMM_WORLD, {status}) - process {world.rank}"
        os.write(2, f"Abort({status}) on node {world.rank} (rank {world.rank} in comm 0): {what}\n".encode())
        pmi.settimeout(_END_TIMEOUT_S)
        pmi.sendall(f"cmd=abort exitcode={status} message=abort\n".encode())
        while pmi.recv(100):  # until we are killed
            pass
    guarded_call(Comm.Abort, comm, status)


def _pmi() -> socket.socket:
    return socket.socket(fileno=os.dup(int(os.environ["PMI_FD"])))
