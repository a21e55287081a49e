"""Threads that begin, wait, work and end without a pause; what they did has to add up, whenever the life is restored.

Thousands of them live in a generation, and always some that were born in an earlier one.
"""

import os
import queue
import random
import threading
from collections.abc import Callable

import subject

Job = tuple[int, "queue.Queue[int]"]


class Worker:
    """A thread that adds up what it is given, from where another one ended."""

    def __init__(self, begins_at: int) -> None:
        self.jobs: queue.Queue[int | None] = queue.Queue()
        self.total = begins_at
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        while (number := self.jobs.get()) is not None:
            self.total += number

    def end(self) -> int:
        self.jobs.put(None)
        self.thread.join(20)
        subject.expect(not self.thread.is_alive(), "a thread does not end")
        return self.total


def live(go_on: Callable[[], bool]) -> None:
    rng = random.Random(1)
    workers = [Worker(0)]
    given, taken = 0, 0
    while go_on():
        number = rng.randrange(1000)
        rng.choice(workers).jobs.put(number)
        given += number
        if rng.random() < 0.2:
            workers.append(Worker(0))
        if len(workers) > 8:
            taken += workers.pop(rng.randrange(len(workers))).end()
    taken += sum(worker.end() for worker in workers)
    subject.expect(given == taken, f"{given} was given, {taken} was added up")
    subject.expect(threading.active_count() == 1, "threads are left")


def body() -> None:
    subject.announce("ready")
    live(lambda: not os.access(subject.path("go"), os.F_OK))


subject.main(body)
