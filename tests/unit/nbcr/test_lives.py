"""The call with two returns, on a real process with the real engine: it goes on, it is rewound, it comes back."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nbcr import runtime
from nbcr.crs import components
from nbcr.store import Store
from tests.support import CHECKOUT, User, needs

WAIT_S = 30.0
CLI = [sys.executable, "-m", "nbcr.cli"]

PROGRAM = """
import json, os, sys, threading, time
import nbcr
from nbcr import session
from nbcr.handlers import Handler, Layer, registry

log = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND)
def say(**facts):
    os.write(log, (json.dumps(facts) + "\\n").encode())

class Noting(Handler):
    layer = Layer.APPLICATION
    seen = []
    def checkpoint(self, request): self.seen = ["checkpoint"]
    def continue_(self): self.seen.append("continue")
    def restart_pre(self, event): self.seen.append("restart_pre")
    def restart(self, event): self.seen.append(["restart", event.in_place, event.pids[event.entry["pid"]]])
    def aborted(self): self.seen.append("aborted")
    def prepare_restart(self): return {"handed": [b"from the present"], "environ": {"NEW": "1"}}

noting = Noting()
registry.register(noting)
if "thread" in sys.argv:
    session.start_checkpoint_thread()
count = 0
def counting():
    global count
    while True:
        count += 1
        time.sleep(0.001)
threading.Thread(target=counting, daemon=True).start()

state = 0
say(ready=os.getpid())
for name, force in [line.split() for line in open(sys.argv[2])]:
    result = nbcr.checkpoint(name, force=force == "force")
    handed = None if result.event is None else [bytes(h).decode() for h in result.event.handed]
    say(name=name, outcome=result.outcome.value, state=state, seen=noting.seen, pid=os.getpid(),
        id=result.id, handed=handed, counts=count > 0,
        waited=result.outcome is nbcr.Outcome.RESTART and result.wait(30).id)
    if result.outcome is nbcr.Outcome.CONTINUE:
        result.wait(30)
        say(published=name)
    state += 1
    answer = input()
    if answer.startswith("restart "):
        try:
            nbcr.restart(answer.split()[1])
        except nbcr.NbcrError as error:
            say(failed=error.type_name, seen=noting.seen)
    before = count
    time.sleep(0.05)
    ours = [t for t in threading.enumerate() if t.name not in ("nbcr-request", "nbcr-writing")]
    say(after=name, state=state, counts=count > before, thread=len(ours))
while True:
    time.sleep(60)
