"""What a restore does about files that were being written: keep, rewind, save."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.integration.engine.harness import Engine, Life
from tests.subjects.catalogue import BY_NAME, Subject
from tests.support import ProcessTracker, User, wait_for_end

Begin = Callable[[Subject, User], tuple[Engine, Life]]
WRITTEN = BY_NAME["files/written"]


def begin_with(policy: str, begin: Begin, user: User) -> tuple[Engine, Life]:
    return begin(replace(WRITTEN, name=f"{WRITTEN.name}:{policy}"), user)


def dump(engine: Engine, life: Life, image: Path, policy: str) -> None:
    engine.must("dump", life.pid, image, "--files", policy)
    engine.must("verify", image)


@pytest.mark.parametrize(
    ("policy", "told"),
    [
        ("keep", "only 5 bytes long now"),
        ("rewind", "was cut back from 12 to 6 bytes"),
        ("save", "has changed since: the contents that it had were put back"),
    ],
)
def test_in_place(policy: str, told: str, begin: Begin, as_user: User, folder: Path) -> None:
    engine, life = begin_with(policy, begin, as_user)
    dump(engine, life, folder / "image", policy)
    life.spoil()
    done = engine.must("restore", folder / "image", "--into", life.pid, "--json")
    assert told in done.err
    life.expect_pass()


def test_saved_contents_come_back_where_the_files_are_gone(begin: Begin, ourselves: User, folder: Path) -> None:
    engine, life = begin_with("save", begin, ourselves)
    dump(engine, life, folder / "image", "save")
    os.kill(life.pid, signal.SIGKILL)
    assert wait_for_end(life.pid, 10)
    for name in ("log", "data", "taken"):
        life.path(name).unlink()
    life.continue_as(engine.restore(folder / "image"))
    assert life.path("data").stat().st_mode & 0o777 == 0o640
    life.expect_pass()


def test_a_restore_may_choose_otherwise(begin: Begin, ourselves: User, folder: Path) -> None:
    engine, life = begin_with("rewind", begin, ourselves)
    dump(engine, life, folder / "image", "keep")
    assert "no contents" in engine.refuses("restore", folder / "image", "--into", life.pid, "--files", "save")
    life.spoil()
    engine.must("restore", folder / "image", "--into", life.pid, "--files", "rewind")
    life.expect_pass()


@pytest.mark.parametrize("policy", ["rewind", "save"])
def test_a_file_that_others_write_to_stays_as_it_is(policy: str, begin: Begin, ourselves: User, folder: Path) -> None:
    engine, life = begin_with(policy, begin, ourselves)
    dump(engine, life, folder / "image", policy)
    life.spoil()
    spoilt = life.path("log").read_bytes()
    with life.path("log").open("ab"):
        done = engine.must("restore", folder / "image", "--into", life.pid, "--json")
        assert f"log stays as it is: process {os.getpid()} has it open for writing, too" in done.err
        assert life.path("log").read_bytes() == spoilt
    engine.must("restore", folder / "image", "--into", life.pid)  # and now nobody else does
    life.expect_pass()


def test_a_log_that_is_shared_with_the_parent_stays_in_common(
    begin: Begin, ourselves: User, folder: Path, processes: ProcessTracker
) -> None:
    """A server's, say: its end is where the next line belongs, whoever writes that."""
    engine = begin_with("keep", begin, ourselves)[0]
    talker = "import sys\nfor line in sys.stdin: print('talker', line, end='', flush=True); sys.stderr.write('.\\n')"
    with (folder / "log").open("wb", buffering=0) as log:
        words = [sys.executable, "-c", talker]
        process = processes.start(words, stdin=subprocess.PIPE, stdout=log, stderr=subprocess.PIPE)

        def say(word: str) -> None:
            assert process.stdin is not None
            assert process.stderr is not None
            process.stdin.write(word.encode() + b"\n")
            process.stdin.flush()
            assert process.stderr.readline() == b".\n"

        say("one")
        engine.dump(process.pid, folder / "image", leave="running")
        say("two")
        log.write(b"server\n")
        done = engine.must("restore", folder / "image", "--into", process.pid, "--json")
        assert "grown" not in done.err
        say("three")
        log.write(b"end\n")
    assert (folder / "log").read_text().split("\n")[:-1] == [
        "talker one",
        "talker two",
        "server",
        "talker three",
        "end",
    ]


@pytest.mark.parametrize("when", ["after the dump", "before it, with the socket"])
def test_the_folder_of_a_socket_is_made_again(when: str, begin: Begin, ourselves: User, folder: Path) -> None:
    engine, life = begin(BY_NAME["sockets/in_a_folder"], ourselves)
    door = life.path("door")
    early = when.startswith("before")
    if early:
        shutil.rmtree(door)
    engine.dump(life.pid, folder / "image")
    life.expect_killed()
    shutil.rmtree(door, ignore_errors=early)
    done = engine.must("restore", folder / "image", "--detach", "--json")
    life.continue_as(json.loads(done.out)["pid"])
    if early:  # nobody had it: nobody gets it
        assert not door.exists()
        life.expect_fail()
        return
    assert "was gone: it was made again" in done.err
    life.expect_pass()
