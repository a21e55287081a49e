"""Code objects for another Python than the one that compiled them: from their source, or not at all."""

from __future__ import annotations

import dataclasses
import importlib.util
import inspect
import linecache
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from nbcr.objects import Report, load
from tests.unit.nbcr.objects.conftest import Namespace

Saved = Callable[..., Report]


def notebook(*cells: str) -> Namespace:
    """A session whose cells have a source, as those of IPython have."""
    namespace: Namespace = {"__name__": "__main__"}
    for number, cell in enumerate(cells):
        source, name = dedent(cell), f"<cell {number} of {hash(cells)}>"
        linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
        exec(compile(source, name, "exec", dont_inherit=True), namespace)
    return namespace


@pytest.fixture
def elsewhere(saved: Saved, place: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Namespace], tuple[Any, Report]]:
    """Saves here and loads as if byte code meant something else now."""

    def go(namespace: Namespace) -> tuple[Any, Report]:
        saved(namespace)
        monkeypatch.setattr(importlib.util, "MAGIC_NUMBER", b"else")
        back: Namespace = {"__name__": "__main__"}
        return back, load(place, back)

    return go


def test_functions_methods_and_closures(elsewhere: Callable[..., Any]) -> None:
    cell = """
    from __future__ import annotations
    import functools
    def plain(x: int = 2) -> NotDefined:
        '''It doubles.'''
        return 2 * x

    @functools.wraps(plain)
    def outer(n):
        def inner():
            return n + 1
        return inner

    class C:
        def __private(self): return 3
        def public(self): return self.__private()
        def __init__(self): super().__init__()
    c, inner = C(), outer(4)
    f = lambda x: x + 1; g = lambda y: y + 2
    def one(): return 1
    def one_more(): return 2
    """
    back, report = elsewhere(notebook("first = 1", cell))
    assert report.lost == []
    assert (back["plain"](), back["plain"].__doc__, back["plain"].__annotations__["x"]) == (4, "It doubles.", "int")
    assert (back["inner"](), back["outer"](1)(), back["c"].public(), back["C"]().public()) == (5, 2, 3, 3)
    assert (back["f"](1), back["g"](1), back["one"](), back["one_more"]()) == (2, 3, 1, 2)


def test_a_redefined_function_is_the_one_that_was_saved(elsewhere: Callable[..., Any]) -> None:
    back, _ = elsewhere(notebook("def f(): return 1\nkept = f", "def f(): return 2"))
    assert (back["kept"](), back["f"]()) == (1, 2)


def test_code_that_cannot_be_told_apart_is_lost_by_name(elsewhere: Callable[..., Any]) -> None:
    back, report = elsewhere(notebook("f, g, n = (lambda: 1), (lambda: 2), 5"))
    assert {verdict.name for verdict in report.lost} == {"f", "g"}
    assert "its source names it more than once" in report.verdicts["f"].reason
    assert back["n"] == 5


def test_code_without_a_source_is_lost_by_name(elsewhere: Callable[..., Any]) -> None:
    values = notebook("shared = [1]; n = 5")
    exec("def f(a=shared): return 1", values)
    back, report = elsewhere(values)
    assert [verdict.name for verdict in report.lost] == ["f"]
    assert "its source is not known" in report.lost[0].reason
    assert (back["shared"], back["n"]) == ([1], 5)


def test_generated_methods_are_generated_again(elsewhere: Callable[..., Any]) -> None:
    cell = """
    import dataclasses, collections, typing
    @dataclasses.dataclass(order=True)
    class Row:
        a: int
        b: list = dataclasses.field(default_factory=list, compare=False)
        c: typing.ClassVar[int] = 3
        def twice(self): return 2 * self.a
    @dataclasses.dataclass(frozen=True)
    class Child(Row if False else object):
        x: int = 1
    class Pair(typing.NamedTuple):
        left: int
        right: str = "r"
        def swapped(self): return self.right, self.left
    rows, child, pair = [Row(2), Row(1, [5])], Child(), Pair(1)
    """
    back, report = elsewhere(notebook(cell))
    assert report.lost == []
    row = back["Row"]
    assert sorted(back["rows"]) == [row(1), row(2)]
    assert repr(back["rows"][1]).endswith("Row(a=1, b=[5])")
    assert (row(1).b is not row(1).b, row.c, row(4).twice()) == (True, 3, 8)
    assert dataclasses.fields(row)[0].default is dataclasses.MISSING
    with pytest.raises(dataclasses.FrozenInstanceError):
        back["child"].x = 2
    assert (back["pair"].swapped(), back["pair"]._asdict()) == (("r", 1), {"left": 1, "right": "r"})
    assert type(back["pair"]) is back["Pair"]


def test_the_source_comes_along(saved: Saved, place: Path, tmp_path: Path) -> None:
    values = notebook("x = 1\n\ndef f(n):\n    return 1 / n\n\nclass C:\n    def g(self): return 2\n")
    name = values["f"].__code__.co_filename
    whole = linecache.cache[name]
    saved(values)
    del linecache.cache[name]
    back: Namespace = {"__name__": "__main__"}
    load(place, back)
    assert inspect.getsource(back["f"]) == "def f(n):\n    return 1 / n\n"
    assert inspect.getsource(back["C"].g) == "    def g(self): return 2\n"
    saved(back, tmp_path / "again")
    linecache.cache[name] = whole
    load(tmp_path / "again", {"__name__": "__main__"})
    assert linecache.cache[name] is whole  # what is known of the cell is not replaced by parts of it


def test_the_source_comes_along_to_another_python(elsewhere: Callable[..., Any]) -> None:
    back, _ = elsewhere(notebook("y = 2\n\ndef other(n):\n    return 1 / n\n"))
    assert inspect.getsource(back["other"]) == "def other(n):\n    return 1 / n\n"
