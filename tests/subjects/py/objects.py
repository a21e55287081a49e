"""Generators in mid-iteration, closures over locks, weak references, an exception being handled, the random state."""

import gc
import random
import threading
import weakref
from collections.abc import Iterator

import subject


def counting() -> Iterator[int]:
    total = 0
    for step in range(1000):
        total += step
        received = yield total
        total += received or 0


class Node:
    pass


def body() -> None:
    generator = counting()
    seen = [next(generator) for _ in range(10)]
    lock = threading.Lock()
    lock.acquire()

    def guarded() -> bool:
        return lock.locked()

    node = Node()
    reference = weakref.ref(node)
    loop = [node]
    loop.append(loop)  # type: ignore[arg-type]
    random.seed(5)
    expected = random.Random(5)
    [random.random() for _ in range(100)]
    [expected.random() for _ in range(100)]
    big = {i: str(i) * 3 for i in range(50000)}

    def spoil() -> None:
        lock.release()
        next(generator)
        random.seed(1)

    try:
        raise KeyError("kept")
    except KeyError as error:
        subject.wait(spoil)
        subject.expect(error.args == ("kept",) and error.__traceback__, "the exception lost its parts")
    subject.expect(next(generator) == seen[-1] + 10, "the generator is at another step")
    subject.expect(guarded(), "the closure's lock is free")
    subject.expect(reference() is node and loop[1] is loop, "references changed")
    subject.expect(random.random() == expected.random(), "the random state changed")
    subject.expect(all(big[i] == str(i) * 3 for i in big) and len(big) == 50000, "the dict changed")
    del node, loop
    gc.collect()
    subject.expect(reference() is None, "the garbage collector leaves garbage")


subject.main(body)
