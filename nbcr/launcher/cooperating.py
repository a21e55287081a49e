"""Checkpoints of jobs whose ranks save their own state at a safe point (`nbcr.mpi.checkpoint_here`), and the way back:
the command, run anew."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from typing import Any

from nbcr.channel import ChannelClosed
from nbcr.errors import NotPossible
from nbcr.launcher import coordinating
from nbcr.launcher.coordinating import Figures, JobOrder
from nbcr.launcher.members import Member, listen, of_rank, tell
from nbcr.launcher.schema import FOLDER, Schema
from nbcr.store import Entry
from nbcr.store.manifest import ComponentMark

MARK = ComponentMark("cooperative", "1")


def checkpoint(
    members: Sequence[Member],
    schema: Schema,
    order: JobOrder,
    pid: int,
    on_begin: Callable[[], None] = lambda: None,
    rejoin: Callable[[], None] = lambda: None,
) -> Entry:
    """Take it, at the next safe point. Raises NbcrError; then the job goes on.

    Called as `coordinating.checkpoint` is. Nobody's MPI is ever down here, so that `rejoin` has nothing to wait for.
    """
    figures, number = Figures(), time.monotonic_ns()
    draft = order.store.draft(order.name, replace=order.replace)
    verdict = "ABORT"
    try:
        on_begin()
        folder = draft.path / FOLDER
        (folder / "ranks").mkdir(parents=True, mode=0o700)
        schema.write(folder)
        tell(members, {"op": "SAVE", "number": number, "folder": str(folder)})
        _await_states(members, number, order.deadline_s)
        if order.leave == "running":
            verdict = "CONTINUE"
            _tell(members, number, verdict)
        figures.opened_ms = figures.elapsed_ms
        entry = coordinating.publish(draft, schema, order, figures, MARK, pid)
        if order.leave != "running":
            verdict = "END"
    except BaseException:
        order.store.discard(draft)
        raise
    finally:
        if verdict != "CONTINUE":
            _tell(members, number, verdict)
    return entry


def _await_states(members: Sequence[Member], number: int, timeout_s: float) -> None:
    def take(member: Member, answer: dict[str, Any]) -> bool:
        if answer.get("number") != number:  # of a checkpoint that was given up
            return False
        if answer.get("state") == "FAILED":
            raise of_rank(member.rank, answer)
        return answer.get("state") == "SAVED"

    late = listen(members, take, timeout_s)
    if late:
        raise NotPossible(
            f"rank {late[0].rank} did not come to nbcr.mpi.checkpoint_here within {timeout_s:g} s",
            hint="with this MPI the program has to call it, see docs/mpi.md; a longer --deadline may help",
        )


def _tell(members: Sequence[Member], number: int, operation: str) -> None:
    for member in members:
        with contextlib.suppress(ChannelClosed):
            member.channel.send({"op": operation, "number": number})
