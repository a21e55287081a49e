"""What tests of faults share: commands that must fail on one line, damage to images, looking for leftovers."""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tests.integration.jupyter.lives import nbcr
from tests.integration.jupyter.sessions import Client, Stage
from tests.support import children_of, describe_process, needs

SETTLE_S = 10.0


def nbcr_fails(stage: Stage, code: int | Sequence[int], *words: str | int, timeout_s: float = 60.0) -> str:
    """`nbcr …` must end with `code`, print nothing, and say why on one line: that line."""
    argv = [sys.executable, "-m", "nbcr.cli", *(str(word) for word in words), "--json"]
    done = subprocess.run(
        stage.user.command(argv, cwd=stage.folder / "work"),
        env=stage.environ, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout_s,
    )  # fmt: skip
    wanted = [code] if isinstance(code, int) else list(code)
    assert done.returncode in wanted, (words, done)
    assert done.stdout == "", done
    lines = [line for line in done.stderr.splitlines() if not line.startswith("nbcr: warning: ")]
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("nbcr: "), lines
    return lines[0]


def fails(client: Client, code: str, timeout_s: float = 60.0) -> str:
    """The cell must raise an error that shows on one line: that line."""
    (cell,) = client.wait(client.send(code, stop_on_error=False), timeout_s=timeout_s)
    assert cell.status == "error", (code, cell)
    assert (cell.replies, cell.idles) == (1, 1)
    assert len(cell.error.splitlines()) == 1, cell.error
    return cell.error


def names(stage: Stage) -> list[str]:
    return [entry["name"] for entry in nbcr(stage, "list")]


def helpers() -> list[int]:
    """The helpers that run: they have no parent but us, the tests, who adopt all orphans."""
    found = []
    for pid in children_of(os.getpid()):
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"nbcr.helper" in words:
            found.append(pid)
    return found


def has_open(pid: int, beginning: str) -> bool:
    """Whether a process has a file open whose name begins so."""
    found = []
    for link in Path(f"/proc/{pid}/fd").glob("*"):
        with contextlib.suppress(OSError):
            found.append(link.readlink().name)
    return any(name.startswith(beginning) for name in found)


def _keeps_pids(pid: int) -> bool:
    """Whether it is the first process of a pid namespace in which a restored tree lives: it ends with the tree."""
    folder = Path(f"/proc/{pid}")
    try:
        named = (folder / "comm").read_text() == "nbcr-init\n"
        return named and bool((folder / "task" / str(pid) / "children").read_text())
    except OSError:
        return False


def living_strays(stage: Stage) -> list[str]:
    """Processes that a fault left behind; a helper that waits for the next order is none, nor the keeper of pids."""
    pids = {pid for pid in set(stage.processes.strays()) - set(helpers()) if not _keeps_pids(pid)}
    lines = [describe_process(pid) for pid in sorted(pids)]
    return [line for line in lines if "[Z]" not in line and "(gone)" not in line]


def left_over(store: Path) -> list[str]:
    """What a store holds besides its entries, and logs of helpers that had something to say."""
    drafts = [path.name for path in (store / "entries").glob(".*")]
    return drafts + [path.name for path in (store / "log").glob("*") if path.stat().st_size]


def assert_nothing_left(client: Client, store: Path) -> None:
    """Nothing but entries in the store, once whoever is at it has ended."""
    client.listen(lambda: not left_over(store), SETTLE_S)
    assert left_over(store) == []


def flip_a_bit(file: Path, rng: random.Random) -> None:
    with file.open("r+b") as data:
        at = rng.randrange(file.stat().st_size)
        data.seek(at)
        old = data.read(1)[0]
        data.seek(at)
        data.write(bytes([old ^ (1 << rng.randrange(8))]))


def cut_short(file: Path, rng: random.Random) -> None:
    os.truncate(file, rng.randrange(file.stat().st_size))


_MOUNT = 'mount -t tmpfs -o mode=0700,size="$1" nbcr-small "$2" && shift 2 && exec "$@"'


def on_a_small_disk(stage: Stage, place: Path, size: str) -> Stage:
    """A stage whose processes see a small file system of their own at `place`: as much as a full disk can be real."""
    place.mkdir()
    stage.user.give(place)
    if stage.user.uid == 0:
        enter = ["unshare", "--mount", "--propagation", "private"]
        leave: list[str] = []
    else:
        enter = ["unshare", "--map-current-user", "--mount", "--keep-caps"]
        leave = ["setpriv", "--ambient-caps=-all", "--inh-caps=-all"]
    prefix = (*stage.user.prefix, *enter, "sh", "-c", _MOUNT, "sh", size, str(place), *leave)
    probe = subprocess.run([*prefix, "true"], capture_output=True, text=True, env=stage.environ)
    needs("a mount namespace of one's own", available=probe.returncode == 0, why=probe.stderr.strip())
    small = Stage(replace(stage.user, prefix=prefix), stage.folder, stage.processes)
    small.environ = {**stage.environ, "NBCR_STORE": str(place)}
    return small
