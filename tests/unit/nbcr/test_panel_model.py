"""What a panel shows, without widgets: the tree, and that nothing of a user's is markup."""

from __future__ import annotations

from dataclasses import replace

from nbcr.panels import model
from nbcr.session import upkeep
from nbcr.store import Entry, Store
from tests.unit.nbcr.store.making import put


def texts(entries: list[Entry], position: str | None = None) -> list[str]:
    return [line.text.partition("  —")[0].replace("\N{NO-BREAK SPACE}", " ") for line in model.tree(entries, position)]


def test_a_tree_indents_branches_only(store: Store) -> None:
    root, a, b, c, d = (put(store, name) for name in ("root", "a", "b", "c", "d"))
    a, b, c, d = (replace(e, parent=p.id) for e, p in ((a, root), (b, a), (c, a), (d, c)))
    assert texts([root, a, b, c, d], c.id) == ["• root", "• a", "└ • b", "└ ▶ c", "└ • d"]
    # a parent that is gone, one's own, or one of a circle hides nothing
    assert texts([b]) == ["• b"]
    assert texts([replace(root, parent=a.id), a]) == ["• root", "• a"]
    chain = [replace(root, id=str(n), parent=str(n - 1)) for n in range(3000)]
    assert len(model.tree(chain, None)) == 3000


def test_nothing_of_the_users_is_markup(store: Store) -> None:
    bad = "<script>alert(1)</script>"
    entry = replace(put(store, bad), note=bad, notebook=f"/{bad}", warnings=(bad,))
    shown = model.details(entry, [entry], store) + model.head([entry], entry.id)
    assert "<script" not in shown
    assert shown.count("&lt;script&gt;") >= 4


def test_pruning_asks_what_would_go_by_the_stores_rules_or_those_given(store: Store) -> None:
    entries = [put(store, name) for name in ("one", "two", "three", "four")]
    upkeep.tag("one", ["<b>"], pin=True, store=store)
    asked = model.pruning(store, 2)
    assert asked.removes == 1
    assert "Remove 1 checkpoint for good: two?" in asked.question
    assert texts(store.entries())[0] == "└ • one"
    assert "#<b>" in model.tree(store.entries(), None)[0].text
    assert "&lt;b&gt; (pinned)" in model.details(store.entries()[0], entries, store)
    upkeep.change_settings(store=store, keep=upkeep.policy(3))
    assert model.pruning(store, 1).removes == 0
    upkeep.change_settings(store=store, keep=upkeep.policy(0, 0, 0, 0, 0, (), 1 << 40))
    assert "of a budget of 1024 GiB" in model.disk(store).text


def test_the_cell_that_took_it_is_shown(store: Store) -> None:
    source = "\n".join(["%checkpoint <i>", *map(str, range(30))])
    entry = replace(put(store, "one"), cell=7, jupyter={"cell_source": source})
    shown = model.details(entry, [entry], store)
    assert "[7]\n%checkpoint &lt;i&gt;\n0\n" in shown
    assert "10\n…" in shown
    assert "11" not in shown.partition("[7]")[2].partition("</td>")[0]
