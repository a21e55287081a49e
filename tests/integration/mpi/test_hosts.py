"""Jobs over several hosts: taken as a whole, brought back over others."""

from __future__ import annotations

import random
import shlex
import threading
import time
from pathlib import Path

import pytest

from nbcr.errors import NbcrError, NotPossible
from nbcr.launcher import jobs
from tests.integration.mpi.conftest import END_S, undisturbed, until
from tests.integration.mpi.hosts import SpreadStage
from tests.support import ProcessTracker


@pytest.fixture
def spread(processes: ProcessTracker, tmp_path: Path) -> SpreadStage:
    return SpreadStage.built(tmp_path, processes)


# Hosts, and ranks on each at most, that four ranks from h1 and h2 are brought back on. h0 is the launcher's.
OTHERS = {"one": ("h3", 4), "three": ("h1,h2,h3", 1), "the launcher's too": ("h0,h2", 3)}


@pytest.mark.either("where")
@pytest.mark.parametrize("where", OTHERS)
def test_a_job_over_two_hosts_comes_back_over_others(spread: SpreadStage, rng: random.Random, where: str) -> None:
    check(spread, rng, "ring", (200, 0.01), where)


# Not "outstanding": without shared memory it hangs under a bare mpiexec as well (docs/mpi.md, Several hosts).
@pytest.mark.long
@pytest.mark.parametrize("where", OTHERS)
@pytest.mark.parametrize("subject", ["halo", "workers", "splits", "objects"])
def test_any_job_over_two_hosts_comes_back_over_others(
    spread: SpreadStage, rng: random.Random, subject: str, where: str
) -> None:
    steps = {"halo": (400, 0.006), "workers": (2400, 0.004), "splits": (250, 0.02)}.get(subject, (100, 0.03))
    check(spread, rng, subject, steps, where)


def check(spread: SpreadStage, rng: random.Random, subject: str, steps: tuple[int, float], where: str) -> None:
    """Goes on, comes back elsewhere, is saved there and comes back here; each time as if nothing had been."""
    expected = undisturbed(subject, 4, steps[0]).removeprefix("ready\n")
    launcher = spread.run("job", spread.program(subject, 4, spread.placing("h1,h2", 2), *steps))
    time.sleep(rng.random())
    entry = spread.checkpoint("job", "one", leave="running" if rng.random() < 0.5 else "killed")
    out, err = launcher.communicate(timeout=END_S)
    assert launcher.returncode == 0, err
    assert out in (expected, ""), err
    assert entry.kinds == ("job",)
    returned = spread.nbcr("restart", "one", "--mpiexec", shlex.join(spread.placing(*OTHERS[where])))
    second = again(spread, "job", "two", returned)
    out, err = returned.communicate(timeout=END_S)
    assert (returned.returncode, out) == (0, expected), err
    if second:
        third = spread.nbcr("restart", "two", "--mpiexec", "")
        out, err = third.communicate(timeout=END_S)
        assert (third.returncode, out) == (0, expected), err
    for host in ("h1", "h2", "h3"):
        until(lambda host=host: not spread.living(host))


def again(spread: SpreadStage, job: str, name: str, launcher: object) -> bool:
    """A checkpoint of a job that comes back just now; not taken when it has ended before."""
    while getattr(launcher, "poll")() is None:  # noqa: B009
        try:
            spread.checkpoint(job, name)
        except (AssertionError, NbcrError):
            time.sleep(0.05)
        else:
            return True
    return False


def test_a_host_that_does_not_answer_fails_the_checkpoint_alone(spread: SpreadStage) -> None:
    expected = undisturbed("ring", 2, 120).removeprefix("ready\n")
    launcher = spread.run("job", spread.program("ring", 2, spread.placing("h1,h2", 1), 120, 0.02))
    spread.checkpoint("job", "before")
    spread.cut("h2")
    with pytest.raises(NotPossible, match="host h2 does not answer within 3 s"):
        spread.checkpoint("job", "never", deadline_s=3)
    spread.mend("h2")
    out, err = launcher.communicate(timeout=END_S)
    assert (launcher.returncode, out) == (0, expected), err
    assert [entry.name for entry in spread.store.entries()] == ["before"]


