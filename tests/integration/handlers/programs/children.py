"""Children of all kinds, waited for in each life: children.py LOG.

They are asked something, and then told to end, through the objects that were there when the image was taken.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor

import psutil

import nbcr

LOG = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND)


def say(**facts):
    os.write(LOG, (json.dumps(facts) + "\n").encode())


def square(n):
    return n * n


def wait(event):
    event.wait()
    sys.exit(7)


me = psutil.Process()
context = multiprocessing.get_context("fork")
cat = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
zeromq = [sys.executable, "-c", "import zmq; print(zmq.Context(), flush=True); input()"]
silent = subprocess.Popen(zeromq, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
assert "Context" in silent.stdout.readline()
before = silent.pid
known = psutil.Process(cat.pid)
pool = context.Pool(2)
event = context.Event()
process = context.Process(target=wait, args=(event,))
process.start()
executor = ProcessPoolExecutor(2, mp_context=context)
assert list(executor.map(square, [1, 2])) == [1, 4]

result = nbcr.checkpoint("here")
if result.outcome is nbcr.Outcome.CONTINUE:
    result.wait(60)
    say(ready=os.getpid())
    if sys.argv[2] == "in-place":
        nbcr.restart("here")
    while True:
        sys.stdin.read()
        __import__("time").sleep(60)

warned = any(f"process {before} " in each and "ZeroMQ" in each for each in result.warnings)
assert warned == (silent.pid != before), result.warnings
silent.communicate("\n", 30)
found = known.is_running() and known.pid == cat.pid and me.is_running() and me.pid == os.getpid()
cat.stdin.write("hello\n")
assert cat.stdout.readline() == "hello\n"
cat.stdin.close()
event.set()
process.join(30)
alive = process.is_alive()
mapped = pool.map(square, [3, 4])
pool.close()
pool.join()
computed = list(executor.map(square, [5]))
executor.shutdown()
say(found=found, cat=cat.wait(30), process=process.exitcode, alive=alive, mapped=mapped, computed=computed)
