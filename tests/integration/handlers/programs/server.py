"""A program with handlers, asked from outside: server.py LOG BEHAVIOUR.

holds    is in a critical section until the file "leave" exists
raises   its handler raises in CHECKPOINT          late   its handler does not come back
breaks   two handlers fail in RESTART, another one does not
fork     a child has the same handlers, and is asked itself
deaf     is in a call that holds the interpreter's lock until the file "leave" exists
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
import threading
import time
from pathlib import Path

import nbcr

LOG = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND)
BEHAVIOUR = sys.argv[2]


def say(**facts):
    os.write(LOG, (json.dumps(facts) + "\n").encode())


class Noting(nbcr.Handler):
    def checkpoint(self, request):
        say(told="CHECKPOINT", origin=request.origin, pid=os.getpid())

    def continue_(self):
        say(told="CONTINUE", pid=os.getpid())

    def restart(self, event):
        say(told="RESTART", in_place=event.in_place)

    def aborted(self):
        say(told="ABORTED")


class Breaks(nbcr.Handler):
    layer = nbcr.Layer.MPI

    def checkpoint(self, request):
        if BEHAVIOUR == "raises":
            raise RuntimeError("the pool is not ready")
        if BEHAVIOUR == "late":
            threading.Event().wait()

    def restart(self, event):
        if BEHAVIOUR == "breaks":
            raise ConnectionError("nobody answers")


class BreaksToo(Breaks):
    def restart_pre(self, event):
        if BEHAVIOUR == "breaks":
            raise OSError("it was closed")


nbcr.on_checkpoint(Noting())
nbcr.on_checkpoint(Breaks())
nbcr.on_checkpoint(BreaksToo())
if BEHAVIOUR == "fork":
    child = os.fork()
    if child == 0:
        nbcr.on_checkpoint(Noting())
        say(child=os.getpid())
        while True:
            time.sleep(60)


def hold():
    with nbcr.critical_section("db commit"):
        say(inside=True)
        while not Path("leave").exists():
            time.sleep(0.01)


if BEHAVIOUR == "holds":
    threading.Thread(target=hold, name="committer", daemon=True).start()
say(ready=os.getpid())
if BEHAVIOUR == "deaf":
    os.mkfifo("leave")
    say(deaf=True)
    ctypes.PyDLL(None).open(b"leave", os.O_RDONLY)  # waits for somebody who opens it to write
while True:
    time.sleep(60)
