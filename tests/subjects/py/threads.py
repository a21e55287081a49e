"""Threads with conditions, events, queues, timers; new threads; a pool; the switch between them goes on."""

import queue
import threading
from concurrent.futures import ThreadPoolExecutor

import subject


def body() -> None:
    tasks: queue.Queue[int] = queue.Queue()
    results: queue.Queue[int] = queue.Queue()
    event, counting, ticks = threading.Event(), threading.Event(), [0]
    local = threading.local()
    local.value = "main"

    def work(number: int) -> None:
        local.value = number
        while (task := tasks.get()) >= 0:
            results.put(task * task)
        subject.expect(local.value == number, "a thread's local value")
        event.wait()

    def count() -> None:
        while not counting.wait(0.001):
            ticks[0] += 1

    workers = [threading.Thread(target=work, args=(i,), name=f"worker {i}") for i in range(4)]
    counter = threading.Thread(target=count)
    pool = ThreadPoolExecutor(2)
    late = pool.submit(lambda: event.wait(600))
    for thread in [*workers, counter]:
        thread.start()
    for number in range(10):
        tasks.put(number)
    before = sorted(results.get(timeout=10) for _ in range(10))
    subject.expect(before == [n * n for n in range(10)], "setting up")
    subject.wait()
    at = ticks[0]
    for number in range(100):
        tasks.put(number)
    after = sorted(results.get(timeout=10) for _ in range(100))
    subject.expect(after == [n * n for n in range(100)], "the workers' results differ")
    subject.expect(local.value == "main", "the main thread's local value")
    subject.expect([t.name for t in workers] == [f"worker {i}" for i in range(4)], "the names")
    event.set()
    subject.expect(late.result(10) is True, "the pool's task")
    for _ in workers:
        tasks.put(-1)
    while ticks[0] == at:
        pass
    counting.set()
    for thread in [*workers, counter]:
        thread.join(10)
        subject.expect(not thread.is_alive(), f"{thread.name} does not end")
    fresh = threading.Thread(target=lambda: results.put(1))
    fresh.start()
    fresh.join()
    subject.expect(results.get_nowait() == 1, "a new thread does nothing")
    pool.shutdown()


subject.main(body)
