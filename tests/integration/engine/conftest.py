"""A subject's life as a fixture: its folder, its user, the engine's commands, and a look at what is left over."""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.integration.engine.harness import Engine, Life, nothing_left
from tests.integration.engine.peer import peer
from tests.integration.engine.warm import Warm
from tests.subjects.catalogue import Subject
from tests.support import SERVANTS, ProcessTracker, User, needs

HUGE_PAGES = Path("/proc/sys/vm/nr_hugepages")


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a short name: a Unix socket's address has room for 107 bytes."""
    made = Path(tempfile.mkdtemp(prefix="nbcr-", dir="/tmp"))
    yield made
    shutil.rmtree(made, ignore_errors=True)


@pytest.fixture(scope="session")
def warm() -> Iterator[Callable[[User], Warm]]:
    """The process that runs a user's commands, the same for all tests as long as it lives."""
    living: dict[User, Warm] = {}

    def of(user: User) -> Warm:
        if user not in living or not living[user].is_living:
            living[user] = Warm(user)
            SERVANTS.add(living[user].pid)
        return living[user]

    yield of
    for one in living.values():
        one.end()
        SERVANTS.discard(one.pid)


@pytest.fixture
def begin(
    folder: Path, processes: ProcessTracker, warm: Callable[[User], Warm]
) -> Iterator[Callable[[Subject, User], tuple[Engine, Life]]]:
    """Start a subject as a user; afterwards nothing of it may be left."""
    with ExitStack() as stack:

        def start(subject: Subject, user: User) -> tuple[Engine, Life]:
            extra = stack.enter_context(host_has(subject.host))
            user.give(folder)
            engine = Engine(user, folder, processes, warm(user))
            life = Life(subject, user, folder, processes, extra)
            stack.callback(life.close)
            stack.enter_context(nothing_left(engine))
            return engine, life.start()

        yield start


@contextmanager
def host_has(what: str) -> Iterator[list[str]]:
    """Provide what a subject needs beside itself, as long as it runs; gives further arguments for it."""
    if what == "hugepages":
        with huge_pages():
            yield []
    elif what == "a listener":
        with socket.create_server(("127.0.0.1", 0)) as listener:
            yield [str(listener.getsockname()[1])]
    elif what == "a peer":
        with peer() as other:
            yield [str(other.port)]
    else:
        assert not what
        yield []


@contextmanager
def huge_pages() -> Iterator[None]:
    with HUGE_PAGES.open() as setting:
        fcntl.flock(setting, fcntl.LOCK_EX)  # another worker would put back what is raised here
        before = setting.read()
        try:
            HUGE_PAGES.write_text(str(int(before) + 8))
        except OSError:
            needs("free huge pages", int(before) >= 4, f"only root may raise {HUGE_PAGES}")
        try:
            yield
        finally:
            if os.access(HUGE_PAGES, os.W_OK):
                HUGE_PAGES.write_text(before)
