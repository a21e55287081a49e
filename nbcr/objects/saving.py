"""`save`: fork, let the user go on, and tell afterwards what became of each name."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import threading
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from nbcr.errors import NbcrError, NoRoomInStore, SnapshotFailed, UsageProblem
from nbcr.objects import forking, late, surroundings
from nbcr.objects import index as indexes
from nbcr.objects.board import Board, Late, Orphaned, State
from nbcr.objects.kinds.classes import number_classes
from nbcr.objects.kinds.files import detach_readers, locked_files, offsets_of_open_files
from nbcr.objects.kinds.table import is_leaf
from nbcr.objects.names import hidden_names, user_names
from nbcr.objects.results import Fate, Progress, Report, Verdict
from nbcr.objects.sharing import TooMuch
from nbcr.objects.standing import standing
from nbcr.objects.writer import Order, Writer

DEADLINE_S = 600.0
LATE_S = 10.0  # for what came to a standstill in the child
_LOOK_S = 0.2
_MOST_AT_ONCE = 40  # names that are no plain values
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


def preload() -> None:
    """Import now what a save needs, so that no child has to: it would do so every time."""
    from nbcr.objects.kinds.base import advertised

    advertised()


def save(
    namespace: dict[str, Any],
    place: Path | str,
    *,
    hidden: Collection[str] | Mapping[str, Any] | None = None,
    history: bool = False,
    max_size: int | None = None,
    max_total: int | None = None,
    previous: Path | str | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    deadline_s: float = DEADLINE_S,
    fork: bool = True,
    at_once: bool = True,
) -> Saving:
    """Save the user's names of `namespace` into the folder `place`, which does not exist yet or is empty.

    Returns after a fork; a child writes. Where forking is not possible the snapshot is complete on return, and
    its remarks say why; where there is so little to save that a fork would take longer, it is complete as well.

    `hidden`: names that are not the user's; with a mapping, while they have that value. None: what the
    namespace's IPython shell hides. `history`: with In and Out. `max_size`, `max_total`: the most bytes for one
    name, and for all. `previous`: a snapshot with which whatever is the same is shared. `on_progress` is called
    by `Saving.wait`. `fork=False`: in the process itself. `at_once=False`: by a child, however little there is to save.
    """
    begun = time.monotonic()
    place = Path(place)
    if place.exists() and any(place.iterdir()):
        raise UsageProblem(f"{place} is not empty: a snapshot needs a folder of its own")
    reason = forking.why_not() if fork else "it was asked for so"
    in_main = threading.current_thread() is threading.main_thread()
    values = user_names(namespace, hidden_names(namespace) if hidden is None else hidden, history=history)
    number_classes(values.values())
    order = Order(
        place=place.absolute(),
        namespace=namespace,
        values=values,
        begun=begun,
        deadline=begun + deadline_s,
        previous=None if previous is None else Path(previous),
        max_size=max_size,
        max_total=max_total,
        states=surroundings.read(before_fork=True, in_main=in_main),
        offsets=offsets_of_open_files() if not reason else {},
        locked=locked_files(),
        standing=standing(namespace),
        in_main=in_main,
        remarks=(*([f"taken in-process: {reason}"] if reason else []), *surroundings.unread(in_main=in_main)),
    )
    saving = Saving(place.absolute(), begun, namespace, on_progress)
    if reason:
        saving._take_in_process(order)
    elif not (at_once and _are_few(values) and saving._take_at_once(order)):
        saving._take_in_child(order)
    return saving


def _are_few(values: Mapping[str, Any]) -> bool:
    """Whether they can be saved at once. With more than these, the attempt alone takes about as long as a fork."""
    return sum(not is_leaf(value) for value in values.values()) <= _MOST_AT_ONCE


class Saving:
    """A snapshot on its way. `wait` tells what became of each name."""

    def __init__(
        self, place: Path, begun: float, namespace: dict[str, Any], on_progress: Callable[[Progress], None] | None
    ) -> None:
        self.place = place
        self.blocked_ms = 0.0  # how long the caller of `save` stood still
        self._begun, self._namespace, self._on_progress = begun, namespace, on_progress
        self._board = Board()
        self._child = 0
        self._report: Report | None = None
        self._failure: NbcrError | None = None

    # --- what users of it want to know

    @property
    def done(self) -> bool:
        """Whether it has ended, well or not."""
        return self._is_settled() or self._wait_for_end(0.0)

    @property
    def progress(self) -> Progress:
        """How far it is."""
        return self._board.read().progress()

    def wait(self, timeout_s: float | None = None, on_progress: Callable[[Progress], None] | None = None) -> Report:
        """The report, once the snapshot is complete. Raises SnapshotFailed, NoRoomInStore, or TimeoutError."""
        on_progress = on_progress or self._on_progress
        until = None if timeout_s is None else time.monotonic() + timeout_s
        while not self._is_settled():
            left = None if until is None else until - time.monotonic()
            if left is not None and left <= 0:
                raise TimeoutError(f"the snapshot {self.place} is not complete within {timeout_s:g} s")
            if self._wait_for_end(_LOOK_S if left is None else min(_LOOK_S, left)):
                self._settle()
            elif on_progress is not None:
                on_progress(self.progress)
        if self._failure is not None:
            raise self._failure
        assert self._report is not None
        return self._report

    def cancel(self) -> None:
        """Stop, and leave nothing behind."""
        for pid in (self._board.read().spare, self._board.worker, self._child):
            if pid and not self._is_settled():
                forking.kill(pid)
        self._reap()
        if not self._is_settled():
            self._give_up(SnapshotFailed(f"the snapshot {self.place} was cancelled"))

    # --- in a child

    def _take_in_child(self, order: Order) -> None:
        requester = os.pidfd_open(os.getpid())
        try:
            self._child = forking.fork(lambda: _work(order, self._board, requester))
        except OSError as error:  # no memory, or too many processes
            order.remarks = (f"taken in-process: this process cannot be forked ({error.strerror})",)
            self._take_in_process(order)
        finally:
            os.close(requester)
            self.blocked_ms = (time.monotonic() - self._begun) * 1e3

    def _wait_for_end(self, timeout_s: float) -> bool:
        """Whether nobody works on it any more."""
        if not _is_gone(self._board.read().worker or self._child, timeout_s):
            return False
        # The worker may have enlisted a spare in its last moments; a spare that takes over enlists itself first.
        board = self._board.read()
        return _is_gone(board.spare, 0.0) and _is_gone(board.read().worker, 0.0)

    def _settle(self) -> None:
        self._reap()
        board = self._board.read()
        if board.state is State.DONE:
            self._conclude()
        else:
            text = board.failure or "the process that saved it ended without a word"
            kind = NoRoomInStore if text.startswith(_ROOM_MARK) else SnapshotFailed
            self._give_up(kind(f"no snapshot of the objects at {self.place}: {text.removeprefix(_ROOM_MARK)}"))

    def _reap(self) -> None:
        if self._child:
            with contextlib.suppress(ChildProcessError):  # somebody else has waited for all children
                os.waitpid(self._child, 0)
            self._child = 0

    # --- in this process

    def _take_at_once(self, order: Order) -> bool:
        """Whether there was so little to save that it is done already."""
        try:
            Writer(order, self._board, at_once=True).run()
        except TooMuch:
            return False
        except BaseException as error:
            self._give_up(_as_failure(error, order))
            if not isinstance(error, Exception | Late):
                raise
            return True
        self.blocked_ms = (time.monotonic() - self._begun) * 1e3
        self._conclude()
        return True

    def _take_in_process(self, order: Order) -> None:
        try:
            Writer(order, self._board).run()
        except BaseException as error:
            self._give_up(_as_failure(error, order))
            if not isinstance(error, Exception | Late):
                raise
        else:
            self.blocked_ms = (time.monotonic() - self._begun) * 1e3
            self._conclude()

    # --- the end

    def _is_settled(self) -> bool:
        return self._report is not None or self._failure is not None

    def _conclude(self) -> None:
        report = report_of(self.place, blocked_ms=self.blocked_ms)
        hung = [verdict.name for verdict in report.verdicts.values() if verdict.late]
        if hung and self._add_late(hung):
            report = report_of(self.place, blocked_ms=self.blocked_ms)
        self._report = report

    def _add_late(self, names: list[str]) -> bool:
        """Save in this process what came to a standstill in a child; whether anything came of it."""
        values = {name: self._namespace[name] for name in names if name in self._namespace}
        place, now = self.place / "late", time.monotonic()
        order = Order(place, self._namespace, values, now, now + LATE_S, standing=standing(self._namespace))
        # In a thread, because it may stand still here as well.
        thread = threading.Thread(target=_write_quietly, args=(order,), name="nbcr-late", daemon=True)
        thread.start()
        thread.join(LATE_S)
        added = indexes.exists(place) and not thread.is_alive()
        if added:
            late.add(self.place, place, seconds=now - self._begun)
        _remove(place)
        return added

    def _give_up(self, failure: NbcrError) -> None:
        self._failure = failure
        _remove(self.place)

    def __del__(self) -> None:
        if self._child:  # not waited for: at least no zombie, if it has ended
            with contextlib.suppress(OSError):
                os.waitpid(self._child, os.WNOHANG)


def _write_quietly(order: Order) -> None:
    with contextlib.suppress(Exception, Late):  # what there is without it is complete
        Writer(order, Board()).run()


def _remove(place: Path) -> None:
    """Remove a folder of files, as far as it is there."""
    with contextlib.suppress(OSError):
        for path in list(place.iterdir()):
            path.unlink()
        place.rmdir()


_ROOM_MARK = "no room: "


def _work(order: Order, board: Board, requester: int) -> None:
    """What the child does."""
    board.enlist(spare=0)
    try:
        forking.isolate(order.deadline, keep=(requester,))
        guard = forking.Guard(board, order.deadline, requester)
        detach_readers(order.offsets)
        Writer(order, board, guard).run()
        board.finish()
        guard.dismiss()
    except BaseException as error:
        failure = _as_failure(error, order)
        mark = _ROOM_MARK if isinstance(failure, NoRoomInStore) else ""
        board.fail(mark + str(failure))


def _as_failure(error: BaseException, order: Order) -> NbcrError:
    if isinstance(error, Late):
        return SnapshotFailed(f"it was not complete within {order.deadline - order.begun:g} s")
    if isinstance(error, Orphaned):
        return SnapshotFailed("the process that asked for it has ended")
    cause = error.__cause__ if isinstance(error.__cause__, OSError) else error
    if isinstance(cause, OSError) and cause.errno in _NO_ROOM:
        return NoRoomInStore(f"{os.strerror(cause.errno or 0)}: {order.place}")
    return SnapshotFailed(f"{type(cause).__name__}: {cause}")


def _is_gone(pid: int, timeout_s: float) -> bool:
    try:
        pidfd = os.pidfd_open(pid) if pid else -1
    except OSError:
        pidfd = -1
    if pidfd < 0:
        return True
    try:
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        return bool(poll.poll(timeout_s * 1e3))
    finally:
        os.close(pidfd)


def report_of(place: Path, *, blocked_ms: float = 0.0) -> Report:
    """The report of the save that made the snapshot at `place`."""
    index = indexes.read(place)
    verdicts = {
        name.name: Verdict(
            name.name, Fate(name.fate), name.size, name.culprit, name.reason, name.remark, name.recipe,
            name.cell if name.cell >= 0 else None, name.late,
        )
        for name in index.names
    }  # fmt: skip
    return Report(
        place, verdicts, index.size_bytes, index.added_bytes, blocked_ms, index.duration_ms, index.how, index.remarks
    )
