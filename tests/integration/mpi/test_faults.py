"""What goes wrong: the job goes on, or ends with one clear line; nobody waits for ever."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from nbcr.errors import NbcrError, NotPossible
from tests.integration.mpi.conftest import END_S, Stage, program
from tests.support import family_of


def ranks_of(launcher: subprocess.Popen[str]) -> list[int]:
    """The Python processes below its mpiexec."""
    return [pid for pid in family_of(launcher.pid)[1:] if _argv(pid)[1:2] == [program("waiting", 1)[-1]]]


def _argv(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/cmdline").read_text().split("\0")


@pytest.mark.parametrize(("how", "named"), [("window", "an RMA window by"), ("session", "Intracomm.Create_from_group")])
def test_what_no_image_can_hold_is_refused_by_name(stage: Stage, how: str, named: str) -> None:
    launcher = stage.run("job", program("waiting", 2, how, 4))
    with pytest.raises(NotPossible, match=named) as raised:
        stage.checkpoint("job", "never")
    assert ("MPI.Win.Allocate" in (raised.value.hint or "")) == (how == "window")
    assert launcher.communicate(timeout=END_S)[0] == "done 1\n"
    assert not stage.store.entries()


@pytest.mark.either("host")
@pytest.mark.parametrize("host", ["127.0.0.1", "::"])
def test_connections_of_ranks_with_each_other_are_told(stage: Stage, host: str) -> None:
    """By TCP; a socket for IPv6 can have the other end of one for IPv4."""
    launcher = stage.run("job", program("talking", 3, 100, 0.05, host))
    entry = stage.checkpoint("job", "saved")
    assert [line for line in entry.warnings if "ranks 0 and 1 have TCP connections with each other" in line]
    assert launcher.communicate(timeout=END_S)[0] == "done\n"


def test_a_lock_that_is_not_given_back_fails_the_checkpoint_alone(stage: Stage) -> None:
    launcher = stage.run("job", program("waiting", 2, "locked", 4))
    with pytest.raises(NotPossible, match="rank 0 has had an exclusive lock of a window"):
        stage.checkpoint("job", "never", deadline_s=1)
    assert launcher.communicate(timeout=END_S)[0] == "done 1\n"
    assert not stage.store.entries()


def test_a_collective_that_others_come_to_too_late_fails_the_checkpoint_alone(stage: Stage) -> None:
    launcher = stage.run("job", program("waiting", 2, "unequal", 4))
    with pytest.raises(NotPossible, match="did not come to a collective within 1 s"):
        stage.checkpoint("job", "never", deadline_s=1)
    assert launcher.communicate(timeout=END_S)[0] == "done 1\n"
    assert not stage.store.entries()


def test_a_rank_that_is_killed_ends_the_job_as_without_us(stage: Stage) -> None:
    launcher = stage.run("job", program("waiting", 2, "unequal", 30))
    failures: list[NbcrError] = []

    def ask() -> None:
        try:
            stage.checkpoint("job", "never", deadline_s=20)
        except NbcrError as error:
            failures.append(error)

    asking = threading.Thread(target=ask)
    asking.start()
    time.sleep(1)
    os.kill(ranks_of(launcher)[-1], signal.SIGKILL)
    launcher.communicate(timeout=END_S)
    asking.join(END_S)
    assert launcher.returncode != 0
    assert len(failures) == 1
    assert not stage.store.entries()


def test_a_job_runs_on_without_its_launcher(stage: Stage) -> None:
    launcher = stage.run("job", program("waiting", 2, "blocked", 2))
    assert launcher.stdout is not None
    launcher.kill()
    assert launcher.stdout.read() == "done 1\n"


def test_a_name_that_is_taken_is_refused_before_anything_is_touched(stage: Stage) -> None:
    launcher = stage.run("job", program("waiting", 2, "blocked", 8))
    stage.checkpoint("job", "same")
    with pytest.raises(NbcrError, match="exists already"):
        stage.checkpoint("job", "same")
    second = stage.nbcr("run", "--name", "job", "--", "true")
    assert "is running" in second.communicate(timeout=END_S)[1]
    assert second.returncode == 21
    assert launcher.communicate(timeout=END_S)[0] == "done 1\n"


def test_a_program_without_mpi_is_supervised(stage: Stage) -> None:
    code = "import time; print('ready', flush=True); time.sleep(8); print('done', flush=True); raise SystemExit(7)"
    launcher = stage.run("plain", [sys.executable, "-c", code])
    taken = stage.nbcr("checkpoint", "plain", "--name", "half")
    assert taken.communicate(timeout=END_S)[0].startswith("CONTINUE  half")
    assert launcher.communicate(timeout=END_S)[0] == "done\n"
    assert launcher.returncode == 7
    returned = stage.nbcr("restart", "half")
    # The words of `nbcr restart` itself may stand between the program's word and its end of line, when
    # PYTHONUNBUFFERED has them written one by one.
    assert "done" in returned.communicate(timeout=END_S)[0]
    assert returned.returncode == 7
