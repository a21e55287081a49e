"""Harder than `cases`: arrays, frames, buffers, values with something odd about them."""

from __future__ import annotations

from typing import Final

from tests.integration.objects.cases import all_of, case

DATA: Final = (
    case(
        "structured, masked, mapped, Fortran, big-endian, read-only arrays and views",
        """
        import numpy as np, os
        st = np.zeros(3, dtype=[('a', 'i4'), ('b', 'f8', (2,)), ('s', 'U5')])
        st['a'] = [1, 2, 3]
        stv = st['a']
        rec = st.view(np.recarray)
        ma = np.ma.array([1, 2, 3], mask=[0, 1, 0], fill_value=-1)
        mm = np.memmap(os.environ['NBCR_TEST_FOLDER'] + '/mm.bin', dtype='i4', mode='w+', shape=(4,))
        mm[:] = [1, 2, 3, 4]
        mm.flush()
        ob = np.array([1, 'a', None, [1]], dtype=object)
        obv = ob[::2]
        fo = np.asfortranarray(np.arange(6.0).reshape(2, 3))
        z = np.array(5)
        ro = np.arange(3)
        ro.flags.writeable = False
        bc = np.broadcast_to(np.arange(3), (2, 3))
        big = np.arange(4, dtype='>i8')
        dt = np.array(['2020-01-01', 'NaT'], dtype='M8[D]')
        emp = np.empty((0, 3))
        it = np.nditer([1, 2])
        pol = np.polynomial.Polynomial([1, 2])
        vec = np.vectorize(lambda x: x + 1)
        uf = np.frompyfunc(lambda a, b: a + b, 2, 1)
        si = np.sin
        sc = np.float32(1.5)
        cx = np.complex128(1j)
        stt = np.dtypes.StringDType() if hasattr(np, 'dtypes') else None
        sa = np.array(['a', 'bb'], dtype=stt)
        fl = ob.flat
        mat = np.matrix([[1, 2]])
        neg = np.arange(5)[::-1]
        a3 = np.arange(24).reshape(2, 3, 4)
        tr = a3.transpose(2, 0, 1)
        """,
        check=all_of(
            "st['a'].tolist() == [1, 2, 3] and st.dtype.names == ('a', 'b', 's')",
            "(stv.__setitem__(0, 9), st['a'][0])[1] == 9 and (stv.__setitem__(0, 1), 1)[1]",
            "rec.a.tolist() == [1, 2, 3] and np.shares_memory(rec, st)",
            "ma.mask.tolist() == [False, True, False] and ma.fill_value == -1",
            "mm.tolist() == [1, 2, 3, 4] and isinstance(mm, np.memmap)",
            "ob.tolist() == [1, 'a', None, [1]]",
            "obv[0] == 1 and np.shares_memory(ob, obv)",
            "fo.flags.f_contiguous and fo[1, 2] == 5",
            "z.shape == () and int(z) == 5",
            "not ro.flags.writeable and ro.tolist() == [0, 1, 2]",
            "bc.shape == (2, 3) and bc[1].tolist() == [0, 1, 2]",
            "big.dtype.byteorder == '>' and big[3] == 3",
            "str(dt[0]) == '2020-01-01' and np.isnat(dt[1])",
            "emp.shape == (0, 3)",
            "pol(2) == 5",
            "vec([1]).tolist() == [2]",
            "uf(1, 2) == 3 and uf.reduce([1, 2, 3]) == 6 and si is np.sin",
            "sc.dtype == np.float32 and sc == 1.5",
            "sa.tolist() == ['a', 'bb'] and sa.dtype == stt",
            "mat.shape == (1, 2) and type(mat) is np.matrix",
            "neg.tolist() == [4, 3, 2, 1, 0]",
            "np.shares_memory(tr, a3) and tr[3, 1, 2] == a3[1, 2, 3]",
        ),
        lost={
            "it": "it: cannot pickle 'numpy.nditer' object",
            "fl": "fl: cannot pickle 'numpy.flatiter' object",
        },
        outcome="restored; iterators lost, by name",
    ),
    case(
        "categories, MultiIndex, extension types, own subclass of a frame",
        """
        import pandas as pd, numpy as np
        cat = pd.Series(pd.Categorical(['a', 'b', 'a'], categories=['b', 'a'], ordered=True))
        mi = pd.DataFrame(
            {'v': [1, 2]}, index=pd.MultiIndex.from_tuples([('x', 1), ('y', 2)], names=['k', 'n'])
        )
        ext = pd.DataFrame(
            {
                'i': pd.array([1, None], dtype='Int64'),
                's': pd.array(['a', None], dtype='string'),
                'b': pd.array([True, None], dtype='boolean'),
            }
        )
        iv = pd.interval_range(0, 3)
        per = pd.period_range('2020', '2022', freq='Y')
        tz = pd.Series(pd.date_range('2020', periods=2, tz='Europe/Paris'))
        df = pd.DataFrame({'a': [1, 2], 'b': [3.0, 4.0], 'c': ['x', 'y']})
        df.attrs['src'] = {'k': 1}
        col = df['a']
        vw = df.to_numpy()
        gb = df.groupby('c')
        ro = df['b'].rolling(2)
        sp = pd.arrays.SparseArray([0, 0, 1])
        ts = pd.Timestamp('2020-01-01 00:00:00.123456789', tz='UTC')
        td = pd.Timedelta('1ns')
        nat = pd.NaT
        na = pd.NA
        class MyDF(pd.DataFrame):
            _metadata = ['note']
            @property
            def _constructor(self):
                return MyDF
        md = MyDF({'q': [1]})
        md.note = 'hi'
        obj = pd.Series([[1], {'a': 2}, None])
        dup = pd.DataFrame([[1, 2]], columns=['a', 'a'])
        fl = df.flags.allows_duplicate_labels
        st = 1
        ix = df.index
        lo = df.loc
        acc = df['c'].str
        """,
        check=all_of(
            "cat.cat.ordered and list(cat.cat.categories) == ['b', 'a'] and list(cat) == ['a', 'b', 'a']",
            "mi.index.names == ['k', 'n'] and mi.loc[('y', 2), 'v'] == 2",
            "ext['i'].isna().tolist() == [False, True] and str(ext.dtypes['i']) == 'Int64' and ext['s'][0] == 'a'",
            "len(iv) == 3 and iv[0].right == 1",
            "str(per[0]) == '2020'",
            "str(tz[0].tz) == 'Europe/Paris'",
            "df.attrs == {'src': {'k': 1}} and df['c'].tolist() == ['x', 'y']",
            "col.tolist() == [1, 2]",
            "gb['a'].sum().tolist() == [1, 2]",
            "ro.sum().tolist()[1] == 7.0",
            "sp.density < 0.5 and sp[2] == 1",
            "ts.nanosecond == 789",
            "td.value == 1",
            "nat is pd.NaT",
            "na is pd.NA",
            "md.note == 'hi' and type(md) is MyDF and type(md[['q']]) is MyDF",
            "obj[0] == [1] and obj[1] == {'a': 2}",
            "list(dup.columns) == ['a', 'a']",
            "acc.upper().tolist() == ['X', 'Y']",
            "lo[0, 'a'] == 1",
            "list(ix) == [0, 1]",
        ),
        outcome="restored",
    ),
    case(
        "polars frames, lazy frames, expressions",
        """
        import polars as pl
        pf = pl.DataFrame({'a': [1, 2], 'l': [[1], [2, 3]], 's': [{'x': 1}, {'x': 2}], 'c': ['u', 'v']})
        lf = pf.lazy().filter(pl.col('a') > 1)
        ps = pf['a']
        ex = pl.col('a') * 2
        cat = pl.Series(['a', 'b'], dtype=pl.Categorical)
        sch = pf.schema
        en = pl.Enum(['a', 'b'])
        """,
        check=all_of(
            "pf['l'].to_list() == [[1], [2, 3]]",
            "lf.collect().height == 1",
            "ps.to_list() == [1, 2]",
            "pf.select(ex)['a'].to_list() == [2, 4]",
            "cat.to_list() == ['a', 'b']",
            "sch['a'] == pl.Int64",
            "en == pl.Enum(['a', 'b'])",
        ),
        outcome="restored",
    ),
    case(
        "pyarrow tables, slices, schemas, expressions",
        """
        import pyarrow as pa, pyarrow.compute as pc
        tb = pa.table({'a': [1, 2], 'n': [{'x': 1}, None]})
        ar = pa.array([1, None, 3])
        sl = ar.slice(1)
        sc = pa.schema([('a', pa.int64())], metadata={'k': 'v'})
        bf = pa.py_buffer(b'abc')
        di = ar.cast(pa.string()).dictionary_encode()
        ch = pa.chunked_array([[1], [2]])
        sca = pa.scalar(3)
        ex = pc.field('a') > 1
        """,
        check=all_of(
            "tb.to_pydict() == {'a': [1, 2], 'n': [{'x': 1}, None]}",
            "ar.to_pylist() == [1, None, 3]",
            "sl.to_pylist() == [None, 3]",
            "sc.metadata == {b'k': b'v'}",
            "bf.to_pybytes() == b'abc'",
            "di.to_pylist() == ['1', None, '3']",
            "ch.num_chunks == 2",
            "sca.as_py() == 3",
            "tb.filter(ex).num_rows == 1",
        ),
        outcome="restored",
    ),
    case(
        "iterators in the middle, dict views",
        """
        import itertools
        l = [1, 2, 3]
        li = iter(l)
        next(li)
        mp = map(lambda x: x + 1, [1, 2])
        next(mp)
        zp = zip([1, 2], 'ab')
        fi = filter(None, [0, 1, 2])
        en = enumerate('ab', 5)
        next(en)
        rv = reversed([1, 2, 3])
        next(rv)
        cnt = itertools.count(3, 2)
        next(cnt)
        cy = itertools.cycle([1, 2])
        next(cy)
        ch = itertools.chain([1], [2])
        isl = itertools.islice(itertools.count(), 2, 5)
        t1, t2 = itertools.tee([1, 2])
        next(t1)
        gb = itertools.groupby('aab')
        pr = itertools.permutations([1, 2])
        next(pr)
        ac = itertools.accumulate([1, 2, 3])
        next(ac)
        d = {'a': 1, 'b': 2}
        dk = d.keys()
        dv = d.values()
        di = d.items()
        dit = iter(d)
        next(dit)
        si = iter({1})
        st = iter('xyz')
        next(st)
        rg = iter(range(5))
        next(rg)
        ca = iter(lambda: 1, 2)
        rp = itertools.repeat(1, 2)
        sm = itertools.starmap(pow, [(2, 3)])
        dri = reversed(d)
        bi = iter(b'ab')
        ti = iter((1, 2))
        next(ti)
        """,
        check=all_of(
            "next(li) == 2",
            "next(mp) == 3",
            "next(zp) == (1, 'a')",
            "next(fi) == 1",
            "next(en) == (6, 'b')",
            "next(rv) == 2",
            "next(cnt) == 5",
            "next(cy) == 2",
            "next(ch) == 1",
            "next(isl) == 2",
            "next(t1) == 2",
            "next(t2) == 1",
            "next(pr) == (2, 1)",
            "next(ac) == 3",
            "list(dk) == ['a', 'b'] and (d.__setitem__('c', 3), 'c' in dk)[1] and (d.pop('c') and True)",
            "list(dv) == [1, 2]",
            "list(di) == [('a', 1), ('b', 2)]",
            "next(dit) == 'b'",
            "next(st) == 'y'",
            "next(rg) == 1",
            "next(ca) == 1",
            "next(sm) == 8",
            "list(rp) == [1, 1]",
            "next(gb)[0] == 'a'",
            "next(ti) == 2",
            "next(bi) == 97",
            "next(dri) == 'b'",
            "next(si) == 1",
        ),
        outcome="restored",
    ),
    case(
        "structures, unions, arrays of them; pointers, callbacks",
        """
        import ctypes
        class S(ctypes.Structure):
            _fields_ = [('a', ctypes.c_int), ('b', ctypes.c_char * 4)]
        class U(ctypes.Union):
            _fields_ = [('i', ctypes.c_uint32), ('f', ctypes.c_float)]
        class N(ctypes.Structure):
            pass
        N._fields_ = [('next', ctypes.POINTER(N)), ('v', ctypes.c_int)]
        s = S(1, b'ab')
        u = U(f=1.0)
        n = N(v=3)
        arr = (S * 2)()
        arr[1].a = 7
        sub = arr[1]
        cb = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int)(lambda x: x + 1)
        p = ctypes.pointer(s)
        py = ctypes.py_object([1])
        cp = ctypes.c_char_p(b'hey')
        vb = ctypes.c_void_p(None)
        be = ctypes.BigEndianStructure
        by = ctypes.byref(s)
        ws = ctypes.c_wchar_p('w')
        bs = ctypes.create_string_buffer(b'abc', 8)
        fp = ctypes.CDLL(None).strlen
        """,
        check=all_of(
            "(s.a, s.b) == (1, b'ab') and type(s) is S",
            "u.i == 0x3F800000",
            "arr[1].a == 7",
            "sub.a == 7",
            "vb.value is None",
            "bs.raw == b'abc\\0\\0\\0\\0\\0'",
        ),
        lost={
            "n": "n: ValueError: ctypes objects containing pointers cannot be pickled",
            "cb": "cb: it is an address in the memory of this process",
            "p": "p: it is an address in the memory of this process",
            "py": "py: ValueError: ctypes objects containing pointers cannot be pickled",
            "cp": "cp: it is an address in the memory of this process",
            "by": "by: cannot pickle 'CArgObject' object",
            "ws": "ws: it is an address in the memory of this process",
            "fp": "fp: it is an address in the memory of this process",
        },
        outcome="restored; addresses lost, by name",
    ),
    case(
        "memoryviews, array.array, mmap, released views",
        """
        import array, mmap, os
        ar = array.array('d', [1, 2])
        mv = memoryview(ar)
        mv2 = memoryview(b'abcd')[::2]
        mc = memoryview(bytearray(8)).cast('I')
        mp = mmap.mmap(-1, 16)
        mp[:3] = b'abc'
        mp.seek(2)
        fn = os.environ['NBCR_TEST_FOLDER'] + '/map.bin'
        open(fn, 'wb').write(b'0123456789')
        fh = open(fn, 'r+b')
        mf = mmap.mmap(fh.fileno(), 0)
        mr = mmap.mmap(fh.fileno(), 5, access=mmap.ACCESS_READ)
        ba = bytearray(b'xy')
        mw = memoryview(ba)
        rel = memoryview(b'a')
        rel.release()
        import numpy as np
        na = np.frombuffer(ba, 'u1')
        nm = np.frombuffer(mp, 'u1')
        """,
        check=all_of(
            "ar.tolist() == [1, 2]",
            "(mv.__setitem__(0, 9.0), ar[0])[1] == 9 and (ar.__setitem__(0, 1.0), 1)[1]",
            "bytes(mv2) == b'ac'",
            "mc.format == 'I' and len(mc) == 2",
            "(mw.__setitem__(0, 65), ba[0])[1] == 65 and (ba.__setitem__(0, 120), 1)[1]",
            "np.shares_memory(na, np.frombuffer(ba, 'u1'))",
            "nm[:3].tobytes() == b'abc'",
        ),
        lost={
            "mp": "mp: a memory mapping belongs to its process",
            "mf": "mf: a memory mapping belongs to its process",
            "mr": "mr: a memory mapping belongs to its process",
            "rel": "rel: ValueError: operation forbidden on released memoryview object",
        },
        remark={"mv2": "its memoryview no longer shares memory", "nm": "its array no longer shares memory"},
        outcome="restored; mappings and released views lost, by name",
    ),
    case(
        "huge integers, lone surrogates, NaN payloads, 3000 levels",
        r"""
        import math, struct
        huge = 10**5000
        neg = -huge
        sur = 'a\udc80b'
        nan1 = struct.unpack('<d', b'\x01\0\0\0\0\0\xf8\x7f')[0]
        nz = -0.0
        inf = float('inf')
        cx = complex(float('nan'), -0.0)
        ell = ...
        ni = NotImplemented
        rg = range(10**30)
        sl = slice([1], 2)
        nul = '\0'
        emo = '\U0001f600'
        big = 'x' * 2_000_000
        bb = b'\xff' * 3
        fs = frozenset([frozenset(), (1,)])
        ty = type(None)
        nested = ((((),),),)
        boolk = {True: 't', 2: 'two'}
        ident = nan1
        lst = [nan1, nan1]
        inter = [('k%d' % i) for i in range(3)]
        sx = sur * 3
        deep = []
        x_ = deep
        for _ in range(3000):
            x_.append([])
            x_ = x_[0]
        class Node:
            __slots__ = ('before', 'after')
        first = node = Node()
        first.before = None
        for _ in range(2000):
            node.after = Node()
            node.after.before = node
            node = node.after
        node.after = None
        last, node = node, None
        def steps(where, way):
            count = 0
            while where := way(where):
                count += 1
            return count
        """,
        check=all_of(
            "huge == 10**5000",
            "sur == 'a\\udc80b'",
            "struct.pack('<d', nan1) == b'\\x01\\0\\0\\0\\0\\0\\xf8\\x7f'",
            "math.copysign(1, nz) == -1",
            "math.isnan(cx.real) and math.copysign(1, cx.imag) == -1",
            "ell is ...",
            "ni is NotImplemented",
            "rg == range(10**30)",
            "sl.start == [1]",
            "nul == '\\0'",
            "emo == '\\U0001f600'",
            "len(big) == 2_000_000",
            "frozenset() in fs",
            "ty is type(None)",
            "boolk == {1: 't', 2: 'two'}",
            "steps(deep, lambda part: part and part[0]) == 2999 and x_ == []",
            "steps(first, lambda node: node.after) == steps(last, lambda node: node.before) == 2000",
        ),
    ),
    case(
        "one array in views, closures, partials, classes",
        """
        import numpy as np, functools
        base = np.arange(10)
        d = {'v': base[2:5]}
        f = lambda: base[0]
        p = functools.partial(lambda b: b.sum(), base)
        lst = [d, d]
        def outer():
            state = {'arr': base, 'n': 0}
            def inc():
                state['n'] += 1
                state['arr'][0] += 100
                return state['n']
            return inc, (lambda: state)
        inc, get = outer()
        inc()
        class Holder:
            ref = base
        h = Holder()
        h.me = h
        h.d = d
        tup = (base, [base], {'b': base})
        same = base
        """,
        check=all_of(
            "np.shares_memory(d['v'], base)",
            "f() == base[0] == 100",
            "p.args[0] is base",
            "lst[0] is lst[1] is d",
            "get()['n'] == 1 and get()['arr'] is base",
            "h.me is h and h.d is d and Holder.ref is base",
            "tup[0] is tup[1][0] is tup[2]['b'] is base",
            "same is base",
        ),
        outcome="restored",
    ),
    case(
        "views of a mapped file, and of shared memory",
        """
        import numpy as np, os, mmap
        path = os.environ['NBCR_TEST_FOLDER'] + '/views.dat'
        mapped = np.memmap(path, 'f4', 'w+', shape=(10, 4))
        part = mapped[3:5]
        mapped.flush()
        anonymous = mmap.mmap(-1, 4096)
        window = np.frombuffer(anonymous, 'u1')
        """,
        check=all_of(
            "np.shares_memory(part, mapped) and part.filename == mapped.filename",
            "(part.__setitem__(0, 7), part.flush(), float(np.fromfile(path, 'f4').sum()))[2] == 28",
            "window.nbytes == 4096",
        ),
        lost={"anonymous": ""},
        remark={"window": "no longer shares memory"},
        outcome="restored; what shares memory with other processes is told",
    ),
    case(
        "images that Pillow has opened",
        """
        from PIL import Image
        import os
        path = os.environ['NBCR_TEST_FOLDER'] + '/frames'
        frames = [Image.new('RGB', (20, 20), color) for color in ('red', 'blue', 'green')]
        frames[0].save(path + '.gif', save_all=True, append_images=frames[1:])
        frames[1].save(path + '.png')
        moving = Image.open(path + '.gif')
        moving.seek(1)
        still = Image.open(path + '.png')
        """,
        check=all_of(
            "moving.convert('RGB').getpixel((3, 3)) == (0, 0, 255)",
            "still.getpixel((3, 3)) == (0, 0, 255)",
            "frames[2].getpixel((3, 3)) == (0, 128, 0)",
        ),
        remark={"moving": "of its frames only the one it showed"},
        outcome="restored; that other frames are gone is told",
    ),
    case(
        "settings that decide how later cells print",
        """
        import warnings, os, logging, sys, gc, pandas as pd, matplotlib.pyplot as plt
        sys.path.insert(0, '/of-the-case')
        sys.setswitchinterval(.004)
        _ = os.umask(0o027)
        get_ipython().dir_stack[:] = ['/of-the-case']
        gc.set_threshold(800, 11, 11)
        logging.basicConfig(stream=sys.stdout, format='case %(message)s', force=True)
        get_ipython().run_line_magic('matplotlib', 'inline')
        fig, ax = plt.subplots()
        plt.close(fig)
        import matplotlib as mpl
        mpl.colors.get_named_colors_mapping().update(b='#123456', ofthecase='#ff0000')
        mpl.colors.colorConverter.cache.clear()
        pd.set_option('display.precision', 3, 'display.max_rows', 7)
        warnings.filterwarnings('ignore', message='of the case')
        os.environ['NBCRCASE'] = 'set'
        get_ipython().run_line_magic('precision', '%.2e')
        get_ipython().ast_node_interactivity = 'all'
        get_ipython().run_line_magic('alias', 'casealias echo')
        get_ipython().run_line_magic('load_ext', 'autoreload')
        get_ipython().run_line_magic('alias_magic', '-l casetime timeit -p "-n 1 -r 1 -q -o"')
        get_ipython().automagic = False
        from IPython.core.magic import register_line_magic
        @register_line_magic
        def casemagic(line):
            return line + '!'
        get_ipython().display_formatter.formatters['text/plain'].for_type(slice, lambda s, p, cycle: p.text('a case'))
        get_ipython().display_formatter.formatters['text/plain'].for_type(
            'fractions.Fraction', lambda s, p, cycle: p.text('a part'))
        get_ipython().display_formatter.mimebundle_formatter.for_type(complex, lambda z: {'text/case': 'complex'})
        def on_cell(info):
            get_ipython().case_cell = info.raw_cell  # which is there after a %reset, too
        get_ipython().events.register('pre_run_cell', on_cell)
        """,
        """
        get_ipython().ast_node_interactivity = 'last_expr'
        """,
        check=all_of(
            "(True, 'case %(message)s') in [(h.stream is sys.stdout, h.formatter._fmt) for h in logging.root.handlers]",
            "'image/png' in get_ipython().display_formatter.format(fig)[0]",
            "pd.get_option('display.precision') == 3 and pd.get_option('display.max_rows') == 7",
            "any(getattr(f[1], 'pattern', f[1]) == 'of the case' for f in warnings.filters)",
            "os.environ['NBCRCASE'] == 'set'",
            "mpl.colors.to_hex('b') == '#123456' and mpl.colors.to_hex('ofthecase') == '#ff0000'",
            "get_ipython().display_formatter.formatters['text/plain'].float_format == '%.2e'",
            "get_ipython().run_line_magic('casemagic', 'a') == 'a!'",
            "get_ipython().display_formatter.format(slice(1))[0]['text/plain'] == 'a case'",
            "get_ipython().display_formatter.format(__import__('fractions').Fraction(1))[0]['text/plain'] == 'a part'",
            "get_ipython().display_formatter.format(1j)[0]['text/case'] == 'complex'",
            "get_ipython().events.callbacks['pre_run_cell'].count(on_cell) == 1",
            "get_ipython().case_cell.startswith('print(bool(')",
            "any(name == 'casealias' for name, _ in get_ipython().alias_manager.aliases)",
            "'Umask:\\t0027' in open('/proc/self/status').read() and get_ipython().dir_stack == ['/of-the-case']",
            "sys.path[0] == '/of-the-case' and sys.getswitchinterval() == .004 and gc.get_threshold()[:2] == (800, 11)",
            "get_ipython().run_line_magic('casetime', '1').loops == 1 and not get_ipython().automagic",
            "any('autoreload' in name for name in get_ipython().extension_manager.loaded)",
        ),
    ),
    case(
        "what changes cells before they run, and shows exceptions",
        """
        import ast
        def of_the_case(lines):
            return [line.replace('OF THE CASE', '42') for line in lines]
        class Doubled(ast.NodeTransformer):
            def __init__(self, of):
                self.of = of
            def visit_Constant(self, node):
                return ast.copy_location(ast.Constant(2 * self.of), node) if node.value == self.of else node
        doubled = Doubled(4711)
        shell = get_ipython()
        shell.input_transformers_cleanup.append(of_the_case)
        shell.ast_transformers += [doubled, Doubled(4712)]
        class CaseError(Exception):
            pass
        def shown(self, kind, value, trace, tb_offset=None):
            self.case_shown = str(value)
        shell.set_custom_exc((CaseError,), shown)
        del shell
        """,
        """
        def another(lines):
            return lines
        get_ipython().input_transformers_post.append(another)
        """,
        check=all_of(
            "[OF THE CASE, 4711 + 0, 4712 + 0] == [42, 9422 // 1, 9424]",
            "get_ipython().input_transformers_cleanup.count(of_the_case) == 1",
            "[type(t) for t in get_ipython().ast_transformers].count(Doubled) == 2",
            "doubled in get_ipython().ast_transformers and get_ipython().input_transformers_post == [another]",
            "get_ipython().custom_exceptions == (CaseError,)",
            "get_ipython().CustomTB(CaseError, CaseError('x'), None) or get_ipython().case_shown == 'x'",
        ),
    ),
    case(
        "documents of Beautiful Soup and elements of them",
        """
        import bs4
        soup = bs4.BeautifulSoup('<table>' + '<tr><td>a<b>c</b></td></tr><!-- x -->' * 2000 + '</table>', 'html.parser')
        rows, cell = soup.find_all('tr'), soup.td
        inside = {'deep': soup.find_all('b')[1999], 'text': soup.td.b.string}
        changed = bs4.BeautifulSoup('<p>one</p>', 'html.parser')
        changed.p.append(' two')
        part = changed.p.contents[1]
        alone = bs4.BeautifulSoup('<i>x</i>', 'html.parser').i.extract()
        """,
        check=all_of(
            "len(rows) == 2000 and rows[0] is soup.tr and cell is rows[0].td and cell.parent is rows[0]",
            "inside['deep'] is soup.find_all('b')[1999] and inside['text'] is cell.b.string",
            "str(changed) == '<p>one two</p>' and part == ' two' and str(alone) == '<i>x</i>'",
        ),
        remark=dict.fromkeys(("changed", "part"), "it comes back apart from its document"),
    ),
    case(
        "arrays of an own subclass, with attributes",
        """
        import numpy as np
        class Tagged(np.ndarray):
            def __new__(cls, values, tag=None):
                made = np.asarray(values).view(cls)
                made.tag = tag
                return made
            def __array_finalize__(self, other):
                self.tag = getattr(other, 'tag', None)
        tags = ['t']
        small = Tagged([1, 2], tags)
        large = Tagged(np.ones(300_000), tags)
        large.me = large
        part = large[1:]
        """,
        check=all_of(
            "type(small) is Tagged and small.tolist() == [1, 2] and small.tag is tags",
            "large.tag is tags and large.me is large and large.sum() == 300_000",
            "part.tag is tags and np.shares_memory(part, large)",
        ),
        outcome="restored",
    ),
    case(
        "matches of patterns, compiled formats",
        """
        import re, struct
        first = re.match('a', 'abab')
        named = re.search('(?P<k>b)', 'abab')
        third = list(re.finditer('b', 'ababab'))[2]
        whole = re.compile('a|ab').fullmatch('ab')
        within = re.compile('b').search('abab', 2)
        text = bytearray(b'abc')
        moved = re.search(b'c', text)
        text[:] = b'cab'
        form = struct.Struct('<i')
        """,
        check=all_of(
            "first.span() == (0, 1) and named.groupdict() == {'k': 'b'} and named.lastgroup == 'k'",
            "third.span() == (5, 6) and whole.group() == 'ab' and (within.pos, within.start()) == (2, 3)",
            "form.pack(1) == struct.pack('<i', 1)",
        ),
        lost={"moved": "moved: its text has changed since it was searched"},
        outcome="restored; of a text that has changed since lost, by name",
    ),
)
