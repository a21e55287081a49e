"""The command line: one JSON document or readable text, one line per failure, documented exit statuses."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import nbcr
from nbcr.store import Store

CLI = [sys.executable, "-m", "nbcr.cli"]

SERVED = """
import sys, threading
from nbcr import session
from nbcr.handlers import Handler, registry
class Noting(Handler):
    def checkpoint(self, request):
        request.facts["notebook"] = "/served.ipynb"
        print("down", flush=True)
    def continue_(self): print("continue", flush=True)
    def aborted(self): print("aborted", flush=True)
    def prepare_restart(self):
        print("prepare", flush=True)
        return {}
registry.register(Noting())
session.start_checkpoint_thread()
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def _component(trees: pytest.MonkeyPatch) -> None:
    pass


def run(*argv: str, check: int | None = 0, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([*CLI, *argv], capture_output=True, text=True, check=False, timeout=timeout)
    if check is not None:
        assert done.returncode == check, done.stderr
    return done


def run_json(*argv: str) -> Any:
    done = run(*argv, "--json")
    assert done.stdout.count("\n") == 1
    return json.loads(done.stdout)


def fails(status: int, *argv: str) -> str:
    done = run(*argv, check=status)
    assert done.stdout == ""
    assert re.fullmatch(r"nbcr: [^\n]+\n", done.stderr), done.stderr
    return done.stderr


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "1000"]) as process:
        yield process
        process.kill()


@pytest.fixture
def served() -> Iterator[subprocess.Popen[str]]:
    """A program with a checkpoint thread."""
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", SERVED], stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process
        process.kill()


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_version_and_help() -> None:
    assert run("--version").stdout == f"nbcr {nbcr.__version__}\n"
    for argv in (["--help"], ["-h"], ["checkpoint", "--help"], ["restart", "-h"]):
        assert "Usage" in run(*argv).stdout
    assert "Exit status" in run("--help").stdout


def test_wrong_usage_is_status_2() -> None:
    assert run("checkpoint", check=2).stderr
    assert run("nonsense", check=2).stderr
    assert "--leave" in fails(2, "checkpoint", str(os.getpid() + 0), "--leave", "asleep")


def test_a_plain_process_is_checkpointed_listed_shown_removed(store: Store, sleeper: subprocess.Popen[bytes]) -> None:
    assert run_json("list") == []
    assert run("list").stdout == f"no checkpoints in {store.root}\n"
    entry = run_json("checkpoint", str(sleeper.pid), "--name", "one", "--note", "some words")
    assert set(entry) == {
        *("id", "name", "created", "parent", "kinds", "size_bytes", "notebook", "pid", "tags"),
        *("pause_ms", "duration_ms"),
    }
    assert (entry["name"], entry["pid"], entry["kinds"]) == ("one", sleeper.pid, ["image"])
    listed = {k: v for k, v in entry.items() if k not in ("pause_ms", "duration_ms")}
    assert run_json("list") == [listed]
    assert re.search(rf"{entry['id']} +one .* image .* {sleeper.pid}", run("list").stdout)
    shown = run_json("show", "one")
    assert shown["note"] == "some words"
    assert shown["image"]["processes"][0]["argv"] == ["sleep", "1000"]
    assert "sleep 1000" in run("show", entry["id"]).stdout
    assert run_json("remove", "one") == {"removed": listed}
    assert run_json("list") == []
    assert not any((store.root / "entries").iterdir())
    assert sleeper.poll() is None


def test_text_says_what_was_done(sleeper: subprocess.Popen[bytes]) -> None:
    text = run("checkpoint", str(sleeper.pid), "--name", "one").stdout
    assert re.fullmatch(r"CONTINUE  one  id \S+, size .*, pause .* m?s, duration .* m?s\n", text)


@pytest.mark.parametrize(("leave", "state"), [("running", "S"), ("stopped", "T"), ("killed", None)])
def test_leave(sleeper: subprocess.Popen[bytes], leave: str, state: str | None) -> None:
    run("checkpoint", str(sleeper.pid), "--name", "x", "--leave", leave)
    if state is None:
        assert sleeper.wait(5) == -signal.SIGKILL
    else:
        assert f") {state} " in Path(f"/proc/{sleeper.pid}/stat").read_text()


def test_names(sleeper: subprocess.Popen[bytes]) -> None:
    pid = str(sleeper.pid)
    run("checkpoint", pid, "--name", "before-fit")
    assert "--force" in fails(21, "checkpoint", pid, "--name", "before-fit")
    run("checkpoint", pid, "--name", "before-fit", "--force")
    assert len(run_json("list")) == 1
    assert "did you mean 'before-fit'?" in fails(20, "show", "beforefit")
    fails(20, "restart", "beforefit", "--detach")
    fails(20, "remove", "beforefit")
    fails(2, "checkpoint", pid, "--name", " ")


def test_targets_that_are_not_there() -> None:
    fails(26, "checkpoint", str(2**22 + 5), "--name", "x")
    fails(26, "checkpoint", "no-such-jupyter-kernel", "--name", "x")


