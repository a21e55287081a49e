"""The launcher's agent on another host of a job: takes and restores the images of the ranks there.

    launcher → agent   SEE       whether a file of the draft is the same there                    agent → SEEN
               TAKE, BRING       start a worker at a rank's image          what it says, with the rank's number
               TELL              for a worker
               RELEASE           end the workers of a batch

A rank, or the stub that a rank is restored over, starts it (nbcr.mpi.agents). It ends with its connection to the
launcher.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nbcr import crs, sealed
from nbcr.channel import Channel, ChannelClosed
from nbcr.errors import HelperLost, NbcrError, NotPossible, to_wire
from nbcr.launcher import imaging, leftovers
from nbcr.launcher.hosts import digest_of
from nbcr.store import files

_GO_TIMEOUT_S = 300.0
_RANKS_END_S = 2.0  # mpiexec ends them when the launcher's end ends it: there is no event for us
_PIDFD_GETFD = 438


class Agent:
    """What it does for as long as the job runs."""

    def __init__(self, network: sealed.Network) -> None:
        self._network = network
        self._channel = network.call()
        self._workers = imaging.Workers()
        self._batch = -1

    def run(self) -> None:
        """Until the launcher is gone."""
        hello = {"op": "agent", "mark": sealed.this_host(), "host": socket.gethostname(), "pid": os.getpid()}
        self._channel.send(hello)
        crs.select()  # loaded now: each worker is a fork
        began_s = time.time()
        try:
            while True:
                self._once()
        finally:
            self._release()
            time.sleep(_RANKS_END_S)
            leftovers.remove(began_s)

    def _once(self) -> None:
        poller = select.poll()
        poller.register(self._channel.fileno(), select.POLLIN)
        theirs = {each.channel.fileno(): each for each in self._workers.here}
        for number in theirs:
            poller.register(number, select.POLLIN)
        for number, _ in poller.poll():
            if number == self._channel.fileno():
                self._obey(self._channel.receive())
                return  # there may be other workers now
            self._pass_on(theirs[number])

    def _obey(self, order: Mapping[str, Any]) -> None:
        operation = order.get("op")
        if operation == "SEE":
            path = Path(order["path"])
            self._channel.send({"state": "SEEN", "is_same": digest_of(path) == order["digest"]})
            return
        if order.get("batch") != self._batch:
            self._release()
            self._batch = int(order["batch"])
        rank = int(order.get("rank", -1))
        if operation in ("TAKE", "BRING"):
            work = (_take if operation == "TAKE" else self._bring)(order)
            self._workers.start(rank, work)
        elif operation == "TELL":
            for worker in self._workers.here:
                if worker.rank == rank:
                    worker.channel.send(order["message"])
        else:
            self._release()

    def _pass_on(self, worker: imaging.Worker) -> None:
        try:
            answer = worker.channel.receive()
        except ChannelClosed:
            self._workers.reap(worker)
            if not worker.has_ended:
                lost = HelperLost("the process that was at its image was killed", hint="try again")
                self._say(worker, {"state": "ERROR", **to_wire(lost)})
            return
        worker.has_ended = answer.get("state") in ("ERROR", "WRITTEN", "GONE")
        self._say(worker, answer)

    def _say(self, worker: imaging.Worker, answer: Mapping[str, Any]) -> None:
        self._channel.send({**answer, "rank": worker.rank, "batch": self._batch})

    def _release(self) -> None:
        self._workers.__exit__()
        self._workers = imaging.Workers()

    def _bring(self, order: Mapping[str, Any]) -> Any:
        """Work that restores a rank's image over a stub, and lets it go on with a connection of its own."""
        component = imaging.maker(order["entry_name"], order["component"])
        pid, folder = int(order["pid"]), Path(order["folder"])

        def work(channel: Channel) -> Mapping[str, Any]:
            if not folder.is_dir():
                raise NotPossible(
                    f"{folder} is not there on host {socket.gethostname()}", hint="use a store that all hosts share"
                )
            leading = _descriptor_of(pid, int(order["leading"]))
            ours, theirs = Channel.pair()
            channel.send(imaging.bring(component, pid, folder, order["entry"], theirs)(channel))
            theirs.close()
            go = channel.receive(_GO_TIMEOUT_S)
            line = self._network.call()
            assert line.key is not None
            ours.send({**go, "key": line.key.hex(), "network": self._network.to_text()})
            socket.send_fds(ours.sock, [b"\0"], [leading, line.fileno()])
            return {"state": "GONE"}

        return work


def _take(order: Mapping[str, Any]) -> Any:
    """Work that takes a rank's image into the store that all hosts share."""
    folder = Path(order["folder"])
    component = imaging.maker(order["entry"], order["component"])
    taking = imaging.take(
        component, int(order["pid"]), folder, order["entry"], int(order["channel_fd"]), order["files"]
    )  # fmt: skip

    def work(channel: Channel) -> Mapping[str, Any]:
        answer: Mapping[str, Any] = taking(channel)
        files.fsync_tree(folder)  # the launcher's own sync does not reach what this host has not written yet
        return answer

    return work


def _descriptor_of(pid: int, number: int) -> int:
    """Our duplicate of another process's descriptor. Raises OSError."""
    pidfd = os.pidfd_open(pid)
    try:
        found = int(ctypes.CDLL(None, use_errno=True).syscall(_PIDFD_GETFD, pidfd, number, 0))
    finally:
        os.close(pidfd)
    if found < 0:
        error = ctypes.get_errno()
        raise NotPossible(f"descriptor {number} of process {pid} cannot be taken over: {os.strerror(error)}")
    return found


def main() -> None:
    """In the child of a child: whoever started us sees no process of ours."""
    if os.fork():
        os._exit(0)
    os.setsid()
    os.closerange(3, 1 << 20)
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    imaging.keep_to_one_thread()
    network = sealed.Network.of(os.environ.pop(sealed.VARIABLE))
    try:
        Agent(network).run()
    except (ChannelClosed, OSError, NbcrError):  # the job's end; who waits for us is told that we have not come
        pass


if __name__ == "__main__":
    main()
