"""What a new mpiexec starts in the place of a rank, and the rank's image is restored over. Standard library only.

It tells the launcher who it is, hands it the descriptor that leads to its mpiexec, and waits to be replaced. On another
host than the launcher's, the agent that it may have to start takes that descriptor.
"""

from __future__ import annotations

import contextlib
import os
import socket

from nbcr import runtime, sealed
from nbcr.channel import ChannelClosed
from nbcr.mpi import agents

SOCKET_VARIABLE = "NBCR_STUB_SOCKET"
_OF_MPIEXEC = ("PMI_", "PMIX_", "MPI_", "HYDRA_", "HYDI_", "SLURM_")


def main() -> None:
    """Say hello; end when the launcher does."""
    given = {name: value for name, value in os.environ.items() if name.startswith(_OF_MPIEXEC)}
    network = os.environ.get(sealed.VARIABLE, "")
    channel = sealed.connect(os.environ[SOCKET_VARIABLE], network)
    if _yama_scope() == "1":
        _allow_tracing()
    hello = {"op": "stub", "rank": int(given["PMI_RANK"]), "pid": runtime.own_pid(), "mpiexec": given}
    channel.send({**hello, "host": socket.gethostname(), "mark": sealed.this_host()})
    if channel.key is None:
        socket.send_fds(channel.sock, [b"\0"], [int(given["PMI_FD"])])
    with contextlib.suppress(ChannelClosed):
        while True:
            if channel.receive().get("op") == "AGENT":
                agents.start(network)


def _yama_scope() -> str:
    try:
        with open("/proc/sys/kernel/yama/ptrace_scope", encoding="ascii") as file:  # noqa: PTH123
            return file.read().strip()
    except OSError:
        return ""


def _allow_tracing() -> None:
    import ctypes

    pr_set_ptracer, any_process = 0x59616D61, ctypes.c_ulong(-1)
    ctypes.CDLL(None).prctl(pr_set_ptracer, any_process, 0, 0, 0)


if __name__ == "__main__":
    main()
