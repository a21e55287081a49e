"""Harder than `cases`: files, databases, threads, modules, and what is in the middle of something."""

from __future__ import annotations

from typing import Final

from tests.integration.objects.cases import all_of, case

SYSTEM: Final = (
    case(
        "weak sets, keys, proxies, methods, callbacks",
        """
        import weakref
        class O:
            def me(self):
                return self
        o = O()
        o2 = O()
        ws = weakref.WeakSet([o])
        wk = weakref.WeakKeyDictionary({o: [1], o2: 2})
        wv = weakref.WeakValueDictionary({'k': o})
        px = weakref.proxy(o)
        wm = weakref.WeakMethod(o.me)
        o.v = 5
        wm = weakref.WeakMethod(o.me)
        def cb(r):
            got.append(1)
        got = []
        rc = weakref.ref(o, cb)
        fin = weakref.finalize(o2, got.append, 'fin')
        dead = weakref.ref(O())
        """,
        check=all_of(
            "o in ws and len(ws) == 1",
            "wk[o] == [1] and wk[o2] == 2",
            "wv['k'] is o",
            "px.v == 5",
            "rc() is o",
            "dead() is None",
            "wm() is not None",
        ),
        lost={"fin": "fin: it belongs to the running session"},
        remark={
            "o": "its weak reference comes back without a callback",
            "o2": "its weak reference comes back without a callback",
            "ws": "its weak reference comes back without a callback",
            "wk": "its weak reference comes back without a callback",
            "wv": "its weak reference comes back without a callback",
            "px": "its weak reference comes back without a callback",
            "wm": "its weak reference comes back without a callback",
            "rc": "its weak reference comes back without a callback",
        },
        outcome="restored, without callbacks; finalize lost, by name",
    ),
    case(
        "context variables that are set",
        """
        import contextvars
        cv = contextvars.ContextVar('cv')
        tok = cv.set([1])
        ctx = contextvars.copy_context()
        c2 = contextvars.ContextVar('c2', default={'d': 1})
        def look():
            return cv.get(None)
        """,
        check=all_of(
            "cv.get() == [1]",
            "c2.get() == {'d': 1}",
        ),
        lost={"tok": "tok: it belongs to the running session", "ctx": "ctx: it belongs to the running session"},
        outcome="restored; tokens and contexts lost, by name",
    ),
    case(
        "context of decimal numbers, in a variable",
        """
        import decimal
        dctx = decimal.getcontext()
        dctx.prec = 6
        """,
        check=all_of(
            "dctx is decimal.getcontext() and dctx.prec == 6",
            "(setattr(dctx, 'prec', 3), str(decimal.Decimal(1) / 3), setattr(dctx, 'prec', 6))[1] == '0.333'",
        ),
    ),
    case(
        "own module, patched: constants, functions, class attributes",
        r"""
        import sys, os
        open(os.environ['NBCR_TEST_FOLDER'] + '/mymod_a.py', 'w').write(
            'X=1\nY=[1]\ndef f(): return X\nclass C: z=1\n'
        )
        sys.path.insert(0, os.environ['NBCR_TEST_FOLDER'])
        import mymod_a
        from mymod_a import f as ff, C as CC, Y as YY
        mymod_a.X = 5
        mymod_a.Y[:] = [1, 2]
        CC.z = 7
        mymod_a.f2 = lambda: mymod_a.X * 2
        c = CC()
        c.q = 1
        """,
        check=all_of(
            "mymod_a.X == 5 and mymod_a.Y == [1, 2] and mymod_a.f2() == 10 and mymod_a.C.z == 7",
            "ff() == 5",
            "YY is mymod_a.Y and YY == [1, 2]",
            "CC is mymod_a.C and CC.z == 7",
            "c.q == 1 and type(c) is CC and c.z == 7",
        ),
        outcome="restored",
    ),
    case(
        "module made by hand",
        r"""
        import types, sys
        hm = types.ModuleType('hm_made', 'docs')
        exec('v=[1]\ndef g(): return v\nclass Q: pass', hm.__dict__)
        sys.modules['hm_made'] = hm
        hq = hm.Q()
        hg = hm.g
        anon = types.ModuleType('anon_m')
        anon.val = {'a': 1}
        ns = types.SimpleNamespace(a=1, b=[2])
        ns.me = ns
        """,
        check=all_of(
            "anon.val == {'a': 1}",
            "ns.a == 1 and ns.me is ns and ns.b == [2]",
        ),
        lost={
            "hm": "hm.g: the module hm_made was made by hand: no other process finds it",
            "hq": "hq.__reduce__()[1][0]: the module hm_made was made by hand: no other p",
            "hg": "hg: the module hm_made was made by hand: no other process finds it",
        },
        outcome="lost, by name; others restored",
    ),
    case(
        "locks, queues, thread-local values",
        """
        import threading, queue
        rl = threading.RLock()
        rl.acquire()
        rl.acquire()
        cd = threading.Condition(rl)
        bar = threading.Barrier(2)
        bs = threading.BoundedSemaphore(3)
        bs.acquire()
        tm = threading.Timer(1000, print)
        lq = queue.LifoQueue()
        lq.put(1)
        sq = queue.SimpleQueue()
        sq.put(7)
        pq = queue.PriorityQueue(3)
        pq.put(2)
        loc = threading.local()
        loc.x = [1]
        class MyLoc(threading.local):
            def __init__(self):
                self.v = 3
        ml = MyLoc()
        ml.w = 4
        cur = threading.current_thread()
        mt = threading.main_thread()
        shared = threading.Lock()
        pair = (shared, {'l': shared})
        """,
        check=all_of(
            "bs._value == 2",
            "lq.qsize() == 1 and lq.queue == [1]",
            "pq.maxsize == 3 and pq.qsize() == 1",
            "loc.x == [1]",
            "ml.v == 3 and ml.w == 4",
            "pair[0] is pair[1]['l'] is shared",
            "bar.parties == 2",
            "rl.acquire(False)",
            "cd._lock is rl",
        ),
        lost={
            "sq": "sq: cannot pickle '_queue.SimpleQueue' object",
            "cur": "cur: a thread does not come back: start it again",
            "mt": "mt: a thread does not come back: start it again",
        },
        remark={
            "rl": "its lock was held, by whoever does not come back: it is free again",
            "cd": "its lock was held, by whoever does not come back: it is free again",
        },
        outcome="restored; SimpleQueue and threads lost, by name",
    ),
    case(
        "files: text, raw, appended, in memory, zip; temporary, piped, deleted ones",
        r"""
        import os, tempfile, io, gzip, zipfile, bz2, lzma, tarfile, csv
        F = os.environ['NBCR_TEST_FOLDER']
        open(F + '/f1.txt', 'w').write('line1\nline2\nline3\n')
        rt = open(F + '/f1.txt')
        rt.readline()
        rb = open(F + '/f1.txt', 'rb', buffering=0)
        rb.read(2)
        wa = open(F + '/app.txt', 'a')
        wa.write('x')
        wa.flush()
        rw = open(F + '/f1.txt', 'r+')
        rw.seek(3)
        tf = tempfile.TemporaryFile()
        tf.write(b'tmp')
        stf = tempfile.SpooledTemporaryFile()
        stf.write(b'sp')
        sio = io.StringIO('abc\ndef')
        sio.readline()
        bio = io.BytesIO(b'xyz')
        bio.seek(1)
        cl = io.BytesIO(b'q')
        cl.close()
        with gzip.open(F + '/g.gz', 'wt') as g:
            g.write('gz1\ngz2\n')
        gz = gzip.open(F + '/g.gz', 'rt')
        gz.readline()
        zf = zipfile.ZipFile(F + '/z.zip', 'w')
        zf.writestr('a', '1')
        zf.close()
        zr = zipfile.ZipFile(F + '/z.zip')
        wr = csv.writer(sio2 := io.StringIO())
        wr.writerow([1, 2])
        dr = csv.DictReader(io.StringIO('a,b\n1,2\n3,4\n'))
        next(dr)
        cr = csv.reader(open(F + '/f1.txt'), delimiter='n')
        next(cr)
        pf = os.popen('echo hi')
        r, w = os.pipe()
        pr = os.fdopen(r)
        de = os.scandir(F)
        bw = io.BufferedWriter(io.FileIO(F + '/bw', 'w'))
        bw.write(b'pend')
        tw = io.TextIOWrapper(io.BytesIO(b'in\nner\n'))
        tw.readline()
        gone = open(F + '/gone.txt', 'w+')
        gone.write('lost?')
        gone.flush()
        os.unlink(F + '/gone.txt')
        """,
        check=all_of(
            "rt.readline() == 'line2\\n' and (rt.seek(6) or True)",
            "rb.tell() == 2 and rb.read(1) == b'n'",
            "wa.tell() >= 1 and wa.mode == 'a'",
            "rw.tell() == 3",
            "sio.read() == 'def' and (sio.seek(4) or True)",
            "bio.tell() == 1",
            "zr.read('a') == b'1'",
            "bw.tell() == 4",
            "(wr.writerow([3, 'a b']), sio2.getvalue())[1] == '1,2\\r\\n3,a b\\r\\n'",
            "dr.line_num == 2 and next(dr) == {'a': '3', 'b': '4'} and dr.line_num == 3",
            "cr.line_num == 1 and next(cr) == ['li', 'e2']",
        ),
        lost={
            "tf": "tf: it is not a file with a path",
            "stf": "stf: what is temporary is deleted with the session that made it",
            "cl": "cl: ValueError: I/O operation on closed file.",
            "g": "g: it is not a file with a path",
            "gz": "gz: it is not a file with a path",
            "pf": "pf._stream: it is not a file with a path",
            "pr": "pr: it is not a file with a path",
            "de": "de: it is in the middle of a folder",
            "tw": "tw: it is not a file with a path",
            "gone": "gone: the file it has open is no longer",
        },
        outcome="restored where they are files by name; the others lost, by name",
    ),
    case(
        "sqlite3: own functions, rows, cursors",
        """
        import sqlite3, os
        m = sqlite3.connect(':memory:')
        m.execute('create table t(x)')
        m.execute('insert into t values(1)')
        m.commit()
        m.create_function('dbl', 1, lambda x: x * 2)
        cur = m.execute('select * from t')
        row = None
        m.row_factory = sqlite3.Row
        sh = {'db': m, 'again': m}
        clo = sqlite3.connect(':memory:')
        clo.close()
        rw = m.execute('select x, x as "a ""b" from t').fetchone()
        opened = sqlite3.connect(':memory:', detect_types=sqlite3.PARSE_DECLTYPES, check_same_thread=False)
        opened.execute('pragma foreign_keys = on')
        opened.execute('create table z(v cpx)')
        opened.execute("insert into z values('1+2j')")
        opened.commit()
        own = sqlite3.connect(':memory:')
        own.execute('create temp table mine(x)')
        """,
        check=all_of(
            "not sqlite3.register_converter('cpx', lambda b: complex(b.decode()))",
            "opened.execute('select v from z').fetchone() == (1 + 2j,)",
            "opened.execute('pragma foreign_keys').fetchone() == (1,)",
            "not __import__('concurrent.futures').futures.ThreadPoolExecutor(1).submit(opened.commit).result()",
            "own.execute('select 1').fetchone() == (1,)",
            "m.execute('select x from t').fetchone()['x'] == 1",
            "sh['db'] is m and sh['again'] is m",
            "rw['x'] == rw['a \"b'] == 1 and rw.keys() == ['x', 'a \"b'] and type(rw) is sqlite3.Row",
        ),
        lost={
            "cur": "cur: it is in the middle of a database: make it again from its connect",
            "clo": "clo: Cannot operate on a closed database.",
        },
        remark={
            "m": "functions that were given to its connection are not there: dbl",
            "sh": "functions that were given to its connection are not there: dbl",
            "own": "temporary tables of its connection are not there",
        },
        outcome="restored; what SQL no longer knows is told",
    ),
    case(
        "declarative classes of SQLAlchemy, engines, tables, queries",
        """
        import os, sqlalchemy as sa
        from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
        path = os.environ['NBCR_TEST_FOLDER'] + '/sa.db'
        class Base(DeclarativeBase):
            pass
        class User(Base):
            __tablename__ = 'users'
            key: Mapped[int] = mapped_column(primary_key=True)
        engine = sa.create_engine('sqlite:///' + path, poolclass=sa.NullPool)
        Base.metadata.drop_all(engine)
        Base.metadata.create_all(engine)
        with Session(engine) as opened:
            opened.add(User(key=7))
            opened.commit()
            ada = opened.scalars(sa.select(User)).one()
        session = Session(engine)
        table = sa.Table('users', sa.MetaData(), sa.Column('key', sa.Integer))
        query = sa.select(table.c.key).where(table.c.key > 6)
        """,
        check=all_of(
            "session.execute(query).scalars().all() == [7]",
            "engine.connect().execute(query).scalar() == 7 and 'users' in str(query)",
        ),
        lost={
            "Base": "Base: SQLAlchemy has mapped it: its class statement has to run again",
            "User": "User: SQLAlchemy has mapped it",
            "ada": "SQLAlchemy has mapped it",
        },
        outcome="lost, by name; engines, tables and queries restored",
    ),
    case(
        "generators, coroutines, frames, finished ones too",
        """
        import types
        def gen():
            x = yield 1
            yield x
        g0 = gen()
        g1 = gen()
        next(g1)
        ge = (i for i in range(3))
        done = gen()
        list(done)
        async def co():
            return 1
        c = co()
        async def ag():
            yield 1
        a = ag()
        @types.coroutine
        def old():
            yield
        o = old()
        fr = g1.gi_frame
        code = gen.__code__
        cell = (lambda: gen).__closure__
        holder = {'fine': 1, 'g': g1}
        keep = [1, 2]
        class It:
            def __init__(s):
                s.g = (i for i in range(3))
            def __iter__(s):
                return s
            def __next__(s):
                return next(s.g)
        it = It()
        """,
        check=all_of(
            "code is gen.__code__ or code == gen.__code__",
            "keep == [1, 2]",
            "next(gen()) == 1",
        ),
        lost={
            "g0": "g0: a running generator cannot be copied",
            "g1": "g1: a running generator cannot be copied",
            "ge": "ge: a running generator cannot be copied",
            "done": "done: a running generator cannot be copied",
            "c": "c: a coroutine cannot be copied",
            "a": "a: a running generator cannot be copied",
            "o": "o: a running generator cannot be copied",
            "fr": "fr: frames cannot be copied",
            "holder": "holder['g']: a running generator cannot be copied",
            "it": "it.g: a running generator cannot be copied",
        },
        outcome="lost, by name and path; the rest restored",
    ),
    case(
        "own exceptions, groups, notes, code, cells",
        """
        import sys, types, traceback
        fr = sys._getframe()
        co = compile('1+1', '<s>', 'eval')
        def mk():
            x = [1]
            def f():
                return x
            return f
        f = mk()
        cell = f.__closure__[0]
        emp = types.CellType()
        try:
            {}['k']
        except KeyError as _e:
            er = _e
            tb = _e.__traceback__
            te = traceback.TracebackException.from_exception(_e)
            ei = sys.exc_info()
        class MyErr(Exception):
            def __init__(self, a, *, b):
                super().__init__(a)
                self.b = b
        me = MyErr(1, b=[2])
        me.add_note('n')
        eg = ExceptionGroup('g', [ValueError(1), MyErr(2, b=3)])
        class BadErr(Exception):
            def __init__(self, a, b):
                super().__init__('only one')
                self.a = a
        be = BadErr(1, 2)
        kbi = KeyboardInterrupt()
        se = SystemExit(3)
        oe = OSError(2, 'no', 'f')
        ue = UnicodeDecodeError('utf8', b'x', 0, 1, 'r')
        sy = None
        try:
            compile('a b', 'f', 'exec')
        except SyntaxError as e:
            sy = e
        """,
        check=all_of(
            "eval(co) == 2",
            "f() == [1]",
            "cell.cell_contents is f()",
            "er.args == ('k',)",
            "me.b == [2] and me.__notes__ == ['n'] and me.args == (1,)",
            "eg.exceptions[1].b == 3 and type(eg.exceptions[1]) is MyErr",
            "be.a == 1 and be.args == ('only one',)",
            "se.code == 3",
            "oe.errno == 2 and oe.filename == 'f'",
            "ue.reason == 'r'",
            "sy.lineno == 1",
            "type(kbi) is KeyboardInterrupt",
            "'KeyError' in ''.join(te.format())",
        ),
        lost={
            "fr": "fr: frames cannot be copied",
            "tb": "tb: frames cannot be copied",
            "ei": "ei[2]: frames cannot be copied",
        },
        remark={
            "er": "its exception comes back without the traceback",
            "sy": "its exception comes back without the traceback",
        },
        outcome="restored, without tracebacks; frames lost, by name",
    ),
    case(
        "generators of random numbers, own ones too",
        """
        import random, secrets
        r = random.Random(3)
        r.random()
        sr = random.SystemRandom()
        class R(random.Random):
            def random(self):
                return 0.5
        rr = R()
        ch = r.choice
        e1 = r.getstate()
        random.seed(11)
        rnd = random.random
        e2 = random.getstate()
        """,
        check=all_of(
            "r.getstate() == e1",
            "rr.random() == 0.5 and type(rr) is R",
            "ch.__self__ is r",
            "0 <= sr.random() < 1 and type(sr) is random.SystemRandom",
            "random.getstate() == e2 and rnd.__self__ is random._inst",
        ),
    ),
    case(
        "loggers with handlers and filters",
        """
        import logging, io, os, logging.handlers
        sio = io.StringIO()
        lg = logging.getLogger('adv.x')
        h = logging.StreamHandler(sio)
        h.setFormatter(logging.Formatter('%(message)s!'))
        lg.addHandler(h)
        lg.setLevel(10)
        lg.propagate = False
        lg.info('a')
        fh = logging.FileHandler(os.environ['NBCR_TEST_FOLDER'] + '/l.log')
        lg.addHandler(fh)
        flt = lambda rec: True
        lg.addFilter(flt)
        ad = logging.LoggerAdapter(lg, {'k': 1})
        rec = logging.makeLogRecord({'msg': 'm'})
        child = lg.getChild('c')
        mh = logging.handlers.MemoryHandler(10, target=h)
        """,
        check=all_of(
            "lg is logging.getLogger('adv.x') and lg.level == 10 and not lg.propagate",
            "h.stream is sio and sio.getvalue() == 'a!\\n'",
            "ad.logger is lg and ad.extra == {'k': 1}",
            "rec.msg == 'm'",
            "child.parent is lg",
            "mh.target is h",
        ),
        remark={
            "lg": "without the handlers it had; its logger comes back without the filters",
            "ad": "without the handlers it had; its logger comes back without the filters",
        },
        outcome="restored; that a logger has lost its handlers is told",
    ),
    case(
        "context managers",
        """
        import contextlib
        es = contextlib.ExitStack()
        es.callback(lambda: None)
        @contextlib.contextmanager
        def cm():
            yield 5
        c = cm()
        nc = contextlib.nullcontext(3)
        su = contextlib.suppress(KeyError)
        used = cm()
        used.__enter__()
        class CD(contextlib.ContextDecorator):
            def __enter__(self):
                return self
            def __exit__(self, *a):
                return False
        cd = CD()
        @cd
        def df():
            return 1
        """,
        check=all_of(
            "cm().__enter__() == 5",
            "nc.__enter__() == 3",
            "KeyError in su._exceptions",
            "df() == 1",
            "(es.close() or True)",
        ),
        lost={
            "c": "c.gen: a running generator cannot be copied",
            "used": "used.gen: a running generator cannot be copied",
        },
        outcome="restored; those in the middle lost, by name",
    ),
)