def test_an_ancestor_cannot_be_checkpointed_from_below() -> None:
    assert "ancestor" in fails(31, "checkpoint", str(os.getpid()), "--name", "x")


def test_a_refused_store(store: Store, sleeper: subprocess.Popen[bytes]) -> None:
    store.root.mkdir()
    store.root.chmod(0o777)
    for argv in (["list"], ["show", "x"], ["checkpoint", str(sleeper.pid)], ["restart", "x"]):
        assert "can be written by others" in fails(22, *argv)
    other = str(store.root.parent / "other")
    run("checkpoint", str(sleeper.pid), "--name", "x", "--store", other)
    assert len(run_json("list", "--store", other)) == 1


def test_damaged_entries_are_named_on_stderr_only(store: Store, sleeper: subprocess.Popen[bytes]) -> None:
    entry = run_json("checkpoint", str(sleeper.pid), "--name", "x")
    (store.root / "entries" / entry["id"] / "manifest.json").write_text("{")
    done = run("list", "--json")
    assert json.loads(done.stdout) == []
    assert "warning" in done.stderr
    assert entry["id"] in done.stderr


def test_a_component_that_fails_late_leaves_nothing(
    store: Store, sleeper: subprocess.Popen[bytes], trees: pytest.MonkeyPatch
) -> None:
    trees.setenv("NBCR_TREES", "fail-late")
    assert "asked to fail late: do not ask" in fails(7, "checkpoint", str(sleeper.pid), "--name", "x")
    assert list((store.root / "entries").iterdir()) == []
    assert sleeper.poll() is None


def test_a_damaged_image_is_found_before_anything_starts(store: Store, sleeper: subprocess.Popen[bytes]) -> None:
    entry = run_json("checkpoint", str(sleeper.pid), "--name", "x")
    facts = store.root / "entries" / entry["id"] / "image" / "facts.json"
    facts.write_bytes(facts.read_bytes()[:-1] + b" ")
    assert "facts.json: its contents have another digest" in fails(23, "restart", "x", "--detach")


def test_a_damaged_one_that_is_packed_too_comes_back_once_it_is_mended(
    store: Store, sleeper: subprocess.Popen[bytes]
) -> None:
    run("checkpoint", str(sleeper.pid), "--name", "x")
    run("pack")
    image = store.find("x").path / "image"
    assert image.is_dir(), "what is packed stays as files, too, while there is room"
    os.truncate(image / "facts.json", 1)
    assert "`nbcr verify x --mend`" in fails(23, "restart", "x", "--detach")
    run("verify", "x", "--mend", check=23)  # of what it has found
    os.kill(run_json("restart", "x", "--detach")["pid"], signal.SIGKILL)


def test_restart_detached_and_waiting(sleeper: subprocess.Popen[bytes]) -> None:
    run("checkpoint", str(sleeper.pid), "--name", "x")
    fresh = run_json("restart", "x", "--detach")
    assert fresh["pids"] == {str(sleeper.pid): fresh["pid"]}
    words = Path(f"/proc/{fresh['pid']}/cmdline").read_bytes()
    assert words == b"sleep\x001000\x00"
    os.kill(fresh["pid"], signal.SIGKILL)
    with subprocess.Popen([*CLI, "restart", "x", "--json"], stdout=subprocess.PIPE, text=True) as waiting:
        assert waiting.stdout is not None
        pid = json.loads(waiting.stdout.readline())["pid"]
        os.kill(pid, signal.SIGTERM)
        assert waiting.wait(20) == 128 + signal.SIGTERM


def test_a_program_with_a_checkpoint_thread_takes_part(store: Store, served: subprocess.Popen[str]) -> None:
    entry = run_json("checkpoint", str(served.pid), "--name", "x")
    assert [line(served), line(served)] == ["down", "continue"]
    assert entry["notebook"] == "/served.ipynb"
    assert entry["duration_ms"] >= entry["pause_ms"] > 0
    second = run_json("checkpoint", str(served.pid), "--name", "y")
    assert second["parent"] == entry["id"]
    assert "exists already" in fails(21, "checkpoint", str(served.pid), "--name", "y")


def test_failures_reach_whoever_asked_through_the_thread(
    served: subprocess.Popen[str], trees: pytest.MonkeyPatch
) -> None:
    fails(2, "checkpoint", str(served.pid), "--name", "-")
    assert [line(served), line(served)] == ["down", "aborted"]
    run("checkpoint", str(served.pid), "--name", "x")
    assert [line(served), line(served)] == ["down", "continue"]
    assert "cannot replace" in fails(1, "restart", "x", "--into", str(served.pid))
    assert [line(served), line(served)] == ["prepare", "aborted"]
    fails(20, "restart", "y", "--into", str(served.pid))
    run("checkpoint", str(served.pid), "--name", "z")


