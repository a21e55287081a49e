"""Forked children and the pid of their parent."""

from __future__ import annotations

import subprocess
import sys

ORPHANED = """
import os, time
import nbcr.handlers
out, into = os.pipe()
if os.fork() == 0:
    if os.fork() == 0:
        parent, until = os.getppid(), time.monotonic() + 20
        os.write(into, b"1")
        while os.getppid() == parent and time.monotonic() < until:
            time.sleep(0.01)
        os.write(into, b"gone" if os.getppid() != parent else b"still")
        os._exit(0)
    time.sleep(0.5)
    os._exit(0)
os.wait()
os.close(into)
text = b""
while part := os.read(out, 10):
    text += part
print(text.decode())
"""


def test_a_parent_that_ended_is_not_taken_for_a_restored_one() -> None:
    done = subprocess.run([sys.executable, "-c", ORPHANED], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "1gone\n"
