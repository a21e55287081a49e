"""Thousands of requests by signal while the main thread is always inside malloc or logging: signals.py LOG REQUESTS.

Each request sends all handlers down and up again, those of the signal context in the main thread, but takes no image:
what is tried here is what comes before it.
"""

from __future__ import annotations

import ctypes
import json
import logging
import os
import signal
import sys
import threading

import nbcr
from nbcr.handlers import Deadline, Request, registry
from nbcr.handlers.contexts import ProcessPlaces, checkpoint_thread
from nbcr.handlers.sections import all_left
from nbcr.handlers.signals import RequestSignal

LOG = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND)
REQUESTS = int(sys.argv[2])

logging.basicConfig(filename=os.devnull, level=logging.INFO)
libc = ctypes.PyDLL(None)  # holds the interpreter's lock: the signal comes in the middle of malloc
libc.malloc.restype = ctypes.c_void_p
libc.free.argtypes = [ctypes.c_void_p]
served = threading.Semaphore(0)
count = 0


@nbcr.on_checkpoint(context="signal")
def in_main():
    logging.info("down in %s", threading.current_thread().name)
    blocks = [bytes(n) for n in (10, 1000, 100_000)]
    yield
    blocks.clear()


@nbcr.on_checkpoint
def in_thread():
    logging.info("down in %s", threading.current_thread().name)
    yield
    logging.info("up in %s", threading.current_thread().name)


def asked():
    threading.Thread(target=answer, daemon=True).start()


def answer():
    global count
    deadline = Deadline(30)
    with all_left(deadline, lambda holders: None):
        passage = registry.enter(Request(origin="signal"), places=ProcessPlaces(), deadline=deadline)
        problems = passage.continue_()
    if problems:
        os.write(2, f"{problems[0]}\n".encode())
        os._exit(1)
    count += 1
    served.release()


RequestSignal(signal.SIGUSR2, checkpoint_thread, asked).install()
checkpoint_thread.start()


def send():
    for _ in range(REQUESTS):
        os.kill(os.getpid(), signal.SIGUSR2)
        if not served.acquire(timeout=60):
            os.write(2, b"a request was not answered\n")
            import faulthandler

            faulthandler.dump_traceback(all_threads=True)
            os._exit(2)


sender = threading.Thread(target=send)
sender.start()
logged = 0
while sender.is_alive():
    for size in (8, 500, 70_000):
        libc.free(libc.malloc(size))
    with nbcr.critical_section("log"):
        logging.info("%d", logged)
    logged += 1
os.write(LOG, (json.dumps({"served": count, "logged": logged}) + "\n").encode())
