"""Checkpoint and restart of the process we are in. Standard library only.

`checkpoint` is a call with two returns, like fork: CONTINUE in the life that went on, RESTART in each
restored one. It asks a helper and blocks in a read; the image is taken there; each life reads its own
answer (see nbcr.helper).
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

from nbcr import runtime
from nbcr.channel import ChannelClosed
from nbcr.errors import Busy, HelperLost, NbcrError, NotPossible, UsageProblem, from_wire
from nbcr.handlers import DEFAULT_DEADLINE_S, Deadline, Outcome, Passage, Places, Request, RestartEvent, registry
from nbcr.handlers.contexts import ProcessPlaces
from nbcr.handlers.interrupts import uninterrupted, waiting
from nbcr.handlers.sections import Holder, all_left, handling, refuse_inside, refuse_within
from nbcr.session import namespaces
from nbcr.session.results import CheckpointResult, LoadResult
from nbcr.session.spawning import Helper, Interpreter
from nbcr.session.standby import THREAD_NAME, Standby
from nbcr.session.terms import Terms
from nbcr.store import Entry, Store
from nbcr.store import waiting as waiting_sessions

_log = logging.getLogger("nbcr")
_NO_START_S = 5.0  # a start takes milliseconds, on a busy host longer


class _Life:
    """What a process remembers of its own checkpoints. Part of each image, and rewound with it."""

    def __init__(self) -> None:
        self.lock = threading.RLock()  # one checkpoint or restart at a time
        self.parent: str | None = None  # entry this life was last checkpointed to, or restarted from
        self.snapshot: Path | None = None  # objects this life last saved or loaded: the next ones share files with it
        self.writing: list[CheckpointResult] = []  # not published yet
        self.untold: list[CheckpointResult] = []  # failed in the background, nobody was told yet
        self.standby = Standby(self.lock)  # a helper that waits for the next order


_life = _Life()


def _forget_in_child() -> None:
    """A forked child has neither our watcher threads nor our helpers."""
    global _life
    before, _life = _life, _Life()
    _life.parent, _life.snapshot = before.parent, before.snapshot


os.register_at_fork(after_in_child=_forget_in_child)


@dataclass(frozen=True, kw_only=True)
class Wish(Terms):
    """What somebody wants of a checkpoint of this process."""

    store: Store | None = None
    origin: str = "api"
    deadline_s: float = DEFAULT_DEADLINE_S
    report: socket.socket | None = None  # connection of a requester outside; closed once the helper has it
    interpreter: Interpreter | None = None
    patient: bool = True  # wait while another one is under way; otherwise raise Busy at once
    on_begin: Callable[[], None] = lambda: None  # called when it is this one's turn
    on_wait: Callable[[list[Holder]], None] = lambda holders: _log.warning(
        "nbcr: the checkpoint waits for %s", "; ".join(str(holder) for holder in holders)
    )  # called when critical sections have to be waited for


def checkpoint(wish: Wish) -> CheckpointResult:
    """Checkpoint this process. Raises NbcrError; then nothing was checkpointed and the process goes on.

    ``problems`` of the result are handlers that failed after the image was taken.
    """
    refuse_inside()
    deadline = Deadline(wish.deadline_s)
    store = wish.store or Store()
    wish = replace(wish, kinds=wish.kinds or namespaces.usual_kinds())
    if wish.leave != "running" and "image" not in wish.kinds:
        raise UsageProblem(f"--leave {wish.leave} needs a process image", hint="leave out --objects, or --leave")
    with uninterrupted(but_in_waits=True), _alone(deadline, patient=wish.patient):
        wish.on_begin()
        with all_left(deadline, wish.on_wait):
            helper = _life.standby.take(wish.interpreter)
            try:
                passage, request = _go_down(wish, deadline)
            except BaseException:
                helper.close()
                raise
            result = _through(helper, passage, request, wish, store)
        if result.outcome is Outcome.CONTINUE:  # in a restored life the deadline's clock is another life's
            result.blocked_ms = deadline.elapsed_s * 1000
    _life.standby.refill_soon()
    return result


def restart(name: str, *, store: Store | None = None, deadline_s: float = DEFAULT_DEADLINE_S) -> NoReturn:
    """Replace this process by the entry called `name`. Does not return: the restored life goes on where it
    was.

    Raises NbcrError when that cannot be; then this process goes on as it was.
    """
    place = store or Store()
    replace_by(find(name, place, deadline_s=deadline_s), place, deadline_s=deadline_s)


def find(name: str, store: Store, *, deadline_s: float = DEFAULT_DEADLINE_S) -> Entry:
    """The entry called `name`, which may be one that is still being written. Raises UnknownName, Busy."""
    for earlier in writing():
        _wait_for_writing(earlier, deadline_s, deadline_s)
    return store.find(name)


def roll_back(entry: Entry, *, deadline_s: float = DEFAULT_DEADLINE_S) -> LoadResult:
    """Give this session the names of `entry`, without touching the process. Raises NbcrError when nothing was loaded.

    Nobody is in a critical section meanwhile; other threads of the program run on.
    """
    refuse_inside()
    deadline = Deadline(deadline_s)
    with _alone(deadline, patient=True), all_left(deadline, Wish.on_wait):
        if "objects" not in entry.kinds:
            raise NotPossible(
                f"{entry.name!r} holds no objects", hint=f"`%restart {entry.name}` brings its process image back"
            )
        report = namespaces.load(entry)
        _life.parent, _life.snapshot = entry.id, report.place
    waiting_sessions.came_back(entry)
    return LoadResult(entry, report)


def replace_by(
    entry: Entry,
    store: Store,
    *,
    deadline_s: float = DEFAULT_DEADLINE_S,
    report: socket.socket | None = None,
    interpreter: Interpreter | None = None,
    patient: bool = True,
    files: str | None = None,
) -> NoReturn:
    """Replace this process by `entry`; see `restart`."""
    with uninterrupted(but_in_waits=True), _alone(Deadline(deadline_s), patient=patient):
        helper = _life.standby.take(interpreter)
        passage: Passage | None = None
        try:
            helper.ready()
            present, passage = registry.prepare_restart()
            order = {"op": "restart", "id": entry.id, "into": runtime.own_pid(), "present": present, "files": files}
            helper.order(order, store, report)
            answer = _until_replaced(helper, passage)
        except BaseException:
            if passage is not None:
                passage.aborted()
            helper.close()
            raise
        passage.aborted()
        helper.close()
        raise from_wire(answer)


def _until_replaced(helper: Helper, passage: Passage) -> dict[str, Any]:
    """Answer the helper until it replaces this process in the middle of a read, or says why it does not."""
    while True:
        answer = helper.answer()
        if answer.get("state") != "COMMIT":
            return answer
        helper.channel.send({"late": passage.late_requests()})


def keep_standby(wanted: bool) -> None:
    """Whether a helper should be kept waiting, all it needs loaded: see nbcr.session.standby."""
    _life.standby.keep(wanted)


def reports() -> list[CheckpointResult]:
    """Checkpoints of which something could not be written in the background; each is told once, here or by `wait`."""
    untold = [r for r in _life.untold if not r.told]
    _life.untold = []
    for result in untold:
        result.told = True
    return untold


@contextlib.contextmanager
def no_start() -> Iterator[None]:
    """In the block we start no helper: that takes a child of ours, which is nobody's work, for some moments."""
    life = _life
    ours = _acquire(life.lock, _NO_START_S)
    try:
        yield
    finally:
        if ours:
            life.lock.release()


