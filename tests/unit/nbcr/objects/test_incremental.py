"""A later snapshot shares with an earlier one whatever is the same; `diff` tells what is not."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from nbcr.objects import Change, Report, diff, load, look, verify
from tests.unit.nbcr.objects.conftest import Namespace, session

Saved = Callable[..., Report]
LARGE = """
import numpy as np
array = np.arange(400_000.0)
rows = [[i, str(i)] for i in range(80_000)]
medium = np.arange(20_000.0)
text = ["x" * 5000]
class C:
    def __init__(self, x): self.x = x
c = C(1)
def f(): return count
count = 0
"""


def disk_bytes(*places: Path) -> int:
    """What the folders take, files that they share counted once."""
    found = {}
    for place in places:
        for path in (place, *place.iterdir()):
            status = path.stat()
            found[status.st_dev, status.st_ino] = status.st_blocks * 512
    return sum(found.values())


def test_one_int_that_changed_costs_next_to_nothing(saved: Saved, tmp_path: Path) -> None:
    values = session(LARGE)
    one, two = tmp_path / "1", tmp_path / "2"
    first = saved(values, one)
    assert first.added_bytes > 4_000_000
    values["count"] = 1
    second = saved(values, two, previous=str(one))
    assert second.size_bytes >= first.size_bytes - 10
    assert second.added_bytes == 0
    assert disk_bytes(one, two) - disk_bytes(one) <= 64 << 10
    assert diff(one, two) == [Change("count", 5, 5, "0", "1")]
    for path in one.iterdir():
        path.unlink()
    back: Namespace = {"__name__": "__main__"}
    assert load(two, back).lost == []
    assert np.array_equal(back["array"], values["array"])
    assert (back["rows"], back["f"]()) == (values["rows"], 1)


def test_only_what_changed_is_written(saved: Saved, tmp_path: Path) -> None:
    values = session(LARGE)
    saved(values, tmp_path / "1")
    values["array"][7] = -1
    values["c"].x = "new"
    report = saved(values, tmp_path / "2", previous=tmp_path / "1")
    assert values["array"].nbytes <= report.added_bytes <= values["array"].nbytes + 4096
    assert {change.name: change.kind for change in diff(tmp_path / "1", tmp_path / "2")} == {
        "array": "changed",
        "c": "changed",
    }
    back: Namespace = {"__name__": "__main__"}
    load(tmp_path / "1", back)
    assert (back["array"][7], back["c"].x) == (7.0, 1), "the earlier one is as it was"


def test_changes_within_a_unit_are_told_by_name(saved: Saved, tmp_path: Path) -> None:
    values = session("import numpy as np; base = np.zeros(50_000); a = [base, 1]; b = [base, 1]; c = [a]")
    saved(values, tmp_path / "1")
    values["b"].append(2)
    saved(values, tmp_path / "2", previous=tmp_path / "1")
    assert [change.name for change in diff(tmp_path / "1", tmp_path / "2")] == ["b"]


def test_names_that_came_and_went(saved: Saved, tmp_path: Path) -> None:
    saved(session("import math; a = 1; gone = 'abc'"), tmp_path / "1")
    saved(session("import math; a = 1; new = 2.5"), tmp_path / "2")
    gone, new = sorted(diff(tmp_path / "1", tmp_path / "2"), key=lambda change: change.name)
    assert (gone.name, gone.kind, gone.after_bytes) == ("gone", "removed", None)
    assert (new.name, new.kind, new.before_bytes) == ("new", "added", None)


def test_a_hundred_snapshots_do_not_collect_packs(saved: Saved, tmp_path: Path) -> None:
    """Small units change one by one; packs of which little is left are written anew."""
    values: Namespace = {"__name__": "__main__", **{f"v{i}": [f"{i} " * 700] for i in range(20)}}
    before = None
    for turn in range(30):
        values[f"v{turn % 20}"] = [f"{turn} " * 700]
        place = tmp_path / str(turn)
        saved(values, place, previous=before)
        before = place
    assert before is not None
    assert len([path for path in before.iterdir() if path.suffix == ".pack"]) <= 9
    verify(before)
    back: Namespace = {"__name__": "__main__"}
    load(before, back)
    assert all(back[name] == value for name, value in values.items() if name != "__builtins__")


def test_where_there_are_no_hard_links_it_is_copied(
    saved: Saved, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_link(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_link)
    values = session(LARGE)
    saved(values, tmp_path / "1")
    report = saved(values, tmp_path / "2", previous=tmp_path / "1")
    assert report.added_bytes > 4_000_000
    verify(tmp_path / "2")


@pytest.mark.parametrize("harm", ["missing", "no index", "truncated"])
def test_an_earlier_snapshot_that_is_damaged_does_no_harm(harm: str, saved: Saved, tmp_path: Path) -> None:
    values = session(LARGE)
    one = tmp_path / "1"
    if harm != "missing":
        saved(values, one)
    if harm == "no index":
        (one / "index").unlink()
    if harm == "truncated":
        for path in one.glob("*.blob"):
            os.truncate(path, 100)
    saved(values, tmp_path / "2", previous=one)
    verify(tmp_path / "2")


def test_equal_contents_are_written_once(saved: Saved, place: Path) -> None:
    saved(session("import numpy as np; a = np.arange(300_000.0); b = a.copy(); c = np.arange(9_000.0); d = c.copy()"))
    assert len(list(place.glob("*.blob"))) == 1
    back: Namespace = {"__name__": "__main__"}
    load(place, back)
    back["a"][0] = back["c"][0] = 5
    assert (back["b"][0], back["d"][0]) == (0, 0)


def test_sizes_are_told(saved: Saved, place: Path) -> None:
    saved(session("import numpy as np; a = np.arange(300_000.0); b = 1"))
    sizes = {info.name: info.size_bytes for info in look(place)}
    assert 2_400_000 <= sizes["a"] <= 2_401_000
    assert sizes["b"] < 10
