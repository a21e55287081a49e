"""The side of a checkpoint that is outside the process: lock, draft, image, manifest, publishing.

Runs in the helper, or in the command line for a process that knows nothing of nbcr.

An entry holds an image, which is taken here, or a snapshot of the objects, which the process itself puts into the
draft and gives word of, or both. Neither has to wait for the other, and neither is lost with the other; the entry is
published when both have ended, with what came of them.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nbcr import __version__, crs, runtime
from nbcr.crs import CheckpointOptions, Progress, SnapshotReference, Taken
from nbcr.errors import NbcrError, SnapshotFailed, to_wire
from nbcr.session.terms import Terms
from nbcr.store import Draft, Entry, Store, files, journal, opening
from nbcr.store.entry import IMAGE, OBJECTS

KINDS = ("image", "objects")
DEFAULT_DEADLINE_S = 30.0
_BLOB = re.compile(r"[0-9a-f]{64}\.(blob|pack)")  # nbcr/objects/FORMAT.md
Word = Mapping[str, Any]  # of the process, about its objects: {"counts": …}, or {"failure": why there is no snapshot}


@dataclass(frozen=True)
class CheckpointOrder(Terms):
    """A checkpoint to take: what was asked for (Terms), and of whom."""

    pid: int
    kinds: tuple[str, ...] = field(default=("image",), kw_only=True)
    channel_fd: int | None = None
    parent: str | None = None
    previous: str | None = None  # the snapshot of objects with which files are shared
    deadline_s: float = DEFAULT_DEADLINE_S
    facts: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    @classmethod
    def from_message(cls, message: Mapping[str, Any]) -> CheckpointOrder:
        """The order in a channel message; keys it does not know are ignored."""
        own = {name: message[name] for name in _OWN if name in message}
        return cls.of_document(message, **{**own, "warnings": tuple(own.get("warnings", ()))})


_OWN = CheckpointOrder.__dataclass_fields__.keys() - Terms.__dataclass_fields__.keys()


def without_image(failure: BaseException) -> str:
    """How an entry says that it holds the objects alone, although an image was wanted."""
    problem = to_wire(failure)
    return f"no process image was taken, the objects alone were saved: {problem['message']}"


@dataclass
class _Contents:
    """What came of both kinds."""

    kinds: list[str] = field(default_factory=list)
    component: tuple[str, str] = ("", "")
    pause_ms: float = 0.0
    objects: dict[str, Any] | None = None
    warnings: list[str] = field(default_factory=list)
    digests: dict[str, str] = field(default_factory=dict)  # of files, as far as they are known


def take(
    store: Store,
    order: CheckpointOrder,
    *,
    on_accept: Callable[[Draft], None] = lambda draft: None,
    on_resume: Callable[[Progress], None] = lambda progress: None,
    on_objects: Callable[[], Word] = lambda: {"failure": "the process does not save them"},
    on_done: Callable[[Entry], None] = lambda entry: None,
) -> Entry:
    """Take the checkpoint and publish it; whatever fails, the draft is gone and the process unharmed.

    `on_accept` is called before the process is touched, `on_objects` waits for the process's word about its objects,
    `on_done` is called after publishing, while the target is still locked.
    """
    with journal.told(store.root, "checkpoint", name=order.name, pid=order.pid) as told:
        entry = _take(store, order, on_accept, on_resume, on_objects, on_done)
        told.update(id=entry.id, name=entry.name, size_bytes=entry.size_bytes, pause_ms=entry.pause_ms)
        told.update(duration_ms=entry.duration_ms, kinds=list(entry.kinds), automatic=entry.automatic)
    return entry


def _take(
    store: Store,
    order: CheckpointOrder,
    on_accept: Callable[[Draft], None],
    on_resume: Callable[[Progress], None],
    on_objects: Callable[[], Word],
    on_done: Callable[[Entry], None],
) -> Entry:
    begun = time.monotonic()
    durable = not _may_settle_later(store, order)
    if "image" in order.kinds and not _may_lack_image(order):
        crs.select()  # if there is nobody to take it, say so before anything is begun
    with runtime.target_lock(order.pid, order.deadline_s):
        with _shared(order):
            draft = store.draft(order.name, replace=order.replace)
            try:
                on_accept(draft)
                contents = _contents(draft, order, durable, on_resume, on_objects)
                if durable:
                    store.sync(draft)
                entry = _publish(store, draft, order, contents, (time.monotonic() - begun) * 1000, durable)
            except BaseException:
                store.discard(draft)
                raise
        on_done(entry)
    if not durable:
        store.settle(entry)
    return entry


def _may_settle_later(store: Store, order: CheckpointOrder) -> bool:
    """Whether the entry may be on its way to the disk still when it is published.

    So may the present that a restart is about to replace: its user waits, a second a GiB and more, and a power cut in
    these moments would have taken the session itself as well. What is written to a network file system may be refused
    only when it is synced, too late for a present that is replaced already.
    """
    return order.automatic == "restart" and order.leave == "running" and not files.is_network(store.root)


@contextlib.contextmanager
def _shared(order: CheckpointOrder) -> Iterator[None]:
    """Keep what the process's child will link from being dropped under its hands; it may be gone already."""
    with contextlib.ExitStack() as stack:
        if "objects" in order.kinds and order.previous is not None:
            with contextlib.suppress(NbcrError, OSError):
                stack.enter_context(opening.kept(Path(order.previous).parent))
        yield


