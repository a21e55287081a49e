"""A name that cannot be saved is told with the path to the culprit; everything else is saved."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from nbcr.objects import Fate, Report, load
from tests.unit.nbcr.objects.conftest import session

Saved = Callable[..., Report]

GENERATOR = "(i for i in ())"
TREE = """
class T: pass
root = T()
root.children = [T(), T()]
for c in root.children: c.parent = root
root.children[1].bad = G
x = [root]
del c, root
"""
PATHS = {
    "x = [1, {'a': (2, G)}]": "x[1]['a'][1]",
    "x = {1: {G}}": "x[1].{<generator>}",
    "class M: pass\nx = M(); x.callbacks = [1, 2, M()]; x.callbacks[2].lock = G": "x.callbacks[2].lock",
    "class S:\n    __slots__ = ('a',)\nx = S(); x.a = G": "x.a",
    "def make(g):\n    def x():\n        return g\n    return x\nx = make(G)": "x.<g>",
    "def x(a=1, *, b=G): pass": "x.__kwdefaults__['b']",
    "import functools\nx = functools.partial(print, G)": "x.args[0]",
    "import collections\nP = collections.namedtuple('P', 'a b')\nx = P(1, [G])": "x.b[0]",
    "class M:\n    held = [G]\nx = M": "x.held[0]",
    "import numpy as np\nx = np.array([1, G], dtype=object)": "x.flat[1]",
    TREE: "x[0].children[1].bad",
    "class R:\n    def __init__(self, a): self.a = a\n    def __reduce__(self): return R, (self.a,)\nx = R(G)": "x.a",
}


@pytest.mark.parametrize("code", PATHS, ids=PATHS.values())
def test_the_path_leads_to_the_culprit(code: str, saved: Saved) -> None:
    report = saved(session(code.replace("G", GENERATOR) + "\nkept = [1, 2]"))
    verdict = report.verdicts["x"]
    assert (verdict.culprit, verdict.reason) == (PATHS[code], "a running generator cannot be copied")
    assert report.verdicts["kept"].fate is Fate.SAVED


def test_what_the_others_share_is_still_shared(saved: Saved, place: Path) -> None:
    report = saved(session(f"a = [1]; b = [a]; c = [a, {GENERATOR}]; d = [b]"))
    assert [verdict.name for verdict in report.lost] == ["c"]
    back = {"__name__": "__main__"}
    load(place, back)
    assert back["b"][0] is back["a"]
    assert back["d"][0] is back["b"]


def test_the_reason_is_one_line_of_the_error(saved: Saved) -> None:
    code = """
    class Stubborn:
        def __reduce__(self):
            raise RuntimeError("not\\n now")
    x = [Stubborn()]
    """
    assert saved(session(code)).lines() == ["x: lost: x[0]: RuntimeError: not now"]


def test_the_cell_that_makes_it_again_is_kept(saved: Saved) -> None:
    cells = ["", "g = 1", "g = (i for i in range(3))\nother = 2", "print(g)"]
    report = saved(session(cells[2], In=cells))
    verdict = report.verdicts["g"]
    assert (verdict.fate, verdict.cell, verdict.recipe) == (Fate.RECOMPUTABLE, 2, cells[2])
    assert verdict.line() == "g: recomputable: run cell 2 again (a running generator cannot be copied)"


def test_nesting_that_is_too_deep_is_told(saved: Saved) -> None:
    report = saved(session("x = []\nfor _ in range(100_000): x = [x]\ndel _\ny = 1"))
    assert report.verdicts["x"].reason == "it is nested too deeply"
    assert report.verdicts["y"].fate is Fate.SAVED


def test_objects_that_do_not_let_themselves_be_looked_at(saved: Saved) -> None:
    code = """
    class Hostile:
        def __getattribute__(self, name):
            raise RuntimeError("hands off")
    class Liar:
        __class__ = property(lambda self: 1 / 0)
    x, y, z = Hostile(), Liar(), 5
    """
    report = saved(session(code))
    assert "hands off" in report.verdicts["x"].reason
    assert report.verdicts["z"].fate is Fate.SAVED


def test_dill_saves_what_we_cannot_but_not_what_we_refuse(saved: Saved, place: Path) -> None:
    """A property of a C type is nothing that pickle knows."""
    report = saved(session("import types; x = types.SimpleNamespace(y=slice(1), z=type.__dict__['__doc__'])"))
    assert report.verdicts["x"].fate is Fate.SAVED
    back = {"__name__": "__main__"}
    assert load(place, back).verdicts["x"].fate is Fate.RESTORED
    thread = threading.Thread(target=print)
    thread.start()
    thread.join()
    again = place.with_name("again")
    report = saved({"__name__": "__main__", "t": [thread], "e": threading.Event()}, again)
    assert [verdict.line() for verdict in report.lost] == ["t: lost: t[0]: a thread does not come back: start it again"]
