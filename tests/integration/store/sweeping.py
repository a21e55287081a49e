"""A warm process that forks one child for each step of a job, in which that step is fatal, and judges what is left.

``python -m tests.integration.store.sweeping JOB MODE STRIDE FIRST FOLDER``, with faults.c preloaded. Prints how many
steps the job has and were tried.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import random
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from nbcr.errors import NbcrError
from nbcr.store import Store, collecting, files, housekeeping, opening, retention, settings
from nbcr.store.retention import Policy
from nbcr.store.settings import Settings
from tests.unit.nbcr.store.making import Memory, contents, layout, put

MODES = {"killed": 1, "full once": 2, "full": 3}
OBJECTS = {"objects/index": b"index" * 40, "objects/" + "0" * 64 + ".blob": b"blob" * 60_000}
Known = dict[str, Mapping[str, bytes]]
Shim = ctypes.CDLL(None)


@dataclass(frozen=True)
class Job:
    """What is swept: a store that it begins with, what it does, and which entries there may be afterwards."""

    prepare: Callable[[Store, Known], None]
    do: Callable[[Store, Known], None]
    must: tuple[str, ...]  # entries that are there, whatever happens
    may: tuple[str, ...] = ()  # entries that can be there, then whole
    frees: bool = False  # what makes room must not need any


def memories() -> list[dict[str, bytes]]:
    chance = random.Random(3)
    memory = Memory(chance, 64)
    found = []
    for _ in range(3):
        found.append({**memory.files(), **OBJECTS})
        memory.touch(0.2)
    return found


ALL = dict(zip(("one", "two", "three"), memories(), strict=True))


def keep(store: Store) -> None:
    """Pack, drop, collect; raises what could not be done."""
    for failure in housekeeping.keep(store, layout=layout):
        raise failure


def _two(store: Store, known: Known) -> None:
    store.log_folder()
    settings.write(store.root, Settings(hot_entries=0))
    for name in ("one", "two"):
        put(store, name, ALL[name], pid=7)


def _two_packed(store: Store, known: Known) -> None:
    _two(store, known)
    keep(store)


def _three_packed(store: Store, known: Known) -> None:
    _two_packed(store, known)
    put(store, "three", ALL["three"], pid=7)
    keep(store)


def _read(store: Store, known: Known) -> None:
    for entry in store.entries():
        for part in ("image", "objects"):
            with opening.opened(entry, part):
                pass


def _prune_and_collect(store: Store, known: Known) -> None:
    retention.prune(store, Policy(last=1))
    collecting.collect(store)


JOBS = {
    "publish": Job(_two_packed, lambda store, known: put(store, "three", ALL["three"], pid=7) and None, ("one", "two"),
                   ("three",)),
    "replace": Job(_two_packed, lambda store, known: put(store, "two", ALL["two"], replace=True) and None,
                   ("one", "two")),
    "pack": Job(_two, lambda store, known: keep(store), ("one", "two")),
    "thaw": Job(_two_packed, _read, ("one", "two")),
    "prune": Job(_three_packed, _prune_and_collect, ("three",), ("one", "two"), frees=True),
}  # fmt: skip


def main() -> None:
    """Sweep."""
    name, mode, stride, first, folder = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), Path(sys.argv[5])
    job, tried, step = JOBS[name], 0, first
    job.prepare(Store(folder / "begin"), {})
    while True:
        store = Store(folder / f"step-{step}")
        shutil.copytree(folder / "begin", store.root)
        before = os.fork()
        if before == 0:
            _act(store, job, MODES[mode], step)
        status = os.waitstatus_to_exitcode(os.waitpid(before, 0)[1])
        if mode == "killed":
            assert status in (0, -signal.SIGKILL), status
        else:
            assert status in ((0,) if job.frees else (0, 24)), status  # done all the same, or NoRoomInStore
        _judge(store, job, f"{name}, {mode}, step {step}")
        tried += 1
        shutil.rmtree(store.root)
        if status == 0 if mode == "killed" else not (folder / "hit").exists():  # all were tried
            break
        (folder / "hit").unlink(missing_ok=True)
        step += stride
    print(step, tried)


def _act(store: Store, job: Job, mode: int, step: int) -> None:
    status = 0
    Shim.faults_arm(str(store.root).encode(), mode, step)
    try:
        with store.writing():  # what the job itself writes stands for a component's files
            job.do(store, {})
    except NbcrError as error:
        status = error.exit_code
        print(f"step {step}: {error.line()}", file=sys.stderr)
    except Exception:
        traceback.print_exc()
        status = 99
    seen = Shim.faults_seen()
    Shim.faults_arm(b"/nowhere", 0, 0)
    if seen > step:
        (store.root.parent / "hit").touch()
    os._exit(status)


def _judge(store: Store, job: Job, what: str) -> None:
    """Every listed entry is whole; what was lost is no entry; after a collection nothing is left that nobody needs."""
    assert not store.damaged(), (what, store.damaged())
    names = [entry.name for entry in store.entries()]
    assert set(job.must) <= set(names) <= {*job.must, *job.may}, (what, names)
    _check_contents(store, what)
    store.discard(store.draft(None))  # which sweeps
    keep(store)
    collecting.collect(store)
    _check_contents(store, what)
    _check_nothing_is_left(store, what)


def _check_contents(store: Store, what: str) -> None:
    for entry in store.entries():
        for part in ("image", "objects"):
            with opening.opened(entry, part) as folder:
                found = {f"{part}/{path}": data for path, data in contents(folder).items()}
            wanted = {path: data for path, data in ALL[entry.name].items() if path.startswith(part)}
            assert found == wanted, (what, entry.name, part)
            opening.cool(entry, part)


def _check_nothing_is_left(store: Store, what: str) -> None:
    """What somebody might still be at has an hour; then nothing is left but what the entries need."""
    for path in store.root.rglob("*"):
        if path.name.startswith(".") or path.parent.name.startswith("."):
            os.utime(path, (time.time() - 100_000,) * 2)
    keep(store)
    collecting.collect(store)
    left = [str(path.relative_to(store.root)) for path in store.root.rglob("*") if path.name.startswith(".")]
    assert not left, (what, left)
    fresh = Store(store.root.with_name("fresh"))
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(fresh.root)
    fresh.log_folder()
    settings.write(fresh.root, Settings(hot_entries=0))
    for entry in store.entries():
        put(fresh, entry.name, ALL[entry.name], pid=7, replace=True)
    keep(fresh)
    size, least = (files.tree_size_bytes(place.root) for place in (store, fresh))
    assert size <= 2.2 * least, (what, size, least)  # packs of which half is alive are left as they are


if __name__ == "__main__":
    main()
