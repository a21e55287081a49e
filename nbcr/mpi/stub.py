"""What a new mpiexec starts in the place of a rank, and the rank's image is restored over. Standard library only.

It tells the launcher who it is, hands it the descriptor that leads to its mpiexec, and waits to be replaced.
"""

from __future__ import annotations

import json
import os
import socket
import struct

SOCKET_VARIABLE = "NBCR_STUB_SOCKET"
_OF_MPIEXEC = ("PMI_", "PMIX_", "MPI_", "HYDRA_", "HYDI_")


def main() -> None:
    """Say hello; end when the launcher does."""
    given = {name: value for name, value in os.environ.items() if name.startswith(_OF_MPIEXEC)}
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.connect(os.environ[SOCKET_VARIABLE])
    if _yama_scope() == "1":
        _allow_tracing()
    hello = {"op": "stub", "rank": int(given["PMI_RANK"]), "pid": _own_pid(), "mpiexec": given}
    body = json.dumps(hello).encode()
    sock.sendall(struct.pack(">I", len(body)) + body)
    socket.send_fds(sock, [b"\0"], [int(given["PMI_FD"])])
    sock.recv(1)


def _own_pid() -> int:
    return int(os.readlink("/proc/self"))


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
