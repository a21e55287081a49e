"""The demo: a live Jupyter kernel is checkpointed, spoiled and rewound, then killed mid-cell and brought back.

Everything is real: ipykernel, jupyter_client, the magics and the `nbcr` command. Everything lives in one temporary
folder, which is gone at the end, with every process. Exit status 0 when all that was verified held, else 1.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import KernelManager
from rich import box
from rich.console import Console
from rich.table import Table

CELL_TIMEOUT_S = COMMAND_TIMEOUT_S = 120.0  # cells take some seconds at most; a busy host may need far longer
_COLOURS = re.compile("\x1b\\[[0-9;]*m")

BUILD = """
import ctypes, json, os, random, sqlite3, threading, time
import numpy as np
%load_ext nbcr

count, stop = 0, threading.Event()
def counting():
    global count
    while not stop.wait(0.005):
        count += 1
thread = threading.Thread(target=counting, daemon=True)
thread.start()

def squares():
    n = 0
    while True:
        yield n * n
        n += 1
generator, drawn = squares(), 3
for i in range(drawn):
    next(generator)

with open("lines.txt", "w") as writer:
    writer.writelines(f"line {n}\\n" for n in range(100_000))
reader, lines_read = open("lines.txt"), 5
for i in range(lines_read):
    reader.readline()

table = sqlite3.connect(":memory:", check_same_thread=False)
table.execute("create table t (n integer)")
table.executemany("insert into t values (?)", [(n,) for n in range(1000)])

def make_counter():
    lock, calls = threading.Lock(), 0
    def call():
        nonlocal calls
        if not lock.acquire(timeout=0.5):
            raise TimeoutError("the closure's lock is not free")
        with_lock = calls = calls + 1
        lock.release()
        return with_lock
    return call, lock
counter, closure_lock = make_counter()
calls = counter()

libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
buffer = libc.malloc(ctypes.c_size_t(64))
ctypes.memmove(buffer, b"bytes that Python does not know of", 34)

base = np.arange(8_000_000, dtype=np.float64)
view = base[::2]

def work(steps, pause_s=0.0):
    "Multiply matrices (BLAS, its own threads); the same steps give the same bits."
    matrix = np.random.default_rng(7).random((120, 120)) / 60
    state = np.eye(120)
    for step in range(steps):
        for _ in range(20):
            state = state @ matrix
            state /= state.max()
        if pause_s:
            print("step", step, flush=True)
            time.sleep(pause_s)
    return state.tobytes()
"""

# What the state should be like after the next return to here.
MARK = """
peek, numpy_peek = random.Random(), np.random.RandomState()
peek.setstate(random.getstate())
numpy_peek.set_state(np.random.get_state())
mark = {"count": count, "random": peek.random(), "numpy": numpy_peek.random_sample()}
"""

SPOIL = """
stop.set(); thread.join(); count = -10**9
generator.close()
reader.close()
table.execute("drop table t")
closure_lock.acquire()
ctypes.memset(buffer, 0, 64)
view = view.copy()
random.seed(0); np.random.seed(0)
"""

# Each check leaves the state such that the same check holds again.
CHECK = """
def _thread():
    before = count
    deadline = time.monotonic() + 5
    while thread.is_alive() and count <= before and time.monotonic() < deadline:
        time.sleep(0.01)
    return thread.is_alive() and before >= mark["count"] and count > before
def _generator():
    global drawn
    drawn += 1
    return next(generator) == (drawn - 1) ** 2
def _file():
    global lines_read
    lines_read += 1
    return reader.readline() == f"line {lines_read - 1}\\n"
def _table():
    return table.execute("select count(*), sum(n) from t").fetchone() == (1000, 499500)
def _closure():
    global calls
    calls += 1
    return counter() == calls
def _buffer():
    return ctypes.string_at(buffer, 34) == b"bytes that Python does not know of"
def _view():
    base[0] = -1.0
    aliases = view.base is base and view[0] == -1.0
    base[0] = 0.0
    return aliases
def _random():
    return random.random() == mark["random"] and np.random.random_sample() == mark["numpy"]

def _holds(check):
    try:
        return bool(check())
    except Exception:
        return False
