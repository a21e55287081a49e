"""One checkpoint of all ranks: hold, agree, drain, tear down, images, go on; the entry is published last.

Whatever fails makes the whole checkpoint fail: every rank is told ABORT and goes on, and there is no entry.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from nbcr import crs
from nbcr.channel import ChannelClosed
from nbcr.errors import NbcrError, NotPossible, UsageProblem
from nbcr.launcher import imaging
from nbcr.launcher.hosts import check_shared
from nbcr.launcher.jobs import KIND
from nbcr.launcher.keeping import mark
from nbcr.launcher.members import Gone, Member, hear, listen, tell
from nbcr.launcher.schema import FILE, FOLDER, Schema, image_of
from nbcr.mpi import besides
from nbcr.session.terms import Terms
from nbcr.store import Draft, Entry, Store
from nbcr.store.manifest import ComponentMark

_COUNT_EVERY_S = 0.002
_STUCK_AFTER = 10  # counts without a change
_OPEN_TIMEOUT_S = 60.0
_IMAGE_TIMEOUT_S = 120.0
_ABORT_TIMEOUT_S = 15.0
_ANSWER_TIMEOUT_S = 5.0
_SLACK_S = 2.0  # a rank that gives up says why


@dataclass(frozen=True, kw_only=True)
class JobOrder(Terms):
    """What was asked of a job, in words of all checkpoints, and where its entry goes."""

    store: Store
    deadline_s: float = 30.0

    @classmethod
    def from_message(cls, message: Mapping[str, Any]) -> JobOrder:
        """As it came over a channel. Raises UsageProblem for what is not to be had of a job."""
        deadline_s = float(message.get("deadline_s", cls.deadline_s))
        order = cls.of_document(message, store=Store(message.get("store")), deadline_s=deadline_s)
        if order.leave not in ("running", "killed"):
            raise UsageProblem(f"--leave {order.leave!r} is not known for jobs", hint="use running, or --stop")
        if order.tcp != "reset":
            raise UsageProblem("--tcp keep is not possible for the ranks of a job", hint="leave it out")
        return order


@dataclass
class Figures:
    """What happened, in numbers."""

    begun: float = field(default_factory=time.monotonic)
    opened_ms: float = 0.0  # from the request until all ranks ran again
    pause_ms: float = 0.0
    messages: int = 0
    warnings: list[str] = field(default_factory=list)

    @property
    def elapsed_ms(self) -> float:
        """Since the request."""
        return (time.monotonic() - self.begun) * 1000


class Lost(NbcrError):
    """Ranks could not be brought back into MPI: the job cannot go on."""

    exit_code = 28


def checkpoint(
    members: Sequence[Member],
    schema: Schema,
    order: JobOrder,
    pid: int,
    on_begin: Callable[[], None] = lambda: None,
    rejoin: Callable[[], None] = lambda: None,
) -> Entry:
    """Take it. Raises NbcrError; then the job goes on. With ``leave`` "killed" all ranks have ended when it returns.

    `rejoin` waits for ranks whose connections have broken.
    """
    component = crs.select()
    figures = Figures()
    draft = order.store.draft(order.name, replace=order.replace)
    try:
        on_begin()
        _fill_folder(draft, members, schema, order)
        with _quiet(members, order, figures, rejoin) as ready, imaging.Workers() as workers:
            for member in members:
                _start_image(workers, member, int(ready[member.rank]["channel_fd"]), draft, component, order.files)
            workers.hear("RESUMED", _IMAGE_TIMEOUT_S)
            if order.leave == "running":
                _let_go(members, "CONTINUE", figures)
            _note_images(workers.hear("WRITTEN", None), figures)
            if order.leave != "running":  # a rank whose connection has broken was not in its read any more
                tell(members, {"op": "PING"})
                hear(members, "PONG", _ANSWER_TIMEOUT_S)
            entry = publish(draft, schema, order, figures, component, pid)
            if order.leave != "running":
                _end(members, figures)
    except BaseException:
        order.store.discard(draft)
        raise
    return entry


def _fill_folder(draft: Draft, members: Sequence[Member], schema: Schema, order: JobOrder) -> None:
    """What is there before the images; other hosts must see it."""
    (draft.path / FOLDER / "ranks").mkdir(parents=True, mode=0o700)
    schema.write(draft.path / FOLDER)
    agents = (member.agent for member in members if member.agent is not None)
    check_shared(agents, draft.path / FOLDER / FILE, order.deadline_s)


def _start_image(
    workers: imaging.Workers, member: Member, channel_fd: int, draft: Draft, component: crs.Component, files: str
) -> None:
    """Have a rank's image taken, here or by the agent on its host."""
    image = image_of(draft.path / FOLDER, member.rank)
    if member.agent is None:
        workers.start(member.rank, imaging.take(component, member.pid, image, draft.id, channel_fd, files))
        return
    order = {"component": component.name, "pid": member.pid, "folder": str(image), "entry": draft.id}
    workers.start_at(member.agent, member.rank, {**order, "op": "TAKE", "channel_fd": channel_fd, "files": files})


