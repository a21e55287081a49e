"""The state that must survive, how to spoil it, how to check it, and the command line beside it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from typing import Any

from tests.integration.jupyter.sessions import Client, Jupyter, Stage

SETUP = """
import ctypes, io, os, random, sqlite3, subprocess, threading, time
import numpy as np

count, stop = 0, threading.Event()
def counting():
    global count
    while not stop.wait(.005):
        count += 1
thread = threading.Thread(target=counting, name='counting')
thread.start()

def numbers():
    for n in range(10**6):
        yield n
generator = numbers()
for _ in range(5):
    next(generator)

with open('data.txt', 'w') as _f:
    _f.write('0123456789' * 100)
file = open('data.txt')
file.read(7)

db = sqlite3.connect(':memory:', check_same_thread=False)
db.execute('create table t (n integer, s text)')
db.executemany('insert into t values (?, ?)', [(n, str(n) * 3) for n in range(100)])

def make():
    lock, hits = threading.Lock(), []
    def closure():
        with lock:
            hits.append(len(hits))
            return len(hits)
    return closure
closure = make()
closure(); closure()

libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
buffer = libc.malloc(1 << 20)
ctypes.memmove(buffer, b'nbcr' * 1000, 4000)

base = np.arange(10000.0)
view = base[::2]

random.seed(7); np.random.seed(7); random.random(); np.random.rand(3)
rng = np.random.default_rng(7); rng.random(3)
_then = random.getstate(), np.random.get_state(), rng.bit_generator.state
wanted = [random.random(), np.random.rand(), rng.random()]
random.setstate(_then[0]); np.random.set_state(_then[1]); rng.bit_generator.state = _then[2]

def check():
    before = count
    deadline = time.monotonic() + 10
    while count == before and time.monotonic() < deadline:
        time.sleep(.01)
    base[10] = 77
    aliased = float(view[5]) == 77
    base[10] = 10
    lives = [t.name for t in threading.enumerate() if t.name == 'counting']
    then = random.getstate(), np.random.get_state(), rng.bit_generator.state
    drawn = [random.random(), np.random.rand(), rng.random()]
    random.setstate(then[0]); np.random.set_state(then[1]); rng.bit_generator.state = then[2]
    return {
        'thread': count > before and lives == ['counting'] and thread.is_alive(),
        'generator': generator.gi_frame.f_locals['n'],
        'file': (file.tell(), file.name),
        'sqlite': db.execute('select count(*), sum(n), max(s) from t').fetchone(),
        'closure': len(closure.__closure__[0].cell_contents),
        'lock': closure.__closure__[1].cell_contents.locked(),
        'malloc': ctypes.string_at(buffer, 4004).count(b'nbcr'),
        'view': [view.base is base, aliased, float(view.sum())],
        'random': drawn == wanted,
    }
"""

SPOIL = """
stop.set(); thread.join()
next(generator); next(generator)
file.seek(0)
db.execute('delete from t where n > 3')
closure(); closure.__closure__[1].cell_contents.acquire()
ctypes.memset(buffer, 0, 4000)
base[:] = -1
random.seed(1); np.random.seed(1); rng.random(100)
"""

WANTED: dict[str, Any] = {
    "thread": True,
    "generator": 4,
    "file": [7, "data.txt"],
    "sqlite": [100, 4950, "999999"],
    "closure": 2,
    "lock": False,
    "malloc": 1000,
    "view": [True, True, 24995000.0],
    "random": True,
}


def set_up(client: Client) -> None:
    client.run(SETUP)
    assert_whole(client)


def spoil(client: Client) -> None:
    client.run(SPOIL)
    assert client.value("[thread.is_alive(), db.execute('select count(*) from t').fetchone()[0]]") == [False, 4]


def assert_whole(client: Client) -> None:
    found = client.value("check()")
    assert found == WANTED, {key: value for key, value in found.items() if value != WANTED.get(key)}


def assert_usable(client: Client) -> None:
    """What a restored Jupyter kernel must still be able to do."""
    assert client.run("t = threading.Thread(target=print, args=('new',)); t.start(); t.join()") == "new\n"
    assert client.run("print(subprocess.check_output(['echo', 'child']))") == "b'child\\n'\n"
    assert client.value("__import__('multiprocessing').get_context('fork').Pool(1).map(abs, [-1, -2])") == [1, 2]
    assert client.run("!echo shell").strip() == "shell"
    cell = client.send("print('on'); time.sleep(60)")
    assert client.listen(lambda: bool(client.cells[cell].text), 10)
    client.control("interrupt_request", {})
    assert "KeyboardInterrupt" in client.wait(cell)[0].error
    cell = client.send("print(input('? ') + '!')", allow_stdin=True)
    client.is_asked(cell, "? ", timeout_s=10)
    client.client.input("yes")
    assert client.wait(cell)[0].text == "yes!\n"
    cell = client.send("%matplotlib inline\nimport matplotlib.pyplot as plt\nplt.plot([1, 2]);")
    drawn = client.wait(cell, timeout_s=90)[0].displays  # the first of a user's: a list of all fonts is made before
    assert any("image/png" in d.get("data", {}) for d in drawn)
    cell = client.send("import ipywidgets\nslider = ipywidgets.IntSlider(value=3)\nslider.value = 4")
    opened = [d for d in client.wait(cell)[0].displays if d.get("target_name") == "jupyter.widget"]
    assert opened
    assert client.value("slider.value") == 4
    text = client.run("%history -n")
    assert "check()" in text
    assert "ERROR" not in text
    assert "sqlite" not in client.cells[client.send("1")].error


def nbcr(stage: Stage, *words: str | int, timeout_s: float = 60.0) -> Any:
    """`nbcr …` as the stage's user; what it prints with --json."""
    argv = [sys.executable, "-m", "nbcr.cli", *(str(word) for word in words), "--json"]
    done = subprocess.run(
        stage.user.command(argv, cwd=stage.folder / "work"),
        env=stage.environ, capture_output=True, text=True, timeout=timeout_s,
    )  # fmt: skip
    assert done.returncode == 0, f"nbcr {words}: {done.returncode}\n{done.stderr}"
    assert "history.sqlite" not in done.stderr  # a restored life opens it anew: nothing to warn of
    return json.loads(done.stdout)


def kill(stage: Stage, jupyter: Jupyter) -> None:
    """As the out-of-memory killer does it."""
    jupyter.kill(stage.processes)
    reap_group(jupyter.pid)


def kill_again(pid: int) -> None:
    """The same for a restored one, which is our child as well (the tests are the subreaper)."""
    os.kill(pid, signal.SIGKILL)
    reap_group(pid)


def reap_group(pid: int, timeout_s: float = 10.0) -> None:
    """Reap what is left of a dead process's group: an unreaped member keeps the number in use.

    Without blocking: a member that leaves the group (a helper that just starts) wakes nobody who waits for the group.
    """
    deadline = time.monotonic() + timeout_s
    with contextlib.suppress(ChildProcessError):
        while time.monotonic() < deadline:
            if os.waitpid(-pid, os.WNOHANG) == (0, 0):
                time.sleep(0.005)
        raise AssertionError(f"of the group of {pid}, which was killed, somebody lives on")


def revive(stage: Stage, name: str) -> int:
    """`nbcr restart NAME --detach`; the restored root's pid, counted among the test's own processes."""
    pid = int(nbcr(stage, "restart", name, "--detach")["pid"])
    stage.processes.adopt(pid)
    return pid
