"""%undo of a cell in a large session, and what a point after each cell costs a notebook."""

from __future__ import annotations

import time
from pathlib import Path

from benchmarks.jupyter import JupyterKernel
from benchmarks.table import Report, Row, Verdict, median

_READING_S = 5.0  # how long a user looks at a cell's output before the next step
_NOTEBOOK = (
    "import numpy as np, pandas as pd",
    "rng = np.random.default_rng(0); rows = pd.DataFrame(rng.normal(size=(400_000, 8)), columns=list('abcdefgh'))",
    "rows['group'] = rng.integers(0, 50, len(rows))",
    "means = rows.groupby('group').mean(); means.head()",
    "for _ in range(6): rows.sort_values(['group', 'a'])",
    "matrix = rows[list('abcdefgh')].to_numpy(); u, s, v = np.linalg.svd(matrix, full_matrices=False)",
    "clusters = [np.linalg.norm(matrix - c, axis=1).argsort()[:100] for c in matrix[:120]]",
    "joined = rows.merge(means, left_on='group', right_index=True, suffixes=('', '_mean'))",
    "joined.describe()",
    "total = 0\nfor i in range(12_000_000): total += i % 7",
    "rolled = rows['a'].rolling(500).std().dropna()",
    "boot = [rolled.sample(frac=0.5, random_state=i).mean() for i in range(60)]",
)


def measure(folder: Path, report: Report, *, repetitions: int, large: bool) -> None:
    """The two figures."""
    _undo(folder, report, repetitions, size_mib=1024 if large else 64)
    _each_cell(folder, report, repetitions)


def _undo(folder: Path, report: Report, repetitions: int, size_mib: int) -> None:
    folder = folder / "undo"
    folder.mkdir()
    row = Row(f"undo, {size_mib} MiB", "%undo of a cell that changed 10 MB", samples={"runs": [], "back": []})
    with JupyterKernel(folder) as session:
        session.run(f"import numpy as np, time, os\nbig = np.frombuffer(os.urandom(1 << 20) * {size_mib}, 'u1').copy()")
        session.run("%nbcr auto --each-cell")
        time.sleep(_READING_S)
        for _ in range(repetitions):
            session.run("big[:10 << 20] = 0; spoiled = True")
            time.sleep(_READING_S)
            begun, clock = time.perf_counter(), time.time()
            session.client.execute("%undo")
            session.run("ran = time.time(), 'spoiled' in globals(), int(big[:10 << 20].max())")
            row.samples["back"].append(time.perf_counter() - begun)
            ran, spoiled, largest = session.value("ran")
            if spoiled or not largest:
                report.failures.append("%undo did not bring the session back")
            row.samples["runs"].append(ran - clock)
            time.sleep(_READING_S)
    row.back, row.blocked = median(row.samples["back"]), median(row.samples["runs"])
    row.note = "blocked: until the next cell runs; going back: until the client has its reply"
    report.rows.append(row)
    if size_mib == 1024:
        best = min(row.samples["runs"])
        report.verdicts.append(Verdict("%undo in 1 GiB, until the next cell runs", 0.3, row.blocked, best=best))


def _each_cell(folder: Path, report: Report, repetitions: int) -> None:
    """The same notebook with and without, in turns, each in a Jupyter kernel of its own."""
    without, with_ = Row("points", "a notebook, Run All"), Row("points", "the same, %nbcr auto --each-cell")
    for turn in range(repetitions):
        for row, magic in ((without, ""), (with_, "%nbcr auto --each-cell")):
            place = folder / f"points-{turn}-{bool(magic)}"
            place.mkdir()
            with JupyterKernel(place) as session:
                session.run(magic)
                time.sleep(1.0)
                begun = time.perf_counter()
                for cell in _NOTEBOOK:
                    session.run(cell)
                row.samples.setdefault("total", []).append(time.perf_counter() - begun)
                if magic:
                    points = session.value("len(get_ipython().find_line_magic('undo').__self__.points.trail)")
                    row.note = f"{points} points for {len(_NOTEBOOK)} cells"
    for row in (without, with_):
        row.total = median(row.samples["total"])
        report.rows.append(row)
    # The fastest of each: whatever else the host does makes both slower, by more than what is measured.
    cost = min(with_.samples["total"]) / min(without.samples["total"]) - 1
    report.verdicts.append(Verdict("a point after each cell, of a notebook's time", 0.05, cost, "%"))