def _note_images(written: Mapping[int, Mapping[str, Any]], figures: Figures) -> None:
    figures.pause_ms = max(float(answer["pause_ms"]) for answer in written.values())
    figures.warnings += [
        f"rank {rank}: {warning}" for rank, answer in sorted(written.items()) for warning in answer["warnings"]
    ]


def _end(members: Sequence[Member], figures: Figures) -> None:
    """The ranks are in their images, and not needed any more."""
    for member in members:
        with contextlib.suppress(ChannelClosed):
            member.channel.send({"op": "END"})
    figures.opened_ms = figures.elapsed_ms


class _quiet:  # noqa: N801
    """The ranks are quiet in the block: MPI is torn down, each is in a read. On an error they are told ABORT."""

    def __init__(
        self, members: Sequence[Member], order: JobOrder, figures: Figures, rejoin: Callable[[], None] = lambda: None
    ) -> None:
        self._members, self._order, self._figures, self._rejoin = members, order, figures, rejoin
        self._is_down = False

    def __enter__(self) -> dict[int, dict[str, Any]]:
        members, deadline_s = self._members, self._order.deadline_s
        try:
            hold = {"op": "HOLD", "deadline_s": deadline_s, "name": self._order.name}
            for member in members:
                tell([member], {**hold, "launcher": os.getpid() if member.agent is None else member.agent.pid})
            hear(members, "HELD", deadline_s)
            _agree(members, deadline_s)
            tell(members, {"op": "LOCK"})
            hear(members, "LOCKED", deadline_s + _SLACK_S)
            tell(members, {"op": "DRAIN"})
            drained = hear(members, "DRAINED", deadline_s)
            self._figures.messages = sum(int(answer["messages"]) for answer in drained.values())
            self._is_down = True
            tell(members, {"op": "DOWN"})
            hear(members, "DOWN", deadline_s)
            ready = hear(members, "READY", deadline_s)
            for member in members:
                member.pid = int(ready[member.rank]["pid"])
                self._figures.warnings += [f"rank {member.rank}: {each}" for each in ready[member.rank]["warnings"]]
            self._figures.warnings += besides.warnings({rank: answer["connections"] for rank, answer in ready.items()})
        except BaseException:
            self._abort()
            raise
        return ready

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if error is not None and not self._figures.opened_ms:
            self._abort()

    def _abort(self) -> None:
        """Everybody goes on. Who is gone has ended the job; who is late goes on later.

        Raises Lost when a host is gone without which the others cannot come back into MPI.
        """
        marked: dict[int, bool] = {}
        opened: set[int] = set()

        def take(member: Member, answer: dict[str, Any]) -> bool:
            if answer.get("state") == "STOPPED":
                marked[member.rank] = bool(answer["marked"])
            if answer.get("state") == "OPEN":
                opened.add(member.rank)
            return answer.get("state") in ("STOPPED", "OPEN")

        for operation in ("ABORT", "SWEEP"):
            concerned = [each for each in self._members if operation == "ABORT" or each.rank in marked]
            message = {"op": operation, "marked": [rank for rank, sent in marked.items() if sent]}
            for member in concerned:
                with contextlib.suppress(ChannelClosed):
                    member.channel.send(message)
            if self._is_down and operation == "ABORT":
                self._rejoin()
            _listen_to_the_living(concerned, take, _ABORT_TIMEOUT_S)
        if not self._is_down:
            return
        back = {each.rank for each in self._members if each.channel.fileno() < 0}  # by another connection
        late = {each.agent for each in self._members if each.rank not in opened | back and each.agent is not None}
        for agent in late:
            if not agent.answers(_ANSWER_TIMEOUT_S):
                raise Lost(
                    f"host {agent.host} does not answer, and without its ranks the others cannot set MPI up again: "
                    "the job has been ended",
                    hint="`nbcr restart` the checkpoint before",
                )