def position() -> str | None:
    """Id of the entry that this life was last checkpointed to, or restarted from."""
    return _life.parent


def writing() -> list[CheckpointResult]:
    """Checkpoints that are still being written."""
    return list(_life.writing)


def prepared() -> bool:
    """Whether a checkpoint would not have to wait for a helper to start, where one is to be kept waiting."""
    return _life.standby.prepared


@contextlib.contextmanager
def _alone(deadline: Deadline, *, patient: bool) -> Iterator[None]:
    """One checkpoint or restart at a time, after the one before was written to the end.

    A channel that is still open would be a descriptor to outside in the image. A signal's handler of the program may
    interrupt the block, and ask for another one: it is refused, and does not wait for what it interrupted.
    """
    refuse_within()
    life = _life
    if not _acquire(life.lock, deadline.left_s if patient else 0.0):
        raise Busy(
            f"another checkpoint or restart of this process did not end within {deadline.bound_s:g} s",
            hint="wait for it to end and ask again",
        )
    try:
        with handling():
            for earlier in list(life.writing):
                _wait_for_writing(earlier, deadline.left_s, deadline.bound_s)
            yield
    finally:
        life.lock.release()


def _acquire(lock: threading.RLock, timeout_s: float) -> bool:
    try:
        with waiting():
            return lock.acquire(timeout=timeout_s)
    except BaseException:  # an interrupt, perhaps when it had just been taken
        with contextlib.suppress(RuntimeError):
            lock.release()
        raise


