"""The present, kept before a restart replaces it: so that no restart ever loses work."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from nbcr.errors import HandlerFailed, Held, InCriticalSection, NbcrError, NotPossible
from nbcr.handlers import Handler, RestartEvent, registry
from nbcr.objects import here
from nbcr.session import auto, inprocess
from nbcr.session.auto import Settings
from nbcr.session.auto_points import Points
from nbcr.session.results import CheckpointResult
from nbcr.states import Layer, Outcome
from nbcr.store import Entry


class Handover(Handler):
    """Tells the restored life which entries hold the presents that it and earlier ones replaced."""

    layer = Layer.TRANSPORT

    def __init__(self) -> None:
        self.kept: str | None = None
        self.at_most = auto.KEEP["restart"]

    def prepare_restart(self) -> dict[str, Any]:
        if self.kept is None:
            return {"presents": auto.presents}
        return {"kept": self.kept, "presents": [*auto.presents, self.kept][-self.at_most :]}

    def restart(self, event: RestartEvent) -> None:
        auto.presents[:] = event.present.get("presents") or ()
        news = event.present.get("news")
        if news:
            auto.news.append(str(news))


handover = Handover()


_NOT_NOW = (HandlerFailed, Held, InCriticalSection)  # somebody says that this is no moment for a checkpoint


@dataclass(frozen=True)
class Kept:
    """What came of keeping the present."""

    entry_id: str | None  # what holds it; None: there was nothing to lose
    back: CheckpointResult | None = None  # in a life that is restarted from it: it goes on, and replaces nothing


def keep_present(points: Points, purpose: str, settings: Settings, *, again: str = "") -> Kept:
    """See that a checkpoint holds this session as it is, written to the disk. Returns twice, like a checkpoint.

    Raises NotPossible when the present could not be kept; `again`: the command that does without.
    """
    handover.kept, handover.at_most = None, settings.keep.get("restart", auto.KEEP["restart"])
    known = points.unchanged_since()
    if known is not None and _is_there(known, settings):
        handover.kept = known
        return Kept(known)
    if _is_empty() and not auto.others_at_work():
        return Kept(None)
    try:
        result = _take(f"before {purpose}", points, settings)
    except NbcrError as error:
        hint = f"`{again}` goes back without keeping it" if again else ""
        raise NotPossible(f"the present could not be kept, so nothing was done: {error.line()}", hint=hint) from error
    points.noted(result)
    if result.outcome is Outcome.RESTART:
        return Kept(result.id, back=result)
    handover.kept = result.id
    return Kept(result.id)


def _take(note: str, points: Points, settings: Settings) -> CheckpointResult:
    """The process, or where there can be no image of it the variables, when they are all that would be lost."""
    try:
        return auto.take("restart", note, settings, spared=points.ids, wait=True)
    except NbcrError as error:
        if isinstance(error, _NOT_NOW) or auto.others_at_work():
            raise
        try:
            result = auto.take("restart", note, settings, spared=points.ids, kinds=("objects",), wait=True)
        except NbcrError:
            raise error from None
        if _is_whole(result.wait()):
            return result
        settings.store.remove(result.wait())
        raise


def _is_whole(entry: Entry) -> bool:
    counts = entry.objects or {}
    return not counts.get("lost") and not counts.get("recomputable")


def start() -> None:
    """Have restored lives told what was kept before them. `stop` undoes it."""
    registry.register(handover)


def stop() -> None:
    """Undo `start`."""
    registry.remove(handover)


def forget_present() -> None:
    """Nothing was kept: a restart has nothing to tell of it."""
    handover.kept = None


def _is_there(entry_id: str, settings: Settings) -> bool:
    try:
        inprocess.find(entry_id, settings.store, deadline_s=settings.deadline_s)
    except NbcrError:
        return False
    return True


def _is_empty() -> bool:
    """Whether the session has no names of the user's."""
    hidden = here.hidden() or {}
    return not any(not name.startswith("_") and name not in hidden for name in here.namespace())