print(json.dumps({
    "running thread": _holds(_thread),
    "open generator": _holds(_generator),
    "open file, offset": _holds(_file),
    "sqlite3 :memory:": _holds(_table),
    "closure over a lock": _holds(_closure),
    "C malloc buffer": _holds(_buffer),
    "numpy view of base": _holds(_view),
    "random generators": _holds(_random),
}))
"""

NEW_LIFE = """
import subprocess
started = threading.Thread(target=lambda: None)
started.start(); started.join()
print(json.dumps(subprocess.run(["echo", "hello"], capture_output=True, text=True).stdout == "hello\\n"))
"""

STEPS, PAUSE_S, CHECKPOINT_AT = 60, 0.05, 5
RUNNING_CELL = f"print('same bits' if work({STEPS}, {PAUSE_S}) == undisturbed else 'OTHER BITS')"


class Failed(Exception):
    """Something did not hold; the message is one line."""


@dataclass
class Step:
    """A row of the table."""

    name: str
    verified: list[str] = field(default_factory=list)
    seconds: float = 0.0
    pause_ms: float | None = None
    size_bytes: int | None = None


class Session:
    """A Jupyter kernel, its one client, and the `nbcr` command, in a folder of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.pids: set[int] = set()  # processes to end
        self.environ = {**os.environ, "NBCR_STORE": str(folder / "store"), "PYTHONUNBUFFERED": "1"}
        for variable, name in (
            ("XDG_RUNTIME_DIR", "run"),
            ("JUPYTER_RUNTIME_DIR", "jupyter"),
            ("JUPYTER_CONFIG_DIR", "config"),
            ("JUPYTER_DATA_DIR", "data"),
            ("IPYTHONDIR", "ipython"),
        ):
            (folder / name).mkdir(mode=0o700)
            self.environ[variable] = str(folder / name)
        self.manager = KernelManager(connection_file=str(folder / "jupyter" / "kernel-demo.json"))
        self.client: BlockingKernelClient
        self.process: subprocess.Popen[bytes]
        self.pid = 0

    def start(self) -> None:
        """Start the Jupyter kernel and wait until it answers."""
        with (self.folder / "jupyter-kernel.log").open("wb") as log:
            self.manager.start_kernel(env=self.environ, cwd=str(self.folder), stdout=log, stderr=log)
        self.process = self.manager.provisioner.process  # type: ignore[union-attr]
        self.pid = self.process.pid
        self.pids.add(self.pid)
        self.client = self.manager.blocking_client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=CELL_TIMEOUT_S)

    def run(self, code: str) -> str:
        """Execute a cell; what it printed and returned. Raises Failed with the error's last line."""
        said: list[str] = []
        try:
            reply = self.client.execute_interactive(code, timeout=CELL_TIMEOUT_S, output_hook=lambda m: _note(m, said))
        except TimeoutError:
            raise Failed(f"a cell did not end within {CELL_TIMEOUT_S:g} s: is this host very busy?") from None
        if reply["content"]["status"] != "ok":
            why = _COLOURS.sub("", (reply["content"].get("traceback") or ["aborted"])[-1])
            raise Failed(f"the cell {code.strip().splitlines()[-1]!r} failed: {why}")
        return "".join(said).strip()

    def value(self, code: str) -> Any:
        """What a cell prints last, as JSON."""
        return json.loads(self.run(code).splitlines()[-1])

    def begin(self, code: str, until: str) -> str:
        """Send a cell and return, while it runs, when it has printed `until`; its message id."""
        message_id = str(self.client.execute(code))
        self._listen(message_id, lambda text, ended: until in text)
        return message_id

    def end(self, message_id: str) -> str:
        """Wait for a running cell's end; what it printed since."""
        said = self._listen(message_id, lambda text, ended: ended)
        deadline = time.monotonic() + CELL_TIMEOUT_S
        while True:
            try:
                reply = self.client.get_shell_msg(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                raise Failed("the running cell's reply did not come") from None
            if reply["parent_header"].get("msg_id") == message_id:
                return said

    def _listen(self, message_id: str, enough: Callable[[str, bool], bool]) -> str:
        said: list[str] = []
        ended = False
        deadline = time.monotonic() + CELL_TIMEOUT_S
        while not enough("".join(said), ended):
            try:
                message = self.client.get_iopub_msg(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                raise Failed(f"the Jupyter kernel said nothing more; before: {''.join(said)[-200:]!r}") from None
            if message["parent_header"].get("msg_id") == message_id:
                _note(message, said)
                ended = message["content"].get("execution_state") == "idle"
        return "".join(said)

    def command(self, *words: str) -> dict[str, Any]:
        """Run `nbcr … --json` as a user would in a shell; its document. Raises Failed with its one line."""
        output, errors = self.folder / "command.out", self.folder / "command.err"
        with output.open("wb") as out, errors.open("wb") as err:
            done = subprocess.run(
                [sys.executable, "-m", "nbcr.cli", *words, "--json"],
                env=self.environ, stdin=subprocess.DEVNULL, stdout=out, stderr=err, timeout=COMMAND_TIMEOUT_S,
            )  # fmt: skip
        if done.returncode != 0:
            raise Failed(f"`nbcr {' '.join(words)}` ended with {done.returncode}: {errors.read_text().strip()}")
        document: dict[str, Any] = json.loads(output.read_text())
        return document

    def close(self) -> None:
        """End every process of ours, also one whose pid we were not told because something failed."""
        self.pids.update(self._processes())
        for pid in self.pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if hasattr(self, "client"):
            self.client.stop_channels()
        if hasattr(self, "process"):
            self.process.wait()
        self.manager.cleanup_resources()
        for pid in self.pids:  # init reaps those that were brought back
            _wait_until(lambda pid=pid: not _alive(pid), f"process {pid} did not end")  # type: ignore[misc]

    def _processes(self) -> Iterator[int]:
        """Those that live with our folder in their environment."""
        mark = f"NBCR_STORE={self.environ['NBCR_STORE']}\0".encode()
        for place in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if int(place.name) != os.getpid() and mark in (place / "environ").read_bytes():
                    yield int(place.name)


def _note(message: dict[str, Any], said: list[str]) -> None:
    content = message["content"]
    if message["msg_type"] == "stream":
        said.append(content["text"])
    elif message["msg_type"] in ("execute_result", "display_data"):
        said.append(content["data"].get("text/plain", "") + "\n")


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def _wait_until(holds: Callable[[], bool], otherwise: str, timeout_s: float = 10.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not holds():
        if time.monotonic() > deadline:
            raise Failed(otherwise)
        time.sleep(0.01)  # /proc has no event for this


def _expect(holds: bool, otherwise: str) -> None:
    if not holds:
        raise Failed(otherwise)


class Demo:
    """The steps, in order, and the table they fill."""

    def __init__(self, session: Session, console: Console) -> None:
        self.session = session
        self.console = console
        self.steps: list[Step] = []

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[Step]:
        """Time a step and note it, also when it fails."""
        step = Step(name)
        self.steps.append(step)
        begun = time.monotonic()
        with self.console.status(name):
            try:
                yield step
            except Failed as failure:
                step.verified.append("FAILED")
                raise Failed(f"{name}: {failure}") from failure
            except Exception as error:
                step.verified.append("FAILED")
                raise Failed(f"{name}: {type(error).__name__}: {error}") from error
            finally:
                step.seconds = step.seconds or time.monotonic() - begun

    def run(self) -> None:
        """The whole story. Raises Failed."""
        with self.step("start ipykernel") as step:
            self.session.start()
            step.verified.append(f"answers, pid {self.session.pid}")
        with self.step("build a state"):
            self.session.run(BUILD + MARK)
            self._check_all(self.steps[-1])
        self.rewind()
        self.bring_back()

    def rewind(self) -> None:
        """%checkpoint, spoil, %restart in place."""
        session = self.session
        session.run(MARK)
        with self.step("%checkpoint before-fit") as step:
            said = session.run("%checkpoint before-fit")
            step.verified.append("the cell goes on" if said.startswith("CONTINUE") else f"FAILED: {said}")
        written = session.value("_.wait(); print(json.dumps([_.pause_ms, _.size_bytes, _.blocked_ms]))")
        step.pause_ms, step.size_bytes, step.seconds = written[0], written[1], written[2] / 1000
        _expect(said.startswith("CONTINUE"), f"%checkpoint returned {said!r}")
        with self.step("spoil it") as step:
            session.run(SPOIL)
            self._check_none(step)
        with self.step("%restart before-fit") as step:
            said = session.run("%restart before-fit")
            _expect(said.startswith("RESTART"), f"%restart returned {said!r}")
        _expect(session.process.poll() is None, "the Jupyter kernel ended")
        _expect(session.value("print(os.getpid())") == session.pid, "the pid is another one")
        step.verified.append("same pid, same client")
        self._check_all(step)

    def bring_back(self) -> None:
        """`nbcr checkpoint` while a cell runs, SIGKILL, `nbcr restart --detach`."""
        session = self.session
        session.run(f"undisturbed = work({STEPS})" + MARK)
        running = session.begin(RUNNING_CELL, f"step {CHECKPOINT_AT}\n")
        with self.step("nbcr checkpoint (shell)") as step:
            taken = session.command("checkpoint", str(session.pid), "--name", "mid-cell")
            step.verified.append("while a cell runs")
            step.pause_ms, step.size_bytes = taken["pause_ms"], taken["size_bytes"]
        with self.step("kill -9"):
            session.process.kill()
            session.process.wait()
            self.steps[-1].verified.append("the process is gone")
        with self.step("nbcr restart --detach") as step:
            back = session.command("restart", "mid-cell", "--detach")
            session.pids.update([back["pid"], *back["pids"].values()])
            step.verified.append(f"process {back['pid']} is back")
        with self.step("same client goes on") as step:
            said = session.end(running)
            _expect("same bits" in said, f"the running cell ended with {said[-200:]!r}")
            step.verified.append("the cell ends, same bits")
            self._check_all(step)
            _expect(session.value(NEW_LIFE), "a subprocess printed something else")
            step.verified.append("new threads, subprocess")

    def _check_all(self, step: Step) -> None:
        found: dict[str, bool] = self.session.value(CHECK)
        broken = [name for name, holds in found.items() if not holds]
        _expect(not broken, f"not as it was: {', '.join(broken)}")
        step.verified.extend(found)

    def _check_none(self, step: Step) -> None:
        found: dict[str, bool] = self.session.value(CHECK)
        left = [name for name, holds in found.items() if holds]
        _expect(not left, f"was not spoiled: {', '.join(left)}")
        step.verified.append(f"all {len(found)} are broken")

    def table(self) -> Table:
        """What was done and verified so far."""
        table = Table(
            title="a Jupyter session: checkpointed, rewound, killed, brought back",
            box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0),  # 80 columns wide
        )  # fmt: skip
        for column in ("step", "verified"):
            table.add_column(column, no_wrap=True)
        for column in ("time", "pause", "size"):
            table.add_column(column, justify="right", no_wrap=True)
        for step in self.steps:
            marks = ("✗" if line.startswith("FAILED") else "✓" for line in step.verified)
            verified = "\n".join(f"{mark} {line}" for mark, line in zip(marks, step.verified, strict=True))
            pause = "" if step.pause_ms is None else f"{step.pause_ms:.1f} ms"
            size = "" if step.size_bytes is None else f"{step.size_bytes / 2**20:.0f} MiB"
            table.add_row(step.name, verified, f"{step.seconds:.2f} s", pause, size, end_section=True)
        return table


def main() -> int:
    """Run the demo and print its table; the exit status."""
    console = Console()
    folder = Path(tempfile.mkdtemp(prefix="nbcr-demo-"))
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    session = Session(folder)
    demo = Demo(session, console)
    failure: Failed | None = None
    begun = time.monotonic()
    try:
        demo.run()
    except Failed as error:
        failure = error
    except KeyboardInterrupt:
        failure = Failed("interrupted")
    finally:
        try:
            session.close()
        except Failed as error:
            failure = failure or error
        if failure is not None:
            _print_log(folder / "jupyter-kernel.log")
        shutil.rmtree(folder, ignore_errors=True)
    console.print(demo.table())
    sys.stdout.flush()
    if failure is not None:
        print(f"demo: FAILED: {failure}", file=sys.stderr)
        return 1
    console.print(f"all of it held; {time.monotonic() - begun:.0f} s in all")
    return 0


def _print_log(log: Path) -> None:
    with contextlib.suppress(OSError):
        last = log.read_text(errors="replace").splitlines()[-20:]
        print("last words of the Jupyter kernel:", *last, sep="\n", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
