"""The packer: packs a store's images in the background. ``python -m nbcr.packer STORE PATH…``

What a helper becomes when its checkpoint is published (`instead_of_us`), or what a command starts
(`session.spawning.start_packer`): never a child of the user's process, never in its way. It runs at the lowest
priority, ends when there is nothing left to do, and at once where another packer is at work in the same store. It may
be killed at any time: the next one goes on where it was.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from nbcr.store import Entry, Store

_NICE = 19
_LOG = "packer.log"
_LOOK_S = 0.05


def command(root: Path, paths: Sequence[str]) -> list[str]:
    """The command line of a packer for the store at `root` that imports from `paths`, as helpers do."""
    return [sys.executable, "-S", "-P", "-m", "nbcr.packer", str(root), *paths]


def instead_of_us(root: Path, paths: Sequence[str]) -> NoReturn:
    """Become a packer. Raises OSError."""
    words = command(root, paths)
    os.execv(words[0], words)


def main() -> None:
    """Pack all there is to pack in the store that the command line names."""
    sys.path += [path for path in sys.argv[2:] if path not in sys.path]
    _detach()
    from nbcr.store import Store

    pack(Store(sys.argv[1]))


def _detach() -> None:
    """Leave the session of whoever started us, its descriptors and its claims to processor and disk."""
    import psutil

    with contextlib.suppress(OSError):  # we lead a session already
        os.setsid()
    os.umask(0o077)
    os.chdir("/")
    os.closerange(3, 1 << 16)
    null = os.open(os.devnull, os.O_RDWR)
    for stream in range(3):
        os.dup2(null, stream)
    os.nice(_NICE)
    with contextlib.suppress(OSError, psutil.Error):
        psutil.Process().ionice(psutil.IOPRIO_CLASS_IDLE)


def pack(store: Store) -> None:
    """Pack, drop and collect; what could not be done is in the store's log folder until the next time."""
    from nbcr.errors import NbcrError
    from nbcr.store import housekeeping

    threads = max(1, len(os.sched_getaffinity(0)) // 2)
    try:
        failures = housekeeping.keep(store, layout=layout, threads=threads, pulse=Courtesy(store).make_way)
    except NbcrError as error:  # the store is gone, refused, full
        failures = [error]
    with contextlib.suppress(OSError, NbcrError):
        if store.root.is_dir():
            log = store.log_folder() / _LOG
            log.unlink(missing_ok=True)
            if failures:
                log.write_text("".join(f"{failure.line()}\n" for failure in failures), encoding="utf-8")


class Courtesy:
    """Lets checkpoints go first: the lowest priority is not low enough, the disk and its cache are shared.

    It takes `patience_s` and half of the time at most: in a store that is always written to, packing must come to an
    end, too.
    """

    def __init__(self, store: Store, patience_s: float = 60.0) -> None:
        self._store = store
        self._patience_s = patience_s
        self._began = time.monotonic()
        self._waited_s = 0.0

    def make_way(self) -> None:
        """Wait while a checkpoint is being written."""
        arrived = time.monotonic()
        worked_s = arrived - self._began - self._waited_s
        until = arrived + self._patience_s + worked_s - self._waited_s
        while time.monotonic() < until and self._store.is_written():
            time.sleep(_LOOK_S)
        self._waited_s += time.monotonic() - arrived


def layout(entry: Entry, folder: Path) -> Mapping[str, Sequence[tuple[int, int, int]]]:
    """Where the bytes of an image belong, as its component says; nothing where there is no such component here."""
    from nbcr import crs

    if folder.name != "image":
        return {}
    try:
        component = crs.maker_of(entry.name, entry.component.get("name"))
        return component.layout(crs.SnapshotReference(component.name, entry.id, folder))
    except Exception:  # a third party's, or a damaged image: then it is cut by offsets
        return {}


if __name__ == "__main__":
    main()
