"""A program's handlers and critical sections, when the checkpoint is asked for from a shell."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from typing import Any

import pytest

from tests.integration.handlers.conftest import Stage, until

pytestmark = pytest.mark.either("stage")


def nbcr(stage: Stage, *words: str | int) -> subprocess.Popen[str]:
    argv = [sys.executable, "-m", "nbcr.cli", *map(str, words), "--json"]
    return subprocess.Popen(
        stage.user.command(argv, cwd=stage.folder), env=stage.environ, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def ended(command: subprocess.Popen[str], code: int = 0) -> tuple[Any, str]:
    """What a command printed: its document, and its words on stderr."""
    out, err = command.communicate(timeout=90)
    assert command.returncode == code, err
    return json.loads(out) if code == 0 else out, err


def told(stage: Stage) -> list[str]:
    return [line["told"] for line in stage.lines() if "told" in line]


def start(stage: Stage, behaviour: str) -> tuple[Any, int]:
    program = stage.start("server.py", behaviour)
    return program, until(stage, "ready", program)["ready"]


def test_handlers_hear_of_a_checkpoint_from_a_shell(stage: Stage) -> None:
    program, pid = start(stage, "nothing")
    ended(nbcr(stage, "checkpoint", pid, "--name", "a"))
    assert told(stage) == ["CHECKPOINT", "CONTINUE"]
    assert stage.lines()[1]["origin"] == "thread"
    ended(nbcr(stage, "restart", "a", "--into", pid))
    until(stage, "in_place", program)
    assert told(stage) == ["CHECKPOINT", "CONTINUE", "RESTART"]
    assert program.poll() is None


def test_who_holds_it_up_is_told_at_once(stage: Stage) -> None:
    program, pid = start(stage, "holds")
    until(stage, "inside", program)
    _, err = ended(nbcr(stage, "checkpoint", pid, "--name", "never", "--deadline", "0.5"), 32)
    (waiting, error) = err.splitlines()
    assert "'db commit'" in waiting
    assert "thread committer" in waiting
    assert "server.py:" in waiting
    assert "'db commit'" in error
    command = nbcr(stage, "checkpoint", pid, "--name", "then")
    assert command.stderr is not None
    assert "'db commit'" in command.stderr.readline()  # now, while it waits
    assert told(stage) == []
    (stage.folder / "leave").touch()
    entry, _ = ended(command)
    assert entry["name"] == "then"
    assert told(stage) == ["CHECKPOINT", "CONTINUE"]


def test_a_handler_that_refuses_is_named_to_the_shell(stage: Stage) -> None:
    program, pid = start(stage, "raises")
    _, err = ended(nbcr(stage, "checkpoint", pid, "--name", "never"), 30)
    (line,) = err.splitlines()
    assert "BreaksToo" in line
    assert "server.py:" in line
    assert "the pool is not ready" in line
    assert told(stage) == ["CHECKPOINT", "ABORTED"]
    assert program.poll() is None
    assert ended(nbcr(stage, "list"))[0] == []


def test_a_late_handler_is_named_to_the_shell_and_the_program_goes_on(stage: Stage) -> None:
    program, pid = start(stage, "late")
    for _ in range(2):  # the second one finds another checkpoint thread
        _, err = ended(nbcr(stage, "checkpoint", pid, "--name", "never", "--deadline", "1"), 30)
        assert "is late" in err
        assert "server.py:" in err
    assert told(stage) == ["CHECKPOINT", "ABORTED"] * 2
    assert program.poll() is None


@pytest.mark.parametrize("why", ["stopped", "deaf"])
def test_a_program_that_cannot_hear_is_given_up_in_time_and_harmed_by_nothing(stage: Stage, why: str) -> None:
    program, pid = start(stage, why)
    if why == "stopped":
        os.kill(pid, signal.SIGSTOP)
    else:
        until(stage, "deaf", program)
    begun = time.monotonic()
    _, err = ended(nbcr(stage, "checkpoint", pid, "--name", "never", "--deadline", "1"), 25)
    assert time.monotonic() - begun < 20
    (line,) = err.splitlines()
    assert {"stopped": "it is stopped", "deaf": "interpreter lock"}[why] in line
    assert told(stage) == []
    os.kill(pid, signal.SIGCONT)
    (stage.folder / "leave").write_text("")
    entry, _ = ended(nbcr(stage, "checkpoint", pid, "--name", "then"))
    assert entry["name"] == "then"
    assert told(stage) == ["CHECKPOINT", "CONTINUE"]  # the request that was given up is not served late


def test_handlers_that_fail_in_the_restored_life_are_told(stage: Stage) -> None:
    program, pid = start(stage, "breaks")
    ended(nbcr(stage, "checkpoint", pid, "--name", "a"))
    os.kill(pid, signal.SIGKILL)
    program.wait()
    found, err = ended(nbcr(stage, "restart", "a", "--detach"))
    stage.processes.adopt(found["pid"])
    for words in (
        r"Breaks \(\S+server.py:\d+\) failed in RESTART: .*nobody answers",
        r"BreaksToo \(\S+server.py:\d+\) failed in RESTART_PRE: .*it was closed",
    ):
        assert re.search(words, err), err
    assert told(stage) == ["CHECKPOINT", "CONTINUE", "RESTART"]


@pytest.mark.parametrize("way", ["fresh", "into"])
def test_a_restart_says_what_becomes_of_files_that_are_written(stage: Stage, way: str) -> None:
    program, pid = start(stage, "nothing")
    ended(nbcr(stage, "checkpoint", pid, "--name", "a"))
    assert told(stage) == ["CHECKPOINT", "CONTINUE"]
    if way == "fresh":
        os.kill(pid, signal.SIGKILL)
        program.wait()
    where = ("--detach",) if way == "fresh" else ("--into", pid)
    ended(nbcr(stage, "restart", "a", *where, "--files", "all"), 2)
    _, err = ended(nbcr(stage, "restart", "a", *where, "--files", "save"), 12)
    assert "no contents" in err
    assert "RESTART" not in told(stage)
    found, err = ended(nbcr(stage, "restart", "a", *where, "--files", "rewind"))
    stage.processes.adopt(found["pid"])
    assert "was cut back from" in err
    until(stage, "in_place", None if way == "fresh" else program)
    assert told(stage) == ["CHECKPOINT", "RESTART"]  # what was written after the image is gone


def test_a_forked_child_is_asked_itself(stage: Stage) -> None:
    _, pid = start(stage, "fork")
    child = until(stage, "child")["child"]
    assert child != pid
    entry, _ = ended(nbcr(stage, "checkpoint", child, "--name", "child"))
    assert entry["pid"] == child
    assert [line["pid"] for line in stage.lines() if "told" in line] == [child] * 4  # its own, and its parent's copy
    entry, _ = ended(nbcr(stage, "checkpoint", pid, "--name", "tree"))
    assert [line["pid"] for line in stage.lines() if "told" in line][4:] == [pid] * 2


def test_connections_are_kept_only_of_what_ends(stage: Stage) -> None:
    program, pid = start(stage, "nothing")
    _, err = ended(nbcr(stage, "checkpoint", pid, "--name", "a", "--tcp", "keep"), 2)
    assert "--tcp keep needs --stop" in err
    _, err = ended(nbcr(stage, "checkpoint", pid, "--name", "a", "--stop", "--tcp", "perhaps"), 2)
    assert "'perhaps' is not known" in err
    assert told(stage) == []
    if stage.user.uid != 0:
        _, err = ended(nbcr(stage, "checkpoint", pid, "--name", "a", "--stop", "--tcp", "keep"), 12)
        assert "CAP_NET_ADMIN" in err
    assert program.poll() is None