def _may_lack_image(order: CheckpointOrder) -> bool:
    """Whether the objects alone are better than nothing. Who wants the process stopped or killed wants its image."""
    return "objects" in order.kinds and order.leave == "running"


def _contents(
    draft: Draft,
    order: CheckpointOrder,
    durable: bool,
    on_resume: Callable[[Progress], None],
    on_objects: Callable[[], Word],
) -> _Contents:
    """Both kinds, as far as they are wanted and can be had. Raises what the image failed of when there is neither."""
    contents, failure = _Contents(), None
    if "image" in order.kinds:
        try:
            taken = _image(contents, draft, order, durable, on_resume)
        except Exception as error:
            if not _may_lack_image(order):
                raise
            failure = error
        else:
            contents.kinds.append("image")
            contents.pause_ms = taken.pause_ms
            contents.warnings += taken.warnings
    if not contents.kinds:  # the process goes on, and saves its objects, if it was not told so already
        told = [without_image(failure)] if failure is not None else []
        contents.warnings += told
        on_resume(Progress(0.0, warnings=tuple(told)))
    if "objects" in order.kinds:
        _add_objects(contents, draft, on_objects(), failure)
    return contents


def _image(
    contents: _Contents, draft: Draft, order: CheckpointOrder, durable: bool, on_resume: Callable[[Progress], None]
) -> Taken:
    component = crs.select()
    contents.component = (component.name, component.version)
    snapshot = SnapshotReference(component.name, draft.id, draft.image)
    options = CheckpointOptions(
        leave=order.leave, files=order.files, tcp=order.tcp, channel_fd=order.channel_fd, durable=durable,
        on_resume=on_resume,
    )  # fmt: skip
    taken = component.checkpoint(order.pid, snapshot, options)
    contents.digests = {f"{IMAGE}/{path}": digest for path, digest in component.digests(snapshot).items()}
    return taken


def _add_objects(contents: _Contents, draft: Draft, word: Word, failure: Exception | None) -> None:
    if "counts" in word:
        contents.kinds.append("objects")
        contents.objects = dict(word["counts"])
        if "image" not in contents.kinds:
            contents.component = ("objects", __version__)
        return
    _clear_away(draft.snapshot)
    why = str(word.get("failure", "the process gave no word of them"))
    if failure is not None:
        raise failure
    if not contents.kinds:
        raise SnapshotFailed(f"the objects were not saved: {why}")
    contents.warnings.append(f"the objects were not saved, only the process image: {why}")


def _clear_away(folder: Path) -> None:
    """Remove a snapshot that is none. A child of the process may still be at it: without the name it cannot go on."""
    aside = folder.with_name(f".{folder.name}")
    try:
        folder.rename(aside)
    except FileNotFoundError:
        return
    shutil.rmtree(aside, ignore_errors=True)


def _publish(
    store: Store, draft: Draft, order: CheckpointOrder, contents: _Contents, duration_ms: float, durable: bool
) -> Entry:
    from nbcr.store.manifest import ComponentMark, Host, Manifest

    uname = os.uname()
    facts = order.facts
    manifest = Manifest(
        id=draft.id,
        name=draft.name,
        created=draft.created,
        parent=_parent(store, order),
        kinds=contents.kinds,
        size_bytes=store.size_bytes(draft),
        notebook=_text_or_none(facts.get("notebook")),
        pid=order.pid,
        pause_ms=round(contents.pause_ms, 3),
        duration_ms=round(duration_ms, 3),
        host=Host(socket.gethostname(), uname.release, uname.machine, str(facts.get("python", ""))),
        jupyter=facts.get("jupyter"),
        cell=facts.get("cell"),
        component=ComponentMark(*contents.component),
        warnings=list(dict.fromkeys([*order.warnings, *contents.warnings])),
        note=order.note,
        automatic=order.automatic,
        job=None if order.job is None else dict(order.job),
        channel_fd=order.channel_fd if "image" in contents.kinds else None,
        objects=contents.objects,
    )
    return store.publish(draft, manifest, {**contents.digests, **_digests_of_objects(draft)}, durable=durable)


def _parent(store: Store, order: CheckpointOrder) -> str | None:
    """The entry that this one comes after; where that is the one that it replaces, what that came after."""
    parent = order.parent
    if order.replace and parent is not None:
        replaced = {entry.id: entry.parent for entry in store.entries() if entry.name == order.name}
        while parent in replaced:
            parent = replaced.pop(parent)
    return parent


def _digests_of_objects(draft: Draft) -> dict[str, str]:
    """Blobs are called after their digests, which spares reading them once more."""
    if not draft.snapshot.is_dir():
        return {}
    blobs = [path for path in draft.snapshot.iterdir() if _BLOB.fullmatch(path.name)]
    return {f"{OBJECTS}/{path.name}": path.stem for path in blobs}


def _text_or_none(value: Any) -> str | None:
    return None if value is None else str(Path(value)) if isinstance(value, os.PathLike) else str(value)
