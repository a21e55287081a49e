"""The commands that watch, completion in a shell, and the table of exit statuses."""

from __future__ import annotations

import inspect
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import kernel_backend.errors
import nbcr.errors
from nbcr.cli.app import EXIT_CODES, whole
from nbcr.store import Store, journal
from tests.support import CHECKOUT
from tests.unit.nbcr.store.making import put
from tests.unit.nbcr.test_cli import served  # noqa: F401


def statuses(module: Any) -> set[tuple[int, str]]:
    classes = [kind for _, kind in inspect.getmembers(module, inspect.isclass) if hasattr(kind, "exit_code")]
    return {(kind.exit_code, kind.__name__) for kind in classes}


def test_every_exit_status_is_in_the_table_and_nothing_else_is() -> None:
    text = (CHECKOUT / "docs" / "usage.md").read_text().partition("## Exit statuses")[2]
    rows = re.findall(r"^\| (\d+) \| (.*?) \|", text, re.MULTILINE)
    told = {(int(status), name) for status, names in rows for name in re.findall(r"`(\w+)`", names)}
    engine = {(status, name) for status, name in statuses(kernel_backend.errors) if status > 2}
    assert told == statuses(nbcr.errors) | engine | {(1, "RunFailed")}
    assert [int(status) for status, _ in rows] == sorted(int(status) for status, _ in rows)
    short = {int(number) for number in re.findall(r"(?:^|· )(\d+) ", EXIT_CODES.partition(": ")[2].replace("\n", " "))}
    assert {status for status, _ in statuses(nbcr.errors)} <= short


def run(*words: str, status: int = 0) -> str:
    """A command, in this process: starting one costs more than what it does."""
    done = CliRunner().invoke(whole(), words)
    assert done.exit_code == status, (done.output, done.exception)
    return done.output


def run_json(*words: str) -> Any:
    return json.loads(run(*words, "--json"))


@pytest.fixture(autouse=True)
def _component(trees: pytest.MonkeyPatch) -> None:
    pass


def test_logs_tell_what_was_done_and_what_failed(store: Store, sleeper: subprocess.Popen[bytes]) -> None:
    assert run("logs") == "nothing was done in this store yet\n"
    run("checkpoint", str(sleeper.pid), "--name", "one")
    run("checkpoint", str(sleeper.pid), "--name", "one", status=21)
    run("checkpoint", str(sleeper.pid), "--name", "two")
    run("remove", "two")
    told = run_json("logs")["journal"]
    assert [(each["what"], each["name"]) for each in told] == [
        ("checkpoint", "one"), ("checkpoint failed", "one"), ("checkpoint", "two"), ("removed", "two"),
    ]  # fmt: skip
    assert "exists already" in told[1]["error"]
    lines = run("logs", "two").splitlines()
    assert [" removed " in each for each in lines] == [False, True]
    assert f"pid {sleeper.pid}" in lines[0]
    assert len(run("logs", "--last", "1").splitlines()) == 1
    assert "did you mean 'one'?" in run("logs", "oen", status=20)


def test_the_journal_is_bounded_and_harmless(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    put(store, "one")
    journal.note(store.root, "checkpoint", name="<b>\x1b")
    with (store.root / journal.FILE).open("ab") as file:
        file.write(b"{torn")
    monkeypatch.setattr(journal, "_MOST_BYTES", 10)
    journal.note(store.root, "removed", name="two")
    assert [each["name"] for each in journal.read(store.root)] == ["<b>\x1b", "two"]
    assert "\x1b" not in run("logs")
    journal.note(Path("/proc/nowhere"), "removed")  # cannot be written: nobody is disturbed


def test_top_shows_what_lives(store: Store, served: subprocess.Popen[str]) -> None:  # noqa: F811
    run("checkpoint", str(served.pid), "--name", "of-it")
    seen = run_json("top")
    (mine,) = [each for each in seen["living"] if each["pid"] == served.pid]
    assert (mine["kind"], mine["ready"], mine["last"]) == ("process", True, "of-it")
    assert mine["memory_bytes"] > 1 << 20
    assert (seen["checkpoints"], seen["writing"]) == (1, [])
    text = run("top")  # into a pipe: once, and no control characters
    assert re.search(rf"^process .* {served.pid} .* of-it, \d+ s ago", text, re.MULTILINE)
    assert f"store {store.root}: 1 checkpoint, " in text
    assert "\x1b" not in text


def complete(*words: str) -> list[str]:
    environ = {**os.environ, "_NBCR_COMPLETE": "complete_bash", "COMP_WORDS": " ".join(["nbcr", *words])}
    environ["COMP_CWORD"] = str(len(words))
    argv = [str(Path(sys.executable).parent / "nbcr")]
    return subprocess.run(argv, env=environ, capture_output=True, text=True, check=True, timeout=60).stdout.split()


def test_a_shell_completes_names(store: Store) -> None:
    for name in ("before-fit", "before-dawn", "other"):
        put(store, name)
    assert complete("show", "before") == ["before-fit", "before-dawn"]
    assert complete("restart", "o") == ["other"]
    assert complete("show", "--store", "/nowhere", "b") == []
    assert "--detach" in complete("restart", "--d")


def test_jupyter_knows_it_as_a_subcommand(store: Store) -> None:
    put(store, "one")
    argv = [str(Path(sys.executable).parent / "jupyter"), "nbcr", "list", "--json"]
    environ = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(argv, env=environ, capture_output=True, text=True, check=True, timeout=60)
    assert [entry["name"] for entry in json.loads(done.stdout)] == ["one"]


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "1000"]) as process:
        yield process
        process.kill()
