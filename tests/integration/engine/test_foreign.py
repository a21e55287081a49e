"""Programs that nobody wrote for us: every Python, Node.js and Java of the host, in place and in a fresh tree."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.engine.harness import Engine, Life, nothing_left
from tests.subjects.catalogue import BY_NAME, FOLDER
from tests.support import ProcessTracker, User, fail, family_of

NODE = """
const fs = require("fs"), base = process.argv[2];
const map = new Map([["kept", [1, 2, 3]]]);
let ticks = 0, heard = 0;
setInterval(() => ticks++, 5);
const { Worker } = require("worker_threads");
const worker = new Worker("const { parentPort } = require('worker_threads');" +
    "parentPort.on('message', n => parentPort.postMessage(n + 1))", { eval: true });
worker.on("message", number => { heard = number; worker.postMessage(number); });
worker.postMessage(0);
fs.closeSync(fs.openSync(base + ".ready", "w"));
let before = 0;
const timer = setInterval(() => {
    if (!fs.existsSync(base + ".go")) return;
    before = before || heard;
    if (!before || heard < before + 3) return;  // the worker answers on
    const right = map.get("kept").join() === "1,2,3" && ticks > 0;
    fs.writeFileSync(base + ".result", right ? "PASS\\n" : "FAIL: state\\n");
    process.exit(right ? 0 : 1);
}, 2);
"""

JAVA = """
import java.nio.file.*;
import java.util.*;
class Subject {
    public static void main(String[] argv) throws Exception {
        Map<String, Integer> map = new HashMap<>();
        for (int i = 0; i < 10000; i++) map.put("key " + i, i);
        Thread worker = new Thread(() -> { try { Thread.sleep(1000000); } catch (InterruptedException e) { } });
        worker.start();
        Files.newOutputStream(Path.of(argv[0] + ".ready")).close();
        while (!Files.exists(Path.of(argv[0] + ".go"))) Thread.sleep(2);
        worker.interrupt();
        worker.join();
        boolean right = map.get("key 77") == 77;
        Files.writeString(Path.of(argv[0] + ".result"), right ? "PASS\\n" : "FAIL: state\\n");
        System.exit(right ? 0 : 1);
    }
}
"""


def interpreters() -> dict[str, str]:
    """Pythons of this host, ours among them, one for each minor version from 3.11 on."""
    ours = Path(sys.executable).resolve()
    found = {f"3.{sys.version_info.minor}": sys.executable}
    folders = [Path(sys.base_prefix) / "bin", Path("/usr/bin"), Path("/usr/local/bin"), Path("/opt/python/bin")]
    folders += sorted(Path(sys.base_prefix).parent.glob("*/bin"), reverse=True)  # of pyenv, of uv
    folders += sorted(Path("~/.local/share/uv/python").expanduser().glob("*/bin"), reverse=True)
    for folder in folders:
        for minor in range(11, 16):
            candidate = folder / f"python3.{minor}"
            if candidate.exists() and candidate.resolve() != ours:
                found.setdefault(f"3.{minor}", str(candidate))
    return found


PYTHONS = interpreters()
OTHERS = [name for name, there in (("node", shutil.which("node")), ("java", shutil.which("javac"))) if there]
SUBJECTS = ["objects", "threads", "event_loop", "executor"]


def command_of(program: str, folder: Path) -> list[str]:
    """How to run a program, which is made in `folder` where it has to be."""
    kind, _, what = program.partition(" ")
    if kind == "node":
        (folder / "subject.js").write_text(NODE)
        return ["node", str(folder / "subject.js")]
    if kind == "java":
        (folder / "Subject.java").write_text(JAVA)
        made = subprocess.run(["javac", "-d", folder, folder / "Subject.java"], capture_output=True, text=True)
        if made.returncode:
            fail(made.stderr)
        return [os.path.realpath(shutil.which("java") or ""), "-Xmx64m", "-cp", str(folder), "Subject"]
    return [PYTHONS[kind], str(FOLDER / "py" / f"{what}.py")]


def lead(command: list[str], user: User, folder: Path, processes: ProcessTracker) -> None:
    """Through a rewind in place, and from the same image through death and a fresh restore."""
    user.give(folder)
    engine, life = Engine(user, folder, processes), Life(BY_NAME["py/objects"], user, folder, processes)
    with nothing_left(engine), pytest.MonkeyPatch.context() as patch:
        patch.setattr("tests.integration.engine.harness.command", lambda _, base: [*command, str(base)])
        life.start()
        image = folder / "image"
        engine.dump(life.pid, image, "running")
        alone = len(family_of(life.pid)) == 1
        if alone or user.uid == 0:  # nobody else may choose the pids of children
            engine.must("restore", image, "--into", life.pid)
        again = folder / "again"
        engine.dump(life.pid, again)
        life.expect_killed()
        life.continue_as(engine.restore(again))
        life.expect_pass()
    life.close()


OURS = next(iter(PYTHONS))  # the catalogue leads it through the rest
EACH = [f"{python} {name}" for python in PYTHONS for name in SUBJECTS if name == "executor" or python != OURS]


@pytest.mark.parametrize("program", [*EACH, *OTHERS])
def test_as_ourselves(program: str, ourselves: User, folder: Path, processes: ProcessTracker) -> None:
    lead(command_of(program, folder), ourselves, folder, processes)


@pytest.mark.parametrize("program", [f"{OURS} executor", *OTHERS])
def test_as_an_ordinary_user(program: str, as_user: User, folder: Path, processes: ProcessTracker) -> None:
    """Those that everybody can run: other Pythons may lie in folders that are root's."""
    lead(command_of(program, folder), as_user, folder, processes)
