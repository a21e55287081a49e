"""`make bench` runs to its end and prints a row for every contestant. What it measures is not judged here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.support import CHECKOUT


def test_a_quick_run_prints_every_row(tmp_path: Path) -> None:
    numbers, folder = tmp_path / "numbers.json", tmp_path / "disk"
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--quick", "--folder", str(folder), "--json", str(numbers)],
        cwd=CHECKOUT, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    for word in ("%checkpoint", "restart --detach", "dd /dev/zero", "dd of the image", "cloudpickle", "dill"):
        assert done.stdout.count(word) >= 2, f"{word} is missing:\n{done.stdout}"
    found = json.loads(numbers.read_text())
    sessions = [row for row in found["rows"] if row["who"].startswith("nbcr %checkpoint --image")]
    assert len(sessions) == 2
    objects = [row for row in found["rows"] if "objects" in row["who"]]
    assert len(objects) == 4 + 6
    assert all(row[name] > 0 for row in objects for name in ("blocked", "total", "bytes"))
    assert all(row[name] > 0 for row in sessions for name in ("pause", "blocked", "total", "bytes", "back"))
    trees = [row for row in found["rows"] if "threads" in row["state"]]
    assert len(trees) == 2
    assert all(row[name] > 0 for row in trees for name in ("pause", "total", "bytes", "back"))
    assert found["failures"] == []
    assert list(folder.iterdir()) == [], "images and dd's files are removed"
