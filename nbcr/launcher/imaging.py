"""Images of all ranks at the same time: a process for each, a fork of the launcher, or of its agent on another host.
Through nbcr.crs only."""

from __future__ import annotations

import itertools
import os
import select
import signal
import socket
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nbcr import crs, runtime
from nbcr.channel import Channel, ChannelClosed
from nbcr.crs import CheckpointOptions, Component, Progress, RestartOptions, SnapshotReference
from nbcr.errors import HelperLost, from_wire, to_wire
from nbcr.launcher.hosts import Agent
from nbcr.store import publishing

_WRITING_NICENESS = 10


def keep_to_one_thread() -> None:
    """For a launcher, before anything else: it forks, and a lock that another thread holds then is never let go."""
    publishing.hash_threads = False


@dataclass
class Worker:
    """A process that is at one rank's image, and what it says."""

    rank: int
    pid: int
    channel: Channel
    has_ended: bool = False


class Workers:
    """All of them; a context manager that leaves none behind."""

    _batches = itertools.count()

    def __init__(self) -> None:
        self.here: list[Worker] = []
        self._away: dict[Agent, set[int]] = {}  # ranks on other hosts, whose agents have workers at them
        self._early: dict[tuple[int, str], dict[str, Any]] = {}  # what agents have said before it was asked for
        self._batch = next(self._batches)

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *exc: object) -> None:
        for worker in list(self.here):
            self.reap(worker)
        for agent in self._away:
            with suppress(ChannelClosed):
                agent.channel.send({"op": "RELEASE", "batch": self._batch})

    def reap(self, worker: Worker) -> None:
        """End one."""
        with suppress(ProcessLookupError):
            os.kill(worker.pid, signal.SIGKILL)  # one that has ended is a zombie: no one else's pid
        with suppress(ChildProcessError):
            os.waitpid(worker.pid, 0)
        worker.channel.close()
        self.here.remove(worker)

    def start(self, rank: int, work: Callable[[Channel], Mapping[str, Any]], keep: tuple[int, ...] = ()) -> None:
        """Fork a process that does `work` and says what it returns, or what is wrong."""
        ours, theirs = Channel.pair()
        pid = os.fork()
        if pid == 0:
            _work(Channel(theirs), work, {*keep, theirs.fileno()})
        theirs.close()
        self.here.append(Worker(rank, pid, ours))

    def start_at(self, agent: Agent, rank: int, order: Mapping[str, Any]) -> None:
        """Have a worker on another host. Raises HelperLost."""
        self._away.setdefault(agent, set()).add(rank)
        self._order(agent, {**order, "rank": rank})

    def tell(self, agent: Agent, rank: int, message: Mapping[str, Any]) -> None:
        """Say something to a worker on another host. Raises HelperLost."""
        self._order(agent, {"op": "TELL", "rank": rank, "message": message})

    def _order(self, agent: Agent, order: Mapping[str, Any]) -> None:
        try:
            agent.channel.send({**order, "batch": self._batch})
        except ChannelClosed:
            raise agent.lost() from None

    def hear(self, state: str, timeout_s: float | None) -> dict[int, dict[str, Any]]:
        """What each has said when it was at `state`, by rank. Raises what the first that fails says."""
        answers = {rank: answer for (rank, said), answer in self._early.items() if said == state}
        awaited = {worker.channel.fileno(): {worker.rank} for worker in self.here}
        awaited |= {agent.channel.fileno(): ranks - answers.keys() for agent, ranks in self._away.items()}
        poller = select.poll()
        for number, ranks in list(awaited.items()):
            if ranks:
                poller.register(number, select.POLLIN)
            else:
                del awaited[number]
        end = None if timeout_s is None else time.monotonic() + timeout_s
        while awaited:
            left = None if end is None else end - time.monotonic()
            if left is not None and left <= 0:
                raise HelperLost(f"the images of the ranks were not at {state} within {timeout_s:g} s")
            for number, _ in poller.poll(None if left is None else left * 1000):
                rank, answer = self._next(number)
                if answer.get("state") == "ERROR":
                    error = from_wire(answer)
                    error.args = (f"rank {rank}: {error}",)
                    raise error
                if answer.get("state") != state or rank not in awaited[number]:
                    self._early[rank, str(answer.get("state"))] = answer
                    continue
                answers[rank] = answer
                awaited[number].discard(rank)
                if not awaited[number]:
                    poller.unregister(number)
                    del awaited[number]
        return answers

    def _next(self, number: int) -> tuple[int, dict[str, Any]]:
        """Whose word it is that comes over a descriptor, and the word."""
        for agent in self._away:
            if agent.channel.fileno() == number:
                try:
                    answer = agent.channel.receive()
                except (ChannelClosed, ValueError):
                    raise agent.lost() from None
                return (int(answer.get("rank", -1)), answer) if answer.get("batch") == self._batch else (-1, {})
        worker = next(each for each in self.here if each.channel.fileno() == number)
        try:
            return worker.rank, worker.channel.receive()
        except ChannelClosed:
            raise HelperLost(
                f"the process that was at the image of rank {worker.rank} was killed", hint="try again"
            ) from None


def _work(channel: Channel, work: Callable[[Channel], Mapping[str, Any]], keep: set[int]) -> None:
    """In the fork. Does not return."""
    status = 1
    try:
        os.setsid()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        _close_all_but({0, 1, 2, *keep})
        try:
            answer: Mapping[str, Any] = work(channel)
        except Exception as error:
            if not hasattr(error, "hint") and os.environ.get("NBCR_DEBUG"):
                traceback.print_exc()
            answer = {"state": "ERROR", **to_wire(error)}
        channel.send(answer)
        status = 0
    finally:
        os._exit(status)


def _close_all_but(kept: set[int]) -> None:
    at = 3
    for number in sorted(kept):
        if number >= at:
            os.closerange(at, number)
            at = number + 1
    os.closerange(at, 1 << 20)


def take(component: Component, pid: int, folder: Path, entry_id: str, channel_fd: int, files: str) -> Any:
    """Work that takes a rank's image: RESUMED when it may go on, WRITTEN at the end."""

    def work(channel: Channel) -> Mapping[str, Any]:
        def resumed(progress: Progress) -> None:
            os.nice(_WRITING_NICENESS)  # the ranks go on: they come first
            channel.send({"state": "RESUMED", "pause_ms": progress.pause_ms})

        options = CheckpointOptions(leave="running", files=files, channel_fd=channel_fd, on_resume=resumed)
        taken = component.checkpoint(pid, SnapshotReference(component.name, entry_id, folder), options)
        return {"state": "WRITTEN", "pause_ms": taken.pause_ms, "warnings": list(taken.warnings)}

    return work


def bring(component: Component, pid: int, folder: Path, entry_id: str, channel: socket.socket) -> Any:
    """Work that restores a rank's image over the stub `pid`."""

    def work(_: Channel) -> Mapping[str, Any]:
        snapshot = SnapshotReference(component.name, entry_id, folder, cold_start=True)
        brought = component.restart(snapshot, RestartOptions(into=pid, channel=channel))
        return {
            "state": "BROUGHT",
            "pids": {str(old): runtime.number_inside(new) for old, new in brought.pids.items()},
            "warnings": list(brought.warnings),
        }

    return work


def maker(name: str, component: str | None) -> Component:
    """The component that made the images of entry `name`."""
    return crs.maker_of(name, component)
