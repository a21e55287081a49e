"""What every face calls. What concerns the own process is loaded at once, the rest when it is used."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from nbcr.errors import HandlersFailed
from nbcr.handlers import DEFAULT_DEADLINE_S
from nbcr.session import inprocess
from nbcr.session.inprocess import Wish
from nbcr.session.results import CheckpointResult, EntryList, RestartResult
from nbcr.states import Outcome
from nbcr.store import Entry, Store

if TYPE_CHECKING:
    from collections.abc import Callable

    from nbcr.crs import SnapshotSummary
    from nbcr.handlers.sections import Holder
    from nbcr.session.outside import Target

StoreLike = Store | str | os.PathLike[str] | None


def checkpoint(
    name: str | None = None,
    *,
    store: StoreLike = None,
    force: bool = False,
    note: str = "",
    files: str = "keep",
    wait: bool = False,
    deadline_s: float = DEFAULT_DEADLINE_S,
    origin: str = "api",
    on_wait: Callable[[list[Holder]], None] | None = None,
) -> CheckpointResult:
    """Checkpoint this process under `name` (None: the entry's id). Returns twice: see
    `CheckpointResult.outcome`.

    The image is written while this life goes on already; `wait` waits for that too. `force` replaces an
    entry of that name. `files` says what a restart does about files that are being written: "keep" leaves them as
    they are then, "rewind" cuts those back that have grown, "save" puts their contents back. Critical sections and
    handlers are waited for until the deadline; `on_wait` hears at once who holds it up (None: the logger ``nbcr``
    tells).

    Raises NbcrError when nothing was checkpointed; a failure of the writing is raised by ``result.wait()``. Raises
    HandlersFailed, in either life, when handlers failed after the image was taken: its ``result`` is what would have
    been returned.
    """
    wish = Wish(
        name=name, store=_store(store), replace=force, note=note, files=files, origin=origin, deadline_s=deadline_s
    )
    if on_wait is not None:
        wish = replace(wish, on_wait=on_wait)
    result = inprocess.checkpoint(wish)
    if wait and result.outcome is Outcome.CONTINUE:
        result.wait()
    if result.problems:
        raise _together(result)
    return result


def _together(result: CheckpointResult) -> HandlersFailed:
    """All failures of handlers after the image was taken, as one group."""
    errors: list[Exception] = []
    for problem in result.problems:
        problem.error.add_note(str(problem))
        errors.append(problem.error)
    many = f"{len(errors)} handlers" if len(errors) > 1 else "a handler"
    group = HandlersFailed(f"{many} failed after the image {result.name!r} was taken ({result.outcome.value})", errors)
    group.result = result
    return group


def restart(name: str, *, store: StoreLike = None, deadline_s: float = DEFAULT_DEADLINE_S) -> None:
    """Replace this process by checkpoint `name`: its ``checkpoint()`` call returns RESTART. This call never
    returns.

    Raises NbcrError when the restart is not possible; then this process goes on as it was.
    """
    inprocess.restart(name, store=_store(store), deadline_s=deadline_s)


def checkpoints(store: StoreLike = None) -> EntryList:
    """All entries of the store, oldest first."""
    found = EntryList(_store(store).entries())
    found.writing = tuple(result.name for result in inprocess.writing())
    return found


def checkpoint_other(
    target: Target,
    name: str | None = None,
    *,
    store: StoreLike = None,
    force: bool = False,
    leave: str = "running",
    files: str = "keep",
    note: str = "",
    deadline_s: float = DEFAULT_DEADLINE_S,
    load: Callable[[Any, float], bool] = lambda target, timeout_s: False,
    on_warning: Callable[[str], None] = lambda text: None,
) -> Entry:
    """Checkpoint another process and wait for the entry. `load` gives a Jupyter kernel a checkpoint thread."""
    from nbcr.session import outside

    errand = outside.Errand(_store(store), deadline_s, load, on_warning)
    return outside.checkpoint(target, errand, name=name, replace=force, leave=leave, files=files, note=note)


def restart_fresh(name: str, *, store: StoreLike = None, stdio: tuple[int, int, int] = (-1, -1, -1)) -> RestartResult:
    """Bring checkpoint `name` back as a fresh process tree; a Jupyter kernel on its old connection file.

    `stdio` are our descriptors for standard streams that led to a terminal or pipe outside; -1: /dev/null.
    """
    from nbcr.session import outside

    return outside.restart_fresh(_store(store).find(name), stdio=stdio)


def restart_into(
    name: str,
    target: Target,
    *,
    store: StoreLike = None,
    deadline_s: float = DEFAULT_DEADLINE_S,
    load: Callable[[Any, float], bool] = lambda target, timeout_s: False,
    on_warning: Callable[[str], None] = lambda text: None,
) -> RestartResult:
    """Replace the living process `target` by checkpoint `name`; its pid, ports and key stay."""
    from nbcr.session import outside

    entry = _store(store).find(name)
    return outside.restart_into(entry, target, outside.Errand(_store(store), deadline_s, load, on_warning))


@dataclass(frozen=True)
class Details:
    """An entry and what is in its image (None: the image cannot be read, `problem` says why)."""

    entry: Entry
    image: SnapshotSummary | None
    problem: str = ""


def show(name: str, *, store: StoreLike = None) -> Details:
    """Everything known of checkpoint `name`."""
    from nbcr import crs

    entry = _store(store).find(name)
    try:
        component = crs.maker_of(entry.name, entry.component.get("name"))
        return Details(entry, component.inspect(crs.SnapshotReference(component.name, entry.id, entry.image)))
    except Exception as error:
        return Details(entry, None, str(error))


def remove(name: str, *, store: StoreLike = None) -> Entry:
    """Remove checkpoint `name`; returns what was removed."""
    place = _store(store)
    entry = place.find(name)
    place.remove(entry)
    return entry


def _store(store: StoreLike) -> Store:
    return store if isinstance(store, Store) else Store(store)
