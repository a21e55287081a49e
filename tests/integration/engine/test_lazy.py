"""A lazy restore: memory is read when it is touched, and behaves like memory that was always there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.engine.harness import Engine, Life
from tests.subjects.catalogue import BY_NAME, Subject
from tests.support import User, wait_for_end

Begin = Callable[[Subject, User], tuple[Engine, Life]]
NAMES = ["memory/big_blocks", "memory/heap", "memory/anonymous", "threads/compute", "py/namespace"]


def mapped_from_image(pid: int) -> int:
    """Bytes of a process that are mapped from an image's pages."""
    total = 0
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        if "/pages-" in line:
            start, end = (int(word, 16) for word in line.split()[0].split("-"))
            total += end - start
    return total


@pytest.mark.parametrize("name", [name for name in NAMES if name in BY_NAME])
def test_it_goes_on_from_a_lazy_restore(name: str, begin: Begin, ourselves: User, folder: Path) -> None:
    engine, life = begin(BY_NAME[name], ourselves)
    engine.dump(life.pid, folder / "image")
    life.expect_killed()
    life.continue_as(engine.restore(folder / "image", "--lazy"))
    life.expect_pass()


def test_large_blocks_are_mapped_and_saved_again(begin: Begin, ourselves: User, folder: Path) -> None:
    engine, life = begin(BY_NAME["memory/big_blocks"], ourselves)
    engine.dump(life.pid, folder / "first")
    life.expect_killed()
    life.continue_as(engine.restore(folder / "first", "--lazy"))
    assert mapped_from_image(life.pid) > 25 << 20
    engine.dump(life.pid, folder / "second")
    assert wait_for_end(life.pid, 10.0)
    for path in (folder / "first").iterdir():
        path.unlink()  # the second image must stand alone
    life.continue_as(engine.restore(folder / "second", "--lazy"))
    life.expect_pass()
