"""Connections to outside that are kept (`dump --tcp keep`): when they cannot be, and what a failure costs: nothing.

That they go on as they were is asked of sockets/tcp_kept in the catalogue.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from kernel_backend.host import libc
from tests.integration.engine.harness import Engine, Life
from tests.subjects.catalogue import BY_NAME, Subject
from tests.support import User, needs, wait_for_end

Begin = Callable[[Subject, User], tuple[Engine, Life]]
KEPT = BY_NAME["sockets/tcp_kept:4"]
KEEP = ("--leave", "killed", "--tcp", "keep")


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as made:
        yield made


def expecting_reset(listener: socket.socket) -> Subject:
    """A subject that passes when its connection to the listener is reset."""
    return replace(BY_NAME["sockets/tcp_outside"], name=f"sockets/tcp_outside:{listener.getsockname()[1]}", host="")


@pytest.fixture
def as_admin(ourselves: User) -> User:
    needs("CAP_NET_ADMIN, to keep connections", available=os.geteuid() == 0)
    return ourselves


def test_what_goes_on_needs_its_connections_itself(begin: Begin, ourselves: User, folder: Path) -> None:
    engine, life = begin(KEPT, ourselves)
    line = engine.refuses("dump", life.pid, folder / "image", "--leave", "running", "--tcp", "keep")
    assert "only where the process ends with its image" in line
    life.expect_pass()


def test_without_the_privilege_nothing_is_touched(begin: Begin, as_user: User, folder: Path) -> None:
    engine, life = begin(KEPT, as_user)
    assert "CAP_NET_ADMIN" in engine.refuses("dump", life.pid, folder / "image", *KEEP)
    assert not (folder / "image").exists()
    life.expect_pass()


@pytest.mark.parametrize("fault", ["inventory:EIO", "inventory:kill", "renamed:kill", "leave:EIO", "leave:kill"])
def test_a_dump_that_fails_costs_no_connection(fault: str, begin: Begin, as_admin: User, folder: Path) -> None:
    engine, life = begin(KEPT, as_admin)
    assert engine.run("dump", life.pid, folder / "image", *KEEP, fault=f"dump.{fault}").status != 0
    life.expect_pass()


@pytest.mark.parametrize("fault", ["queues:EIO", "registers:kill", "let_go:EIO"])
def test_a_restore_that_fails_costs_no_connection(fault: str, begin: Begin, as_admin: User, folder: Path) -> None:
    engine, life = begin(KEPT, as_admin)
    engine.must("dump", life.pid, folder / "image", *KEEP)
    life.expect_killed()
    assert engine.run("restore", folder / "image", "--detach", fault=f"restore.{fault}").status != 0
    life.continue_as(engine.restore(folder / "image"))
    life.expect_pass()


def test_a_peer_that_has_left_meanwhile(begin: Begin, as_admin: User, folder: Path, listener: socket.socket) -> None:
    engine, life = begin(expecting_reset(listener), as_admin)
    engine.must("dump", life.pid, folder / "image", *KEEP)
    life.expect_killed()
    listener.accept()[0].close()
    restored = engine.must("restore", folder / "image", "--detach", "--json")
    assert restored.err == ""
    engine.processes.adopt(restored.document["pid"])
    life.continue_as(restored.document["pid"])
    life.expect_pass()


def test_addresses_that_are_in_use(begin: Begin, as_admin: User, folder: Path, listener: socket.socket) -> None:
    engine, life = begin(expecting_reset(listener), as_admin)
    engine.must("dump", life.pid, folder / "image", *KEEP)
    life.expect_killed()
    first = engine.restore(folder / "image")
    second = engine.must("restore", folder / "image", "--pid", "any", "--detach", "--json")
    engine.processes.adopt(second.document["pid"])
    assert f"to 127.0.0.1 port {listener.getsockname()[1]} cannot go on, and is reset" in second.err
    os.kill(first, 9)
    assert wait_for_end(first, 10)
    engine.processes.reap(first)
    life.continue_as(second.document["pid"])
    life.expect_pass()


def test_restored_without_the_privilege(begin: Begin, as_admin: User, folder: Path, listener: socket.socket) -> None:
    engine, life = begin(expecting_reset(listener), replace(as_admin, prefix=("setpriv", "--bounding-set=-net_admin")))
    admins = as_admin.command([sys.executable, "-m", "kernel_backend", "dump", str(life.pid), folder / "image", *KEEP])
    subprocess.run(admins, cwd=folder, env=engine.environ(), stdin=subprocess.DEVNULL, check=True, timeout=60)
    life.expect_killed()
    done = engine.must("restore", folder / "image", "--detach", "--json")
    assert "that takes CAP_NET_ADMIN" in done.err
    engine.processes.adopt(done.document["pid"])
    life.continue_as(done.document["pid"])
    life.expect_pass()


def test_a_connection_that_somebody_else_has_too(
    begin: Begin, as_admin: User, folder: Path, listener: socket.socket
) -> None:
    engine, life = begin(expecting_reset(listener), as_admin)
    client, _ = listener.accept()
    pidfd = libc.pidfd_open(life.pid)
    found = (fd for fd in range(3, 10) if os.path.lexists(f"/proc/{life.pid}/fd/{fd}"))
    sockets = [fd for fd in found if os.readlink(f"/proc/{life.pid}/fd/{fd}").startswith("socket:")]
    with socket.socket(fileno=libc.pidfd_getfd(pidfd, sockets[0])) as shared, client:
        os.close(pidfd)
        done = engine.must("dump", life.pid, folder / "image", *KEEP)
        assert f"process {os.getpid()}, which is not of the tree, has it too" in done.err
        life.expect_killed()
        shared.sendall(b"still")  # and it is as it was
        assert client.recv(9) == b"still"
        client.sendall(b"here")
        assert shared.recv(9) == b"here"
        life.continue_as(engine.restore(folder / "image"))
        life.expect_pass()
