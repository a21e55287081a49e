"""`nbcr run` has its job checkpointed by itself, and goes on with it: every so often, at a scheduler's signal."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from nbcr.errors import StoreRefused
from tests.integration.mpi.conftest import END_S, Stage, program, until
from tests.support import family_of, first_line

COUNTER = """
import sys, time
print("ready", flush=True)
for number in range(int(sys.argv[1])):
    print(number, flush=True)
    time.sleep(0.05)
print("done", flush=True)
"""

WAITER = """
import os, sys, time
print("ready", flush=True)
while not os.path.exists(sys.argv[1]):
    time.sleep(0.05)
print("done", flush=True)
"""


def counting(to: int) -> list[str]:
    return [sys.executable, "-c", COUNTER, str(to)]


def expected(to: int) -> str:
    return "".join(f"{line}\n" for line in ("ready", *range(to), "done"))


def automatic(stage: Stage, reason: str) -> list[str]:
    return [entry.id for entry in stage.store.entries() if entry.automatic == reason]


def run(stage: Stage, *words: str, command: list[str]) -> subprocess.Popen[str]:
    return stage.nbcr("run", "--name", "job", *words, "--", *command)


def test_a_job_whose_host_died_goes_on_from_its_last_checkpoint(stage: Stage) -> None:
    job = run(stage, "--every", "1s", "--keep", "2", "--resume", command=counting(250))
    until(lambda: len(automatic(stage, "timer")) == 2)
    first = automatic(stage, "timer")[0]
    until(lambda: first not in automatic(stage, "timer"))  # no more than two stay
    for pid in family_of(job.pid):  # the launcher first: it is told of nobody's end
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    before, _ = job.communicate(timeout=END_S)
    again = run(stage, "--every", "1s", "--resume", command=counting(250))
    after, err = again.communicate(timeout=END_S)
    assert again.returncode == 0, err
    assert "goes on from" in err
    assert "ready" not in after
    assert expected(250).startswith(before)
    assert expected(250).endswith(after)
    assert len(before) + len(after) >= len(expected(250))
    assert stage.store.entries() == []  # it has ended well


@pytest.mark.either("ranks")
@pytest.mark.parametrize("ranks", [0, 2])
def test_a_damaged_checkpoint_is_told_and_the_one_before_it_is_taken(stage: Stage, ranks: int) -> None:
    command = program("ring", ranks, 400, 0.02) if ranks else counting(400)
    job = run(stage, "--every", "1s", command=command)
    until(lambda: len(automatic(stage, "timer")) >= 2)
    for pid in family_of(job.pid):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    before, _ = job.communicate(timeout=END_S)
    older, newest = stage.store.entries()[-2:]
    for pages in newest.path.glob("*/**/pages-*"):
        pages.write_bytes(bytes(pages.stat().st_size))
    again = run(stage, "--resume", command=command)
    after, err = again.communicate(timeout=END_S)
    assert again.returncode == 0, err
    assert f"goes on from {older.name}" in err[err.index("the checkpoint before it is taken") :]
    assert (before[:6], after[-5:], "ready" in after) == ("ready\n", "done\n", False)


@pytest.mark.either("ranks")
@pytest.mark.parametrize("ranks", [0, 2])
def test_a_preempted_job_is_kept_and_the_same_command_goes_on(stage: Stage, ranks: int) -> None:
    command = program("ring", ranks, 250, 0.02) if ranks else counting(100)
    undisturbed = subprocess.run(command, capture_output=True, text=True, timeout=END_S, check=True).stdout
    job = run(stage, "--resume", command=command)
    before = first_line(job)
    assert before == "ready\n"
    job.terminate()
    rest, err = job.communicate(timeout=END_S)
    assert (job.returncode, len(automatic(stage, "signal"))) == (128 + signal.SIGTERM, 1), err
    assert "the same command with --resume goes on" in err
    other = run(stage, "--resume", command=[*command, "another"])
    assert "is of another command" in other.communicate(timeout=END_S)[1]
    again = run(stage, "--resume", command=command)
    after, err = again.communicate(timeout=END_S)
    assert again.returncode == 0, err
    assert before + rest + after == undisturbed
    assert stage.store.entries() == []


def test_what_was_saved_by_hand_stays_and_a_job_that_ended_begins_anew(stage: Stage, tmp_path: Path) -> None:
    go = tmp_path / "go"
    command = [sys.executable, "-c", WAITER, str(go)]
    job = run(stage, command=command)
    assert first_line(job) == "ready\n"
    taken = stage.nbcr("checkpoint", "job", "--name", "half")
    said, err = taken.communicate(timeout=END_S)
    assert said.startswith("CONTINUE  half"), err
    go.touch()  # not before: on a busy machine a job of some seconds has ended when a new process asks for it
    job.communicate(timeout=END_S)
    (entry,) = stage.store.entries()
    assert (entry.name, dict(entry.job or {})["name"], list(entry.tags)) == ("half", "job", ["ended"])
    again = run(stage, "--resume", command=command)
    assert again.communicate(timeout=END_S)[0] == "ready\ndone\n"


def test_a_job_may_end_while_a_checkpoint_of_it_begins(stage: Stage) -> None:
    # asked for after 1 s, by a process that has to start: it asks when the command has ended
    jobs = {at: stage.nbcr("run", "--name", f"job-{at}", "--every", "1s", "--", "sleep", at) for at in ("1.05", "1.1")}
    for job in jobs.values():  # who waited for an answer that cannot come would do so for half a minute
        assert job.communicate(timeout=20) == ("", "")
        assert job.returncode == 0


def test_files_beside_the_job_are_no_modules_of_ours(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("random", "typing", "json"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('a file of the user')\n")
    monkeypatch.chdir(tmp_path)
    job = run(stage, "--every", "1s", command=["sleep", "60"])
    until(lambda: bool(automatic(stage, "timer")))
    job.terminate()
    assert job.communicate(timeout=END_S)[1] == "nbcr: job job is kept; the same command with --resume goes on\n"


def test_a_job_that_cannot_be_kept_hears_the_signal(stage: Stage, tmp_path: Path) -> None:
    nowhere = tmp_path / "file"
    nowhere.touch()
    job = run(stage, "--store", str(nowhere / "store"), command=counting(2000))
    assert first_line(job) == "ready\n"
    job.terminate()
    _, err = job.communicate(timeout=END_S)
    assert job.returncode == 128 + signal.SIGTERM
    assert "no checkpoint of job job was taken" in err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--every", "soon"], "no span of time"),
        (["--keep", "0"], "would keep none"),
        (["--on-memory", "200%"], "no share of the memory"),
        (["--on-signal", "KILL"], "cannot be caught"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_starts(stage: Stage, words: list[str], said: str) -> None:
    job = run(stage, *words, command=["touch", str(stage.folder / "started")])
    out, err = job.communicate(timeout=END_S)
    assert not out
    assert job.returncode in (2, 31), err  # wrong usage; not possible
    assert said in err
    assert not (stage.folder / "started").exists()
    nameless = stage.nbcr("run", "--resume", "--", "true")
    assert "add --name JOB" in nameless.communicate(timeout=END_S)[1]


def test_a_store_in_which_nothing_can_be_saved_is_refused_before_anything_starts(stage: Stage, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("not a folder")
    job = run(stage, "--every", "1s", "--store", str(tmp_path / "taken"), command=counting(1))
    out, err = job.communicate(timeout=END_S)
    assert (job.returncode, out) == (StoreRefused.exit_code, "")
    assert "choose another with --store" in err
