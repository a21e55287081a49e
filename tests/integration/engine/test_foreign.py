"""Programs that nobody wrote for us: other Pythons, Node.js, Java, an editor. Each works, or is refused by name."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.engine.harness import Engine, Life, nothing_left
from tests.subjects.catalogue import BY_NAME, FOLDER
from tests.support import ProcessTracker, User, fail, needs

NODE = """
const fs = require("fs"), base = process.argv[2];
const map = new Map([["kept", [1, 2, 3]]]);
let ticks = 0;
setInterval(() => ticks++, 5);
const writer = fs.openSync(base + ".ready", "w"); fs.closeSync(writer);
const timer = setInterval(() => {
    if (!fs.existsSync(base + ".go")) return;
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


def pythons() -> list[str]:
    """Interpreters of this host other than ours, one for each minor version from 3.11 on."""
    found: dict[str, str] = {}
    roots = [Path(sys.base_prefix).parent.glob("*/bin"), [Path("/usr/bin"), Path("/usr/local/bin")]]
    for folder in [folder for root in roots for folder in root]:
        for minor in range(11, 16):
            candidate = folder / f"python3.{minor}"
            if candidate.exists() and not candidate.resolve().samefile(Path(sys.executable).resolve()):
                found.setdefault(f"3.{minor} {folder.parent.name}", str(candidate))
    return list(found.values())


@pytest.fixture
def live(ourselves: User, folder: Path, processes: ProcessTracker, monkeypatch: pytest.MonkeyPatch) -> Iterator[object]:
    """Lead a foreign command, BASE appended, through dump, death and restore."""
    lives: list[Life] = []

    def lead(command: list[str]) -> None:
        monkeypatch.setattr("tests.integration.engine.harness.command", lambda _, base: [*command, str(base)])
        engine, life = Engine(ourselves, folder, processes), Life(BY_NAME["py/objects"], ourselves, folder, processes)
        lives.append(life)
        with nothing_left(engine):
            life.start()
            done = engine.run("dump", life.pid, folder / "image", "--leave", "killed", "--json")
            if done.status:
                assert len(done.err.strip().splitlines()) == 1, done.err
                life.expect_pass()
                return
            life.expect_killed()
            life.continue_as(engine.restore(folder / "image"))
            life.expect_pass()

    yield lead
    for life in lives:
        life.close()


@pytest.mark.parametrize("python", pythons() or ["none"])
@pytest.mark.parametrize("name", ["objects", "threads", "event_loop"])
def test_other_pythons(name: str, python: str, live: object) -> None:
    needs("another Python, 3.11 or newer", available=python != "none")
    assert callable(live)
    live([python, str(FOLDER / "py" / f"{name}.py")])


def test_node(live: object, folder: Path) -> None:
    needs("Node.js", available=shutil.which("node") is not None)
    assert callable(live)
    (folder / "subject.js").write_text(NODE)
    live(["node", str(folder / "subject.js")])


def test_java(live: object, folder: Path) -> None:
    needs("a JDK", available=shutil.which("javac") is not None)
    assert callable(live)
    (folder / "Subject.java").write_text(JAVA)
    made = subprocess.run(["javac", "-d", folder, folder / "Subject.java"], capture_output=True, text=True)
    if made.returncode:
        fail(made.stderr)
    live([os.path.realpath(shutil.which("java") or ""), "-Xmx64m", "-cp", str(folder), "Subject"])
