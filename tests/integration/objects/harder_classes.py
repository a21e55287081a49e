"""Harder than `cases`: classes, what they are made of and what their instances are."""

from __future__ import annotations

from typing import Final

from tests.integration.objects.cases import all_of, case

CLASSES: Final = (
    case(
        "metaclass that registers its classes",
        """
        class Reg(type):
            all = {}
            def __new__(m, name, bases, ns, **kw):
                c = super().__new__(m, name, bases, ns)
                m.all[name] = c
                c.kw = kw
                return c
            def __init__(c, name, bases, ns, **kw):
                super().__init__(name, bases, ns)
            def __len__(c):
                return 42
            def __contains__(c, x):
                return x == 'in'
        class A(metaclass=Reg, tag=1):
            pass
        class B(A, tag=2):
            def __init_subclass__(cls, **kw):
                cls.sub = True
        a = A()
        b = B()
        """,
        check=all_of(
            "A.kw == {'tag': 1} and len(A) == 42 and 'in' in A and type(a) is A",
            "B.kw == {'tag': 2} and issubclass(B, A)",
            "Reg.all['A'] is A and Reg.all['B'] is B and len(Reg.all) == 2",
            "type(b) is B and isinstance(b, A)",
        ),
        outcome="restored",
    ),
    case(
        "registered and hooked abstract class",
        """
        import abc
        class Shape(abc.ABC):
            @abc.abstractmethod
            def area(self): ...
            @classmethod
            def __subclasshook__(cls, C):
                return True if hasattr(C, 'weird') else NotImplemented
        class Sq:
            def area(self):
                return 4
        Shape.register(Sq)
        class W:
            weird = 1
        s = Sq()
        """,
        check=all_of(
            "isinstance(s, Shape) and isinstance(W(), Shape) and not isinstance(1, Shape)",
            "s.area() == 4",
        ),
        outcome="restored",
    ),
    case(
        "descriptors, properties of closures",
        """
        class Typed:
            def __set_name__(self, owner, name):
                self.name = '_' + name
                self.owner = owner
            def __get__(self, o, t=None):
                return self if o is None else getattr(o, self.name)
            def __set__(self, o, v):
                assert v > 0
                setattr(o, self.name, v)
        def scaled(k):
            calls = []
            def get(self):
                calls.append(1)
                return self.x * k
            return property(get, doc='scaled'), calls
        pr, calls = scaled(7)
        class H:
            x = Typed()
            p = pr
            __slots__ = ('_x', '__weakref__')
        h = H()
        h.x = 3
        h.p
        """,
        check=all_of(
            "h.x == 3 and h.p == 21",
            "H.x.owner is H and H.p.__doc__ == 'scaled'",
            "(len(calls), h.p, len(calls))[0] < len(calls)",
        ),
        outcome="restored",
    ),
    case(
        "bound, class and static methods, nested classes",
        """
        class A:
            n = 0
            @classmethod
            def mk(cls):
                cls.n += 1
                return cls()
            @staticmethod
            def st(x):
                return x * 2
            def me(self):
                return self
            class Inner:
                class Deep:
                    z = 1
                def up(self):
                    return A
        a = A.mk()
        bm = a.me
        cm = A.mk
        sm = A.st
        um = A.me
        inn = A.Inner()
        dp = A.Inner.Deep()
        ops = {'m': a.me, 'c': A.mk, 'l': [].append, 's': 'abc'.upper, 'd': dict.fromkeys, 'j': ','.join}
        """,
        check=all_of(
            "bm() is a",
            "(cm(), A.n)[1] >= 2 and type(cm()) is A",
            "sm(2) == 4",
            "um(a) is a",
            "type(inn) is A.Inner and inn.up() is A",
            "type(dp) is A.Inner.Deep and dp.z == 1",
            "ops['m']() is a and ops['s']() == 'ABC' and ops['d']('a') == {'a': None} and ops['j']('ab') == 'a,b'",
            "A.n >= 1",
        ),
        outcome="restored",
    ),
    case(
        "class changed, replaced, after instances were made",
        """
        class K:
            def f(self):
                return 1
        k = K()
        k.x = 1
        old = K
        def f2(self):
            return 2
        K.f = f2
        K.extra = [1]
        class K:
            def f(self):
                return 3
        k3 = K()
        class L(old):
            pass
        l = L()
        k4 = old()
        k4.__class__ = K
        del old.extra
        """,
        check=all_of(
            "k.f() == 2 and type(k) is old and k.x == 1",
            "k3.f() == 3 and type(k3) is K",
            "l.f() == 2 and isinstance(l, old)",
            "type(k4) is K",
            "old is not K and not hasattr(old, 'extra') and type(k) is old",
        ),
        outcome="restored",
    ),
    case(
        "subclasses of built-in types, with attributes",
        """
        class L(list):
            def __init__(self, *a, note=None):
                super().__init__(*a)
                self.note = note
        class D(dict):
            def __getattr__(self, n):
                try:
                    return self[n]
                except KeyError:
                    raise AttributeError(n)
            def __missing__(self, k):
                return 'miss'
        class S(set):
            tag = 1
        class I(int):
            def __new__(cls, v, u):
                o = super().__new__(cls, v)
                o.u = u
                return o
            def __getnewargs__(self):
                return int(self), self.u
        class Str(str):
            __slots__ = ('z',)
        class T(tuple):
            def __new__(cls, a, b):
                return super().__new__(cls, (a, b))
            def __getnewargs__(self):
                return tuple(self)
        class F(float):
            pass
        class B(bytes):
            pass
        l = L([1], note='n')
        l.append(l)
        d = D(a=1)
        d['self'] = d
        s = S([1])
        s.tag = 2
        i = I(3, 'kg')
        st = Str('a')
        st.z = 5
        t = T(1, 2)
        f = F(1.5)
        f.unit = 'm'
        b = B(b'q')
        b.k = 1
        class Emp(dict):
            __slots__ = ('w',)
        em = Emp(a=1)
        em.w = em
        class FS(frozenset):
            pass
        fs = FS([1])
        fs.q = 1
        """,
        check=all_of(
            "l.note == 'n' and l[1] is l and type(l) is L",
            "d.a == 1 and d['self'] is d and d['q'] == 'miss' and type(d) is D",
            "s.tag == 2 and 1 in s",
            "i == 3 and i.u == 'kg' and type(i) is I",
            "st == 'a' and st.z == 5",
            "t == (1, 2) and type(t) is T",
            "f.unit == 'm' and f == 1.5",
            "b.k == 1",
            "em.w is em and em['a'] == 1",
            "fs.q == 1",
        ),
        outcome="restored",
    ),
    case(
        "local classes, singletons, name mangling, diamond",
        """
        class Slots:
            __slots__ = ('a', 'b', '__dict__')
        s = Slots()
        s.a = 1
        s.c = 3
        def make_cls(n):
            class Local:
                k = n
                def get(self):
                    return n, __class__
            return Local
        L1 = make_cls(1)
        L2 = make_cls(2)
        l1 = L1()
        l2 = L2()
        Dyn = type('Dyn', (list,), {'x': 5})
        dy = Dyn([1])
        class Single:
            _i = None
            def __new__(cls):
                if cls._i is None:
                    cls._i = super().__new__(cls)
                return cls._i
        sg = Single()
        sg.v = 1
        class Pr:
            __private = 5
            def g(self):
                return self.__private
        pr = Pr()
        pr._Pr__x = 1
        class CI:
            def __class_getitem__(cls, k):
                return (cls, k)
        ci = CI[3]
        class Mx1:
            def f(self):
                return ['1']
        class Mx2(Mx1):
            def f(self):
                return super().f() + ['2']
        class Mx3(Mx1):
            def f(self):
                return super().f() + ['3']
        class Mx(Mx2, Mx3):
            pass
        mx = Mx()
        class Op:
            def __init__(s):
                s.__dict__['__class_note__'] = 1
            def __setattr__(s, k, v):
                raise AttributeError('frozen')
        op = Op()
        """,
        check=all_of(
            "s.a == 1 and s.c == 3 and not hasattr(s, 'b')",
            "l1.get() == (1, L1)",
            "l2.get() == (2, L2)",
            "L1 is not L2 and L1.k == 1 and L2.k == 2",
            "dy == [1] and dy.x == 5 and type(dy) is Dyn",
            "Single() is sg and sg.v == 1",
            "pr.g() == 5 and pr._Pr__x == 1",
            "ci == (CI, 3)",
            "mx.f() == ['1', '3', '2']",
            "op.__dict__ == {'__class_note__': 1}",
        ),
        outcome="restored",
    ),
    case(
        "what super() returns, kept",
        """
        class Wrong(ValueError):
            def __str__(self):
                return 'wrong ' + super().__str__()
        class Above:
            def f(self):
                return 'above'
        class Below(Above):
            def __init__(self):
                self.up = super()
            def f(self):
                return 'below'
        below, wrong = Below(), Wrong('x')
        kept = super(Wrong, wrong)
        unbound = super(Below)
        """,
        check=all_of(
            "type(kept) is super and kept.__self__ is wrong and kept.__str__() == 'x'",
            "type(below.up) is super and below.up.f() == 'above' and below.up.__self__ is below",
            "unbound.__thisclass__ is Below and unbound.__self__ is None",
        ),
        outcome="restored",
    ),
    case(
        "attributes that C code gave a class, dead proxies",
        """
        import weakref
        class Plain:
            pass
        class Slotted:
            __slots__ = ('x',)
        class Called:
            def __call__(self):
                return 1
        name_of = type.__dict__['__name__']
        abstract = type.__dict__['__abstractmethods__']
        own_dict = Plain.__dict__['__dict__']
        slot = Slotted.x
        dead, dead_call = weakref.proxy(Plain()), weakref.proxy(Called())
        """,
        check=all_of(
            "name_of is type.__dict__['__name__']",
            "abstract is type.__dict__['__abstractmethods__']",
            "own_dict is Plain.__dict__['__dict__']",
            "slot is Slotted.x",
            "type(dead) is weakref.ProxyType and type(dead_call) is weakref.CallableProxyType",
        ),
        outcome="restored",
    ),
    case(
        "slots, of all kinds, and nothing beside them",
        """
        import abc, dataclasses, typing, weakref
        class A:
            __slots__ = ('x', '__hidden')
            def __init__(self):
                self.x, self.__hidden = 1, 2
        class B(A):
            __slots__ = 'z'
        class Open(A):
            pass
        class WithDict:
            __slots__ = ('a', '__dict__')
        class Documented:
            __slots__ = {'a': 'what it is', '__weakref__': None}
        class Above(abc.ABC):
            __slots__ = ('g',)
            @abc.abstractmethod
            def m(self): ...
        class Below(Above):
            __slots__ = ()
            def m(self):
                return self.g
        @dataclasses.dataclass(slots=True)
        class Data:
            u: int
            v: list = dataclasses.field(default_factory=list)
        class Tagged(list):
            __slots__ = ('tag',)
        class Generic(typing.Generic[typing.TypeVar('T')]):
            __slots__ = ('it',)
        def is_closed(o):
            try:
                o.nope = 1
            except AttributeError:
                return True
            return False
        a, b, w, d, o = A(), B(), WithDict(), Documented(), Open()
        b.z = w.a = w.b = d.a = 5
        below, data, tagged, generic = Below(), Data(1), Tagged([1]), Generic()
        below.g, tagged.tag, generic.it = 4, 't', 1
        ref = weakref.ref(d)
        """,
        check=all_of(
            "(a.x, a._A__hidden, b.z, w.a, w.b, d.a, below.m(), tagged, tagged.tag) == (1, 2, 5, 5, 5, 5, 4, [1], 't')",
            "all(map(is_closed, (a, b, A(), d, below, data, tagged, Data(2))))",
            "not is_closed(WithDict()) and not is_closed(Open()) and generic.it == 1",
            "Documented.__slots__['a'] == 'what it is' and ref() is d",
            "data == Data(1, []) and not hasattr(data, '__dict__')",
        ),
        outcome="restored",
    ),
    case(
        "classes that keep a register of their subclasses",
        """
        class Plugin:
            known = []
            def __init_subclass__(cls, tag='none', **more):
                super().__init_subclass__(**more)
                cls.tag = tag
                Plugin.known.append(cls.__name__)
        class One(Plugin, tag='x'):
            pass
        class Two(One):
            pass
        class Needs:
            def __init_subclass__(cls, need):
                cls.need = need
        class Has(Needs, need=5):
            pass
        class Meta(type):
            made = []
            def __new__(meta, name, bases, body, **more):
                Meta.made.append(name)
                cls = super().__new__(meta, name, bases, body)
                cls.more = more
                return cls
            def __init__(cls, name, bases, body, **more):
                super().__init__(name, bases, body)
        class Made(metaclass=Meta, opt=3):
            pass
        class Named:
            def __set_name__(self, owner, name):
                self.names = [*getattr(self, 'names', ()), name]
        class Owner:
            field = Named()
        """,
        check=all_of(
            "Plugin.known == ['One', 'Two'] and (One.tag, Two.tag) == ('x', 'none')",
            "Has.need == 5 and Meta.made == ['Made'] and Made.more == {'opt': 3} and type(Made) is Meta",
            "vars(Owner)['field'].names == ['field']",
            "type('Three', (Plugin,), {}).tag == 'none' and Plugin.known.pop() == 'Three'",
        ),
        outcome="restored",
    ),
    case(
        "what pickle saves and cannot load: a __new__ with arguments, a __getattr__ for others",
        """
        class Metres(float):
            def __new__(cls, value, unit):
                made = super().__new__(cls, value)
                made.unit = unit
                return made
        class Point(tuple):
            def __new__(cls, x, y):
                return super().__new__(cls, (x, y))
        class Pair:
            __slots__ = ('both',)
            def __new__(cls, a, b):
                made = object.__new__(cls)
                made.both = a, b
                return made
        class Only:
            one = None
            def __new__(cls):
                cls.one = cls.one or super().__new__(cls)
                return cls.one
        class Proxy:
            def __init__(self, behind):
                self._behind = behind
            def __getattr__(self, name):
                return getattr(self._behind, name)
        class Slotted:
            __slots__ = ('_behind',)
            def __init__(self, behind):
                object.__setattr__(self, '_behind', behind)
            def __getattr__(self, name):
                return getattr(self._behind, name)
            def __setattr__(self, name, value):
                setattr(self._behind, name, value)
        class Record(dict):
            def __getattr__(self, name):
                return self[name]
        m, point, pair, only = Metres(2.5, 'm'), Point(1, 2), Pair(1, 2), Only()
        proxy, slotted, record, circle = Proxy([1, 2]), Slotted({1: 2}), Record(a=1), Proxy(None)
        record.extra, circle._behind = 5, [circle]
        """,
        check=all_of(
            "m + 1 == 3.5 and m.unit == 'm' and type(m) is Metres",
            "point == (1, 2) and type(point) is Point and pair.both == (1, 2) and Only() is only",
            "proxy.count(1) == 1 and list(slotted.keys()) == [1] and type(slotted) is Slotted",
            "(record.a, vars(record)) == (1, {'extra': 5}) and circle._behind[0] is circle",
        ),
        outcome="restored",
    ),
    case(
        "containers of an own class, with an __init__, methods and attributes of their own",
        """
        import collections
        class Least(collections.OrderedDict):
            def __init__(self, size):
                super().__init__()
                self.size = size
            def __setitem__(self, key, value):
                super().__setitem__(key, value)
                while len(self) > self.size:
                    self.popitem(last=False)
        class Noting(dict):
            def __init__(self, *args):
                self.noted = []
                super().__init__(*args)
            def __setitem__(self, key, value):
                self.noted.append(key)
                super().__setitem__(key, value)
        class Checked(list):
            def __init__(self, kind):
                super().__init__()
                self.kind = kind
            def append(self, value):
                super().append(self.kind(value))
        class Lists(collections.defaultdict):
            def __init__(self, note):
                super().__init__(list)
                self.note = note
        class Last(collections.deque):
            def __init__(self, count, me=None):
                super().__init__(maxlen=count)
        class Counted(collections.Counter):
            def __init__(self, of, tag='?'):
                super().__init__(of)
                self.tag = tag
        class Named(set):
            def __init__(self, name):
                super().__init__()
                self.name = name
        class Frozen(frozenset):
            def __new__(cls, name, members):
                made = super().__new__(cls, members)
                made.name = name
                return made
        class Plain(collections.OrderedDict):
            pass
        least, noting, checked, lists = Least(2), Noting({'a': 1}), Checked(int), Lists('n')
        last, counted, named, frozen = Last(2), Counted('aab', tag='t'), Named('s'), Frozen('f', [1, 2])
        least['x'], least['y'], least['z'], noting['b'], noting['me'] = 1, 2, 3, 2, noting
        checked.append('4')
        lists['k'].append(checked)
        last.extend([1, 2, last])
        named.add(5)
        plain = Plain(q=1)
        plain.more = lists
        """,
        check=all_of(
            "list(least.items()) == [('y', 2), ('z', 3)] and least.size == 2 and type(least) is Least",
            "noting['me'] is noting and list(noting) == ['a', 'b', 'me'] and noting.noted == ['b', 'me']",
            "checked == [4] and checked.kind is int and lists['k'][0] is checked",
            "lists.note == 'n' and lists.default_factory is list and plain.more is lists and plain['q'] == 1",
            "last.maxlen == 2 and last[0] == 2 and last[1] is last",
            "counted['a'] == 2 and counted.tag == 't'",
            "named == {5} and named.name == 's' and frozen == {1, 2} and frozen.name == 'f'",
        ),
    ),
    case(
        "structs of msgspec, with tags, names and factories; encoders and decoders",
        """
        import msgspec
        from typing import Generic, TypeVar
        Q = TypeVar('Q')
        class Base(msgspec.Struct, kw_only=True, rename='camel', tag='base', order=True):
            a_b: int
            more: dict = msgspec.field(default_factory=lambda: {'k': 1})
            own: int = msgspec.field(default=3, name='NAME')
            constant = 4
            def __post_init__(self):
                self.own += 1
        class Child(Base, tag='child'):
            c: float = 1.5
            other: 'Child | None' = None
            def twice(self):
                return self.c * 2
        class Frozen(msgspec.Struct, Generic[Q], frozen=True):
            v: Q
        base, child, frozen = Base(a_b=1), Child(2.0, a_b=2), Frozen[int](3)
        decoder, encoder = msgspec.json.Decoder(Child, strict=False), msgspec.msgpack.Encoder(order='sorted')
        """,
        check=all_of(
            "base == Base(a_b=1) and base.own == 4 and base.more == {'k': 1} and Base.constant == 4",
            "type(child) is Child and isinstance(child, Base) and child.twice() == 4 and child.own == 4",
            'msgspec.json.encode(child) == b\'{"type":"child","c":2.0,"other":null,"aB":2,"more":{"k":1},"NAME":4}\'',
            "frozen.v == 3 and hash(frozen) == hash(Frozen(3)) and Base(a_b=1) < Base(a_b=2)",
            'decoder.decode(b\'{"type":"child","aB":"5","other":{"type":"child","aB":6}}\').other.a_b == 6',
            "encoder.encode({'b': 1, 'a': 2}) == msgspec.msgpack.encode({'a': 2, 'b': 1})",
        ),
    ),
)
