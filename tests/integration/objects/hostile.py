"""Classes whose methods raise, exit, print, lie or end the process when they are pickled, shown or loaded.

Each leaves alone what is beside it, is restored or lost by name, and prints nothing into anybody's cell.
"""

from __future__ import annotations

from textwrap import dedent
from typing import Final

from tests.integration.objects.cases import Case, all_of, case


def hostile(
    name: str, cls: str, *, made: str = "H()", check: str = "True", reason: str = "", later: str = "",
    cls_later: str = "",
) -> Case:  # fmt: skip
    """An object of such a class, beside what has to come back whatever becomes of it."""
    code = f"import time, sys, os\n{dedent(cls)}\nx = {made}\nsibling = [x]\nkept = [1, 2, {{'a': 3}}]"
    lost = {"x": reason, "sibling": reason} if reason else {}
    lost_later = {"x": later, "sibling": later} if later else {}
    lost_later |= {"H": cls_later} if cls_later else {}
    outcome = "lost, by name; others restored" if lost or lost_later else "restored"
    check = all_of("kept == [1, 2, {'a': 3}]", check)
    return case(f"hostile: {name}", code, check=check, lost=lost, later=lost_later, outcome=outcome)


HOSTILE: Final = (
    hostile(
        "reduce raises",
        """
        class H:
            def __reduce__(s):
                raise RuntimeError('NOISE no')
        """,
        reason="RuntimeError: NOISE no",
    ),
    hostile(
        "reduce prints",
        """
        class H:
            v = 1
            def __reduce__(s):
                print('NOISE out')
                print('NOISE err', file=sys.stderr)
                os.write(1, b'NOISE fd1')
                os.write(2, b'NOISE fd2')
                return (H, ())
        """,
        check="type(x) is H",
    ),
    hostile(
        "reduce writes a global",
        """
        n = 0
        class H:
            def __reduce__(s):
                global n
                n += 1
                return (H, ())
        """,
        check="type(x) is H and n == 0",
    ),
    hostile(
        "reduce exits",
        """
        class H:
            def __reduce__(s):
                sys.exit(3)
        """,
        reason="it raises SystemExit when it is pickled",
    ),
    hostile(
        "reduce _exits",
        """
        class H:
            def __reduce__(s):
                os._exit(3)
        """,
        reason="saving it ended the process that did so, as a fault in an extension mo",
    ),
    hostile(
        "reduce segfaults",
        """
        class H:
            def __reduce__(s):
                import ctypes
                ctypes.string_at(0)
        """,
        reason="saving it ended the process that did so, as a fault in an extension mo",
    ),
    hostile(
        "reduce returns nonsense",
        """
        class H:
            def __reduce__(s):
                return 5
        """,
        reason="PicklingError: __reduce__ must return a string or tuple",
    ),
    hostile(
        "reduce returns a wrong name",
        """
        class H:
            def __reduce__(s):
                return 'nonexistent_name'
        """,
    ),
    hostile(
        "reduce interrupt",
        """
        class H:
            def __reduce__(s):
                raise KeyboardInterrupt
        """,
        reason="it raises KeyboardInterrupt when it is pickled",
    ),
    hostile(
        "reduce new each time",
        """
        class H:
            def __getstate__(s):
                return {'h': H()}
        """,
        reason="it is nested too deeply",
    ),
    hostile(
        "getstate tuple odd",
        """
        class H:
            def __getstate__(s):
                return (None, {'q': 1})
            __slots__ = ('q',)
        """,
        check="x.q == 1",
    ),
    hostile(
        "setstate raises",
        """
        class H:
            def __init__(s):
                s.a = 1
            def __setstate__(s, st):
                raise ValueError('NOISE set')
        """,
        later="ValueError: NOISE set",
    ),
    hostile(
        "new needs args",
        """
        class H:
            def __new__(c, a):
                return super().__new__(c)
            def __init__(s, a):
                s.a = a
        """,
        made="H(4)",
        check="type(x) is H and x.a == 4 and sibling[0] is x",
    ),
    hostile(
        "eq raises",
        """
        class H:
            def __eq__(s, o):
                raise RuntimeError('NOISE eq')
            __hash__ = object.__hash__
        """,
        check="type(x) is H and sibling[0] is x",
    ),
    hostile(
        "hash raises",
        """
        class H:
            def __hash__(s):
                raise RuntimeError('NOISE h')
        """,
        check="type(x) is H",
    ),
    hostile(
        "getattr loops",
        """
        class H:
            def __getattr__(s, n):
                return getattr(s, n + '_')
        """,
        check="type(x) is H",
    ),
    hostile(
        "getattr always",
        """
        class H:
            def __getattr__(s, n):
                return H()
        """,
        check="type(x) is H",
    ),
    hostile(
        "getattribute raises",
        """
        class H:
            def __getattribute__(s, n):
                raise RuntimeError('NOISE ga')
        """,
        reason="RuntimeError: NOISE ga",
    ),
    hostile(
        "class lies",
        """
        class H:
            @property
            def __class__(s):
                return int
        """,
        reason="PicklingError: args[0] from __newobj__ args has the wrong class",
        cls_later="__class__ must be set to a class",
    ),
    hostile(
        "class raises",
        """
        class H:
            @property
            def __class__(s):
                raise RuntimeError('NOISE cl')
        """,
        reason="RuntimeError: NOISE cl",
        cls_later="__class__ must be set to a class",
    ),
    hostile(
        "repr raises or hangs",
        """
        class H:
            def __repr__(s):
                time.sleep(3600)
        """,
        check="type(x) is H",
    ),
    hostile(
        "iter infinite list",
        """
        class H(list):
            def __iter__(s):
                while True:
                    yield 1
        """,
        made="H([1, 2])",
        check="list.__len__(x) == 2 and type(x) is H",
    ),
    hostile(
        "dict items lie",
        """
        class H(dict):
            def items(s):
                return [(1, 2)]
            def __iter__(s):
                raise RuntimeError('NOISE i')
            def keys(s):
                raise RuntimeError('NOISE k')
        """,
        made="H(a=5)",
        check="dict.__getitem__(x, 'a') == 5",
    ),
    hostile(
        "reduce chdir",
        """
        class H:
            def __reduce__(s):
                os.chdir('/')
                return (H, ())
        """,
        check="type(x) is H and os.getcwd() != '/'",
    ),
    hostile(
        "unit fails on load",
        """
        class H:
            def __reduce__(s):
                return (eval, ('1/0',))
        """,
        later="ZeroDivisionError",
    ),
)