"""


class Program:
    """The program above; what it says is read from a file, which outlives it."""

    def __init__(self, folder: Path, checkpoints: str, *argv: str) -> None:
        self.said = folder / "said"
        self.said.touch()
        (folder / "program.py").write_text(PROGRAM)
        (folder / "plan").write_text(checkpoints)
        self._fifo = folder / "in"
        os.mkfifo(self._fifo)
        self._keep = os.open(self._fifo, os.O_RDWR)
        self._read = 0
        command = [sys.executable, str(folder / "program.py"), str(self.said), str(folder / "plan"), *argv]
        with self._fifo.open("rb", buffering=0) as stdin, (folder / "err").open("wb") as err:
            self.process = subprocess.Popen(command, stdin=stdin, stdout=err, stderr=err)
        self.pids = {self.process.pid}

    def next(self) -> dict[str, Any]:
        """The next thing it says."""
        deadline = time.monotonic() + WAIT_S
        while True:
            lines = self.said.read_text().splitlines()
            if len(lines) > self._read:
                self._read += 1
                said = json.loads(lines[self._read - 1])
                assert isinstance(said, dict)
                self.pids |= {said["pid"]} if "pid" in said else set()
                return said
            assert time.monotonic() < deadline, (self.said.parent / "err").read_text()
            time.sleep(0.005)

    def tell(self, line: str) -> None:
        os.write(self._keep, f"{line}\n".encode())

    def end(self) -> None:
        for pid in self.pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        self.process.wait()
        os.close(self._keep)


@pytest.fixture(autouse=True)
def _engine(store: Store, runtime_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NBCR_CRS", raising=False)
    state = components()[0].availability()
    needs("process images", state.available, state.detail)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "p").mkdir()
    return tmp_path / "p"


@pytest.fixture
def program(folder: Path) -> Iterator[Program]:
    running = Program(folder, "one keep\ntwo keep\nthree keep\n")
    yield running
    running.end()


def test_going_on_and_going_back_in_place(program: Program, store: Store) -> None:
    pid = program.next()["ready"]
    first = program.next()
    assert (first["outcome"], first["state"], first["seen"]) == ("CONTINUE", 0, ["checkpoint", "continue"])
    assert program.next() == {"published": "one"}
    assert store.find("one").id == first["id"]
    program.tell("restart one")
    back = program.next()
    assert (back["outcome"], back["state"], back["pid"], back["id"]) == ("RESTART", 0, pid, first["id"])
    assert back["seen"] == ["checkpoint", "restart_pre", ["restart", True, pid]]
    assert back["handed"] == ["from the present"]
    assert back["waited"] == first["id"]  # code that waits for its checkpoint does so in either life
    program.tell("go on")
    after = program.next()
    assert (after["after"], after["state"], after["counts"]) == ("one", 1, True)
    second = program.next()
    assert (second["name"], second["outcome"]) == ("two", "CONTINUE")
    program.next()
    assert store.find("two").parent == first["id"]
    program.tell("restart one")  # further back than the last one
    again = program.next()
    assert (again["name"], again["outcome"], again["state"]) == ("one", "RESTART", 0)


def test_a_restart_that_cannot_be_leaves_the_present(program: Program, store: Store) -> None:
    program.next(), program.next(), program.next()
    image = store.find("one").image
    biggest = max((p for p in image.iterdir() if p.is_file()), key=lambda p: p.stat().st_size)
    with biggest.open("r+b") as file:
        file.seek(biggest.stat().st_size // 2)
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte[0] ^ 1]))
    program.tell("restart one")
    failed = program.next()
    assert failed["failed"] == "ImageCorrupt"
    assert failed["seen"][-1] == "aborted"
    after = program.next()
    assert (after["after"], after["state"], after["counts"]) == ("one", 1, True)


def test_coming_back_after_death(program: Program, store: Store) -> None:
    pid = program.next()["ready"]
    program.next(), program.next()
    os.kill(pid, signal.SIGKILL)
    program.process.wait()
    done = subprocess.run([*CLI, "restart", "one", "--detach", "--json"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    fresh = json.loads(done.stdout)["pid"]
    program.pids.add(fresh)
    back = program.next()
    here = runtime.number_inside(fresh)  # as it calls itself: perhaps inside a pid namespace of its own
    assert (back["outcome"], back["state"], back["pid"]) == ("RESTART", 0, here)
    assert back["seen"] == ["checkpoint", "restart_pre", ["restart", False, here]]
    assert back["handed"] == []


def test_many_generations(folder: Path, store: Store) -> None:
    program = Program(folder, "g force\n" * 6)
    try:
        pid = program.next()["ready"]
        for generation in range(6):
            while True:
                said = program.next()
                if "outcome" in said:
                    break
            assert (said["outcome"], said["state"], said["pid"]) == ("CONTINUE", generation, pid)
            assert program.next() == {"published": "g"}
            program.tell("restart g")
            back = program.next()
            assert (back["outcome"], back["state"]) == ("RESTART", generation)
            program.tell("go on")
        assert [e.name for e in store.entries()] == ["g"]
    finally:
        program.end()


def test_from_the_shell_while_it_runs(folder: Path, store: Store) -> None:
    program = Program(folder, "one keep\n", "thread")
    try:
        pid = program.next()["ready"]
        program.next(), program.next()
        run = [*CLI, "checkpoint", str(pid), "--name", "shell", "--json"]
        done = subprocess.run(run, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0, done.stderr
        entry = json.loads(done.stdout)
        assert (entry["pid"], entry["parent"]) == (pid, store.find("one").id)
        program.tell("go on")
        assert program.next()["after"] == "one"
        into = [*CLI, "restart", "shell", "--into", str(pid), "--json"]
        done = subprocess.run(into, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["pid"] == pid
        program.tell("go on")  # in the restored life it waits in input() again
        assert program.next() == {"after": "one", "state": 1, "counts": True, "thread": 3}
        done = subprocess.run([*run[:6], "once-more", "--json"], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["parent"] == entry["id"]
    finally:
        program.end()


def test_an_ordinary_user_needs_nothing_more(as_user: User, user_dir: Path) -> None:
    code = """
