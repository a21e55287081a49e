"""The bug of seed 004: an upper layer closes a descriptor number that a lower layer has re-used after a restart.

stale.py LOG PHASE: the upper layer closes in PHASE, "restart" or "restart_pre".
"""

from __future__ import annotations

import contextlib
import json
import os
import sys

import nbcr

LOG = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND)
PHASE = sys.argv[2]


def say(**facts):
    os.write(LOG, (json.dumps(facts) + "\n").encode())


class Upper(nbcr.Handler):
    """Has a connection that no image can hold, and clears up behind it in a restored life."""

    layer = nbcr.Layer.MPI

    def __init__(self):
        self.number = os.open("/dev/zero", os.O_RDONLY)

    def checkpoint(self, request):
        os.close(self.number)

    def continue_(self):
        self.number = os.open("/dev/zero", os.O_RDONLY)

    def close_stale(self, event):
        with contextlib.suppress(OSError):
            os.close(self.number)


setattr(Upper, PHASE, Upper.close_stale)


class Lower(nbcr.Handler):
    """Opens its wire again when it restarts, and gets the lowest free number, as always."""

    layer = nbcr.Layer.TRANSPORT

    def __init__(self):
        self.number = os.open("/dev/null", os.O_WRONLY)

    def checkpoint(self, request):
        os.close(self.number)
        self.number = -1

    def continue_(self):
        self.number = os.open("/dev/null", os.O_WRONLY)

    def restart(self, event):
        self.number = os.open("/dev/null", os.O_WRONLY)


upper, lower = Upper(), Lower()
nbcr.on_checkpoint(lower)  # before nbcr's own listener, which opens its socket again in the same layer
nbcr.on_checkpoint(upper)
result = nbcr.checkpoint("here")
if result.outcome is nbcr.Outcome.CONTINUE:
    result.wait(60)
    nbcr.restart("here")
try:
    usable = os.fstat(lower.number).st_rdev == os.stat("/dev/null").st_rdev  # and not another one of that number
except OSError:
    usable = False
say(lower_is_usable=usable, same_number=lower.number == upper.number)