def _wait_for_writing(earlier: CheckpointResult, left_s: float, deadline_s: float) -> None:
    done = threading.Event()
    earlier.when_done(lambda result: done.set())
    with waiting():
        written = done.wait(max(0.0, left_s))
    if not written:
        raise Busy(
            f"checkpoint {earlier.name!r} is still being written after {deadline_s:g} s",
            hint="wait for it (`.wait()`, or %checkpoint --wait) and ask again",
        )


def _go_down(wish: Wish, deadline: Deadline) -> tuple[Passage, Request]:
    request = Request(name=wish.name, origin=wish.origin, leave=wish.leave)
    request.facts["python"] = sys.version.split()[0]
    if "image" not in wish.kinds:  # nothing stops, and no handler has anything to do
        request.facts.update(registry.facts())
        return Passage(Places(), deadline), request
    return registry.enter(request, places=ProcessPlaces(), deadline=deadline), request


def _through(helper: Helper, passage: Passage, request: Request, wish: Wish, store: Store) -> CheckpointResult:
    """From the handlers' way down to their way up, in whichever life."""
    before = _life.parent
    try:
        helper.ready()
        helper.order(_order(helper, request, wish), store, wish.report)
        if wish.report is not None:
            wish.report.close()  # the helper's now: it must not be in the image
        accepted = _expect(helper.answer(wish.deadline_s + 5.0), "ACCEPTED")
        _life.parent = str(accepted["id"])  # what the image remembers
        objects = _objects_beforehand(wish, accepted)
        if wish.leave == "killed":
            passage.part()
        helper.channel.send({"op": "go", **objects})
        # Two returns: the image is taken in this read, and each life reads its own answer.
        answer = _expect(helper.answer(), "CONTINUE", "DONE", "RESTART")
    except BaseException as error:
        _life.parent = before
        _cancel(helper)
        passage.aborted()
        if isinstance(error, ChannelClosed):
            raise helper.lost(error) from error
        raise
    if answer["state"] == "RESTART":
        return _restarted(helper, passage, answer)
    part = _begin_objects(wish, accepted) if wish.leave == "running" else None
    return _continued(helper, passage, request, accepted, answer, before, part)


def _objects_beforehand(wish: Wish, accepted: Mapping[str, Any]) -> dict[str, Any]:
    """Of a process that will not go on after its image, the objects are saved before it, to the end."""
    part = _begin_objects(wish, accepted) if wish.leave != "running" else None
    return {} if part is None else {"objects": part.word()}


def _begin_objects(wish: Wish, accepted: Mapping[str, Any]) -> namespaces.Part | None:
    if "objects" not in wish.kinds:
        return None
    place = Path(str(accepted["snapshot"]))
    return namespaces.begin(place, wish.limits, _life.snapshot, beside_image="image" in wish.kinds)


def _order(helper: Helper, request: Request, wish: Wish) -> dict[str, Any]:
    return {
        "op": "checkpoint",
        "pid": runtime.own_pid(),
        "channel_fd": helper.channel.fileno(),
        **wish.document(),
        "parent": _life.parent,
        "previous": None if _life.snapshot is None else str(_life.snapshot),
        "deadline_s": wish.deadline_s,
        "facts": request.facts,
        "warnings": request.warnings,
    }


