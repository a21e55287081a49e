"""numpy in the middle of products, each with the threads of its BLAS, in the main thread and in another one."""

import threading

import subject

try:
    import numpy as np
except ImportError:
    subject.skipped("numpy")

SIZE = 400


def multiply(left: "np.ndarray", expected: "np.ndarray", until: threading.Event, counts: "list[int]") -> None:
    while not until.is_set():
        subject.expect(np.array_equal(left @ left, expected), "a product differs")
        counts[0] += 1


def body() -> None:
    left = np.random.default_rng(1).standard_normal((SIZE, SIZE))
    expected, until, counts = left @ left, threading.Event(), [0]
    worker = threading.Thread(target=multiply, args=(left, expected, until, counts))
    worker.start()
    while not counts[0]:
        pass
    subject.wait()
    before = counts[0]
    while counts[0] < before + 3:
        subject.expect(np.array_equal(left @ left, expected), "a product of the main thread differs")
    until.set()
    worker.join(20)
    subject.expect(not worker.is_alive(), "the worker does not end")


subject.main(body)
