"""Folders that had been removed while somebody was in them or had them open: made again, and removed again.

Who shared one shares one again. It stands where the old one stood if it can, so that `..` leads to the same place, and
stays until all who are to be in it are.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kernel_backend.resources.descriptors import RebuildTables

_USUAL_MODE = 0o700


def path_of(identity: tuple[int, int], stood_at: str, tables: RebuildTables, mode: int = _USUAL_MODE) -> str:
    """Where the folder with this (device, inode) is for the moment. Raises OSError."""
    made = _made(tables)
    if identity not in made:
        made[identity] = _make(Path(stood_at), tables)
    if mode != _USUAL_MODE:
        made[identity].chmod(mode)
    return str(made[identity])


def _make(path: Path, tables: RebuildTables) -> Path:
    try:
        path.mkdir(_USUAL_MODE)
    except OSError:
        parent = path.parent if os.access(path.parent, os.W_OK | os.X_OK, effective_ids=True) else None
        path = Path(tempfile.mkdtemp(prefix=".nbcr-removed-", dir=parent))
    tables.guardian.tell("empty folder", str(path))
    return path


def remove(tables: RebuildTables) -> None:
    """Remove them, before any process can see that they are there."""
    made = _made(tables)
    while made:
        _, path = made.popitem()
        path.rmdir()


@contextmanager
def of_one_who_dies() -> Iterator[int]:
    """Our descriptor of what /proc shows of a child of ours, which ends behind the block, as it does when we end."""
    ready, go = os.pipe2(os.O_CLOEXEC)
    child = os.fork()
    if child == 0:
        os.close(go)
        os.read(ready, 1)
        os._exit(0)
    try:
        folder = os.open(f"/proc/{child}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            yield folder
        finally:
            os.close(folder)
    finally:
        os.close(go)
        os.close(ready)
        os.waitpid(child, 0)


def _made(tables: RebuildTables) -> dict[tuple[int, int], Path]:
    found: dict[tuple[int, int], Path] = tables.cache.setdefault("removed folders", {})
    return found
