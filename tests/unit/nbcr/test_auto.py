"""Automatic checkpoints without a Jupyter kernel: what is removed, what counts as a cell, how spans are read."""

from __future__ import annotations

from dataclasses import replace

import pytest

from nbcr.errors import NotPossible, UsageProblem
from nbcr.session import auto
from nbcr.session.auto import Settings, retire
from nbcr.session.auto_points import Point, Points, only_ours
from nbcr.session.auto_triggers import memory_in_use, share_from, span_from, span_text
from nbcr.store import Entry, Store
from tests.unit.nbcr.store.making import manifest_for


def put(store: Store, reason: str | None, *, name: str | None = None, notebook: str | None = "a.ipynb") -> Entry:
    draft = store.draft(name)
    draft.image.mkdir()
    store.sync(draft)
    manifest = manifest_for(draft)
    manifest.automatic, manifest.notebook = reason, notebook
    return store.publish(draft, manifest)


def test_the_oldest_go_and_what_was_asked_for_stays(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = [put(store, None, name="mine"), put(store, None)]
    elsewhere = put(store, "cell", notebook="b.ipynb")
    timed = put(store, "timer")
    cells = [put(store, "cell") for _ in range(6)]
    cells.sort(key=lambda entry: (entry.created, entry.id))
    monkeypatch.setattr(auto, "presents", [cells[1].id])
    gone = retire(cells[-1], 3, store, spared={cells[0].id})
    assert {entry.id for entry in gone} == {cells[2].id, cells[3].id}
    left = {entry.id for entry in store.entries()}
    assert left == {entry.id for entry in [*wanted, elsewhere, timed, cells[0], cells[1], cells[4], cells[5]]}
    assert retire(cells[-1], 0, store)[-1].id != cells[-1].id, "the newest one stays, whatever was set"


@pytest.mark.parametrize(
    ("cell", "ours"),
    [
        ("%undo 2", True),
        ("%checkpoint one\n\n# and back\n%restart one --discard", True),
        ("%load_ext nbcr\n%nbcr auto --each-cell", True),
        ("", True),
        ("x = 1\n%undo", False),
        ("r = %checkpoint one", False),
        ("%%checkpoint one\nx = 1", False),
        ("%run script.py", False),
        ("%checkpointer", False),
    ],
)
def test_cells_that_hold_only_commands_to_nbcr(cell: str, ours: bool) -> None:
    assert only_ours(cell) is ours


def test_where_undoing_goes() -> None:
    points = Points(Settings)
    with pytest.raises(NotPossible, match="before the last cell"):
        points.point_before(1)
    for number in range(5):
        points.begins("x = 1")
        points.ended(number + 1)
        points.begins("%checkpoints")
        points.ended(number + 1)
    first = Point(1, "one", 1)
    points.trail = [first, replace(first, position=3, entry_id="three", cell=3)]
    assert points.point_before(4) is first
    assert points.point_before(2).entry_id == "three"
    with pytest.raises(NotPossible, match="before the last 3 cells") as raised:
        points.point_before(3)
    assert "`%undo 4` goes back to the nearest point before that, after cell 1" in raised.value.hint
    with pytest.raises(UsageProblem):
        points.point_before(0)
    points.on, points.trail = True, []
    with pytest.raises(NotPossible) as raised:
        points.point_before(1)
    assert raised.value.hint.startswith("there is none yet: cells that follow at once have none")


def test_spans_and_shares() -> None:
    assert [span_from(text) for text in ("90", "90s", "10m", "10min", "1.5h")] == [90, 90, 600, 600, 5400]
    assert [span_text(seconds) for seconds in (90, 600, 5400, 7200)] == ["90s", "10m", "90m", "2h"]
    assert share_from("90%") == share_from("0.9") == 0.9
    for text in ("", "0", "soon", "-1m", "0.1s"):
        with pytest.raises(UsageProblem):
            span_from(text)
    for text in ("0%", "101%", "much"):
        with pytest.raises(UsageProblem):
            share_from(text)
    assert 0 < memory_in_use() < 1
