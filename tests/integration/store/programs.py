"""Programs that checkpoint themselves, for tests of the store with the real engine."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from nbcr.store import Entry, Store, entry
from tests.support import CHECKOUT

BOUND_S = 120.0

# Checkpoints itself COUNT times and changes one percent of its pages between them. A restored life proves its memory.
CHANGING = """
import hashlib, os, random, sys
import nbcr
count, megabytes = int(sys.argv[1]), int(sys.argv[2])
chance = random.Random(1)
memory = bytearray(chance.randbytes(megabytes << 20))
for number in range(count):
    digest = hashlib.sha256(memory).hexdigest()
    result = nbcr.checkpoint(f"c{number}", wait=True)
    if result.outcome is nbcr.Outcome.RESTART:
        os._exit(10 + number if hashlib.sha256(memory).hexdigest() == digest else 1)
    for page in chance.sample(range(len(memory) // 4096), len(memory) // 409600):
        memory[page * 4096 + chance.randrange(4096)] ^= 1 + chance.randrange(255)
print("done", flush=True)
sys.stdin.read()
"""


def environ(store: Store, extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """For a program that uses `store`; in the background is packed what `extra` and its settings do not forbid."""
    ours = {name: value for name, value in os.environ.items() if name != "NBCR_PACK"}
    return {**ours, "NBCR_STORE": str(store.root), **(extra or {})}


def changing(store: Store, count: int, megabytes: int, **extra: str) -> subprocess.Popen[str]:
    """A running program that took its checkpoints and waits for the end of its input."""
    words = [sys.executable, "-c", CHANGING, str(count), str(megabytes)]
    pipe = subprocess.PIPE
    started = subprocess.Popen(words, stdin=pipe, stdout=pipe, text=True, cwd=CHECKOUT, env=environ(store, extra))
    assert started.stdout is not None
    assert started.stdout.readline() == "done\n"
    return started


def cli(store: Store, *words: str, status: int | None = 0) -> subprocess.CompletedProcess[str]:
    """The command `nbcr`; nothing is packed in the background."""
    done = subprocess.run(
        [sys.executable, "-m", "nbcr.cli", *words], cwd=CHECKOUT, env=environ(store, {"NBCR_PACK": "never"}),
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=BOUND_S, check=False,
    )  # fmt: skip
    assert status is None or done.returncode == status, done.stderr
    return done


def wait_until(true: Callable[[], bool], what: str) -> None:
    """Wait for something that another process does and tells nobody."""
    deadline = time.monotonic() + BOUND_S
    while not true():
        assert time.monotonic() < deadline, f"{what} did not come about within {BOUND_S:g} s"
        time.sleep(0.02)


def is_packed(found: Entry) -> bool:
    return entry.packed_parts(found.path) == ["image"]


def disk_bytes(root: Path) -> int:
    return sum(path.lstat().st_blocks * 512 for path in root.rglob("*"))
