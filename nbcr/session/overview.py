"""What lives and what is being written, at a glance: for `nbcr top`, `nbcr logs` and completion in a shell."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nbcr import runtime
from nbcr.errors import UnknownName
from nbcr.session.usecases import StoreLike, disk_use
from nbcr.store import Entry, Store, journal

_LOOK_S = 0.05


@dataclass(frozen=True)
class Living:
    """A session or a job that can be checkpointed."""

    kind: str  # jupyter, job, process
    name: str
    pid: int
    notebook: str | None = None
    memory_bytes: int = 0
    ready: bool = False  # has a checkpoint thread, or a launcher, of ours
    last: str | None = None  # name of its last checkpoint
    last_age_s: float | None = None


@dataclass(frozen=True)
class Writing:
    """A checkpoint that is not published yet."""

    id: str
    name: str
    written_bytes: int
    age_s: float


@dataclass(frozen=True)
class Overview:
    """All of it, at one moment."""

    living: list[Living]
    writing: list[Writing]
    store: str
    checkpoints: int
    disk_bytes: int

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


def look(targets: Iterable[Any], jobs: Iterable[tuple[str, int]], *, store: StoreLike = None) -> Overview:
    """Look once. `targets` are living Jupyter kernels (nbcr.jupyter.finding), `jobs` names and launchers' pids."""
    place = store if isinstance(store, Store) else Store(store)
    entries = place.entries()
    found = [_jupyter(target, entries) for target in targets]
    found += [_job(name, pid, entries) for name, pid in jobs]
    known = {living.pid for living in found}
    found += [_process(pid, entries) for pid in _with_thread() if pid not in known]
    return Overview(found, writing(place), str(place.root), len(entries), disk_use(place))


def writing(store: Store) -> list[Writing]:
    """Checkpoints that somebody writes into `store` just now."""
    from nbcr.store import owners
    from nbcr.store.files import tree_size_bytes
    from nbcr.store.store import OWNER

    found = []
    for path in sorted((store.root / "entries").glob(".tmp-*")):
        owner = owners.read(path / OWNER)
        if owner is None or owners.lives(owner) is False:
            continue
        try:
            age_s = time.time() - (path / OWNER).stat().st_mtime
            entry_id = path.name.removeprefix(".tmp-").rpartition(".")[0]
            found.append(Writing(entry_id, str(owner.get("name") or entry_id), tree_size_bytes(path), age_s))
        except OSError:
            continue  # published meanwhile
    return found


def wait_for_writers(timeout_s: float, *, store: StoreLike = None) -> None:
    """Until what is being written just now is there, or will never be: also the image of one that has died since."""
    place = store if isinstance(store, Store) else Store(store)
    deadline, begun = time.monotonic() + timeout_s, {each.id for each in writing(place)}
    while begun & {each.id for each in writing(place)} and time.monotonic() < deadline:
        time.sleep(_LOOK_S)


def story(name: str | None, *, store: StoreLike = None) -> list[dict[str, Any]]:
    """What the journal tells of a checkpoint (by name or id) or a job; of everything for None. Raises UnknownName."""
    place = store if isinstance(store, Store) else Store(store)
    lines = journal.read(place.root)
    if name is None:
        return lines
    ids = {entry.id for entry in place.entries() if entry.name == name}
    about = [
        line for line in lines if name in (line.get("name"), line.get("id"), line.get("job")) or line.get("id") in ids
    ]
    if not about and not ids:
        place.find(name)  # raises, with names that come near
    if not about:
        raise UnknownName(f"the journal tells nothing of {name!r}", hint=f"`nbcr show {name}` tells what it holds")
    return about


def left_logs(*, store: StoreLike = None) -> list[dict[str, Any]]:
    """What helpers and packers said that came to no good end: the last line of each."""
    place = store if isinstance(store, Store) else Store(store)
    found = []
    for path in sorted((place.root / "log").glob("*.log")):
        try:
            lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
        except OSError:
            continue
        text = next((line.strip() for line in reversed(lines) if line.strip()), "")
        if text:
            found.append({"path": str(path), "text": text})
    return found


def _jupyter(target: Any, entries: Sequence[Entry]) -> Living:
    mine = [e for e in entries if target.kernel_id and (e.jupyter or {}).get("kernel_id") == target.kernel_id]
    name = str(target.kernel_id or target.pid)
    ready = _has_thread(target.pid)
    return Living("jupyter", name, target.pid, target.notebook, runtime.resident_bytes(target.pid), ready, *_last(mine))


def _job(name: str, pid: int, entries: Sequence[Entry]) -> Living:
    mine = [entry for entry in entries if entry.kinds == ("job",) and entry.pid == pid]
    below = _tree(pid)
    return Living("job", name, pid, None, sum(map(runtime.resident_bytes, below)), True, *_last(mine))


def _process(pid: int, entries: Sequence[Entry]) -> Living:
    mine = [entry for entry in entries if entry.pid == runtime.number_inside(pid)]
    return Living("process", _command(pid), pid, None, runtime.resident_bytes(pid), True, *_last(mine))


def _last(mine: Sequence[Entry]) -> tuple[str | None, float | None]:
    if not mine:
        return None, None
    try:
        age_s = time.time() - mine[-1].path.joinpath("manifest.json").stat().st_mtime
    except OSError:
        age_s = None
    return mine[-1].name, age_s


def _with_thread() -> list[int]:
    """Pids of processes of ours that listen for requests."""
    found = set()
    for folder in runtime.candidate_folders():
        if not runtime.is_private(folder):
            continue
        for path in folder.glob("*.sock"):
            mark = runtime.Mark.read(path.stem)
            if mark is not None and mark.lives and mark.namespace in (0, runtime.pid_namespace()):
                found.add(mark.pid)
    return sorted(found - {runtime.own_pid()})


def _has_thread(pid: int) -> bool:
    name = f"{runtime.Mark.of(pid)}.sock"
    return any((folder / name).exists() for folder in runtime.candidate_folders() if runtime.is_private(folder))


def _tree(pid: int) -> list[int]:
    found = [pid]
    for parent in found:
        for listing in Path(f"/proc/{parent}/task").glob("*/children"):
            try:
                found += [int(word) for word in listing.read_text(encoding="ascii").split()]
            except OSError:
                continue
    return found


def _command(pid: int) -> str:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return str(pid)
    said = " ".join(os.fsdecode(word) for word in words if word)
    return "".join(letter if letter.isprintable() else " " for letter in said)[:60] or str(pid)
