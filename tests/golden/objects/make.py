"""Writes the snapshot of this nbcr and this Python: ``python -m tests.golden.objects.make`` in the checkout.

Run it with every Python that is supported when the format of snapshots gets a new version, and commit what it wrote.
Older ones stay: they must be readable for ever.
"""

from __future__ import annotations

import linecache
import os
import shutil
import sys
from pathlib import Path
from textwrap import dedent
from typing import Any

from nbcr import objects
from nbcr.objects import index

HERE = Path(__file__).parent
CELLS = (
    """
    import math
    from math import sqrt
    import collections, enum, functools, dataclasses, weakref, threading, contextvars, logging, sqlite3, datetime
    number, text, nothing, data = 42, "häuser", None, b"\\x00\\xff"
    shared = [1, 2.5, (3, "x"), {4, 5}, {"k": None}]
    other = {"shared": shared}
    loop = []
    loop.append(loop)
    """,
    """
    scale = 3
    def scaled(x, *, by=None):
        '''Multiplied.'''
        return x * (by or scale)

    def counter():
        n = 0
        def up():
            nonlocal n
            n += 1
            return n
        def get():
            return n
        return up, get
    up, get = counter()
    up()
    square = lambda x: x ** 2
    pair = (lambda x: x + 1, lambda x, y: x + y)
    @functools.lru_cache(maxsize=7)
    def cached(x):
        return x + scale
    half = functools.partial(scaled, by=0.5)
    def generate(n):
        yield from range(n)
    async def soon():
        return 1
    """,
    """
    class Base:
        made = []
        def __init__(self, x):
            self.x = x
            self.made.append(x)
        def double(self):
            return 2 * self.x
        @property
        def negative(self):
            return -self.x
        @classmethod
        def of(cls, x):
            return cls(x)
        @staticmethod
        def static(x):
            return x
    class Child(Base):
        def double(self):
            return super().double() + 1
    @dataclasses.dataclass(frozen=True, repr=False)
    class Row:
        a: int
        b: str = "b"
    class Color(enum.Enum):
        RED = 1
        BLUE = "b"
    Point = collections.namedtuple("Point", "x y")
    child, row, color, point = Child(4), Row(1), Color.BLUE, Point(1, 2)
    bound = child.double
    target = Base(9)
    reference = weakref.ref(target)
    error = ValueError("what")
    error.__cause__ = KeyError("why")
    """,
    """
    lock, event, variable = threading.Lock(), threading.Event(), contextvars.ContextVar("variable", default=3)
    event.set()
    log = logging.getLogger("nbcr.golden")
    log.setLevel(13)
    database = sqlite3.connect(":memory:")
    database.execute("create table t (x)")
    database.execute("insert into t values (5)")
    database.commit()
    window = memoryview(bytearray(b"window"))[1:3]
    when = datetime.datetime(2026, 1, 2, tzinfo=datetime.timezone.utc)
    generator = generate(3)
    """,
)
# Expressions that are true in a namespace that came back whole.
CHECKS = (
    "(number, text, nothing, data) == (42, 'häuser', None, b'\\x00\\xff')",
    "other['shared'] is shared and shared == [1, 2.5, (3, 'x'), {4, 5}, {'k': None}] and loop[0] is loop",
    "sqrt is math.sqrt",
    "scaled(2) == 6 and scaled(2, by=5) == 10 and scaled.__doc__ == 'Multiplied.'",
    "(globals().__setitem__('scale', 4), scaled(2), cached(1), globals().__setitem__('scale', 3))[1:3] == (8, 5)",
    "get() == 1 and up() == 2 and get() == 2",
    "square(5) == 25 and pair[0](1) == 2 and pair[1](2, 3) == 5 and half(8) == 4",
    "list(generate(3)) == [0, 1, 2] and __import__('inspect').iscoroutinefunction(soon)",
    "cached.cache_info().maxsize == 7",
    "type(child) is Child and child.double() == 9 and bound() == 9 and Base.made is Child.made and Base.made == [4, 9]",
    "target.negative == -9 and Child.of(1).static(2) == 2 and reference() is target",
    "row == Row(1) and color is Color.BLUE and Color('b') is color and point == Point(1, 2) and point.y == 2",
    "error.args == ('what',) and error.__cause__.args == ('why',)",
    "lock.acquire(blocking=False) and event.is_set() and variable.get() == 3 and log.level == 13",
    "database.execute('select x from t').fetchall() == [(5,)] and bytes(window) == b'in'",
    "when.isoformat() == '2026-01-02T00:00:00+00:00'",
)
LOST = {"generator": "a running generator cannot be copied"}


def namespace() -> dict[str, Any]:
    """The session that is saved."""
    made: dict[str, Any] = {"__name__": "__main__"}
    for number, cell in enumerate(CELLS):
        source, name = dedent(cell).lstrip("\n"), f"<golden {number}>"
        linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
        exec(compile(source, name, "exec", dont_inherit=True), made)
    return made


def folder() -> Path:
    """Where the snapshot of this Python belongs."""
    return HERE / f"format-{index.VERSION}-python-{sys.version_info.major}.{sys.version_info.minor}"


def main() -> None:
    """Write it."""
    shutil.rmtree(folder(), ignore_errors=True)
    os.chdir("/")  # nothing of the machine it was made on belongs into it
    sys.path[:] = [entry for entry in sys.path if entry.startswith((sys.prefix, sys.base_prefix))]
    report = objects.save(namespace(), folder(), hidden=()).wait()
    print(f"{folder()}: {len(report.kept)} names kept, lost: {[verdict.line() for verdict in report.lost]}")


if __name__ == "__main__":
    main()
