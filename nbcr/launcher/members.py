"""The ranks of a job, as its launcher sees them."""

from __future__ import annotations

import select
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from nbcr.channel import Channel, ChannelClosed
from nbcr.errors import HandlerFailed, NbcrError, NotPossible, from_wire
from nbcr.launcher.hosts import Agent
from nbcr.sealed import SealedChannel


@dataclass
class Member:
    """A rank that has said hello."""

    rank: int
    pid: int
    channel: Channel
    hello: Mapping[str, Any]
    agent: Agent | None = None  # who acts for the launcher, where the rank is on another host

    @property
    def calls_again(self) -> bool:
        """Whether its connection has broken, and it will make another (nbcr.mpi.dialling)."""
        channel = self.channel
        return isinstance(channel, SealedChannel) and channel.is_far and channel.has_ended


class Gone(NotPossible):
    """A rank has ended, or its host is not there any more."""

    type_name = "NotPossible"

    def __init__(self, member: Member) -> None:
        where = f" on {member.agent.host}" if member.agent is not None else ""
        what = "has ended, or lost its connection" if member.calls_again else "has ended"
        super().__init__(
            f"rank {member.rank} (process {member.pid}{where}) {what}",
            hint="is its host still there?" if where else "is the job at its end?",
        )
        self.rank = member.rank


def tell(members: Iterable[Member], message: Mapping[str, Any]) -> None:
    """Say the same to all. Raises Gone when one has ended."""
    for member in members:
        try:
            member.channel.send(message)
        except ChannelClosed:
            raise Gone(member) from None


def hear(members: Iterable[Member], state: str, timeout_s: float) -> dict[int, dict[str, Any]]:
    """An answer from every one, by rank. Raises what the first that fails says, or NotPossible."""
    answers: dict[int, dict[str, Any]] = {}

    def take(member: Member, answer: dict[str, Any]) -> bool:
        if answer.get("state") == "FAILED":
            raise of_rank(member.rank, answer)
        if answer.get("state") == state:
            answers[member.rank] = answer
            return True
        return False

    late = listen(members, take, timeout_s)
    if late:
        ranks = ", ".join(str(member.rank) for member in late)
        raise NotPossible(
            f"no answer ({state}) within {timeout_s:g} s from rank {ranks}", hint="a longer --deadline may help"
        )
    return answers


def listen(members: Iterable[Member], take: Callable[[Member, dict[str, Any]], bool], timeout_s: float) -> list[Member]:
    """Hand every message to `take` until it has said True of every member; those of whom it has not, in time."""
    awaited = {}
    for member in members:
        if member.channel.fileno() < 0:
            raise Gone(member)
        awaited[member.channel.fileno()] = member
    end = time.monotonic() + timeout_s
    poller = select.poll()
    for number in awaited:
        poller.register(number, select.POLLIN)
    while awaited and (left := end - time.monotonic()) > 0:
        for number, _ in poller.poll(left * 1000):
            member = awaited[number]
            try:
                done = take(member, member.channel.receive(left))
            except ChannelClosed:
                raise Gone(member) from None
            except TimeoutError:  # the rest of its message does not come
                continue
            if done:
                poller.unregister(number)
                del awaited[number]
    return list(awaited.values())


def of_rank(rank: int, answer: Mapping[str, Any]) -> NbcrError:
    """What a rank says is wrong."""
    error = from_wire(dict(answer))
    if isinstance(error, HandlerFailed):
        error.args = (f"rank {rank}: {error}",)
    return error
