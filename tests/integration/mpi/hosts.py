"""Several hosts made of namespaces on this one: each has its own network, name, processes, shared memory and System V
objects; the files are shared, as on a cluster. mpiexec's "ssh" is a script that enters them."""

from __future__ import annotations

import ctypes
import os
import socket
import stat
import struct
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.integration.mpi.conftest import MPIEXEC, NBCR, SUBJECTS, Stage
from tests.support import CHECKOUT, ProcessTracker, children_of, needs

NAMES = ("h0", "h1", "h2", "h3")  # h0 is the launcher's
_PIDFD_GETFD = 438
_OWN = ("--net", "--uts", "--mount")
_OTHERS = ("--ipc", "--pid", "--mount-proc")
_BEGIN = """set -e
hostname {name}
mount --bind {folder}/hosts /etc/hosts
mount -t sysfs sysfs /sys
{more}
ip link set lo up
echo up
exec sleep infinity
"""
_RSH = """#!/bin/sh
while [ "${1#-}" != "$1" ]; do shift; done
host=$1; shift
exec nsenter -t $(cat FOLDER/$host.pid) -a -- sh -c "$*"
"""


@dataclass
class SpreadStage(Stage):
    """A store and jobs on several hosts."""

    inits: dict[str, int] = field(default_factory=dict)

    @classmethod
    def built(cls, folder: Path, processes: ProcessTracker) -> SpreadStage:
        """Make the hosts and what connects them."""
        needs("root, to make hosts of namespaces", available=os.geteuid() == 0)
        stage = cls(folder, processes)
        lines = [f"10.77.0.{number + 1} {name}" for number, name in enumerate(NAMES)]
        (folder / "hosts").write_text("\n".join(["127.0.0.1 localhost", *lines, ""]))
        rsh = folder / "rsh"
        rsh.write_text(_RSH.replace("FOLDER", str(folder)))
        rsh.chmod(0o755)
        stage._begin(
            "switch", ("--net",), "ip link add br0 type bridge; ip link set br0 up; echo up; exec sleep infinity"
        )
        for number, name in enumerate(NAMES):
            stage._connect(name, number)
        return stage

    def _begin(self, name: str, kinds: tuple[str, ...], script: str) -> None:
        keeper = self.processes.start(
            ["unshare", *kinds, "--fork", "--kill-child", "sh", "-c", script],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert keeper.stdout is not None
        assert keeper.stderr is not None
        if keeper.stdout.readline() != "up\n":
            needs("namespaces with networks of their own", why=keeper.stderr.read().strip())
        (self.inits[name],) = children_of(keeper.pid)
        (self.folder / f"{name}.pid").write_text(str(self.inits[name]))

    def _connect(self, name: str, number: int) -> None:
        is_other = name != NAMES[0]
        more = "mount -t tmpfs tmpfs /dev/shm" if is_other else ""
        kinds = (*_OWN, *(_OTHERS if is_other else ()))
        self._begin(name, kinds, _BEGIN.format(name=name, folder=self.folder, more=more))
        pair = ["type", "veth", "peer", "name", "eth0", "netns", str(self.inits[name])]
        self._ip("switch", "link", "add", f"to-{name}", *pair)
        self._ip("switch", "link", "set", f"to-{name}", "master", "br0", "up")
        self._ip(name, "addr", "add", f"10.77.0.{number + 1}/24", "dev", "eth0")
        self._ip(name, "link", "set", "eth0", "up")

    def _ip(self, host: str, *words: str) -> None:
        subprocess.run(["nsenter", "-t", str(self.inits[host]), "-n", "--", "ip", *words], check=True)

    def cut(self, host: str) -> None:
        """Nobody reaches a host any more."""
        self._ip("switch", "link", "set", f"to-{host}", "down")

    def mend(self, host: str) -> None:
        """It is reached again."""
        self._ip("switch", "link", "set", f"to-{host}", "up")

    def reset(self, launcher_pid: int) -> int:
        """Break the launcher's connections with other hosts, as a network does that forgets them; how many."""
        unspecified, broken = struct.pack("H14x", socket.AF_UNSPEC), 0
        for held in self._connections(launcher_pid):
            ctypes.CDLL(None).connect(held.fileno(), unspecified, len(unspecified))  # sends RST
            broken += 1
        return broken

    def connections(self, launcher_pid: int) -> int:
        """How many there are."""
        return sum(1 for _ in self._connections(launcher_pid))

    def _connections(self, launcher_pid: int) -> Iterator[socket.socket]:
        pidfd = os.pidfd_open(launcher_pid)
        for number in [int(path.name) for path in Path(f"/proc/{launcher_pid}/fd").iterdir()]:
            taken = int(ctypes.CDLL(None, use_errno=True).syscall(_PIDFD_GETFD, pidfd, number, 0))
            if taken < 0:
                continue  # it was closed meanwhile
            with socket.socket(fileno=taken) if _is_tcp(taken) else os.fdopen(taken, "rb", buffering=0) as held:
                if isinstance(held, socket.socket) and not held.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                    yield held
        os.close(pidfd)

    def on_h0(self, *words: str) -> list[str]:
        """A command line that runs on the launcher's host."""
        inside = ["sh", "-c", 'cd "$0" && exec "$@"', str(CHECKOUT)]
        return ["nsenter", "-t", str(self.inits["h0"]), "-n", "-u", "-m", "--", *inside, *words]

    def nbcr(self, *words: str, mode: str = "") -> subprocess.Popen[str]:
        environ = {**self.environ, "NBCR_MPI_MODE": mode} if mode else self.environ
        return self.processes.start(
            self.on_h0(*NBCR, *words), env=environ, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def placing(self, hosts: str, per_host: int) -> list[str]:
        """mpiexec's options."""
        reaching = ["-launcher", "ssh", "-launcher-exec", str(self.folder / "rsh")]
        return [*reaching, "-hosts", hosts, "-ppn", str(per_host)]

    def program(self, name: str, ranks: int, placing: list[str], *argv: object) -> list[str]:
        """The command line of a subject."""
        words = [str(SUBJECTS / f"{name}.py"), *map(str, argv)]
        return [str(MPIEXEC), *placing, "-n", str(ranks), sys.executable, *words]

    def living(self, host: str) -> list[str]:
        """What runs on a host, but for what keeps it."""
        theirs = Path(f"/proc/{self.inits[host]}/ns/pid").readlink()
        found = []
        for path in Path("/proc").iterdir():
            try:
                if path.name.isdecimal() and (path / "ns/pid").readlink() == theirs:
                    found.append((path / "cmdline").read_text().replace("\0", " "))
            except OSError:
                continue
        return [line for line in found if line and not line.startswith("sleep infinity")]

    def hide(self, host: str, folder: Path) -> None:
        """Another folder is there, on one host."""
        folder.mkdir(exist_ok=True, mode=0o700)
        enter = ["nsenter", "-t", str(self.inits[host]), "-m", "--"]
        subprocess.run([*enter, "mount", "-t", "tmpfs", "tmpfs", str(folder)], check=True)


def _is_tcp(number: int) -> bool:
    if not stat.S_ISSOCK(os.fstat(number).st_mode):
        return False
    with socket.socket(fileno=os.dup(number)) as sock:
        return sock.family in (socket.AF_INET, socket.AF_INET6)
