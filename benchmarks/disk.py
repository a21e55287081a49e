"""dd: what the disk does with the same bytes in the same minute."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

BLOCK = 4 << 20


def settle() -> None:
    """Let what others wrote reach the disk first, or it counts against whoever syncs next."""
    os.sync()


def zeros(folder: Path, size: int, *, sync: bool) -> float:
    """Seconds for `size` bytes of /dev/zero."""
    return _dd("/dev/zero", folder, [f"count={size}", "iflag=count_bytes"], sync=sync)


def copy(folder: Path, source: Path, *, sync: bool) -> float:
    """Seconds for the bytes of a file that is in the page cache."""
    return _dd(str(source), folder, [], sync=sync)


def _dd(source: str, folder: Path, extra: list[str], *, sync: bool) -> float:
    settle()
    target = folder / "dd.out"
    words = ["dd", f"if={source}", f"of={target}", f"bs={BLOCK}", *extra, *(["conv=fsync"] if sync else [])]
    begun = time.perf_counter()
    try:
        subprocess.run(words, check=True, stdin=subprocess.DEVNULL, capture_output=True)
        return time.perf_counter() - begun
    finally:
        target.unlink(missing_ok=True)
