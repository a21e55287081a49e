"""Objects that pickle alone does not do justice to: registered savers, and those that are built in."""

from __future__ import annotations

import contextvars
import random
import sqlite3
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from nbcr.objects import Report, load, register_saver, unregister_saver
from nbcr.objects.kinds import base
from tests.unit.nbcr.objects.conftest import Namespace, session

Saved = Callable[..., Report]
ThereAndBack = Callable[..., Namespace]
PLUGIN = Path(__file__).parent / "plugin"


class Open:
    """Cannot be pickled unless somebody says how."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> str:
        raise TypeError("it is open")


class Narrower(Open):
    """A subclass."""


@pytest.fixture
def registered() -> Iterator[None]:
    register_saver(Open, lambda opened: opened.path, Open)
    yield
    unregister_saver(Open)


@pytest.mark.usefixtures("registered")
def test_a_registered_saver_serves_its_type_and_below(either_way: ThereAndBack) -> None:
    back = either_way(session("", a=[Open("x")], b=Narrower("y")))
    assert (back["a"][0].path, back["b"].path) == ("x", "y")


def test_without_it_the_object_is_lost(saved: Saved) -> None:
    assert saved(session("", a=[Open("x")])).lines() == ["a: lost: a[0]: it is open"]


@pytest.mark.usefixtures("registered")
def test_a_saver_that_fails_costs_one_name(saved: Saved) -> None:
    register_saver(Narrower, lambda _: 1 / 0, Open)
    try:
        report = saved(session("", a=Narrower("x"), b=Open("y")))
    finally:
        unregister_saver(Narrower)
    assert [verdict.line() for verdict in report.lost] == ["a: lost: ZeroDivisionError: division by zero"]


def test_a_saver_needs_a_type() -> None:
    with pytest.raises(TypeError, match="needs a type, not 'x'"):
        register_saver("x", str, str)  # type: ignore[arg-type]


def test_savers_of_installed_packages(saved: Saved, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(PLUGIN))
    monkeypatch.setattr(base, "_advertised", None)
    report = saved(session("from nbcr_instruments import Broken, Instrument\na, b = [Instrument(5)], Broken(6)"))
    assert [verdict.name for verdict in report.lost] == ["b"]
    assert "its saver nbcr_instruments:missing cannot be loaded" in report.lost[0].reason
    back: Namespace = {"__name__": "__main__"}
    load(place, back)
    assert back["a"][0].port == 5
    sys.modules.pop("nbcr_instruments")


# --- built in -----------------------------------------------------------------------------------------------


def test_databases_in_memory_and_in_files(either_way: ThereAndBack, tmp_path: Path) -> None:
    memory, file = sqlite3.connect(":memory:"), sqlite3.connect(tmp_path / "x.db")
    for connection in (memory, file):
        connection.execute("create table t (x)")
        connection.execute("insert into t values (3)")
        connection.commit()
    memory.row_factory = sqlite3.Row
    back = either_way(session("", memory=memory, file=file))
    assert back["memory"].execute("select x from t").fetchone()["x"] == 3
    assert back["file"].execute("select x from t").fetchall() == [(3,)]
    assert memory.execute("select x from t").fetchone()["x"] == 3, "the original goes on"
    for connection in (memory, file, back["memory"], back["file"]):
        connection.close()


def test_a_database_or_file_that_is_gone_is_told(saved: Saved, place: Path, tmp_path: Path) -> None:
    connection, file = sqlite3.connect(tmp_path / "x.db"), (tmp_path / "f").open("w")
    connection.execute("create table t (x)")
    saved(session("a = [1]; c = [a, f]", db=connection, f=file))
    connection.close()
    file.close()
    (tmp_path / "x.db").unlink()
    (tmp_path / "f").unlink()
    back: Namespace = {"__name__": "__main__"}
    report = load(place, back)
    assert {verdict.name: verdict.reason.partition(" is ")[2] for verdict in report.lost} == {
        "db": "not there", "f": "not there", "c": "not there",
    }  # fmt: skip
    assert back["a"] == [1]


@pytest.mark.parametrize("mode", ["w", "a", "r+", "wb", "w+b"])
def test_files_being_written_are_left_as_they_are(mode: str, either_way: ThereAndBack, tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_text("0123456789")
    word = "abc" if "b" not in mode else b"abc"
    with path.open(mode) as file:
        file.write(word)  # type: ignore[arg-type]
        back = either_way(session("", f=file))
        expected = 13 if mode == "a" else 3
        assert back["f"].tell() == expected
        file.write(word)  # type: ignore[arg-type]
    contents = path.read_text()
    assert contents.count("abc") == 2
    assert "abcabc" in contents
    back["f"].close()


def test_files_in_the_midst_of_an_iteration(either_way: ThereAndBack, tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_text("".join(f"zeile {i} ä\n" for i in range(5000)), encoding="utf-8")
    with path.open(encoding="utf-8") as file:
        for _ in range(1234):
            next(file)
        back = either_way(session("", f=file))
        assert next(back["f"]) == next(file) == "zeile 1234 ä\n"
        back["f"].close()


def test_files_that_are_not_files_are_told(saved: Saved) -> None:
    with Path("/dev/null").open() as null:
        report = saved(session("import sys; out = sys.stdout", null=null))
    assert [verdict.line() for verdict in report.lost] == ["null: lost: it is open, but not a regular file"]


def test_global_random_states_come_back(there_and_back: ThereAndBack) -> None:
    random.seed(1)
    np.random.seed(2)
    values = session("rng = __import__('numpy').random.default_rng(3)")
    values["rng"].random()
    expected_next = np.random.default_rng(3)
    expected_next.random()
    back = there_and_back(values)
    assert random.random() == random.Random(1).random()
    assert np.random.rand() == np.random.RandomState(2).rand()
    assert back["rng"].random() == expected_next.random()


def test_a_context_variable_has_its_value(there_and_back: ThereAndBack) -> None:
    variable: contextvars.ContextVar[list[int]] = contextvars.ContextVar("variable")
    value = [1]
    variable.set(value)
    back = there_and_back(session("", variable=variable, value=value))
    assert back["variable"].get() is back["value"]


def test_tables_of_polars_and_arrow(there_and_back: ThereAndBack) -> None:
    frame = pl.DataFrame({"n": range(60_000), "s": [f"s{i % 7}" for i in range(60_000)]})
    table = pa.table({"n": list(range(60_000))})
    values = session("", frame=frame, series=frame["n"], lazy=frame.lazy(), table=table, expression=pl.col("n") + 1)
    back = there_and_back(values)
    assert back["frame"].equals(frame)
    assert back["series"].equals(frame["n"])
    assert back["lazy"].select(back["expression"]).collect()["n"][0] == 1
    assert back["table"].equals(table)


def test_exceptions_keep_what_they_came_from(there_and_back: ThereAndBack) -> None:
    back = there_and_back(session("e = OSError(2, 'no', 'file'); e.__cause__ = KeyError(1); e.add_note('see')"))
    error = back["e"]
    assert (error.filename, error.errno, error.__notes__, error.__cause__.args) == ("file", 2, ["see"], (1,))


def test_sentinels_stay_the_only_ones(there_and_back: ThereAndBack) -> None:
    code = """
    import dataclasses, inspect
    mine = object()
    def f(x=mine): return x is mine
    held = [dataclasses.MISSING, inspect.Parameter.empty]
    """
    back = there_and_back(session(code))
    import dataclasses
    import inspect

    assert back["held"][0] is dataclasses.MISSING
    assert back["held"][1] is inspect.Parameter.empty
    assert back["f"]()


def test_the_session_s_own_namespace_is_no_copy(there_and_back: ThereAndBack) -> None:
    back = there_and_back(session("import os, sys; g = globals(); held = [os.environ, sys.modules, sys.stdout]"))
    assert back["g"] is back
    assert back["held"][1] is sys.modules


def test_functions_of_other_namespaces_keep_them(there_and_back: ThereAndBack) -> None:
    values = session("own = {}; exec('n = 1\\ndef f(): return n', own); f = own['f']")
    back = there_and_back(values)
    back["own"]["n"] = 7
    assert back["f"]() == 7
