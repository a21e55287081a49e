"""Marks of writers: who may be using packs that no recipe names yet (FORMAT.md, "Packing", "Collecting garbage")."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from nbcr.store import files, owners

_UNTOLD_AFTER_S = 24 * 3600.0  # a mark on another host that was not touched for so long is a dead writer's
_SUFFIX = ".json"


class Mark:
    """Our mark, while we write."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def writer_id(self) -> str:
        """What temporary packs of ours are called after."""
        return self.path.stem

    def touch(self) -> None:
        """Say that we are still at it; somebody who took us for dead has our packs looked for again at the end."""
        with contextlib.suppress(FileNotFoundError):
            owners.touch(self.path)


def folder_of(root: Path) -> Path:
    """Where the marks are."""
    return root / "writers"


@contextlib.contextmanager
def marked(root: Path, doing: str) -> Iterator[Mark]:
    """Be a writer: nothing that is there now, or that we write, is deleted before we are through."""
    folder = folder_of(root)
    folder.mkdir(mode=0o700, exist_ok=True)
    mark = Mark(folder / f"{os.getpid()}-{files.random_suffix()}{_SUFFIX}")
    files.write_new(mark.path, [owners.encoded(doing)], durable=False)  # a power cut ends us too
    try:
        yield mark
    finally:
        mark.path.unlink(missing_ok=True)


def alive(root: Path) -> set[str]:
    """The writers at work, seen freshly; marks of dead ones are removed."""
    folder = folder_of(root)
    found, seen = set(), files.look(folder)
    for name in seen:
        path = folder / name
        if not name.endswith(_SUFFIX) or name.startswith("."):
            _remove_old_draft(path, seen.now_s)
        elif owners.is_dead(path, untold_after_s=_UNTOLD_AFTER_S, now_s=seen.now_s):
            path.unlink(missing_ok=True)
        else:
            found.add(path.stem)
    return found


def _remove_old_draft(path: Path, now_s: float) -> None:
    with contextlib.suppress(FileNotFoundError):
        if path.name.startswith(".") and now_s - path.stat().st_mtime > _UNTOLD_AFTER_S:
            path.unlink()
