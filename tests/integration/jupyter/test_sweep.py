"""A notebook of all kinds of state, interrupted at any cell in five ways: it shows what it would have shown."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Sequence

import pytest

from tests.integration.jupyter.lives import kill, nbcr, revive
from tests.integration.jupyter.sessions import Client, Jupyter, Stage

# Each cell is worth the same when it is run again after a rewind to the moment before it.
NOTEBOOK = [
    "import asyncio, multiprocessing, os, queue, random, sqlite3, subprocess, sys, tempfile, threading, time\n"
    "import numpy as np; random.seed(4); rng = np.random.default_rng(5)\n"
    "db = sqlite3.connect(':memory:'); db.execute('create table t(x)')\n"
    "db.executemany('insert into t values(?)', [(i,) for i in range(1000)]).rowcount",
    "db.execute('insert into t values (7)'); db.execute('select sum(x), count(*) from t').fetchall()",
    "ticks = []; stop = threading.Event()\n"
    "def tick():\n    while not stop.wait(.005): ticks.append(1)\n"
    "thread = threading.Thread(target=tick, daemon=True); thread.start(); thread.is_alive()",
    "def walk():\n    place = 0\n    while True:\n        place += random.random(); yield place\n"
    "walking = walk(); [round(next(walking), 6) for _ in range(3)]",
    "async def later(value):\n    await asyncio.sleep(.05); return value\nawait later(5)",
    "task = asyncio.ensure_future(later('late')); 'started'",
    "await task",
    "cat = subprocess.Popen(['cat'], stdin=-1, stdout=-1, text=True, bufsize=1)\n"
    "cat.stdin.write('hello\\n'); cat.stdout.readline()",
    "cat.stdin.write('again\\n'); cat.stdout.readline(), cat.poll()",
    "a = rng.random((300, 300)); round(float(np.linalg.svd(a, compute_uv=False)[0]), 6)",
    "a @= np.eye(300) * 2; round(float(a.sum()), 4), a.flags.owndata",
    "n = len(ticks); time.sleep(.1); len(ticks) > n, thread.is_alive()",
    "[round(next(walking), 6) for _ in range(3)]",
    "!echo shell $((6*7))",
    "%%bash\nfor i in 1 2 3; do echo line $i; done",
    "file = tempfile.TemporaryFile('w+'); file.write('abc'); file.flush(); file.tell()",
    "file.seek(3); file.truncate(); file.write('def'); file.seek(0); file.read()",
    "pool = multiprocessing.get_context('fork').Pool(2); pool.map(abs, [-1, -2, 3])",
    "pool.map(abs, [-5, 6])",
    "%matplotlib inline\nimport matplotlib.pyplot as plt; figure, axes = plt.subplots(); axes.plot([1, 3, 2]);",
    "axes.plot([2, 2]); figure",
    "import ipywidgets; slider = ipywidgets.IntSlider(value=4); slider.value",
    "slider.value = 7; slider.value",
    "for i in range(5):\n    print(i, end=' ', flush=True); time.sleep(.04)",
    "print('to stderr', file=sys.stderr)",
    "class Point:\n    def __init__(self, x): self.x = x\n    def __repr__(self): return f'Point({self.x})'\n"
    "points = [Point(i) for i in range(3)]; points",
    "points[0].x = 9; points, [type(p) is Point for p in points]",
    "1/0",
    "cat.terminate(); cat.wait()",
    "pool.terminate(); pool.join(); stop.set(); thread.join(); thread.is_alive()",
]
WAYS = ["in place", "killed", "into another", "in the middle of a cell", "stopped with it"]


def run(client: Client, code: str) -> str:
    """Everything a cell shows, without what differs from run to run."""
    return shown_by(client, client.send(code, stop_on_error=False), code)


def shown_by(client: Client, sent: str, code: str) -> str:
    (cell,) = client.wait(sent, timeout_s=30)
    assert (cell.replies, cell.idles) == (1, 1), (code, cell)
    shown = [data for display in cell.displays if (data := display.get("data")) and "method" not in data]
    return re.sub(r"0x[0-9a-f]+|[0-9a-f]{32}", "", repr((cell.status, cell.text, cell.error.splitlines()[-1:], shown)))


def stop(stage: Stage, jupyter: Jupyter, at: int, wanted: Sequence[str], rng: random.Random) -> int:
    """A cell runs when the process ends with its checkpoint, the next is sent while nobody lives; what follows."""
    client, cells = jupyter.client, NOTEBOOK[at : at + 2]
    sent = [client.send(cells[0], stop_on_error=False)]
    time.sleep(rng.uniform(0, 0.15))  # a random moment is what is wanted
    nbcr(stage, "checkpoint", jupyter.pid, "--name", "here", "--image", "--stop")
    sent += [client.send(code, stop_on_error=False) for code in cells[1:]]
    revive(stage, "here")
    for number, (cell, code) in enumerate(zip(sent, cells, strict=True), at):
        assert shown_by(client, cell, code) == wanted[number], f"cell {number} is another"
    return at + len(cells)


def with_extension(stage: Stage) -> Jupyter:
    jupyter = stage.start()
    run(jupyter.client, "%load_ext nbcr")
    return jupyter


@pytest.fixture(scope="module")
def undisturbed() -> list[str]:
    return []


def outputs(stage: Stage, known: list[str]) -> Sequence[str]:
    """What the notebook shows when nobody interferes; found out once."""
    if not known:
        jupyter = with_extension(stage)
        known.extend(run(jupyter.client, code) for code in NOTEBOOK)
        assert [text for text in known if text.startswith("('error'")] == [known[NOTEBOOK.index("1/0")]]
        kill(stage, jupyter)
    return known


def sweep(stage: Stage, way: str, known: list[str], rng: random.Random) -> None:
    wanted = outputs(stage, known)
    at, more = rng.randrange(len(NOTEBOOK)), rng.randrange(4)
    jupyter = with_extension(stage)
    client = jupyter.client
    for code in NOTEBOOK[:at]:
        run(client, code)
    follows = at
    if way == "stopped with it":
        follows, more = stop(stage, jupyter, at, wanted, rng), 0
    elif way == "in the middle of a cell":
        cell = client.send(NOTEBOOK[at], stop_on_error=False)
        time.sleep(rng.uniform(0, 0.15))  # a random moment is what is wanted
        nbcr(stage, "checkpoint", jupyter.pid, "--name", "here")
        client.wait(cell, timeout_s=30)
        follows = at + 1
    elif way == "killed":
        nbcr(stage, "checkpoint", jupyter.pid, "--name", "here")
    else:
        run(client, "%checkpoint --wait here")
    for code in NOTEBOOK[follows : follows + more]:
        run(client, code)
    if way == "in place":
        run(client, "%restart here")
    elif way == "into another":
        kill(stage, jupyter)
        client = with_extension(stage).client
        run(client, "%restart here")
    elif way != "stopped with it":
        kill(stage, jupyter)
        revive(stage, "here")
    for number in range(follows, len(NOTEBOOK)):
        found = run(client, NOTEBOOK[number])
        assert found == wanted[number], f"{way} at cell {at} (and {more} more): cell {number} is another"


@pytest.mark.parametrize("way", WAYS)
def test_any_cell(stage: Stage, way: str, undisturbed: list[str], rng: random.Random) -> None:
    sweep(stage, way, undisturbed, rng)


@pytest.mark.long
@pytest.mark.parametrize("turn", range(10))
@pytest.mark.parametrize("way", WAYS)
def test_every_cell(any_stage: Stage, way: str, turn: int, undisturbed: list[str], rng: random.Random) -> None:
    sweep(any_stage, way, undisturbed, rng)