def _expect(answer: Mapping[str, Any], *states: str) -> dict[str, Any]:
    if answer.get("state") in states:
        return dict(answer)
    if answer.get("state") == "ERROR":
        raise from_wire(answer)
    raise HelperLost(f"the helper answered {answer.get('state')!r} out of turn", hint="is nbcr up to date there?")


def _cancel(helper: Helper) -> None:
    with contextlib.suppress(ChannelClosed, OSError):
        helper.channel.send({"op": "cancel"})
    helper.close()


def _continued(
    helper: Helper,
    passage: Passage,
    request: Request,
    accepted: Mapping[str, Any],
    answer: Mapping[str, Any],
    before: str | None,
    part: namespaces.Part | None,
) -> CheckpointResult:
    result = CheckpointResult(Outcome.CONTINUE, entry_id=str(accepted["id"]), name=str(accepted["name"]))
    result.pause_ms = float(answer.get("pause_ms") or 0.0)
    result.size_bytes = int(answer.get("resident_bytes") or 0)
    result.warnings = list(dict.fromkeys([*request.warnings, *answer.get("warnings", ())]))
    result.told = request.origin in ("thread", "signal")  # whoever asked from outside hears of a failure there
    result.objects = None if part is None else part.report
    life = _life
    life.writing.append(result)
    result.problems = passage.continue_()
    watcher = threading.Thread(
        target=_watch, args=(helper, result, life, before, answer, part), name=THREAD_NAME, daemon=True
    )
    watcher.start()
    return result


def _watch(
    helper: Helper,
    result: CheckpointResult,
    life: _Life,
    before: str | None,
    answer: Mapping[str, Any],
    part: namespaces.Part | None,
) -> None:
    """Wait for the end of the writing, in a thread of its own, and note it. Never raises."""
    entry: Entry | None = None
    failure: NbcrError | None = None
    try:
        if part is not None:
            helper.tell(part.word(result.advance))
        last = answer if answer["state"] == "DONE" else _expect(helper.answer(), "DONE")
        entry = Entry.from_document(last["entry"], Path(last["entry"]["path"]))
        result.pause_ms = entry.pause_ms
    except HelperLost as error:
        entry = helper.published(result.id)
        failure = error if entry is None else None
    except NbcrError as error:
        failure = error
    except Exception as error:
        failure = HelperLost(f"the helper's answer makes no sense: {error!r}")
    helper.close()
    if failure is not None and life.parent == result.id:
        life.parent = before
    if part is not None and entry is not None and "objects" in entry.kinds:
        life.snapshot = entry.snapshot
        known, result.objects = result.objects, part.report_at(entry.snapshot)
        if known is None and result.objects is not None:
            result.names_late = result.objects.lines()
    life.writing.remove(result)
    result.finish(entry, failure)
    if result.shortfalls or result.names_late:
        life.untold.append(result)
    _life.standby.refill_soon()


def _published(document: Mapping[str, Any]) -> tuple[Entry | None, NbcrError | None]:
    """The entry that a life was restored from, for whoever waits for it in that life too; or why it makes no sense."""
    try:
        return Entry.from_document(document, Path(str(document.get("path")))), None
    except NbcrError as error:  # of a later format
        return None, error


def _restarted(helper: Helper, passage: Passage, answer: Mapping[str, Any]) -> CheckpointResult:
    """The restored life's way up: handlers, then word to the helper that this life is ready."""
    event = RestartEvent.from_message(answer, pid=runtime.own_number(), ppid=os.getppid())
    known = dict(event.entry)
    result = CheckpointResult(Outcome.RESTART, entry_id=str(known.get("id")), name=str(known.get("name")))
    result.event = event
    result.finish(*_published(known))
    result.pause_ms = float(known.get("pause_ms") or 0.0)
    result.size_bytes = int(known.get("size_bytes") or 0)
    result.duration_ms = known.get("duration_ms")
    result.problems = passage.restart(event)
    result.warnings = event.warnings
    with contextlib.suppress(ChannelClosed):
        problems = [str(problem) for problem in result.problems]
        helper.channel.send({"state": "RESTARTED", "warnings": problems, "left": event.warnings})
    helper.close()
    return result
