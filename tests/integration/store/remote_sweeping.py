"""The same for a remote: one child for each call of a push, or a pull, that changes something; there it is killed.

``python -m tests.integration.store.remote_sweeping push|pull STRIDE FIRST FOLDER``, with faults.c preloaded. Prints how
many steps the job has and were tried.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import traceback
from pathlib import Path

from nbcr.session import upkeep
from nbcr.store import Store, opening, settings
from nbcr.store.remotes import Remote
from nbcr.store.settings import Settings
from tests.integration.store.sweeping import ALL, MODES, Shim, keep
from tests.unit.nbcr.store.making import contents, put


def main() -> None:
    """Sweep."""
    job, stride, first, folder = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])
    _prepare(folder / "begin", job)
    step, tried = first, 0
    while True:
        place = folder / f"step-{step}"
        shutil.copytree(folder / "begin", place)
        child = os.fork()
        if child == 0:
            _act(place, job, step)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert status in (0, -signal.SIGKILL), status
        _judge(place, f"{job}, killed at step {step}")
        tried += 1
        shutil.rmtree(place)
        if status == 0:  # all were tried
            break
        step += stride
    print(step, tried)


def _prepare(begin: Path, job: str) -> None:
    """Three entries here, of which one is there already; or one here, and all there."""
    full = Store(begin / "full")
    full.log_folder()
    settings.write(full.root, Settings(hot_entries=0))
    for name, files in ALL.items():
        put(full, name, files, pid=7)
    keep(full)
    upkeep.push(_url(begin), ["one"] if job == "push" else [], store=full)
    if job == "pull":
        upkeep.pull(_url(begin), ["one"], store=begin / "other")


def _url(place: Path) -> str:
    return f"file://{place / 'remote'}"


def _do(place: Path, job: str) -> None:
    if job == "push":
        upkeep.push(_url(place), store=place / "full")
    else:
        upkeep.pull(_url(place), store=place / "other")


def _act(place: Path, job: str, step: int) -> None:
    status = 0
    Shim.faults_arm(str(place / ("remote" if job == "push" else "other")).encode(), MODES["killed"], step)
    try:
        _do(place, job)
    except Exception:
        traceback.print_exc()
        status = 99
    os._exit(status)


def _judge(place: Path, what: str) -> None:
    """What is listed, here and there, is whole; doing it again brings everything, and sends nothing twice."""
    if (place / "other").exists():
        other = Store(place / "other")
        assert "one" in _check_whole(other, what)
        _do(place, "pull")
        assert _check_whole(other, what) == set(ALL)
        return
    listed = set(Remote(_url(place)).entries())
    upkeep.pull(_url(place), store=place / "taken")
    taken = Store(place / "taken")
    assert "one" in _check_whole(taken, what)
    offered = {entry.id for entry in taken.entries()}
    assert offered <= listed, (what, listed)
    sent = upkeep.push(_url(place), store=place / "full")
    assert set(sent.already) == {entry.name for entry in taken.entries()}, (what, sent)
    upkeep.pull(_url(place), store=taken.root)
    assert _check_whole(taken, what) == set(ALL)


def _check_whole(store: Store, what: str) -> set[str]:
    """The names of the entries, all of which are what they were."""
    assert not store.damaged(), (what, store.damaged())
    for entry in store.entries():
        for part in ("image", "objects"):
            with opening.opened(entry, part) as folder:
                found = {f"{part}/{path}": data for path, data in contents(folder).items()}
            assert found == {path: data for path, data in ALL[entry.name].items() if path.startswith(part)}, what
            opening.cool(entry, part)
    return {entry.name for entry in store.entries()}


if __name__ == "__main__":
    main()
