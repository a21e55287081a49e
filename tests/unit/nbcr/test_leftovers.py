"""Shared memory that nobody uses any more is taken away, and no other."""

from __future__ import annotations

import mmap
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from nbcr.launcher import leftovers


@pytest.fixture
def segment() -> Iterator[Path]:
    path = leftovers.FOLDER / f"mpich_shm_test{os.getpid()}_0"
    path.write_bytes(b"x" * 4096)
    yield path
    path.unlink(missing_ok=True)


def test_what_nobody_holds_is_removed(segment: Path) -> None:
    assert segment.name in leftovers.remove(time.time() - 60)
    assert not segment.exists()


def test_what_is_open_or_mapped_stays(segment: Path) -> None:
    with segment.open("r+b") as file:
        assert segment.name not in leftovers.remove(time.time() - 60)
        mapping = mmap.mmap(file.fileno(), 4096)
    with mapping:
        assert segment.name not in leftovers.remove(time.time() - 60)
    assert segment.exists()


def test_what_was_there_before_the_job_and_other_names_stay(segment: Path) -> None:
    other = leftovers.FOLDER / f"nbcr-test-{os.getpid()}"
    other.touch()
    try:
        os.utime(segment, (1, 1))
        assert segment.name not in leftovers.remove(time.time() - 60)
        assert segment.exists()
        assert other.exists()
    finally:
        other.unlink()