import os, nbcr
state = 0
result = nbcr.checkpoint("mine")
print(result.outcome.value, state, flush=True)
if result.outcome is nbcr.Outcome.CONTINUE:
    result.wait(30)
    state = 1
    nbcr.restart("mine")
"""
    command = as_user.command([sys.executable, "-c", code], as_user.home)
    environ = as_user.environ({"PYTHONPATH": str(CHECKOUT), "NBCR_STORE": str(user_dir / "store")})
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False, timeout=60)
    assert (done.stdout, done.returncode) == ("CONTINUE 0\nRESTART 0\n", 0), done.stderr
    listing = as_user.command([*CLI, "list", "--json"], as_user.home)
    done = subprocess.run(listing, env=environ, capture_output=True, text=True, check=True, timeout=60)
    assert [e["name"] for e in json.loads(done.stdout)] == ["mine"]


def test_numbers_that_a_users_restored_program_hears_are_those_it_can_use(as_user: User, user_dir: Path) -> None:
    """Its fresh tree may live in a pid namespace of its own, where numbers of outside are nobody's, or another's."""
    log, environ = (
        user_dir / "log",
        as_user.environ({"PYTHONPATH": str(CHECKOUT), "NBCR_STORE": str(user_dir / "store")}),
    )
    code = f"""
import json, os, subprocess, time, nbcr
child = subprocess.Popen(["sleep", "60"])
@nbcr.on_checkpoint
def told(request):
    yield
    event = request.event
    if event is not None:
        os.kill(event.pids[child.pid], 15)
        heard = [event.pid == os.getpid(), event.pids[event.entry["pid"]] == event.pid, event.ppid == os.getppid()]
        with open({str(log)!r}, "w") as file:
            json.dump([*heard, child.wait(20)], file)
nbcr.checkpoint("mine").wait(30)
print("ready", flush=True)
time.sleep(1000)
"""
    command = as_user.command([sys.executable, "-c", code], user_dir)
    with subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, text=True, start_new_session=True) as program:
        assert program.stdout is not None
        try:
            assert program.stdout.readline() == "ready\n"
        finally:
            os.killpg(program.pid, signal.SIGKILL)
    again = as_user.command([*CLI, "restart", "mine", "--detach", "--json"], user_dir)
    done = subprocess.run(again, env=environ, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    try:
        deadline = time.monotonic() + WAIT_S
        while not (log.exists() and log.read_text()):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert json.loads(log.read_text()) == [True, True, True, -signal.SIGTERM]
    finally:
        os.kill(json.loads(done.stdout)["pid"], signal.SIGKILL)


def test_a_helper_killed_at_any_moment_leaves_the_program_running(folder: Path, store: Store) -> None:
    """The helper is killed at moments spread over a whole checkpoint; the program must go on each time."""
    code = """
import sys, nbcr
for line in sys.stdin:
    try:
        print(nbcr.checkpoint(line.strip()).wait(30).name, flush=True)
    except nbcr.NbcrError as error:
        print(error.type_name, flush=True)
"""
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", code], stdin=pipe, stdout=pipe, text=True) as program:
        assert program.stdin is not None
        assert program.stdout is not None
        answers: queue.Queue[str] = queue.Queue()
        reader = threading.Thread(target=lambda: [answers.put(a.strip()) for a in program.stdout or ()])
        reader.start()
        outcomes = []
        for n in range(12):
            program.stdin.write(f"n{n}\n")
            program.stdin.flush()
            time.sleep(0.015 * n)
            for pid in helpers(store):
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            outcomes.append(answers.get(timeout=WAIT_S))
        program.stdin.write("last\n")
        program.stdin.flush()
        assert answers.get(timeout=WAIT_S) == "last"
        assert set(outcomes) <= {"HelperLost", *(f"n{n}" for n in range(12))}
        assert "HelperLost" in outcomes
        program.stdin.close()
        assert program.wait(WAIT_S) == 0
        reader.join()
    names = {e.name for e in store.entries()}
    assert names == {o for o in outcomes if o != "HelperLost"} | {"last"}


def helpers(store: Store) -> list[int]:
    """Helpers with this store in their environment."""
    found = []
    for folder in Path("/proc").iterdir():
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0") if folder.name.isdecimal() else []
            if b"nbcr.helper" in words and str(store.root).encode() in (folder / "environ").read_bytes():
                found.append(int(folder.name))
        except OSError:
            continue
    return found
