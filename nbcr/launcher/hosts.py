"""The other hosts of a job, as its launcher sees them: an agent of ours on each (agent.py), started by a rank there."""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nbcr import sealed
from nbcr.channel import Channel, ChannelClosed
from nbcr.errors import HelperLost, NotPossible

if TYPE_CHECKING:
    from nbcr.launcher.members import Member


@dataclass(eq=False)
class Agent:
    """Who acts for us on another host."""

    mark: str
    host: str
    pid: int
    channel: Channel

    @property
    def is_there(self) -> bool:
        """Whether it lives. What it said about work that was given up is dropped."""
        try:
            while self.channel.readable():
                self.channel.receive(1.0)
        except (ChannelClosed, TimeoutError, ValueError, OSError):
            return False
        return True

    def sees(self, path: Path, timeout_s: float) -> bool:
        """Whether it sees the file `path` as we do. Raises ChannelClosed, TimeoutError."""
        end = time.monotonic() + timeout_s
        self.channel.send({"op": "SEE", "path": str(path), "digest": digest_of(path)})
        answer: dict[str, Any] = {}
        while answer.get("state") != "SEEN":  # and not of work that was given up
            answer = self.channel.receive(end - time.monotonic())
        return bool(answer["is_same"])

    def answers(self, timeout_s: float) -> bool:
        """Whether it is heard of."""
        try:
            self.sees(Path("/"), timeout_s)
        except (ChannelClosed, TimeoutError):
            return False
        return True

    def lost(self) -> HelperLost:
        """What there is to say when it ends in the middle of something."""
        return HelperLost(f"the agent of nbcr on host {self.host} is gone", hint="is that host still there?")


class Hosts:
    """All of them, by the marks of sealed.this_host."""

    def __init__(self) -> None:
        self._here = sealed.this_host()
        self._agents: dict[str, Agent] = {}

    def has(self, channel: Channel, hello: Mapping[str, Any]) -> None:
        """A rank or stub has come; the first of another host is asked to start our agent there."""
        mark = str(hello.get("mark", self._here))
        if mark != self._here and mark not in self._agents:
            self._agents[mark] = Agent(mark, str(hello.get("host", "")), 0, channel)
            _ask(channel)

    def welcome(self, channel: Channel, hello: Mapping[str, Any]) -> None:
        """An agent has come. Where there is one already it is sent away."""
        mark = str(hello["mark"])
        before = self._agents.get(mark)
        if before is not None and before.pid and before.is_there:
            channel.close()
            return
        self._agents[mark] = Agent(mark, str(hello["host"]), int(hello["pid"]), channel)

    def of(self, hello: Mapping[str, Any]) -> Agent | None:
        """Who acts for us where a rank or stub is; None: we do, it is on this host."""
        mark = str(hello.get("mark", self._here))
        return None if mark == self._here else self._agents[mark]

    def lacking(self) -> list[str]:
        """Hosts from which no agent has come yet."""
        return [agent.host for agent in self._agents.values() if not agent.pid]

    def ask_again(self, members: Iterable[Member]) -> None:
        """Where there is no agent, or no more, a rank is asked for one."""
        asked = set()
        for member in members:
            agent = self.of(member.hello)
            if agent is None or agent.mark in asked:
                continue
            asked.add(agent.mark)
            if not (agent.pid and agent.is_there):
                self._agents[agent.mark] = Agent(agent.mark, agent.host, 0, member.channel)
                _ask(member.channel)


def check_shared(agents: Iterable[Agent], path: Path, timeout_s: float) -> None:
    """Raise NotPossible unless all hosts see the file `path` as we do."""
    for agent in dict.fromkeys(agents):
        try:
            is_same = agent.sees(path, timeout_s)
        except ChannelClosed:
            raise agent.lost() from None
        except TimeoutError:
            agent.channel.close()  # half of an answer may have come; the next checkpoint has another agent
            raise NotPossible(
                f"host {agent.host} does not answer within {timeout_s:g} s", hint="a longer --deadline may help"
            ) from None
        if not is_same:
            raise NotPossible(
                f"the store at {path.parents[2]} is not the same folder on host {agent.host}",
                hint="use --store with a folder that all hosts share",
            )


def digest_of(path: Path) -> str:
    """Of a small file; empty when it cannot be read."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return ""


def _ask(channel: Channel) -> None:
    with contextlib.suppress(ChannelClosed):
        channel.send({"op": "AGENT"})
