"""What every face calls. What concerns the own process is loaded at once, the rest when it is used."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from nbcr.errors import HandlersFailed, NbcrError, NotPossible, is_damage
from nbcr.handlers import DEFAULT_DEADLINE_S
from nbcr.session import inprocess, snapshots
from nbcr.session.inprocess import Wish
from nbcr.session.namespaces import NO_LIMITS, Limits
from nbcr.session.results import ChangeList, CheckpointResult, EntryList, LoadResult, RestartResult, VariableList
from nbcr.states import Outcome
from nbcr.store import Entry, Store

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from nbcr.crs import SnapshotSummary
    from nbcr.handlers.sections import Holder
    from nbcr.objects import Report
    from nbcr.session.outside import Target

# Errors that say that this host cannot run an image, which may well be whole. The present was not touched.
_NOT_HERE = frozenset("NotPossible HostUnsupported TargetDenied ImageVersion FileChanged".split())
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
    image: bool = False,
    objects: bool = False,
    history: bool = False,
    max_size_bytes: int | None = None,
    max_total_bytes: int | None = None,
) -> CheckpointResult:
    """Checkpoint this process under `name` (None: the entry's id). Returns twice: see
    `CheckpointResult.outcome`.

    `image`: the process's image only; `objects`: the names of its namespace only, without any handler being told. With
    neither: the image, and in IPython and Jupyter kernels the objects beside it. What cannot be had of the two is a
    warning of the entry. `history`: the objects with In and Out; `max_size_bytes`: no name larger than that;
    `max_total_bytes`: no more than that in all, small names first.

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
        name=name,
        store=_store(store),
        replace=force,
        note=note,
        files=files,
        origin=origin,
        deadline_s=deadline_s,
        kinds=kinds_of(image=image, objects=objects),
        limits=Limits(history, max_size_bytes, max_total_bytes),
    )
    if on_wait is not None:
        wish = replace(wish, on_wait=on_wait)
    result = inprocess.checkpoint(wish)
    if wait and result.outcome is Outcome.CONTINUE:
        result.wait()
    if result.problems:
        raise _together(result)
    return result


def kinds_of(*, image: bool, objects: bool) -> tuple[str, ...]:
    """What somebody wants a checkpoint to hold, as flags say it; empty: what is usual."""
    return tuple(kind for kind, wanted in (("image", image), ("objects", objects)) if wanted)


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


def restart(
    name: str, *, store: StoreLike = None, objects: bool = False, deadline_s: float = DEFAULT_DEADLINE_S
) -> LoadResult:
    """Replace this process by checkpoint `name`: its ``checkpoint()`` call returns RESTART, this call never returns.

    With `objects`, or where this host cannot bring back the process image, the session's names are rolled back instead
    and the process goes on: then it returns what became of each name, and why.

    Raises NbcrError when neither is possible; then this process goes on as it was.
    """
    place = _store(store)
    entry = inprocess.find(name, place, deadline_s=deadline_s)
    if objects:
        return inprocess.roll_back(entry, deadline_s=deadline_s)
    why = "it holds none"
    if "image" in entry.kinds or "objects" not in entry.kinds:
        try:
            inprocess.replace_by(entry, place, deadline_s=deadline_s)
        except NbcrError as error:
            if "objects" in entry.kinds and is_damage(error):
                error.hint = f"{error.hint}; `%restart {entry.name} --objects` loads the variables".lstrip("; ")
            if "objects" not in entry.kinds or error.type_name not in _NOT_HERE:
                raise
            why = error.line()
    return replace(inprocess.roll_back(entry, deadline_s=deadline_s), why=why)


def find(name: str, *, store: StoreLike = None) -> Entry:
    """The entry called `name`, which may be one that this process still writes. Raises UnknownName, Busy."""
    return inprocess.find(name, _store(store))


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
    tcp: str = "reset",
    note: str = "",
    automatic: str | None = None,
    job: Mapping[str, Any] | None = None,
    kinds: tuple[str, ...] = (),
    limits: Limits = NO_LIMITS,
    deadline_s: float = DEFAULT_DEADLINE_S,
    load: Callable[[Any, float], bool] = lambda target, timeout_s: False,
    on_warning: Callable[[str], None] = lambda text: None,
) -> Entry:
    """Checkpoint another process and wait for the entry. `load` gives a Jupyter kernel a checkpoint thread.

    `automatic`: why, where nobody asks for it; `job`: of which it is the command (nbcr.launcher).
    `kinds`, `limits`: as it would checkpoint itself. Objects can be had of a process with a checkpoint thread only.
    """
    from nbcr.session import outside

    errand = outside.Errand(_store(store), deadline_s, load, on_warning)
    return outside.checkpoint(
        target,
        errand,
        name=name,
        replace=force,
        leave=leave,
        files=files,
        tcp=tcp,
        note=note,
        automatic=automatic,
        job=job,
        kinds=kinds,
        limits=limits,
    )


def facts_of(
    target: Target,
    *,
    store: StoreLike = None,
    deadline_s: float = DEFAULT_DEADLINE_S,
    load: Callable[[Any, float], bool] = lambda target, timeout_s: False,
) -> dict[str, Any]:
    """What another process knows of itself: of a Jupyter kernel ``notebook``, ``cell`` and how many it ``executed``."""
    from nbcr.session import outside

    return outside.facts_of(target, outside.Errand(_store(store), deadline_s, load))


