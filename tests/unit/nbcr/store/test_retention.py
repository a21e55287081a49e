"""Which entries stay: the rules, pins, the disk budget; and that nothing is removed by accident."""

from __future__ import annotations

import json
import random
import shutil
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbcr.errors import UsageProblem
from nbcr.jupyter.keeping import NbcrKeep
from nbcr.session import upkeep
from nbcr.store import Store, collecting, files, housekeeping, opening, retention, settings, tags, waiting
from nbcr.store.entry import MANIFEST, Entry
from nbcr.store.retention import Policy
from nbcr.store.settings import Settings
from tests.unit.nbcr.store.making import put

START = datetime(2026, 3, 2, 12, 5, tzinfo=UTC)


def names(store: Store) -> list[str]:
    return [entry.name for entry in store.entries()]


def series(store: Store, *hours: float) -> None:
    for hour in hours:
        put(store, f"h{hour:g}", now=START + timedelta(hours=hour))


def test_the_last_and_one_an_hour(store: Store) -> None:
    series(store, 0, 0.2, 0.4, 1, 1.2, 2, 3, 3.2, 3.4)
    done = retention.prune(store, Policy(last=2, hourly=3), dry_run=True)
    assert [(entry.name, why) for entry, why in done.kept] == [
        ("h1.2", "hourly"), ("h2", "hourly"), ("h3.2", "last"), ("h3.4", "last")
    ]  # fmt: skip
    assert len(names(store)) == 9
    retention.prune(store, Policy(last=2, hourly=3))
    assert names(store) == ["h1.2", "h2", "h3.2", "h3.4"]


def test_days_weeks_and_months(store: Store) -> None:
    series(store, *(24 * day for day in range(0, 70)))
    retention.prune(store, Policy(daily=3, weekly=2, monthly=3))
    when = [entry.created[:10] for entry in store.entries()]
    assert when == ["2026-03-31", "2026-04-30", "2026-05-03", "2026-05-08", "2026-05-09", "2026-05-10"]


def test_pinned_and_tagged_ones_and_the_newest_stay(store: Store) -> None:
    series(store, 0, 1, 2, 3, 4)
    upkeep.tag("h0", ["paper"], pin=True, store=store)
    upkeep.tag("h1", ["good"], store=store)
    assert store.find("h0").details()["tags"] == {"paper": True}
    retention.prune(store, Policy(tagged=("good",)))
    assert names(store) == ["h0", "h1", "h4"]
    assert upkeep.tag("h0", remove=["paper"], store=store) == {}
    retention.prune(store, Policy(last=1))
    assert names(store) == ["h4"]


def test_a_pin_that_cannot_be_read_is_one(store: Store) -> None:
    series(store, 0, 1)
    (store.find("h0").path / "tags.json").write_text("{")
    retention.prune(store, Policy(last=1))
    assert names(store) == ["h0", "h1"]


def test_who_says_nothing_removes_nothing(store: Store) -> None:
    series(store, 0)
    with pytest.raises(UsageProblem, match="nothing is removed"):
        retention.prune(store, Policy())
    with pytest.raises(UsageProblem, match="0 or more"):
        Policy(last=-1)
    with pytest.raises(UsageProblem, match="no rule 'lats'"):
        Policy.from_document({"lats": 1})


def test_each_notebook_by_itself(store: Store) -> None:
    for number in range(3):
        put(store, f"a{number}", notebook="/a.ipynb")
        put(store, f"p{number}", pid=number % 2)
    put(store, "b", notebook="/b.ipynb")
    retention.prune(store, Policy(last=1, each_notebook=True))
    assert sorted(names(store)) == ["a2", "b", "p1", "p2"]


def test_what_is_read_just_now_stays(store: Store) -> None:
    series(store, 0, 1)
    with opening.opened(store.find("h0")):
        done = retention.prune(store, Policy(last=1))
        assert [why for _, why in done.kept] == ["in use", "last"]
    retention.prune(store, Policy(last=1))
    assert names(store) == ["h1"]


def test_the_budget_takes_hot_files_first_then_the_oldest(store: Store, rng: random.Random) -> None:
    for number in range(6):
        put(store, f"e{number}", {"image/pages": rng.randbytes(300_000)})
    upkeep.tag("e1", ["keep"], pin=True, store=store)
    assert housekeeping.keep(store) == []
    done, _ = upkeep.prune(Policy(max_bytes=2_300_000), store=store)
    assert (done.removed, opening.hot_parts(store.find("e4"))) == ([], [])
    done, _ = upkeep.prune(Policy(max_bytes=1_100_000), store=store, dry_run=True)
    assert [entry.name for entry in done.removed] == ["e0", "e2", "e3"]
    done, collected = upkeep.prune(Policy(max_bytes=1_100_000), store=store)
    assert names(store) == ["e1", "e4", "e5"]
    assert collected is not None
    assert (done.over_budget_bytes, collected.condemned) == (0, 0)
    assert files.tree_size_bytes(store.root) <= 1_100_000
    done, _ = upkeep.prune(Policy(max_bytes=1), store=store)
    assert (names(store), done.over_budget_bytes > 0) == (["e1", "e5"], True)


