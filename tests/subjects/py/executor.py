"""A pool of processes of concurrent.futures (argv[2]: of joblib's loky) with work done, under way and waiting."""

import os
import sys
import time
from concurrent.futures import Executor, ProcessPoolExecutor

import subject

LOKY = sys.argv[2:] == ["loky"]
if LOKY:
    try:
        from joblib.externals.loky import get_reusable_executor
    except ImportError:
        subject.skipped("joblib")

WORKERS, TASKS = 2, 6


def work(number: int, go: str) -> tuple[int, int]:
    """Takes until the subject may go on, so that some of it is always under way."""
    while number and not os.access(go, os.F_OK):
        time.sleep(0.002)
    return number * number, os.getpid()


def executor() -> Executor:
    if LOKY:
        made: Executor = get_reusable_executor(max_workers=WORKERS, timeout=300)
        return made
    return ProcessPoolExecutor(WORKERS)


def body() -> None:
    pool = executor()
    begun = pool.submit(work, 0, subject.path("go"))
    first = begun.result(timeout=20)
    futures = [pool.submit(work, number, subject.path("go")) for number in range(1, TASKS)]
    while not any(future.running() for future in futures):
        time.sleep(0.001)
    subject.wait()
    results = [future.result(timeout=20) for future in futures]
    subject.expect(first[0] == 0 and [n for n, _ in results] == [n * n for n in range(1, TASKS)], "the results differ")
    subject.expect(len({pid for _, pid in [first, *results]}) <= WORKERS, "workers were replaced")
    again = list(pool.map(work, [0] * 20, [""] * 20, timeout=20))
    subject.expect(len(again) == 20, "the pool takes no more work")
    pool.shutdown()


if __name__ == "__main__":
    subject.main(body)