def test_two_at_once_are_taken_one_after_the_other(served: subprocess.Popen[str], store: Store) -> None:
    done: list[subprocess.CompletedProcess[str]] = []

    def ask(n: int) -> subprocess.CompletedProcess[str]:
        return run("checkpoint", str(served.pid), "--name", f"n{n}", check=None)

    threads = [threading.Thread(target=lambda n=n: done.append(ask(n))) for n in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [d.returncode for d in done] == [0, 0, 0], [d.stderr for d in done]
    assert len(store.entries()) == 3
    states = [line(served) for _ in range(6)]
    assert states == ["down", "continue"] * 3


def test_a_requester_that_dies_does_no_harm(
    served: subprocess.Popen[str], store: Store, trees: pytest.MonkeyPatch
) -> None:
    requester = subprocess.Popen([*CLI, "checkpoint", str(served.pid), "--name", "x"])
    assert line(served) == "down"
    requester.kill()
    requester.wait()
    assert line(served) in ("continue", "aborted")
    run("checkpoint", str(served.pid), "--name", "y")
    assert "y" in {e.name for e in store.entries()}
    assert served.poll() is None


def test_doctor_speaks_plainly(store: Store) -> None:
    done = run("doctor", check=None)
    assert done.returncode in (0, 1)
    document = json.loads(run("doctor", "--json", check=done.returncode).stdout)
    names = {f["name"] for f in document["findings"]}
    assert {"system", "runtime folder", "store", "component trees 1"} <= names
    assert document["ok"] == (done.returncode == 0)
    for finding in document["findings"]:
        assert finding["detail"], finding


def test_an_interrupt_ends_with_130(served: subprocess.Popen[str], trees: pytest.MonkeyPatch) -> None:
    from nbcr import runtime

    with runtime.target_lock(served.pid, 1):
        asking = subprocess.Popen([*CLI, "checkpoint", str(served.pid)], stderr=subprocess.PIPE, text=True)
        assert line(served) == "down"
        asking.send_signal(signal.SIGINT)
        _, said = asking.communicate(timeout=20)
        assert (asking.returncode, said) == (130, "nbcr: interrupted\n")


def elapsed(function: Callable[[], object]) -> float:
    import time

    begun = time.perf_counter()
    function()
    return time.perf_counter() - begun


def test_help_is_quick_because_little_is_imported() -> None:
    code = "import sys, nbcr.cli.app; print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert not loaded & {"rich", "msgspec", "IPython", "zmq", "psutil", "numpy", "kernel_backend", "asyncio"}
    assert min(elapsed(lambda: run("--help")) for _ in range(3)) < 1.0


def test_tags_are_listed_where_there_are_any(store: Store, sleeper: subprocess.Popen[bytes]) -> None:
    run("checkpoint", str(sleeper.pid), "--name", "one")
    assert "tags" not in run("list").stdout
    run("tag", "one", "good", "--pin")
    header, row = run("list").stdout.splitlines()
    assert header.endswith("pid  tags")
    assert row.endswith(f"{sleeper.pid}  good (pinned)")
    assert run_json("list")[0]["tags"] == {"good": True}


@pytest.mark.parametrize("size", ["-1", "-1K", "1.2.3", "nan", "inf", ""])
def test_what_is_no_size_changes_nothing(store: Store, size: str) -> None:
    assert "is no size" in run("settings", "--hot-bytes", size, check=2).stderr
    assert "hot_bytes    no limit" in run("settings").stdout


def test_how_long_to_wait_is_a_number_from_0(store: Store) -> None:
    for nonsense in ("-1", "nan", "soon"):
        assert "--deadline" in run("checkpoint", "1", "--deadline", nonsense, check=2).stderr


_INTERRUPTED = """
import os, signal, sys
class Stop:
    def find_spec(self, name, *_):
        if name == "typer": os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Stop())
from nbcr.cli import main
main()
"""


def test_an_interrupt_while_it_imports_is_told_in_one_line() -> None:
    done = subprocess.run([sys.executable, "-c", _INTERRUPTED], stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (130, "nbcr: interrupted\n")


@pytest.mark.parametrize("words", [("list",), ("list", "--json"), ("--version",), ("show", "-h")])
def test_output_that_cannot_be_written(store: Store, words: tuple[str, ...]) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([*CLI, *words], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "nbcr: the output could not be written: No space left on device\n")


def test_closed_streams_and_a_deleted_folder(store: Store, tmp_path: Path) -> None:
    for closed in ("<&-", ">&-", "2>&-", "<&- >&- 2>&-"):
        done = subprocess.run(["sh", "-c", f'"$@" list {closed}', "sh", *CLI], capture_output=True, check=False)
        assert (done.returncode, done.stderr) == (0, b"")
    gone = tmp_path / "gone"
    gone.mkdir()
    script = f'cd {gone} && rmdir {gone} && "$@" list --store here'
    done = subprocess.run(["sh", "-c", script, "sh", *CLI], capture_output=True, check=False)
    assert done.returncode == 22
    assert b"is below a folder that was deleted" in done.stderr
