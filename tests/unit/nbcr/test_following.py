"""Whoever waits at a terminal sees how far a checkpoint is; nobody else is told."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

CODE = """
import sys, threading
from nbcr import following
from nbcr.store import Store
store = Store(sys.argv[1])
draft = store.draft("slow")
(draft.path / "part").write_bytes(bytes(3 << 20))
with following.shown(store):
    threading.Event().wait(float(sys.argv[2]))
store.discard(draft)
"""


def test_a_terminal_shows_what_is_being_written(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    program = subprocess.Popen([sys.executable, "-c", CODE, str(tmp_path / "store"), "4"], stderr=theirs)
    os.close(theirs)
    said = b""
    while True:
        try:
            said += os.read(ours, 4096)
        except OSError:  # nobody has it open any more
            break
    os.close(ours)
    assert program.wait(60) == 0
    assert b"writing slow: 3.0 MiB, " in said or b"writing slow: 3 MiB" in said, said
    assert said.endswith(b"\r\x1b[K"), said


def test_nobody_else_is_told(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CODE, str(tmp_path / "store"), "0.1"], capture_output=True, timeout=60, check=True
    )
    assert (done.stdout, done.stderr) == (b"", b"")
