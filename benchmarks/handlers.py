"""What it costs to have handlers and an idle checkpoint thread, and to enter a critical section.

Two programs do the same small floating-point loop, one of them with twelve handlers and the checkpoint thread beside
it; they run in turns, and the ratio of neighbours is judged, so that a noisy host disturbs both.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from benchmarks import host
from benchmarks.commands import CommandFailed
from benchmarks.table import Report, Row, Verdict, median

_STATE = "tight loop in pure Python"
_LOOP = """
import json, sys, time
def spin(n):
    x, y, vx, vy = 1.0, 0.0, 0.0, 1.0
    for _ in range(n):
        r3 = (x * x + y * y) ** 1.5
        vx -= 0.001 * x / r3
        vy -= 0.001 * y / r3
        x += 0.001 * vx
        y += 0.001 * vy
    return x
def best(call, times):
    found = []
    for _ in range(times):
        begun = time.perf_counter()
        call()
        found.append(time.perf_counter() - begun)
    return min(found)
"""
_BARE = _LOOP + "print(json.dumps({'loop': best(lambda: spin(200_000), 7)}))"
_HANDLERS = (
    _LOOP
    + """
import threading, nbcr
def handler(request):
    outcome = yield
for layer in nbcr.Layer:
    for context in ("thread", "thread", "signal"):
        nbcr.on_checkpoint(type("Handler", (nbcr.Handler,), {"layer": layer, "context": context})())
assert "nbcr-checkpoint" in [t.name for t in threading.enumerate()]
def sections(n):
    section = nbcr.critical_section("bench")
    for _ in range(n):
        with section:
            pass
def nothing(n):
    for _ in range(n):
        pass
entering = (best(lambda: sections(100_000), 7) - best(lambda: nothing(100_000), 7)) / 100_000
print(json.dumps({"loop": best(lambda: spin(200_000), 7), "section": entering}))
"""
)


def measure(folder: Path, report: Report, repetitions: int) -> None:
    """Run both programs in turns, and judge the ratio and the time to enter and leave."""
    bare: list[float] = []
    ours: list[float] = []
    sections: list[float] = []
    for _ in range(repetitions):
        bare.append(_run(_BARE, folder)["loop"])
        found = _run(_HANDLERS, folder)
        ours.append(found["loop"])
        sections.append(found["section"])
    ratios = [mine / other for mine, other in zip(ours, bare, strict=True)]
    report.rows.append(Row(_STATE, "bare", total=median(bare), samples={"total": bare}))
    report.rows.append(
        Row(_STATE, "12 handlers, checkpoint thread", total=median(ours), samples={"total": ours, "ratio": ratios})
    )
    more = [ratio - 1 for ratio in ratios]
    what = "12 handlers and an idle checkpoint thread: more time for the loop"
    report.verdicts.append(Verdict(what, 0.01, median(more), "%", best=min(more)))
    what = "entering and leaving a critical section"
    report.verdicts.append(Verdict(what, 1e-6, median(sections), best=min(sections)))


def _run(code: str, folder: Path) -> dict[str, float]:
    run = folder / "run"
    run.mkdir(mode=0o700, exist_ok=True)
    environ = {**host.environ(), "XDG_RUNTIME_DIR": str(run), "PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "-c", code], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, env=environ
    )
    if done.returncode != 0:
        raise CommandFailed(f"the loop: {done.stderr.strip()}")
    found: dict[str, float] = json.loads(done.stdout)
    return found
