"""Children of all kinds, waited for in each life: children.py LOG.

They are asked something, and then told to end, through the objects that were there when the image was taken.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

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


def waiting():
    """How many of our threads wait for a child (wait4) in the OS kernel."""
    tasks = [f"/proc/self/task/{tid}/syscall" for tid in os.listdir("/proc/self/task")]
    return sum(Path(task).read_text().startswith("61 ") for task in tasks)


async def end_of(child):
    child.stdin.close()
    return await child.wait()


# Those that are waited for already: by a thread of ours, and by one of asyncio's, or by its pidfd
child = ["sh", "-c", "read line; exit 5"]
waited = subprocess.Popen(child, stdin=subprocess.PIPE)
statuses = []
waiter = threading.Thread(target=lambda: statuses.append(waited.wait()))
waiter.start()
loop = asyncio.new_event_loop()
awaited = loop.run_until_complete(asyncio.create_subprocess_exec(*child, stdin=subprocess.PIPE))
while waiting() < (2 if sys.version_info < (3, 12) else 1):
    time.sleep(0.001)

result = nbcr.checkpoint("here")
if result.outcome is nbcr.Outcome.CONTINUE:
    result.wait(60)
    say(ready=os.getpid())
    if sys.argv[2] == "in-place":
        nbcr.restart("here")
    while True:
        sys.stdin.read()
        time.sleep(60)

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
waited.stdin.close()
waiter.join(30)
found = found and psutil.Process(awaited.pid).ppid() == os.getpid()
statuses.append(loop.run_until_complete(end_of(awaited)))
say(
    found=found, cat=cat.wait(30), process=process.exitcode, alive=alive, mapped=mapped, computed=computed,
    statuses=statuses,
)  # fmt: skip
