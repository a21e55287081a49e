"""Names of values that a module keeps itself: its own ones again where they hold the same, else copies, and told."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nbcr.objects import Report, load
from nbcr.objects import index as indexes
from tests.unit.nbcr.objects.conftest import Namespace, session

Saved = Callable[..., Report]
SHELF = """
class Thing:
    def __init__(self):
        self.parts, self.size = [1, 2], 3
    def __eq__(self, other):
        return True
    __hash__ = None
THING, TABLE, _hidden, PAIR = Thing(), {"a": [1]}, {1, 2}, (1, [2])
INNER = TABLE["a"]

class _Missing:
    def __new__(cls, *, made_here):
        return object.__new__(cls)
MISSING = _Missing(made_here=True)
class Field:
    def __init__(self, default=MISSING):
        self.default = default
    def has_default(self):
        return self.default is not MISSING

class _Lazy(type):
    @property
    def __doc__(self):
        return "read when it is asked for"
def _lazy():
    class Function(metaclass=_Lazy):
        pass
    return Function
LAZY = _lazy()
class Once:
    made = 0
    def __setstate__(self, state):
        raise ValueError("not twice")
    def __init__(self):
        self.parts = []
ONCE = Once()
"""


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], None]]:
    """A module called nbcr_shelf; forgets that it was imported, as another process would not know it."""
    (tmp_path / "nbcr_shelf.py").write_text(SHELF)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield lambda: sys.modules.pop("nbcr_shelf", None) and None
    sys.modules.pop("nbcr_shelf", None)


def loaded(place: Path, forget: Callable[[], None]) -> tuple[Namespace, list[str]]:
    forget()
    back: Namespace = {"__name__": "__main__"}
    report = load(place, back)
    exec("import nbcr_shelf as shelf", back)
    return back, [line for line in report.lines() if "copy" in line]


def test_what_holds_the_same_is_the_modules_own(saved: Saved, place: Path, shelf: Callable[[], None]) -> None:
    saved(session("from nbcr_shelf import THING as thing, TABLE, _hidden; again = TABLE; mine = {'a': [1]}"))
    back, told = loaded(place, shelf)
    own = vars(sys.modules["nbcr_shelf"])
    assert (back["thing"] is own["THING"], back["TABLE"] is own["TABLE"] is back["again"]) == (True, True)
    assert back["_hidden"] is own["_hidden"]
    assert (back["mine"] is own["TABLE"], told) == (False, [])


def test_what_the_session_has_changed_is_a_copy_and_told(saved: Saved, place: Path, shelf: Callable[[], None]) -> None:
    """Also where the module's own one says that it is equal."""
    saved(session("from nbcr_shelf import THING as thing, _hidden\nthing.size = 9; _hidden.add(5)"))
    back, told = loaded(place, shelf)
    own = vars(sys.modules["nbcr_shelf"])
    assert (back["thing"].size, own["THING"].size, back["_hidden"], own["_hidden"]) == (9, 3, {1, 2, 5}, {1, 2})
    assert told == [
        "thing: restored, it is a copy, and no longer nbcr_shelf.THING",
        "_hidden: restored, it is a copy, and no longer nbcr_shelf._hidden",
    ]


def test_what_shares_with_names_of_the_session_stays_with_them(
    saved: Saved, place: Path, shelf: Callable[[], None]
) -> None:
    saved(session("from nbcr_shelf import TABLE; held = [TABLE['a']]"))
    back, told = loaded(place, shelf)
    assert back["TABLE"]["a"] is back["held"][0]
    assert told == ["TABLE: restored, it is a copy, and no longer nbcr_shelf.TABLE"]


def test_two_that_share_are_both_the_modules_own(saved: Saved, place: Path, shelf: Callable[[], None]) -> None:
    saved(session("from nbcr_shelf import TABLE, INNER"))
    back, told = loaded(place, shelf)
    assert back["TABLE"] is sys.modules["nbcr_shelf"].TABLE
    assert (back["INNER"] is back["TABLE"]["a"], told) == (True, [])


def test_a_rollback_keeps_the_modules_own(saved: Saved, place: Path, shelf: Callable[[], None]) -> None:
    living = session("from nbcr_shelf import THING as thing, TABLE")
    own, table = living["thing"], living["TABLE"]
    saved(living)
    living["thing"] = None
    table["b"] = 1
    report = load(place, living)
    assert living["thing"] is own
    assert (living["TABLE"], table) == ({"a": [1]}, {"a": [1], "b": 1})
    assert [line for line in report.lines() if "copy" in line] == [
        "TABLE: restored, it is a copy, and no longer nbcr_shelf.TABLE"
    ]


def test_a_global_that_is_put_back_is_what_the_name_is_bound_to(
    saved: Saved, place: Path, shelf: Callable[[], None]
) -> None:
    saved(session("import nbcr_shelf; nbcr_shelf.NEW = mine = {'n': 1}; nbcr_shelf.THING.size"))
    back, told = loaded(place, shelf)
    assert (sys.modules["nbcr_shelf"].NEW is back["mine"], told) == (True, [])


def test_values_and_what_is_everybodys_have_no_home(saved: Saved, place: Path, shelf: Callable[[], None]) -> None:
    cell = "from math import pi; from nbcr_shelf import PAIR, Thing; mine = [PAIR]; from string import digits"
    saved(session(f"{cell}; from sys import stdout; from os import environ"))
    assert [name.home for name in indexes.read(place).names] == [""] * 7
    assert loaded(place, shelf)[1] == []


def test_what_holds_nothing_is_the_modules_own_however_deep(
    saved: Saved, place: Path, shelf: Callable[[], None]
) -> None:
    """Its library asks whether a value is that very one. Others of its class are others."""
    saved(
        session("from nbcr_shelf import Field, _Missing, MISSING; field = Field(); other = _Missing(made_here=False)")
    )
    back, told = loaded(place, shelf)
    assert (back["field"].has_default(), back["MISSING"] is sys.modules["nbcr_shelf"].MISSING, told) == (
        False,
        True,
        [],
    )
    assert type(back["other"]).__name__ == "_Missing"
    assert back["other"] is not back["MISSING"]


def test_what_cannot_be_made_again_is_the_modules_own_and_told(
    saved: Saved, place: Path, shelf: Callable[[], None]
) -> None:
    """`from sympy import *` brings two such classes."""
    report = saved(session("from nbcr_shelf import LAZY, ONCE, Once; mine = Once()"))
    assert not report.lost
    shelf()
    back: Namespace = {"__name__": "__main__"}
    report = load(place, back)
    own = vars(sys.modules["nbcr_shelf"])
    assert (back["LAZY"] is own["LAZY"], back["ONCE"] is own["ONCE"]) == (True, True)
    assert [verdict.name for verdict in report.lost] == ["mine"]
    told = [line.partition(" (")[0] for line in report.lines() if "as that is here" in line]
    assert told == [f"{name}: restored, it is nbcr_shelf.{name} as that is here" for name in ("LAZY", "ONCE")]
