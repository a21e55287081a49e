"""Harder than `cases`: what the language itself offers, used to the full."""

from __future__ import annotations

from typing import Final

from tests.integration.objects.cases import all_of, case

LANGUAGE: Final = (
    case(
        "dataclasses with slots, keywords, InitVar",
        """
        from dataclasses import dataclass, field, KW_ONLY, InitVar
        @dataclass(slots=True, frozen=True)
        class Pt:
            x: int
            y: list = field(default_factory=list, compare=False)
        @dataclass
        class Kw:
            a: int
            _: KW_ONLY
            b: InitVar[int] = 3
            c: int = field(init=False, default=9)
            def __post_init__(self, b):
                self.d = b
        p = Pt(1, [2])
        k = Kw(1, b=5)
        pts = {Pt(i) for i in range(3)}
        """,
        check=all_of(
            "p.x == 1 and p.y == [2] and type(p) is Pt",
            "Pt(3).x == 3 and Pt.__slots__ == ('x', 'y') and hash(Pt(1)) == hash(Pt(1))",
            "(k.a, k.c, k.d) == (1, 9, 5)",
            "Kw(2, b=8).d == 8",
            "Pt(1) in pts and len(pts) == 3",
        ),
        outcome="restored",
    ),
    case(
        "classes of attrs",
        """
        import attrs
        before_attrs = (i for i in 'abc')
        size_of_attrs = 1000
        @attrs.define(frozen=True)
        class Frozen:
            x: int = attrs.field(validator=attrs.validators.instance_of(int))
            y: list = attrs.Factory(list)
        @attrs.define(slots=False, order=True)
        class Checked:
            a: int = attrs.field(default=1, converter=int)
            def __attrs_post_init__(self):
                self.b = size_of_attrs
        frozen, checked = Frozen(1), Checked('3')
        """,
        check=all_of(
            "type(frozen) is Frozen and frozen == Frozen(1) and attrs.evolve(frozen, x=2).x == 2",
            "(checked.a, checked.b, repr(checked), Checked(2) < checked) == (3, 1000, 'Checked(a=3)', True)",
        ),
        lost={"before_attrs": "a running generator cannot be copied"},
        outcome="restored",
    ),
    case(
        "flags, aliases, members with attributes or of functions",
        """
        import enum
        class Fl(enum.Flag):
            A = enum.auto()
            B = enum.auto()
            C = A | B
        class Si(enum.StrEnum):
            X = enum.auto()
        class Me(enum.IntEnum):
            ONE = 1
            UNO = 1
            TWO = 2
            @property
            def dbl(self):
                return self * 2
            def __str__(self):
                return 'me'
        class Pl(enum.Enum):
            E = (3, 4)
            def __init__(self, a, b):
                self.a = a
                self.b = [b]
        pl = Pl.E
        class Fn(enum.Enum):
            f = enum.member(lambda x: x + 1)
            def call(self, x):
                return self.value(x)
        D = enum.Enum('D', 'P Q')
        fl = Fl.A | Fl.B
        si = Si.X
        me = Me.UNO
        fn = Fn.f
        d = D.Q
        st = {Me.TWO: Fl.C}
        """,
        check=all_of(
            "fl is Fl.C and Fl(1) is Fl.A",
            "(Fl.A | Fl.B) is Fl.C",
            "si is Si.X and si == 'x'",
            "me is Me.ONE and Me.UNO is Me.ONE and str(me) == 'me' and me.dbl == 2",
            "fn.call(1) == 2",
            "pl is Pl.E and pl.a == 3 and pl.b == [4] and Pl((3, 4)) is pl",
            "d is D.Q and D('x') if False else d is D.Q",
            "st[Me.TWO] is Fl.C",
        ),
        outcome="restored",
    ),
    case(
        "NamedTuple, generics, NewType, ParamSpec, Protocol, TypedDict",
        """
        from typing import (
            NamedTuple,
            Generic,
            TypeVar,
            Protocol,
            runtime_checkable,
            ParamSpec,
            TypedDict,
            NewType,
            Annotated,
            Literal,
            Union,
        )
        T = TypeVar('T', bound=int)
        P = ParamSpec('P')
        U = NewType('U', int)
        class NT(NamedTuple):
            a: int
            b: str = 'x'
            def s(self):
                return self.a * 2
        class Box(Generic[T]):
            def __init__(self, v: T):
                self.v = v
        class TD(TypedDict, total=False):
            n: int
        @runtime_checkable
        class Pr(Protocol):
            def go(self): ...
        nt = NT(3)
        bx = Box[int](5)
        al = Box[int]
        an = Annotated[int, 'meta', {'k': [1]}]
        u = U(3)
        td: TD = {'n': 1}
        un = Union[int, str, None]
        opt = list[int] | None
        class Go:
            def go(self):
                pass
        go = Go()
        """,
        check=all_of(
            "nt.s() == 6 and type(nt) is NT and nt.b == 'x' and NT(1) == (1, 'x')",
            "bx.v == 5 and bx.__orig_class__ == Box[int]",
            "al == Box[int]",
            "an.__metadata__ == ('meta', {'k': [1]})",
            "T.__bound__ is int and Box.__parameters__ == (T,)",
            "P.__name__ == 'P'",
            "U(4) == 4 and U.__supertype__ is int",
            "TD.__optional_keys__ == frozenset({'n'})",
            "isinstance(go, Pr) and not isinstance(1, Pr)",
            "un == Union[int, str, None]",
            "opt == (list[int] | None)",
        ),
        outcome="restored",
    ),
    case(
        "singledispatch, cached_property, wraps, partial of partial",
        """
        import functools
        @functools.singledispatch
        def show(x):
            return 'obj'
        @show.register
        def _s1(x: int):
            return 'int'
        @show.register(list)
        def _s2(x):
            return 'list'
        @functools.lru_cache(maxsize=None)
        def fib(n):
            return n if n < 2 else fib(n - 1) + fib(n - 2)
        fib(20)
        @functools.total_ordering
        class V:
            def __init__(s, v):
                s.v = v
            def __eq__(s, o):
                return s.v == o.v
            def __lt__(s, o):
                return s.v < o.v
            @functools.cached_property
            def heavy(s):
                return [s.v]
            @functools.singledispatchmethod
            def m(self, x):
                return 'o'
            @m.register
            def _(self, x: int):
                return 'i'
            pm = functools.partialmethod(lambda self, a, b: (self.v, a, b), 1)
        v = V(2)
        v.heavy.append(9)
        def deco(f):
            @functools.wraps(f)
            def w(*a):
                w.calls += 1
                return f(*a)
            w.calls = 0
            return w
        @deco
        def inc(x: int) -> int:
            "doc"
            return x + 1
        inc(1)
        inc(2)
        pp = functools.partial(functools.partial(int, base=2), '101')
        key = functools.cmp_to_key(lambda a, b: b - a)
        red = functools.partial(functools.reduce, lambda a, b: a + b)
        """,
        check=all_of(
            "(show(1), show([]), show('a')) == ('int', 'list', 'obj')",
            "fib(30) == 832040",
            "v.heavy == [2, 9] and v.m(1) == 'i' and v.m('') == 'o' and v.pm(5) == (2, 1, 5) and v >= V(1)",
            "inc.calls == 2 and inc(4) == 5 and inc.__wrapped__(1) == 2 and inc.__doc__ == 'doc'",
            "pp() == 5",
            "red([1, 2, 3]) == 6",
        ),
        lost={"key": "key: cannot pickle 'functools.KeyWrapper' object"},
        remark={"fib": "its cache comes back empty"},
        outcome="restored; cmp_to_key lost, by name",
    ),
    case(
        "lambdas and closures that call themselves and each other",
        """
        Y = lambda f: (lambda x: x(x))(lambda y: f(lambda *a: y(y)(*a)))
        fac = Y(lambda f: lambda n: 1 if n < 2 else n * f(n - 1))
        fl = lambda n: 1 if n < 2 else n * fl(n - 1)
        def mk():
            def a(n):
                return n and b(n - 1)
            def b(n):
                return n and a(n - 1)
            a.b = b
            a.self = a
            return a
        ab = mk()
        def cnt():
            cnt.n = getattr(cnt, 'n', 0) + 1
            return cnt.n
        cnt()
        fs = [lambda i=i: i for i in range(3)]
        gs = [(lambda: j) for j in range(3)]
        """,
        check=all_of(
            "fac(5) == 120",
            "fl(5) == 120",
            "ab(7) == 0 and ab.self is ab and ab.b(2) == 0",
            "cnt.n == 1 and cnt() == 2",
            "[f() for f in fs] == [0, 1, 2]",
            "[g() for g in gs] == [2, 2, 2]",
        ),
        outcome="restored",
    ),
    case(
        "functions with attributes, own globals, made by exec",
        """
        import types
        def kw(a, /, b=[1], *args, c={'k': 2}, **k):
            return a, b, c
        kw.attr = [1]
        kw.__defaults__[0].append(5)
        ex = types.FunctionType(compile('def q(): return z', '<x>', 'exec').co_consts[0], {'z': 9})
        import builtins
        alias = print
        bi = len
        lam = lambda x, *, y=3: x + y
        class Cal:
            def __call__(self, x):
                return x + 1
        ca = Cal()
        def annotated(x: 'int', y: list[int]) -> None:
            pass
        def gdoc():
            "doc"
            global newg
            newg = 1
        asyncf = None
        async def asyncf():
            return 1
        def star(*a, **k):
            return a, k
        st = staticmethod(star)
        cmx = classmethod(lambda c: c)
        import operator
        ig = operator.itemgetter(1)
        mc = operator.methodcaller('upper')
        ag = operator.attrgetter('x.y')
        src = None
        exec('def dyn(): return 11')
        ev = eval('lambda: 12')
        """,
        check=all_of(
            "kw(1) == (1, [1, 5], {'k': 2}) and kw.attr == [1]",
            "ex() == 9",
            "alias is print",
            "lam(1) == 4",
            "ca(1) == 2",
            "annotated.__annotations__['y'] == list[int]",
            "(gdoc(), newg)[1] == 1 and gdoc.__doc__ == 'doc'",
            "ig([1, 2]) == 2",
            "mc('a') == 'A'",
            "st(1) == ((1,), {})",
            "dyn() == 11",
            "ev() == 12",
        ),
        outcome="restored",
    ),
    case(
        "sentinel that says its name",
        """
        class _Missing:
            def __reduce__(self):
                return 'MISSING'
            def __bool__(self):
                return False
        MISSING = _Missing()
        d = {'a': MISSING}
        """,
        check=all_of(
            "not MISSING and type(MISSING) is _Missing",
            "d['a'] is MISSING",
        ),
        outcome="restored",
    ),
)