@pytest.mark.long
def test_a_host_that_vanishes_while_mpi_is_down_ends_the_job_with_one_line(spread: SpreadStage, tmp_path: Path) -> None:
    down = tmp_path / "down"
    launcher = spread.run("job", spread.program("slow_below", 2, spread.placing("h1,h2", 1), down))
    failures: list[NbcrError] = []

    def ask() -> None:
        try:
            spread.checkpoint("job", "never", deadline_s=4)
        except NbcrError as error:
            failures.append(error)

    asking = threading.Thread(target=ask)
    asking.start()
    until(down.exists)
    spread.cut("h2")
    asking.join(END_S)
    _, err = launcher.communicate(timeout=END_S)
    assert "host h2 does not answer" in str(failures[0])
    assert launcher.returncode == failures[0].exit_code == 28
    assert [line for line in err.splitlines() if line.startswith("nbcr: ")] == [f"nbcr: {failures[0].line()}"], err
    assert not spread.store.entries()


def test_a_store_that_another_host_does_not_see_is_refused(spread: SpreadStage) -> None:
    launcher = spread.run("job", spread.program("ring", 2, spread.placing("h1,h2", 1), 200, 0.01))
    spread.hide("h2", spread.store.root)
    with pytest.raises(NotPossible, match="is not the same folder on host h2"):
        spread.checkpoint("job", "never")
    assert launcher.communicate(timeout=END_S)[0].endswith("done\n")
    assert not spread.store.entries()


def test_a_script_whose_ranks_are_on_other_hosts_is_refused(spread: SpreadStage) -> None:
    ring = shlex.join(spread.program("ring", 2, spread.placing("h1,h2", 1), 200, 0.01))
    launcher = spread.run("job", ["sh", "-c", f"{ring}; true"])
    taken = spread.nbcr("checkpoint", "job", "--name", "never")
    assert "has ranks on other hosts" in taken.communicate(timeout=END_S)[1]
    assert taken.returncode == NotPossible.exit_code
    assert launcher.communicate(timeout=END_S)[0].endswith("done\n")
    assert not spread.store.entries()


def test_ranks_whose_connections_broke_call_again_in_each_life(spread: SpreadStage) -> None:
    expected = undisturbed("ring", 2, 300).removeprefix("ready\n")
    launcher = spread.run("job", spread.program("ring", 2, spread.placing("h1,h2", 1), 300, 0.02))
    until(lambda: spread.connections(launcher.pid) >= 2)  # both ranks; agents may have come, too
    spread.reset(launcher.pid)
    spread.checkpoint("job", "one", leave="killed")
    assert launcher.communicate(timeout=END_S)[0] == ""
    returned = spread.nbcr("restart", "one", "--mpiexec", shlex.join(spread.placing("h2,h3", 1)))
    until(lambda: "job" in dict(jobs.running()))  # who looks does not disturb it
    assert again(spread, "job", "two", returned), returned.communicate(timeout=END_S)
    spread.reset(returned.pid)
    spread.checkpoint("job", "three")
    out, err = returned.communicate(timeout=END_S)
    assert (returned.returncode, out) == (0, expected), err


@pytest.mark.long
def test_connections_that_break_while_mpi_is_down_fail_the_checkpoint_alone(
    spread: SpreadStage, tmp_path: Path
) -> None:
    down = tmp_path / "down"
    launcher = spread.run("job", spread.program("slow_below", 2, spread.placing("h1,h2", 1), down, 300))
    failures: list[NbcrError] = []

    def ask() -> None:
        try:
            spread.checkpoint("job", "never")
        except NbcrError as error:
            failures.append(error)

    asking = threading.Thread(target=ask)
    asking.start()
    until(down.exists)
    spread.reset(launcher.pid)
    asking.join(END_S)
    out, err = launcher.communicate(timeout=END_S)
    assert (launcher.returncode, out) == (0, "done\n"), err
    assert "lost its connection" in str(failures[0])
    assert not spread.store.entries()
