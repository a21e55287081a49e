"""Takes a checkpoint whenever it is sent a signal, and says when one is published: asked.py LOG SIGNAL."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time

import nbcr

LOG = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND)


def say(**facts):
    os.write(LOG, (json.dumps(facts) + "\n").encode())


@nbcr.on_checkpoint
def noting():
    outcome = yield
    say(outcome=outcome.value)


def watch():
    known = 0
    while True:
        if len(nbcr.checkpoints()) > known:
            known += 1
            say(published=known)
        time.sleep(0.01)


nbcr.request_on_signal(signal.Signals[sys.argv[2]])
threading.Thread(target=watch, daemon=True).start()
say(ready=os.getpid())
while True:
    time.sleep(60)
