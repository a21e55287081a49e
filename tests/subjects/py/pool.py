"""A multiprocessing pool by fork (argv[2]: spawn or forkserver), with a queue, a lock and shared values."""

import multiprocessing as mp
import os
import sys

import subject


def square(number: int) -> tuple[int, int]:
    return number * number, os.getpid()


def child(tasks: "mp.Queue[int]", results: "mp.Queue[int]", value: object) -> None:
    total = 0
    while (number := tasks.get()) >= 0:
        total += number
        with value.get_lock():  # type: ignore[attr-defined]
            value.value += number  # type: ignore[attr-defined]
    results.put(total)


def body() -> None:
    context = mp.get_context(sys.argv[2] if len(sys.argv) > 2 else "fork")
    pool = context.Pool(3)
    tasks, results, value = context.Queue(), context.Queue(), context.Value("i", 0)
    process = context.Process(target=child, args=(tasks, results, value))
    process.start()
    tasks.put(5)
    before = pool.map(square, range(20))
    pids = {pid for _, pid in before}
    while value.value != 5:
        pass
    subject.wait()
    after = pool.map(square, range(50))
    subject.expect([n for n, _ in after] == [n * n for n in range(50)], "the pool's results")
    subject.expect({pid for _, pid in after} <= pids | {p.pid for p in pool._pool}, "the workers are others")
    tasks.put(7)
    tasks.put(-1)
    subject.expect(results.get(timeout=20) == 12, "the child's total")
    process.join(20)
    subject.expect(process.exitcode == 0, f"the child's exit code is {process.exitcode}")
    subject.expect(value.value == 12, f"the shared value is {value.value}")
    pool.close()
    pool.join()


if __name__ == "__main__":
    subject.main(body)
