"""Jobs whose MPI cannot be initialised again: the program says where it can be saved, and what.

    state = nbcr.mpi.checkpoint_here(state)

All ranks call it at the same point of their course, as a collective. Nothing happens there but a small Allreduce,
unless a checkpoint has been asked for: then each rank's state is saved as an object snapshot. A restart runs the
program anew; its first call returns the state that was saved.

    launcher → rank    SAVE      a checkpoint has been asked for; the next call saves          rank → SAVED
               CONTINUE          everybody's state is saved
               ABORT             not everybody came: go on as if nothing had been
               END               the job was to be stopped
"""

from __future__ import annotations

import os
import socket
import sys
import threading
from pathlib import Path
from typing import Any

from nbcr import __version__, runtime, sealed
from nbcr.channel import ChannelClosed
from nbcr.errors import NotPossible, RestartFailed, to_wire
from nbcr.mpi import dialling

RESUME_VARIABLE = "NBCR_JOB_RESUME"  # the folder of the states, in a restarted job
_VERDICT_TIMEOUT_S = 600.0  # as long as the slowest rank may take to save


class Cooperation:
    """This rank's part; `cooperation` below."""

    def __init__(self) -> None:
        self._mpi: Any = None
        self._comm: Any = None  # a duplicate of COMM_WORLD: our Allreduce meets none of the program's
        self._channel: sealed.SealedChannel | None = None
        self._folder = ""
        self._hello: dict[str, Any] = {}
        self._changed = threading.Condition()
        self._order: dict[str, Any] = {}  # the latest SAVE
        self._verdicts: dict[int, str] = {}  # by the order's number
        self._done = 0  # the latest order that was dealt with

    def begin(self, module: Any, path: str, network: str) -> None:
        """MPI has been loaded; `path` is the launcher's socket, `network` how it is reached from other hosts."""
        self._mpi, self._path, self._network = module, path, network
        self._folder = os.environ.pop(RESUME_VARIABLE, "")
        if module.Is_initialized():
            self._say_hello()

    def _say_hello(self) -> None:
        world = self._mpi.COMM_WORLD
        self._hello = {
            "op": "hello",
            "mode": "cooperative",
            "rank": world.Get_rank(),
            "size": world.Get_size(),
            "pid": runtime.own_pid(),
            "host": socket.gethostname(),
            "library": self._mpi.Get_library_version().split("\n")[0].rstrip("\0"),
            "python": sys.version.split()[0],
            "version": __version__,
        }
        try:
            self._channel = sealed.connect(self._path, self._network)
            self._channel.send(self._hello)
        except OSError:  # the launcher is gone: the job can do without
            self._channel = None
            return
        threading.Thread(target=self._listen, args=(self._channel,), name="nbcr-mpi", daemon=True).start()

    def _listen(self, first: sealed.SealedChannel) -> None:
        channel: sealed.SealedChannel | None = first
        while channel is not None:
            try:
                message = channel.receive()
            except (ChannelClosed, ValueError, OSError):
                message = {}
            with self._changed:
                if message.get("op") == "SAVE":
                    self._order = message
                elif message:
                    self._verdicts[int(message["number"])] = str(message["op"])
                else:
                    self._verdicts = dict.fromkeys([*self._verdicts, int(self._order.get("number", 0))], "ABORT")
                    self._channel = None
                self._changed.notify_all()
            if not message:
                self._channel = channel = dialling.again(channel, self._network, self._hello)

    # In the program's thread

    def checkpoint_here(self, state: Any) -> Any:
        """See `nbcr.mpi.checkpoint_here`."""
        if self._mpi is None:
            return state
        if self._comm is None:
            self._comm = self._mpi.COMM_WORLD.Dup()
            if self._channel is None:
                self._say_hello()
        if self._folder:
            folder, self._folder = self._folder, ""
            return self._loaded(folder)
        number = self._agreed()
        if number > self._done:
            self._done = number
            self._save(number, state)
        return state

    def _agreed(self) -> int:
        from array import array

        latest, asked = array("q", [0]), array("q", [int(self._order.get("number", 0))])
        self._comm.Allreduce([asked, self._mpi.INT64_T], [latest, self._mpi.INT64_T], self._mpi.MAX)
        return latest[0]

    def _save(self, number: int, state: Any) -> None:
        with self._changed:  # another rank may have heard of it before us
            self._changed.wait_for(
                lambda: self._order.get("number") == number or number in self._verdicts or self._channel is None,
                _VERDICT_TIMEOUT_S,
            )
            order, channel = self._order, self._channel
            if channel is None or number in self._verdicts or order.get("number") != number:
                return
        try:
            save_state(state, Path(order["folder"]), self._comm.Get_rank())
            answer: dict[str, Any] = {"state": "SAVED"}
        except Exception as error:
            answer = {"state": "FAILED", **to_wire(error)}
        try:
            channel.send({**answer, "number": number})
        except ChannelClosed:
            return
        with self._changed:
            self._changed.wait_for(lambda: number in self._verdicts, _VERDICT_TIMEOUT_S)
            verdict = self._verdicts.get(number)
        if verdict == "END":
            sys.stdout.flush()
            sys.stderr.flush()
            self._mpi.Finalize()
            os._exit(0)

    def _loaded(self, folder: str) -> Any:
        from nbcr import objects

        rank = self._comm.Get_rank()
        found: dict[str, Any] = {}
        report = objects.load(_place(Path(folder), rank), found, hidden=())
        if "state" not in found:
            why = next((verdict.reason for verdict in report.lost), "it is not there")
            raise RestartFailed(f"the state of rank {rank} cannot be brought back: {why}", hint="see `nbcr show`")
        return found["state"]


def save_state(state: Any, folder: Path, rank: int) -> None:
    """Save a rank's state. Raises NotPossible when not all of it can be."""
    from nbcr import objects

    try:
        objects.preload()
    except ImportError as error:
        raise NotPossible(
            f"the Python of rank {rank} lacks what states are saved by: {error}",
            hint=f"`{sys.executable} -m pip install nbcr`",
        ) from error
    report = objects.save({"state": state}, _place(folder, rank), hidden=(), fork=False).wait()
    for verdict in report.lost + report.recomputable:
        raise NotPossible(
            f"the state of rank {rank} cannot be saved: {verdict.culprit or 'state'}: {verdict.reason}",
            hint="give checkpoint_here what can be pickled",
        )


def _place(folder: Path, rank: int) -> Path:
    return folder / "ranks" / str(rank)


cooperation = Cooperation()
