"""What cells put into modules and classes of others."""

from __future__ import annotations

import collections.abc
import copyreg
import json
import sys
import textwrap
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nbcr.objects import Report, load, modules, patches
from tests.unit.nbcr.objects.conftest import Namespace, session

Saved = Callable[..., Report]


@pytest.fixture(autouse=True)
def nothing_placed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(modules, "_placed", {})


@pytest.fixture
def others(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """An installed module, as far as anybody can tell."""
    module = types.ModuleType("othersmodule")
    module.__file__ = textwrap.__file__
    exec("def f(): return 'theirs'\nclass C:\n    class D: pass\n    def g(self): return 1\n", vars(module))
    monkeypatch.setitem(sys.modules, "othersmodule", module)
    return module


def notebook(*cells: str) -> Namespace:
    return session("\n".join(cells), In=["", *cells])


def test_functions_classes_and_values_come_back(
    others: types.ModuleType, saved: Saved, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = dict(vars(others))
    values = notebook(
        "import othersmodule as o, functools, collections.abc\nold = o.f\no.f = lambda: 'mine, not ' + old()",
        "o.C.g = lambda self: 2",
        "setattr(o.C.D, 'h', property(lambda self: 3))",
        "o.number, o.Old = 5, collections.abc.Mapping",
    )

    def as_installed() -> None:
        vars(others).clear()
        vars(others).update(original)
        exec("class C:\n    class D: pass\n    def g(self): return 1\n", vars(others))

    assert saved(values).lost == []
    for source in (place, tmp_path / "again"):  # a second generation, whose cells say nothing of it
        as_installed()
        back: Namespace = {"__name__": "__main__", "In": ["", "%restart"]}
        assert load(source, back).lost == []
        assert (others.f(), others.C().g(), others.C.D().h) == ("mine, not theirs", 2, 3)
        assert (others.number, others.Old) == (5, collections.abc.Mapping)
        if source is place:
            assert saved(back, tmp_path / "again").lost == []


def test_what_cannot_be_saved_is_lost_by_name(others: types.ModuleType, saved: Saved) -> None:
    report = saved(notebook("import othersmodule", "othersmodule.C.made = (i for i in 'ab')"))
    assert [verdict.name for verdict in report.lost] == ["othersmodule.C.made"]


@pytest.mark.parametrize(
    "cell",
    [
        "o.f = o.f",  # taken back
        "x.f = 1",  # of an instance
        "o.missing.f = 1",
        "y = 1; y.imag",
        "o.C().f = 1",
        "sys.displayhook = print",  # the shell's own
        "def broken(:",
    ],
)
def test_what_is_no_patch(others: types.ModuleType, cell: str) -> None:
    namespace = session("import sys, othersmodule as o\nclass X: pass\nx = X()")
    assert patches.made_by([cell, None], namespace) == {}


def test_wrappers_that_bear_the_name_of_what_they_wrap(others: types.ModuleType) -> None:
    cell = "import functools, othersmodule as o\no.f = functools.wraps(o.f)(lambda: 7)"
    assert list(patches.made_by([cell], notebook(cell))) == ["othersmodule.f"]


def test_modules_of_ones_own_are_not_its_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ownmodule.py").write_text("x = 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    cell = "import ownmodule; ownmodule.x = 2"
    found: dict[str, Any] = patches.made_by([cell], notebook(cell))
    sys.modules.pop("ownmodule")
    assert found == {}


def test_an_encoder_of_the_standard_library(saved: Saved, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json.JSONEncoder, "default", json.JSONEncoder.default)
    saved(notebook("import json", "json.JSONEncoder.default = lambda self, o: 'some ' + type(o).__name__"))
    monkeypatch.undo()
    monkeypatch.setattr(json.JSONEncoder, "default", json.JSONEncoder.default)
    load(place, {"__name__": "__main__"})
    assert json.dumps({1}) == '"some set"'


def test_accessors_of_frames_come_back(saved: Saved, place: Path) -> None:
    import pandas as pd

    values = notebook(
        """
        import pandas as pd
        @pd.api.extensions.register_dataframe_accessor("ofcase")
        class OfCase:
            def __init__(self, frame):
                self.frame = frame
            def rows(self):
                return len(self.frame)
        """,
    )
    assert saved(values).lost == []
    del pd.DataFrame.ofcase
    back: Namespace = {"__name__": "__main__", "In": [""]}
    assert load(place, back).lost == []
    try:
        assert pd.DataFrame({"a": [1, 2]}).ofcase.rows() == 2
    finally:
        del pd.DataFrame.ofcase


def test_a_name_of_the_users_that_hides_the_history(others: types.ModuleType, saved: Saved, place: Path) -> None:
    """`from ast import *` has a class In, and no snapshot came about any more."""
    cells = ["", "import othersmodule as o\no.number = 5"]
    values = session(cells[1], In=int, _ih=cells)
    assert saved(values).lost == []
    del vars(others)["number"]
    load(place, {"__name__": "__main__"})
    assert vars(others)["number"] == 5


def test_classes_that_a_library_has_made_for_a_cell_come_back(
    saved: Saved, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = """
        import copyreg
        def create(name, base, **more):
            def show(self):
                return sorted(more)
            globals()[name] = type(name, (base,), {"show": show, **more})
        class Own:
            pass
        class Meta(type):
            def __new__(cls, name, base):
                return super().__new__(cls, name, (base,), {"by": base})
            def __init__(cls, name, base):
                super().__init__(name, (base,), {})
            def __reduce__(cls):
                return make, (cls.__name__, cls.by)
        copyreg.pickle(Meta, Meta.__reduce__)
        def make(name, *arguments):
            globals()[name] = Meta(name, *arguments)
            return globals()[name]
    """
    monkeypatch.setattr(copyreg, "dispatch_table", {**copyreg.dispatch_table})
    (tmp_path / "makingmodule.py").write_text(textwrap.dedent(source))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(modules, "_INSTALLED", (str(tmp_path),))
    values = notebook(
        "import makingmodule as m",
        "m.create('Alone', dict); m.create('Made', list, weight=2)",
        "from makingmodule import create as c; c('Other', m.Made, more=1); kept = m.Other([1])",
        "m.make('Unusual', m.Made)",
        "str.join('Own', [])",
    )
    module = values["m"]
    report = saved(values)
    assert (report.lost, sorted(name for name in report.verdicts if "." in name)) == (
        [],
        ["makingmodule.Alone", "makingmodule.Made", "makingmodule.Other", "makingmodule.Unusual"],
    )
    made = module.Made
    load(place, values)
    assert module.Made is made  # a rollback leaves it alone
    del module.Alone, module.Made, module.Other, module.Unusual
    load(place, back := {"__name__": "__main__"})
    assert (module.Made([3]).show(), module.Made.weight, module.Made.__module__) == (["weight"], 2, "makingmodule")
    assert module.Alone(a=1).show() == []
    assert module.Unusual([4]).show() == ["weight"]
    assert type(back["kept"]) is module.Other
    assert (back["kept"].show(), back["kept"], module.Other.__mro__[1]) == (["more"], [1], module.Made)
    sys.modules.pop("makingmodule")
