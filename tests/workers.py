"""Several workers of pytest-xdist share one machine: they make the same random choices, and one account for all.

A plugin that tests/conftest.py registers; without pytest-xdist's `-n` it only hands out what it would give to workers.
"""

from __future__ import annotations

import fcntl
import os
import random
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

_SEED = pytest.StashKey[int]()
_LOCKS = pytest.StashKey[Path]()
_LEFT_OUT = pytest.StashKey[list[str]]()


def seed(config: pytest.Config) -> int:
    """What all random choices of this run come from, the same in every worker."""
    return config.stash[_SEED]


def left_out(config: pytest.Config) -> list[str]:
    """The long tests that were chosen and not started; workers tell their own to whoever started them."""
    return config.stash[_LEFT_OUT]


@contextmanager
def locked(config: pytest.Config, name: str) -> Iterator[None]:
    """Hold the lock `name` of this run, which its workers share."""
    with (config.stash[_LOCKS] / name).open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_LEFT_OUT] = []
    if (given := _given_to_worker(config)) is not None:
        config.stash[_SEED] = given["nbcr_seed"]
        config.stash[_LOCKS] = Path(given["nbcr_locks"])
    else:
        wished = os.environ.get("NBCR_SEED")
        config.stash[_SEED] = int(wished) if wished else random.SystemRandom().randrange(2**31)
        config.stash[_LOCKS] = Path(tempfile.mkdtemp(prefix="n"))
        if getattr(config.option, "numprocesses", None) and not config.option.basetemp:
            # Short: workers have folders of their own in it, and a socket's path has room for 107 bytes.
            config.option.basetemp = str(config.stash[_LOCKS] / "t")


def pytest_unconfigure(config: pytest.Config) -> None:
    if _given_to_worker(config) is None:
        shutil.rmtree(config.stash[_LOCKS], ignore_errors=True)


def _given_to_worker(config: pytest.Config) -> dict[str, Any] | None:
    return getattr(config, "workerinput", None)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Every worker has to collect the same tests, so it makes the same random choices."""
    node.workerinput["nbcr_seed"] = seed(node.config)
    node.workerinput["nbcr_locks"] = str(node.config.stash[_LOCKS])


def pytest_sessionfinish(session: pytest.Session) -> None:
    if _given_to_worker(session.config) is not None:
        session.config.workeroutput["nbcr_left_out"] = left_out(session.config)  # type: ignore[attr-defined]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    left_out(node.config).extend(getattr(node, "workeroutput", {}).get("nbcr_left_out", []))
