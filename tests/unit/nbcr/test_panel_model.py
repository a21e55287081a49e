"""What a panel shows, without widgets: the tree, and that nothing of a user's is markup."""

from __future__ import annotations

from dataclasses import replace

from nbcr.panels import model
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
    shown = model.details(entry, [entry], store) + model.head([entry], entry.id, store)
    assert "<script" not in shown
    assert shown.count("&lt;script&gt;") >= 4
