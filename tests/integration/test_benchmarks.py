"""`make bench` runs to its end and prints a row for every contestant. What it measures is not judged here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.__main__ import PARTS
from tests.support import CHECKOUT

_NAMED = {
    "sessions": ("%checkpoint", "restart --detach", "dd /dev/zero", "dd of the image", "cloudpickle", "dill"),
    "peers": ("%checkpoint", "cloudpickle", "dill"),
}


@pytest.mark.timeout(300)
@pytest.mark.either("part")
@pytest.mark.parametrize("part", PARTS)
def test_a_quick_run_prints_every_row(part: str, tmp_path: Path) -> None:
    numbers, folder = tmp_path / "numbers.json", tmp_path / "disk"
    words = ["--quick", "--only", part, "--folder", str(folder), "--json", str(numbers)]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", *words],
        cwd=CHECKOUT, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    for word in _NAMED.get(part, ()):
        assert done.stdout.count(word) >= 2, f"{word} is missing:\n{done.stdout}"
    found = json.loads(numbers.read_text())
    assert found["failures"] == []
    assert found["rows"]
    check = _CHECKS.get(part)
    if check is not None:
        check(found["rows"])
    assert list(folder.iterdir()) == [], "images and dd's files are removed"


def _check_sessions(rows: list[dict[str, Any]]) -> None:
    images = [row for row in rows if row["who"].startswith("nbcr %checkpoint --image")]
    assert len(images) == 2
    assert all(row[name] > 0 for row in images for name in ("pause", "blocked", "total", "bytes", "back"))
    _check_objects(rows, 4)


def _check_objects(rows: list[dict[str, Any]], count: int) -> None:
    objects = [row for row in rows if "objects" in row["who"]]
    assert len(objects) == count
    assert all(row[name] > 0 for row in objects for name in ("blocked", "total", "bytes"))


def _check_trees(rows: list[dict[str, Any]]) -> None:
    trees = [row for row in rows if "threads" in row["state"]]
    assert len(trees) == 2
    assert all(row[name] > 0 for row in trees for name in ("pause", "total", "bytes", "back"))


_CHECKS = {"sessions": _check_sessions, "peers": lambda rows: _check_objects(rows, 5), "trees": _check_trees}