def test_packers_prune_as_the_settings_and_the_session_say(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(5):
        put(store, f"a{number}", notebook="/a.ipynb")
    put(store, "b", notebook="/b.ipynb")
    assert housekeeping.keep(store) == []
    assert len(names(store)) == 6
    settings.write(store.root, Settings(keep=Policy(last=3).document()))
    assert housekeeping.keep(store) == []
    assert names(store) == ["a2", "a3", "a4", "b"]
    monkeypatch.setenv("NBCR_KEEP", '{"last": 1}')
    assert housekeeping.keep(store) == []
    assert names(store) == ["a4", "b"]
    monkeypatch.setenv("NBCR_KEEP", "{")
    (failure,) = housekeeping.keep(store)
    assert "NBCR_KEEP" in str(failure)


def test_traits_say_it_too() -> None:
    keep = NbcrKeep(last=5, hourly=24, max_bytes="50G")
    assert Policy.from_document(keep.document()) == Policy(last=5, hourly=24, max_bytes=50 << 30)
    assert NbcrKeep().document() == {}


@given(st.lists(st.integers(0, 2000), unique=True, min_size=1, max_size=40), st.integers(0, 5), st.integers(0, 5))
def test_more_is_never_kept_by_fewer_rules(hours: list[int], last: int, hourly: int) -> None:
    class Fake:
        def __init__(self, hour: int) -> None:
            self.id, self.created = f"{hour:05}", (START + timedelta(hours=hour / 3)).isoformat()

    entries = [Fake(hour) for hour in sorted(hours)]
    kept = retention._of_buckets(entries[::-1], hourly, lambda entry: entry.created[:13])  # type: ignore[arg-type]
    assert len(kept) == min(hourly, len({entry.created[:13] for entry in entries}))
    assert len(retention._of_buckets(entries[::-1], last, lambda entry: entry.id)) == min(last, len(entries))  # type: ignore[arg-type]


def test_what_was_pruned_is_given_back_and_the_rest_is_whole(store: Store, rng: random.Random) -> None:
    shared = rng.randbytes(500_000)
    for number in range(4):
        put(store, f"e{number}", {"image/pages": shared, "image/own": rng.randbytes(200_000)}, pid=1)
    store.log_folder()
    settings.write(store.root, Settings(hot_entries=0))
    assert housekeeping.keep(store) == []
    before = collecting.collect(store).kept_bytes
    done, collected = upkeep.prune(Policy(last=1), store=store)
    assert len(done.removed) == 3
    assert collected is not None
    assert collected.kept_bytes < before - 350_000
    assert upkeep.verify(store=store).whole
    assert tags.read(store.find("e3").path) == {}


def kept_by_a_server(store: Store, kernel: str, when: datetime, notebook: str = "/fit.ipynb") -> Entry:
    entry = put(store, f"at-stop {kernel}", now=when, notebook=notebook)
    document = json.loads((entry.path / MANIFEST).read_text())
    (entry.path / MANIFEST).write_text(json.dumps({**document, "note": waiting.NOTES[waiting.AT_STOP]}))
    return entry


def test_a_session_that_waits_for_its_notebook_stays_until_it_is_brought_back(store: Store) -> None:
    now = datetime.now(UTC)
    kept_by_a_server(store, "older", now - timedelta(days=3))
    entry = kept_by_a_server(store, "a", now - timedelta(days=2))
    for hour in range(4):
        put(store, f"h{hour}", now=now + timedelta(hours=hour - 10), notebook="/fit.ipynb")
    done = retention.prune(store, Policy(last=1))
    assert [(kept.name, why) for kept, why in done.kept] == [("at-stop a", "waits for its notebook"), ("h3", "last")]
    retention.prune(store, Policy(max_bytes=1))
    assert names(store) == ["at-stop a", "h3"]
    tags.change(entry, {waiting.BACK: False})
    retention.prune(store, Policy(last=1))
    assert names(store) == ["h3"]


def test_a_session_that_waited_for_a_month_waits_no_longer(store: Store) -> None:
    kept_by_a_server(store, "a", datetime.now(UTC) - waiting.LONGEST - timedelta(days=1))
    series(store, 24 * 400)
    retention.prune(store, Policy(last=1))
    assert names(store) == ["h9600"]


def test_what_came_back_waits_no_longer_and_only_what_a_server_kept_is_tagged(store: Store) -> None:
    kept_by_a_server(store, "a", datetime.now(UTC))
    mine = put(store, "mine")
    for entry in store.entries():
        waiting.came_back(entry)
    assert waiting.waiting(store.entries()) == []
    assert {entry.name: set(entry.tags) for entry in store.entries()} == {"at-stop a": {waiting.BACK}, "mine": set()}
    shutil.rmtree(mine.path)
    waiting.came_back(mine)  # fails nothing
