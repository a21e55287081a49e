"""What tables say."""

from __future__ import annotations

from nbcr.objects.results import Change
from nbcr.rendering import changes_bundle, changes_text


def test_a_comparison_shows_values_and_sizes_that_matter() -> None:
    changes = [
        Change("count", 5, 5, "10", "33"),
        Change("x", 5000, None, "array([0.5,\n       0.25])", ""),
        Change("text", None, 30, "", repr("<b>" + "y" * 50)),
    ]
    lines = [line.split("  ") for line in changes_text(changes).splitlines()]
    rows = [[cell.strip() for cell in line if cell.strip()] for line in lines]
    assert rows == [
        ["change", "name", "before", "after"],
        ["changed", "count", "10", "33"],
        ["removed", "x", "array([0.5, 0.25])", "4.88 KiB", "-"],
        ["added", "text", "-", "'<b>" + "y" * 27 + "…"],
    ]
    assert "&#x27;&lt;b&gt;y" in changes_bundle(changes)["text/html"]
    assert changes_text([]) == "no differences"
