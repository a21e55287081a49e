"""Three layers, two contexts, four busy threads: checkpoints at random moments, every second one restarted from.

Notes every step of every handler in a file outside the image: orders.py LOG COUNT SEED.
"""

from __future__ import annotations

import json
import logging
import os
import queue
import random
import sys
import threading
import time

import nbcr
from nbcr import session

LOG = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND)
COUNT, SEED = int(sys.argv[2]), int(sys.argv[3])
TOTAL = 1000

accounts = [TOTAL // 4] * 4
lock = threading.Lock()
under_way = 0
stop = threading.Event()


def say(**facts):
    os.write(LOG, (json.dumps(facts) + "\n").encode())


def note(who, state):
    say(who=who, state=state, thread=threading.current_thread().name, whole=sum(accounts) == TOTAL and not under_way)


def transfer(n):
    """Money is under way for a moment, under a lock and in a critical section."""
    global under_way
    rng = random.Random(n)
    while not stop.is_set():
        with nbcr.critical_section(f"transfer {n}"), lock:
            amount = rng.randrange(20)
            accounts[n] -= amount
            under_way += amount
            sum(range(rng.randrange(500)))
            accounts[(n + rng.randrange(4)) % 4] += amount
            under_way -= amount
        if rng.random() < 0.05:
            time.sleep(0.001)


class Noting(nbcr.Handler):
    def __init__(self, who, layer, context):
        self.who, self.layer, self.context = who, layer, context

    def checkpoint(self, request):
        note(self.who, "CHECKPOINT")

    def continue_(self):
        note(self.who, "CONTINUE")

    def restart_pre(self, event):
        note(self.who, "RESTART_PRE")

    def restart(self, event):
        note(self.who, "RESTART")

    def aborted(self):
        note(self.who, "ABORTED")


def spanning(who):
    def span(request):
        note(who, "CHECKPOINT")
        outcome = yield
        note(who, outcome.value)

    return span


for layer in nbcr.Layer:
    if layer is nbcr.Layer.JUPYTER:
        continue
    for context in ("signal", "thread"):
        nbcr.on_checkpoint(Noting(f"{layer.name}-{context}-1", layer, context))
        nbcr.on_checkpoint(spanning(f"{layer.name}-{context}-2"), layer=layer, context=context)
        nbcr.on_checkpoint(Noting(f"{layer.name}-{context}-3", layer, context))

wishes: queue.Queue = queue.Queue()  # for the main thread
answers: queue.Queue = queue.Queue()


def ask(n):
    say(begin=n)
    result = nbcr.checkpoint(f"c{n}", force=True)
    say(end=n, outcome=result.outcome.value, whole=sum(accounts) == TOTAL or lock.locked())
    return result


def drive():
    rng = random.Random(SEED)
    for n in range(COUNT):
        time.sleep(rng.uniform(0, 0.03))
        in_main = rng.random() < 0.5
        if in_main:
            wishes.put(n)
            result = answers.get()
        else:
            result = ask(n)
        if result.outcome is nbcr.Outcome.CONTINUE:
            result.wait(60)
            if n % 2:
                say(restart=n)
                nbcr.restart(f"c{n}")
        session.remove(f"c{n}")
    stop.set()
    wishes.put(None)


threads = [threading.Thread(target=transfer, args=(n,)) for n in range(4)]
threads.append(threading.Thread(target=drive))
for thread in threads:
    thread.start()

# The main thread waits in various ways: a lock, a sleep, a computation, logging.
logging.basicConfig(filename=os.devnull, level=logging.INFO)
chance = random.Random(SEED + 1)
while True:
    try:
        wish = wishes.get(timeout=chance.choice((0, 0.001, 0.02)))
        if wish is None:
            break
        answers.put(ask(wish))
    except queue.Empty:
        pass
    with lock:
        logging.info("total %d", sum(accounts))
    if chance.random() < 0.2:
        time.sleep(0.002)

for thread in threads:
    thread.join()
say(finished=sum(accounts))
