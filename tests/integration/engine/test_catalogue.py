"""Every subject of the catalogue: dumped, killed, restored, and asked whether it is still what it was."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from tests.integration.engine.harness import Engine, Life
from tests.subjects.catalogue import CATALOGUE, FOLDER, Subject
from tests.support import User, family_of, needs, wait_for_end

Begin = Callable[[Subject, User], tuple[Engine, Life]]

CAPTURED = [subject for subject in CATALOGUE if not subject.refused]
REFUSED = [subject for subject in CATALOGUE if subject.refused]
AS_ROOT = os.geteuid() == 0


def cases(subjects: Iterable[Subject], all_by_default: bool = False) -> list[object]:
    """The subjects as parameters; those that only long sweeps run are marked so."""
    found: list[object] = []
    for subject in subjects:
        if subject.privilege and not AS_ROOT:
            continue
        default = not subject.long and (all_by_default or subject.representative)
        found.append(pytest.param(subject, id=subject.name, marks=() if default else pytest.mark.long))
    return found


def options(subject: Subject) -> list[str]:
    """What its restore has to be told."""
    return ["--trust"] if subject.trust else []


ROOTS_CHOICE = frozenset(
    "threads/robust restarts/signal_waits sockets/peers sockets/accepted sockets/kept_below identity/priority "
    "identity/user_namespace:threads".split()
)
"""What only root can have back in place: the ids of threads and children, a priority that was lowered since."""

WHO = ["ourselves", "as_user"] if AS_ROOT else ["ourselves"]


@pytest.mark.either("who")
@pytest.mark.parametrize("who", WHO)
@pytest.mark.parametrize("subject", cases(CAPTURED, all_by_default=True))
def test_killed_and_restored(
    subject: Subject, who: str, begin: Begin, request: pytest.FixtureRequest, folder: Path
) -> None:
    if subject.privilege and who == "as_user":
        return  # only root can set it up
    engine, life = begin(subject, request.getfixturevalue(who))
    before = life.observe()
    engine.dump(life.pid, folder / "image", "killed", *subject.dumped_with)
    life.expect_killed()
    life.continue_as(engine.restore(folder / "image", *options(subject)))
    life.expect_like(before)
    life.expect_pass()


@pytest.mark.parametrize("subject", cases(REFUSED, all_by_default=True))
def test_refused_by_name(subject: Subject, begin: Begin, ourselves: User, folder: Path) -> None:
    engine, life = begin(subject, ourselves)
    line = engine.refuses("dump", life.pid, folder / "image", "--leave", "killed")
    for word in subject.refused:
        assert word in line.lower()
    assert not (folder / "image").exists()
    life.expect_pass()


@pytest.mark.parametrize("subject", cases(s for s in CAPTURED if not s.dumped_with))
def test_goes_on_after_the_dump_and_again_from_the_image(
    subject: Subject, begin: Begin, ourselves: User, folder: Path
) -> None:
    engine, life = begin(subject, ourselves)
    before = life.observe()
    report = engine.dump(life.pid, folder / "image", "running")
    life.expect_like(before)
    files = save_files(life)
    if subject.expects_restore:
        life.expect_fail()
        return
    life.expect_pass()
    if subject.running_loses:
        assert subject.running_loses in " ".join(report["warnings"])
    if subject.running_loses or subject.outside:
        return
    if subject.name.startswith("sockets/tcp"):
        needs("CAP_NET_ADMIN, to end what its connections leave behind for a minute", available=AS_ROOT)
    restore_files(life, files)
    life.again()
    life.continue_as(engine.restore(folder / "image", *options(subject)))
    life.expect_pass()


@pytest.mark.either("who")
@pytest.mark.parametrize("who", WHO)
@pytest.mark.parametrize("subject", cases(s for s in CAPTURED if s.into and not s.running_loses and not s.dumped_with))
def test_rewound_in_place(
    subject: Subject, who: str, begin: Begin, request: pytest.FixtureRequest, folder: Path
) -> None:
    if who == "as_user" and (subject.privilege or subject.keeps_pids or subject.name in ROOTS_CHOICE):
        return  # only root can set it up, or get it back in place
    engine, life = begin(subject, request.getfixturevalue(who))
    if subject.keeps_pids and len(family_of(life.pid)) > 1:
        needs("CAP_CHECKPOINT_RESTORE, to choose the pids of children in place", available=AS_ROOT)
    before = life.observe()
    engine.dump(life.pid, folder / "image", "running")
    files = save_files(life)
    if subject.can_spoil:
        life.spoil()
    restore_files(life, files)
    assert engine.restore(folder / "image", "--into", life.pid) == life.pid
    life.expect_like(before)
    life.expect_pass()


@pytest.mark.either("who")
@pytest.mark.parametrize("who", WHO)
@pytest.mark.parametrize("subject", cases(s for s in CAPTURED if not s.once))
def test_three_generations(
    subject: Subject, who: str, begin: Begin, request: pytest.FixtureRequest, folder: Path
) -> None:
    if subject.privilege and who == "as_user":
        return  # only root can set it up
    engine, life = begin(subject, request.getfixturevalue(who))
    before = life.observe()
    for generation in range(3):
        image = folder / f"image{generation}"
        engine.dump(life.pid, image, "killed", *subject.dumped_with)
        assert wait_for_end(life.pid, 10), "the dumped process lives on"
        life.processes.reap(life.pid)
        life.continue_as(engine.restore(image, *options(subject)))
    life.expect_like(before)
    life.expect_pass()


def save_files(life: Life) -> dict[Path, tuple[bytes, int]]:
    """The subject's own files and when they changed: an image holds memory, not what lies in folders."""
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in own_files(life)}


def own_files(life: Life) -> list[Path]:
    known = {life.path(name) for name in ("ready", "spoiled", "spoil", "go", "result", "out")}
    return [path for path in life.folder.glob("s.*") if path.is_file() and path not in known]


def restore_files(life: Life, files: dict[Path, tuple[bytes, int]]) -> None:
    """As they were, without replacing any: the image knows them by inode, size and time."""
    for path, (content, changed_ns) in files.items():
        with path.open("r+b" if path.exists() else "wb") as file:
            file.write(content)
            file.truncate()
        os.utime(path, ns=(changed_ns, changed_ns))


def test_every_source_is_in_the_catalogue() -> None:
    listed = {subject.source for subject in CATALOGUE}
    there = {*FOLDER.glob("c/*/*.c"), *FOLDER.glob("py/*.py")} - {FOLDER / "py/subject.py"}
    assert there == listed