def _listen_to_the_living(
    members: Sequence[Member], take: Callable[[Member, dict[str, Any]], bool], timeout_s: float
) -> None:
    end, left = time.monotonic() + timeout_s, list(members)

    def note(member: Member, answer: dict[str, Any]) -> bool:
        if take(member, answer):
            left.remove(member)
            return True
        return False

    while left:
        try:
            listen(left.copy(), note, end - time.monotonic())
            return
        except Gone as gone:
            left = [member for member in left if member.rank != gone.rank]
        except NbcrError:
            return


def _agree(members: Sequence[Member], deadline_s: float) -> None:
    """Let collectives begin until all members of every communicator have begun the same ones.

    The target is the highest number that any member has begun. Who waits at another collective may be needed by
    somebody below a target: when nothing moves, all who wait are let go one further.
    """
    end = time.monotonic() + deadline_s
    before: Any = None
    still = 0
    while True:
        tell(members, {"op": "COUNT"})
        answers = hear(members, "COUNTS", deadline_s)
        ended = [rank for rank, answer in answers.items() if answer["ended"]]
        if ended:
            raise NotPossible(f"rank {ended[0]} has finalised MPI", hint="the job is at its end")
        targets, missing = _targets(answers)
        if not missing:
            return
        if time.monotonic() > end:
            key, late = next(iter(missing.items()))
            raise NotPossible(
                f"rank {late[0]} did not come to a collective within {deadline_s:g} s that others have begun "
                f"(communicator {key})",
                hint="ask again, or with a longer --deadline",
            )
        still = still + 1 if answers == before else 0
        before = answers
        if still >= _STUCK_AFTER:
            still = 0
            for answer in answers.values():
                for key in answer["held"]:
                    targets[key] = max(targets.get(key, 0), int(answer["counts"].get(key, [0])[0]) + 1)
        tell(members, {"op": "TARGETS", "targets": targets})
        time.sleep(_COUNT_EVERY_S)


def _targets(answers: Mapping[int, Mapping[str, Any]]) -> tuple[dict[str, int], dict[str, list[int]]]:
    """The highest counts, and who has not reached them."""
    targets: dict[str, int] = {}
    members: dict[str, list[int]] = {}
    for answer in answers.values():
        for key, (count, ranks) in answer["counts"].items():
            targets[key] = max(targets.get(key, 0), int(count))
            members[key] = ranks
    missing = {
        key: late
        for key, target in targets.items()
        if (late := [rank for rank in members[key] if int(answers[rank]["counts"].get(key, [0])[0]) < target])
    }
    return targets, missing


def _let_go(members: Sequence[Member], operation: str, figures: Figures) -> None:
    figures.opened_ms = figures.elapsed_ms
    tell(members, {"op": operation})
    answers = hear(members, "OPEN", _OPEN_TIMEOUT_S)
    figures.opened_ms = figures.elapsed_ms
    for rank, answer in sorted(answers.items()):
        figures.warnings += [f"rank {rank}: {problem}" for problem in answer["problems"]]


def publish(
    draft: Draft, schema: Schema, order: JobOrder, figures: Figures, component: crs.Component | ComponentMark, pid: int
) -> Entry:
    """The draft becomes an entry."""
    from nbcr.store.manifest import Host, Manifest

    order.store.sync(draft)
    uname = os.uname()
    python = str(dict(schema.facts.get("0", {})).get("python", ""))
    manifest = Manifest(
        id=draft.id,
        name=draft.name,
        created=draft.created,
        parent=None,
        kinds=[KIND],
        size_bytes=order.store.size_bytes(draft),
        notebook=None,
        pid=pid,
        pause_ms=round(figures.opened_ms or figures.pause_ms, 3),
        duration_ms=round(figures.elapsed_ms, 3),
        host=Host(socket.gethostname(), uname.release, uname.machine, python),
        jupyter=None,
        cell=None,
        component=ComponentMark(component.name, component.version),
        warnings=list(dict.fromkeys(figures.warnings)),
        note=order.note,
        automatic=order.automatic,
        job=dict(mark(schema.name, schema.argv)),
    )
    return order.store.publish(draft, manifest)