def progress(store: StoreLike = None) -> list[float]:
    """How much of each checkpoint that this process still writes is on the disk, about; from 0 to 1."""
    from nbcr.store.files import tree_size_bytes

    folder = _store(store).root / "entries"
    drafts = [(result, path) for result in inprocess.writing() for path in folder.glob(f".tmp-{result.id}.*")]
    return [min(1.0, tree_size_bytes(path) / max(1, result.size_bytes)) for result, path in drafts]


def disk_use(store: StoreLike = None) -> int:
    """Bytes that the store takes: what checkpoints have in common counts once."""
    from nbcr.store.files import tree_size_bytes

    return tree_size_bytes(_store(store).root)


def restart_fresh(
    name: str,
    *,
    store: StoreLike = None,
    stdio: tuple[int, int, int] = (-1, -1, -1),
    parting: bool = False,
    present: Mapping[str, Any] | None = None,
    files: str | None = None,
) -> RestartResult:
    """Bring checkpoint `name` back as a fresh process tree; a Jupyter kernel on its old connection file.

    `present`: what the restored life is told of its surroundings; with ``connection`` it serves on that one.
    `stdio` are our descriptors for standard streams that led to a terminal or pipe outside; -1: /dev/null.
    `parting`: this process ends soon, which is not to be the death of a parent for a tree that asked to hear of one.
    `files`: about files that were being written, instead of what the checkpoint said (see `checkpoint`).
    """
    from nbcr.session import outside

    return outside.restart_fresh(_store(store).find(name), stdio=stdio, parting=parting, present=present, files=files)


def restart_into(
    name: str,
    target: Target,
    *,
    store: StoreLike = None,
    deadline_s: float = DEFAULT_DEADLINE_S,
    load: Callable[[Any, float], bool] = lambda target, timeout_s: False,
    on_warning: Callable[[str], None] = lambda text: None,
    files: str | None = None,
) -> RestartResult:
    """Replace the living process `target` by checkpoint `name`; its pid, ports and key stay."""
    from nbcr.session import outside

    entry = _store(store).find(name)
    return outside.restart_into(entry, target, outside.Errand(_store(store), deadline_s, load, on_warning), files=files)


@dataclass(frozen=True)
class Details:
    """An entry and what is in its image (None: it has none, or `problem` says why it cannot be read)."""

    entry: Entry
    image: SnapshotSummary | None
    problem: str = ""


def show(name: str, *, store: StoreLike = None) -> Details:
    """Everything known of checkpoint `name`."""
    from nbcr import crs
    from nbcr.store import opening

    entry = _store(store).find(name)
    if "image" not in entry.kinds:
        return Details(entry, None)
    try:
        component = crs.maker_of(entry.name, entry.component.get("name"))
        with opening.opened(entry, only=component.roots or None) as image:
            return Details(entry, component.inspect(crs.SnapshotReference(component.name, entry.id, image)))
    except Exception as error:
        return Details(entry, None, str(error))


def variables(name: str, *, store: StoreLike = None) -> VariableList:
    """The names that checkpoint `name` holds as objects, as they looked then. Nothing is unpickled."""
    from nbcr import objects

    with snapshots.looked_into(_with_objects(name, store)) as place:
        return VariableList(objects.look(place))


def get(name: str, variable: str, *, store: StoreLike = None, namespace: dict[str, Any] | None = None) -> Any:
    """One variable of checkpoint `name`; no other variable's bytes are read.

    Its functions see `namespace` (None: this session's). Raises UnknownName, NotPossible, SnapshotFailed,
    Untrusted.
    """
    from nbcr.objects import here

    entry = _with_objects(name, store)
    return snapshots.get(entry, variable, here.namespace() if namespace is None else namespace)


def diff(before: str, after: str, *, store: StoreLike = None) -> ChangeList:
    """The names that were added, removed or changed between two checkpoints."""
    from nbcr import objects

    old, new = (_with_objects(name, store) for name in (before, after))
    with snapshots.looked_into(old) as was, snapshots.looked_into(new) as became:
        return ChangeList(objects.diff(was, became))


def report_of(entry: Entry) -> Report | None:
    """What became of each name when `entry` was taken; None when it holds no objects."""
    if "objects" not in entry.kinds:
        return None
    from nbcr.objects.saving import report_of

    with snapshots.looked_into(entry) as place:
        return report_of(place)


def _with_objects(name: str, store: StoreLike) -> Entry:
    entry = inprocess.find(name, _store(store))
    if "objects" not in entry.kinds:
        raise NotPossible(f"{entry.name!r} holds no objects", hint="it was taken as a process image only")
    return entry


def remove(name: str, *, store: StoreLike = None) -> Entry:
    """Remove checkpoint `name`; returns what was removed."""
    from nbcr.session.spawning import start_packer

    place = _store(store)
    entry = place.find(name)
    place.remove(entry)
    start_packer(place)  # which gives back what the entry alone needed
    return entry


def _store(store: StoreLike) -> Store:
    return store if isinstance(store, Store) else Store(store)
