"""What notebooks hold: cells that make it, and what has to be true after the session was saved, spoiled and loaded.

Every name of a case is either restored, which `check` proves, or reported as lost with the reason given in
`lost`. docs/objects.md shows this table; a test compares them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from textwrap import dedent
from typing import Final


@dataclass(frozen=True)
class Case:
    """One thing that notebooks hold."""

    name: str
    cells: tuple[str, ...]
    check: str = "True"  # an expression that is true exactly when everything that should be there is right
    lost: Mapping[str, str] = field(default_factory=dict)  # names that do not come back: a part of the reason
    later: Mapping[str, str] = field(default_factory=dict)  # names that are saved and cannot be loaded: the same
    remark: Mapping[str, str] = field(default_factory=dict)  # names that come back changed: a part of what is said
    outcome: str = "restored"  # the row in docs/objects.md


def case(name: str, *cells: str, check: str = "True", **more: object) -> Case:
    """A case, whose outcome is "lost, by name" when nothing is checked."""
    outcome = more.pop("outcome", "lost, by name" if check == "True" else "restored")
    return Case(name, tuple(dedent(cell).strip() for cell in cells), check, outcome=outcome, **more)  # type: ignore[arg-type]


def all_of(*checks: str) -> str:
    """All of these expressions are true."""
    return " and ".join(f"({check})" for check in checks)


FACTS: Final = (
    case(
        "lambda",
        "f = lambda x: x + 1",
        check="f(1) == 2",
    ),
    case(
        "closure",
        """
        def make(n):
            def add(x):
                return x + n
            return add
        add5 = make(5)
        """,
        check="add5(1) == 6 and make(2)(1) == 3",
    ),
    case(
        "closures that share a variable",
        """
        def counter():
            n = 0
            def up():
                nonlocal n
                n += 1
            def get():
                return n
            return up, get
        up, get = counter()
        up()
        """,
        check="get() == 1 and (up(), get())[1] == 2",
    ),
    case(
        "class and instance",
        """
        class Point:
            total = 0
            def __init__(self, x):
                self.x = x
                Point.total += 1
        p = Point(3)
        """,
        check="type(p) is Point and p.x == 3 and Point.total == 1 and isinstance(Point(4), Point)",
    ),
    case(
        "dataclass",
        """
        from dataclasses import dataclass, field
        @dataclass(order=True)
        class Row:
            a: int
            b: list = field(default_factory=list)
        rows = [Row(2), Row(1, [5])]
        """,
        check="sorted(rows)[0] == Row(1, [5]) and type(rows[0]) is Row",
    ),
    case(
        "recursive function",
        """
        def fact(n):
            return 1 if n < 2 else n * fact(n - 1)
        def outer():
            def inner(n):
                return n and n + inner(n - 1)
            return inner
        inner = outer()
        """,
        check="fact(5) == 120 and inner(4) == 10",
    ),
    case(
        "shared reference",
        """
        a = [1]
        b = {'a': a}
        """,
        check="b['a'] is a",
    ),
    case(
        "cycle",
        """
        a = []
        a.append(a)
        d = {'a': a}
        d['d'] = d
        """,
        check="a[0] is a and d['d'] is d and d['a'] is a",
    ),
    case(
        "pandas frame",
        """
        import pandas as pd
        df = pd.DataFrame({'n': [1, 2], 's': ['x', 'y']}, index=pd.date_range('2026', periods=2))
        """,
        check="df['n'].sum() == 3 and list(df['s']) == ['x', 'y'] and str(df.index[1])[:10] == '2026-01-02'",
    ),
    case(
        "matplotlib figure",
        """
        import matplotlib
        matplotlib.use('agg')
        import matplotlib.pyplot as plt
        fig, ax = plt.subplots()
        line, = ax.plot([1, 2, 4])
        """,
        check="fig.axes[0] is ax and list(ax.lines[0].get_ydata()) == [1, 2, 4] and line is ax.lines[0]",
    ),
    case(
        "colour bars, images that share a norm, functions that are told of events",
        """
        import matplotlib
        matplotlib.use('agg')
        import matplotlib.pyplot as plt, numpy as np
        fig, (ax, other) = plt.subplots(1, 2)
        image = ax.imshow(np.arange(9).reshape(3, 3))
        bar = fig.colorbar(image, ax=ax)
        norm = plt.Normalize(0, 4)
        shared = other.imshow(np.eye(2), norm=norm)
        heard = []
        number = fig.canvas.mpl_connect('draw_event', lambda event: heard.append(event.name))
        """,
        """
        def make(heard):
            return lambda axes: heard.append(axes)
        called = ax.callbacks.connect('xlim_changed', make(heard))
        """,
        check=all_of(
            "(image.set_clim(0, 20), bar.vmax)[1] == 20",
            "(fig.canvas.draw(), norm.__setattr__('vmin', -3), shared.stale, shared.get_clim())[2:] == (True, (-3, 4))",
            "heard == ['draw_event']",
        ),
        remark=dict.fromkeys(
            ("fig", "ax", "other", "image", "bar", "norm", "shared", "heard"),
            "its figure no longer tells make.<locals>.<lambda> of xlim_changed: connect it again",
        ),
        outcome="restored; closures that are told of events have to be connected again, which is told",
    ),
    case(
        "Enum",
        """
        from enum import Enum, Flag
        class Color(Enum):
            RED = 1
            BLUE = 'b'
        c = Color.RED
        favourites = {Color.BLUE: 3}
        """,
        check="c is Color.RED and favourites[Color.BLUE] == 3 and Color('b') is Color.BLUE",
    ),
    case(
        "class that holds its own instance",
        """
        class Node:
            pass
        Node.root = Node()
        Node.root.name = 'root'
        root = Node.root
        """,
        check="type(Node.root) is Node and root is Node.root and root.name == 'root'",
    ),
    case(
        "Lock",
        """
        import threading
        lock = threading.Lock()
        """,
        check="lock.acquire(blocking=False) is True",
    ),
    case(
        "Lock that is held",
        """
        import threading
        lock = threading.Lock()
        lock.acquire()
        """,
        check="lock.acquire(blocking=False) is True",
        remark={"lock": "free again"},
        outcome="restored, free",
    ),
    case(
        "weak reference",
        """
        import weakref
        class T:
            pass
        t = T()
        r = weakref.ref(t)
        """,
        check="r() is t",
    ),
    case(
        "WeakValueDictionary",
        """
        import weakref
        class T:
            pass
        t = T()
        wd = weakref.WeakValueDictionary(a=t, b=T())
        """,
        check="wd['a'] is t and 'b' not in wd",
    ),
    case(
        "Thread",
        """
        import threading
        t = threading.Thread(target=print)
        t.start()
        t.join()
        """,
        lost={"t": "a thread does not come back"},
    ),
    case(
        "Popen",
        """
        import subprocess
        p = subprocess.Popen(['true'])
        p.wait()
        """,
        lost={"p": "a process does not come back"},
    ),
    case(
        "function that sees a rebound global",
        """
        scale = 2
        def scaled(x):
            return x * scale
        """,
        "scale = 3",
        check="scaled(1) == 3 and (globals().__setitem__('scale', 10), scaled(1))[1] == 10",
    ),
    case(
        "function that writes a global",
        """
        hits = 0
        def hit():
            global hits
            hits += 1
        hit()
        """,
        check="hits == 1 and (hit(), hits)[1] == 2",
    ),
    case(
        "lru_cache",
        """
        from functools import lru_cache
        @lru_cache(maxsize=5)
        def square(x):
            return x * x
        square(3)
        """,
        check="square(4) == 16 and square.cache_info().maxsize == 5 and square.cache_info().hits == 0",
        remark={"square": "cache comes back empty"},
        outcome="restored, its cache empty",
    ),
    case(
        "memoryview",
        """
        data = bytearray(b'hello')
        view = memoryview(data)[1:3]
        """,
        check="bytes(view) == b'el' and (view.__setitem__(0, 65), bytes(data))[1] == b'hAllo'",
    ),
    case(
        "generator",
        """
        g = (i for i in range(9))
        next(g)
        """,
        lost={"g": "a running generator cannot be copied"},
    ),
    case(
        "generator deep inside",
        """
        class Model:
            pass
        m = Model()
        m.steps = [{'a': 1}, {'it': (i for i in [])}]
        kept = [1, 2]
        """,
        check="kept == [1, 2]",
        lost={"m": "m.steps[1]['it']: a running generator cannot be copied"},
        outcome="lost, by name and path; the rest restored",
    ),
    case(
        "coroutine",
        """
        async def co():
            return 1
        c = co()
        async def gen():
            yield 1
        ag = gen()
        """,
        check="__import__('inspect').iscoroutinefunction(co)",
        lost={"c": "a coroutine cannot be copied", "ag": "a running generator cannot be copied"},
        outcome="lost, by name; async functions restored",
    ),
    case(
        "sqlite3 in memory",
        """
        import sqlite3
        db = sqlite3.connect(':memory:')
        db.execute('create table t (x, y)')
        db.executemany('insert into t values (?, ?)', [(1, 'a'), (2, None)])
        db.commit()
        """,
        check="db.execute('select * from t order by x').fetchall() == [(1, 'a'), (2, None)]",
    ),
    case(
        "sqlite3 in a file",
        """
        import sqlite3, os
        db = sqlite3.connect(os.environ['NBCR_TEST_FOLDER'] + '/x.db')
        db.row_factory = sqlite3.Row
        db.executescript('drop table if exists t; create table t (x); insert into t values (7)')
        """,
        check="db.execute('select x from t').fetchone()['x'] == 7",
    ),
    case(
        "socket",
        """
        import socket
        s = socket.socket()
        """,
        lost={"s": "a connection does not come back"},
    ),
    case(
        "ContextVar",
        """
        import contextvars
        var = contextvars.ContextVar('var', default=5)
        other = contextvars.ContextVar('other')
        """,
        check="var.get() == 5 and var.name == 'var' and other.get(1) == 1",
    ),
    case(
        "numpy view and its base",
        """
        import numpy as np
        base = np.arange(10)
        view = base[2:8:2]
        back = base[::-1]
        """,
        check="view.base is base and (base.__setitem__(2, 99), view[0])[1] == 99 and back[0] == 9 and back[7] == 99",
    ),
    case(
        "array of objects and its view",
        """
        import numpy as np
        items = np.array([[1], 'x', None, {2: 3}], dtype=object)
        part = items[1:]
        first = items[0]
        """,
        check="part[2] == {2: 3} and items[0] is first and (items.__setitem__(1, 'y'), part[0])[1] == 'y'",
    ),
    case(
        "globals changed in a module",
        """
        import sys, os
        sys.path.insert(0, os.environ['NBCR_TEST_FOLDER'])
        import helper_of_cases as helper
        helper.limit = 7
        helper.added = [1]
        alias = helper.added
        """,
        check="helper.limit == 7 and helper.added == [1] and alias is helper.added and helper.doubled() == 14",
    ),
    case(
        "random states",
        """
        import random, numpy as np
        random.seed(4)
        np.random.seed(5)
        rng = np.random.default_rng(6)
        own = random.Random(7)
        _ = rng.random(), own.random()
        """,
        """
        import copy
        same = copy.deepcopy((rng, own))
        drawn = float(same[0].random()), same[1].random()
        expected = (random.Random(4).random(), float(np.random.RandomState(5).rand()), *drawn)
        del same, drawn
        """,
        check="(random.random(), float(np.random.rand()), float(rng.random()), own.random()) == expected",
    ),
    case(
        "functions of the global random state",
        """
        from random import random as draw, seed
        import random
        seed(3)
        """,
        check="draw is random.random and draw() == random.Random(3).random()",
    ),
    case(
        "logger level",
        """
        import logging
        log = logging.getLogger('nbcr.case')
        log.setLevel(17)
        log.propagate = False
        """,
        check="log is logging.getLogger('nbcr.case') and log.level == 17 and log.propagate is False",
    ),
    case(
        "TemporaryDirectory",
        """
        import tempfile
        folder = tempfile.TemporaryDirectory()
        file = tempfile.NamedTemporaryFile()
        """,
        lost={"folder": "what is temporary is deleted", "file": "what is temporary is deleted"},
    ),
    case(
        "ctypes values",
        """
        import ctypes
        number = ctypes.c_int(5)
        array = (ctypes.c_double * 3)(1, 2, 3)
        text = ctypes.create_string_buffer(b'abc')
        class Pair(ctypes.Structure):
            _fields_ = [('a', ctypes.c_int), ('b', ctypes.c_short)]
        pair = Pair(1, 2)
        """,
        check="number.value == 5 and list(array) == [1, 2, 3] and text.value == b'abc' and (pair.a, pair.b) == (1, 2)",
    ),
    case(
        "ctypes addresses",
        """
        import ctypes
        libc = ctypes.CDLL(None)
        libc.malloc.restype = ctypes.c_void_p
        address = libc.malloc(64)
        pointer = ctypes.pointer(ctypes.c_int(3))
        malloc = libc.malloc
        raw = ctypes.c_void_p(address)
        """,
        check="libc.abs(-3) == 3 and libc.malloc.restype is ctypes.c_void_p",
        lost={
            "address": "is an address",
            "pointer": "is an address",
            "malloc": "is an address",
            "raw": "is an address",
        },
        outcome="lost, by name; the library loaded again",
    ),
    case(
        "partial and bound method",
        """
        from functools import partial
        class A:
            def __init__(self):
                self.seen = []
            def see(self, x):
                self.seen.append(x)
        a = A()
        see = a.see
        see2 = partial(a.see, 2)
        add = a.seen.append
        """,
        check="(see(1), see2(), add(3), a.seen)[3] == [1, 2, 3]",
    ),
    case(
        "namedtuple, slots, properties, generics",
        """
        from collections import namedtuple
        from typing import Generic, TypeVar
        P = namedtuple('P', 'x y')
        p = P(1, 2)
        T = TypeVar('T')
        class Box(Generic[T]):
            __slots__ = ('v',)
            @property
            def double(self):
                return 2 * self.v
            @classmethod
            def of(cls, v):
                b = cls()
                b.v = v
                return b
        box = Box.of(4)
        """,
        check="p.y == 2 and type(p) is P and box.double == 8 and Box[int] and Box.of(1).double == 2",
    ),
    case(
        "abstract class, metaclass, super",
        """
        from abc import ABC, abstractmethod
        class Base(ABC):
            @abstractmethod
            def f(self): ...
            def g(self):
                return 1
        class Meta(type):
            def __call__(cls, *a):
                made = super().__call__(*a)
                made.by = cls.__name__
                return made
        class D(Base):
            def f(self):
                return super().g() + 1
        class M(metaclass=Meta):
            pass
        d, m = D(), M()
        """,
        check="d.f() == 2 and m.by == 'M' and type(M) is Meta and isinstance(d, Base) and M().by == 'M'",
    ),
    case(
        "exception",
        """
        try:
            try:
                1 / 0
            except ZeroDivisionError as inner:
                raise ValueError('outer') from inner
        except ValueError as e:
            error = e
        """,
        check="type(error) is ValueError and type(error.__cause__) is ZeroDivisionError and error.args == ('outer',)",
        remark={"error": "without the traceback"},
        outcome="restored, without the traceback",
    ),
    case(
        "imports",
        """
        import numpy as np, os.path
        from math import sqrt as root
        from collections import OrderedDict
        import xml.dom.minidom as dom
        """,
        check="np.arange(3).sum() == 3 and root(4) == 2 and OrderedDict().__class__ is OrderedDict and "
        "dom.parseString('<a/>')",
    ),
    case(
        "synchronisation",
        """
        import threading, queue
        q = queue.Queue()
        q.put(4)
        event = threading.Event()
        event.set()
        sem = threading.Semaphore(2)
        rlock = threading.RLock()
        cond = threading.Condition()
        local = threading.local()
        local.x = 5
        """,
        check="q.get_nowait() == 4 and event.is_set() and sem.acquire(blocking=False) and "
        "rlock.acquire(False) and local.x == 5 and cond.acquire(False)",
    ),
    case(
        "queues, locks, semaphores of asyncio that were waited for",
        """
        import asyncio
        q, sem, lock, held = asyncio.Queue(2), asyncio.Semaphore(1), asyncio.Lock(), asyncio.Lock()
        event, served = asyncio.Event(), asyncio.Queue()
        async def use():
            async with sem, lock:
                await asyncio.sleep(0.001)
        async def meet():
            await asyncio.gather(*[use() for _ in range(3)], q.get(), q.put(1))
            await q.put(2)
            event.set()
            await held.acquire()
            waiting.extend([asyncio.ensure_future(held.acquire()), asyncio.ensure_future(served.get())])
            await asyncio.sleep(0)
        waiting = []
        await meet()
        del waiting
        """,
        check="q.get_nowait() == 2 and q.empty() and q.maxsize == 2 and not sem.locked() and event.is_set() "
        "and sem._loop is q._loop is None and not lock.locked() and not held.locked()",
        remark={"held": "nobody waits for it any more", "served": "any more: start the tasks that take from it again"},
    ),
    case(
        "executors and futures",
        """
        from concurrent.futures import ThreadPoolExecutor
        pool = ThreadPoolExecutor(1)
        future = pool.submit(len, 'ab')
        result = future.result()
        """,
        check="result == 2",
        lost={"pool": "a pool of workers does not come back", "future": "does not come back"},
        outcome="lost, by name",
    ),
)

FIRST_PATH: Final = (
    case(
        "running thread that counts",
        """
        import threading, time
        count = [0]
        stop = threading.Event()
        def run():
            while not stop.wait(0.001):
                count[0] += 1
        counting = threading.Thread(target=run, daemon=True)
        counting.start()
        while count[0] < 3:
            time.sleep(0.001)
        """,
        check="count[0] >= 3 and not stop.is_set() and callable(run)",
        lost={"counting": "a thread does not come back"},
        outcome="lost, by name; what it shares with others restored",
    ),
    case(
        "generator in the middle",
        """
        def numbers():
            for i in range(100):
                yield i
        open_generator = numbers()
        first = [next(open_generator) for _ in range(5)]
        """,
        check="first == [0, 1, 2, 3, 4] and next(numbers()) == 0",
        lost={"open_generator": "a running generator cannot be copied"},
        outcome="lost, by name",
    ),
    case(
        "open file with its offset",
        """
        import os
        path = os.environ['NBCR_TEST_FOLDER'] + '/lines.txt'
        with open(path, 'w') as closed:
            closed.write('one\\ntwo\\nthree\\nfour\\n')
        reader = open(path)
        reader.readline()
        iterated = open(path)
        next(iterated), next(iterated)
        binary = open(path, 'rb')
        binary.seek(5)
        writer = open(path + '.out', 'w')
        writer.write('pending')
        """,
        check="reader.readline() == 'two\\n' and next(iterated) == 'three\\n' and binary.read(2) == b'wo' and "
        "closed.closed and closed.name == path and writer.tell() == 7",
    ),
    case(
        "sqlite3 table not committed",
        """
        import sqlite3
        db = sqlite3.connect(':memory:')
        db.execute('create table t (x)')
        db.execute('insert into t values (1)')
        """,
        check="db.execute('select count(*) from t').fetchone() == (1,)",
        remark={"db": "comes back committed"},
        outcome="restored, its transaction committed",
    ),
    case(
        "closure over a lock",
        """
        import threading
        def guarded():
            lock = threading.Lock()
            n = 0
            def bump():
                nonlocal n
                with lock:
                    n += 1
                    return n
            return bump
        bump = guarded()
        bump()
        """,
        check="bump() == 2",
    ),
    case(
        "ctypes buffer from malloc",
        """
        import ctypes
        libc = ctypes.CDLL(None)
        libc.malloc.restype = ctypes.c_void_p
        address = libc.malloc(16)
        ctypes.memset(address, 65, 16)
        buffer = (ctypes.c_char * 16).from_address(address)
        """,
        check="bytes(buffer) == b'A' * 16",
        lost={"address": "is an address"},
        outcome="the address lost, by name; what is in the buffer restored",
    ),
    case(
        "numpy view of a large base, and random states",
        """
        import numpy as np, random
        base = np.zeros((400, 1000))
        window = base[10:20, ::2]
        random.seed(1)
        np.random.seed(2)
        """,
        check="(base.__setitem__((10, 2), 5.0), window[0, 1])[1] == 5.0 and "
        "random.random() == random.Random(1).random() and "
        "float(np.random.rand()) == float(np.random.RandomState(2).rand())",
    ),
)

CASES: Final = (*FACTS, *FIRST_PATH)
