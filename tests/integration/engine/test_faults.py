"""Faults at every stage of a dump and of a restore: 100 % of the subjects go on, or the restart fails cleanly.

Every stage is struck in the short suite (by killing the helper there, which shows that it is reached at all), and a
random share of all other faults; the long sweeps inject all of them, into several subjects, as root and as an ordinary
user.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from kernel_backend.stages import FAULTS, Stage
from tests.integration.engine.faulty import ABOUT_NO_PROCESS, COURSES, EVERY_FAULT, Begin, Fault, Stand
from tests.integration.engine.test_catalogue import WHO
from tests.subjects.catalogue import BY_NAME
from tests.support import User

WITH_EVERYTHING = "trees/shared_memory"  # several processes, and objects that both share
SUBJECTS = [
    "cpu/registers", "threads/compute", "trees/pipes_between", "trees/zombies", WITH_EVERYTHING,
    "ipc/posix_shm", "ipc/sysv_shm",
]  # fmt: skip
SHARES_MEMORY = {WITH_EVERYTHING, "ipc/posix_shm", "ipc/sysv_shm"}


def test_every_stage_belongs_to_a_course() -> None:
    assert {stage for stages in COURSES.values() for stage in stages} == set(Stage)


@pytest.mark.parametrize("course", COURSES)
def test_helper_killed_at_every_stage(
    course: str, begin: Begin, as_user: User, ourselves: User, rng: random.Random
) -> None:
    stand = Stand(begin, BY_NAME[WITH_EVERYTHING], rng.choice([ourselves, as_user]))
    for stage in COURSES[course]:
        stand.inject(Fault(course, stage, "kill"))
    stand.finish()


def possible(subject: str, fault: Fault) -> bool:
    """Whether the fault can be had with this subject: some have no shared object, or no child."""
    if fault.stage is Stage.RESTORE_SHARED_MEMORY and subject not in SHARES_MEMORY:
        return False
    if fault.what in ("target", "child") and fault.stage in ABOUT_NO_PROCESS:
        return False
    return fault.what != "child" or subject.startswith("trees/")


@pytest.mark.parametrize("course", COURSES)
def test_some_faults(course: str, begin: Begin, as_user: User, ourselves: User, rng: random.Random) -> None:
    subject = rng.choice(SUBJECTS)
    stand = Stand(begin, BY_NAME[subject], rng.choice([ourselves, as_user]))
    faults = [fault for fault in EVERY_FAULT if fault.course == course and possible(subject, fault)]
    for fault in rng.sample(faults, 8):
        stand.inject(fault)
    stand.finish()


def test_leases_are_the_presents_again_where_its_restart_fails(begin: Begin, ourselves: User, folder: Path) -> None:
    engine, life = begin(BY_NAME["files/lease"], ourselves)
    engine.dump(life.pid, folder / "image", "running")
    done = engine.run("restore", folder / "image", "--into", life.pid, fault=f"{Stage.RESTORE_COMMIT}:{FAULTS[0]}")
    assert done.status != 0
    life.expect_pass()


GROUPS = {"errors": FAULTS[:4], "deaths": ("kill", "target", "child"), "storms": ("eintr",)}
assert {what for group in GROUPS.values() for what in group} == set(FAULTS)


@pytest.mark.long
@pytest.mark.exhaustive
@pytest.mark.parametrize("who", WHO)
@pytest.mark.parametrize("course", COURSES)
@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("subject", SUBJECTS)
def test_every_fault(
    subject: str, group: str, course: str, who: str, begin: Begin, request: pytest.FixtureRequest
) -> None:
    stand = Stand(begin, BY_NAME[subject], request.getfixturevalue(who))
    for fault in EVERY_FAULT:
        if fault.course == course and fault.what in GROUPS[group] and possible(subject, fault):
            stand.inject(fault)
    stand.finish()
