"""Shared memory of MPI's that ranks leave behind when they are killed: MPICH removes the names of its segments once all
ranks of a host have them, a few milliseconds after it has made them.

What belonged to whom cannot be told from a name. What is taken away is our user's, was made since the job began, and no
living process has it open or mapped: whoever makes such a segment holds it from the first moment on.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path

FOLDER = Path("/dev/shm")
_NAMES = ("mpich_shm_", "ucx_shm_posix_")


def remove(since_s: float) -> list[str]:
    """Remove what is left of segments that were made after `since_s` (seconds of the epoch); their names."""
    found = {}
    with contextlib.suppress(OSError):
        for entry in os.scandir(FOLDER):
            if entry.name.startswith(_NAMES):
                with contextlib.suppress(OSError):
                    status = entry.stat(follow_symlinks=False)
                    if status.st_uid == os.geteuid() and status.st_mtime >= since_s:
                        found[status.st_ino] = entry.name
    if not found:
        return []
    for inode in _held():
        found.pop(inode, None)
    for name in found.values():
        (FOLDER / name).unlink(missing_ok=True)
    return sorted(found.values())


def _held() -> Iterable[int]:
    """Inodes of everything below /dev/shm that processes have open or mapped."""
    for process in (path for path in Path("/proc").iterdir() if path.name.isdecimal()):
        with contextlib.suppress(OSError):  # it has just ended, or is another user's
            for line in (process / "maps").read_text(errors="replace").splitlines():
                if f" {FOLDER}/" in line:
                    yield int(line.split()[4])
            for descriptor in (process / "fd").iterdir():
                with contextlib.suppress(OSError):
                    if str(descriptor.readlink()).startswith(f"{FOLDER}/"):
                        yield descriptor.stat().st_ino
