"""Stages on which real Jupyter kernels run: as whoever runs the tests, and as an ordinary user."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.jupyter.sessions import Jupyter, Stage
from tests.support import ProcessTracker, User


@pytest.fixture
def stage(ourselves: User, tmp_path: Path, processes: ProcessTracker) -> Iterator[Stage]:
    """A stage of our own."""
    stage = Stage(ourselves, tmp_path, processes)
    yield stage
    stage.close()


@pytest.fixture
def jupyter(stage: Stage) -> Jupyter:
    """A running Jupyter kernel and its client."""
    return stage.start()


@pytest.fixture(params=["ourselves", "as_user"])
def any_stage(
    request: pytest.FixtureRequest,
    ourselves: User,
    as_user: User,  # asked for before `processes`, which ends at the test's end what was started after it
    processes: ProcessTracker,
    tmp_path: Path,
) -> Iterator[Stage]:
    """A stage of our own, then one of an ordinary user without any capability."""
    user = ourselves if request.param == "ourselves" else as_user
    folder = tmp_path if user.is_ourselves else request.getfixturevalue("user_dir")
    stage = Stage(user, folder, processes)
    yield stage
    stage.close()


@pytest.fixture
def user_stage(as_user: User, processes: ProcessTracker, user_dir: Path) -> Iterator[Stage]:
    """A stage of an ordinary user's."""
    stage = Stage(as_user, user_dir, processes)
    yield stage
    stage.close()
