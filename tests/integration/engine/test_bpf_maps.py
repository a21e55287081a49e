"""BPF maps that root gave to a program, and those that somebody else has come to have. See also the catalogue."""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from kernel_backend.abi import linux
from kernel_backend.host import bpf_maps, libc
from tests.integration.engine.harness import Engine, one_line
from tests.support import ProcessTracker, User, needs

WITHOUT = ("setpriv", "--bounding-set", "-all", "--inh-caps", "-all", "--")


@pytest.fixture
def engine(ourselves: User, folder: Path, processes: ProcessTracker) -> Engine:
    return Engine(ourselves, folder, processes)


@pytest.fixture
def made() -> int:
    """A map with one entry; a test closes it when its program has it."""
    try:
        fd = bpf_maps.create(linux.BPF_MAP_TYPE_HASH, 4, 8, 3, 0, "given")
    except PermissionError:
        needs("CAP_BPF", available=False)
    bpf_maps.write(fd, b"key.", b"a value.", 1)
    return fd


def given(made: int, processes: ProcessTracker, prefix: tuple[str, ...] = ()) -> subprocess.Popen[bytes]:
    """A program that has the map, and nobody else."""
    program = processes.start([*prefix, "sleep", "600"], pass_fds=[made])
    os.close(made)
    while Path(f"/proc/{program.pid}/comm").read_text() != "sleep\n":
        os.sched_yield()
    return program


def taken(pid: int, fd: int) -> int:
    pidfd = libc.pidfd_open(pid)
    try:
        return libc.pidfd_getfd(pidfd, fd)
    finally:
        os.close(pidfd)


def test_who_may_not_ask_for_others_is_refused(made: int, engine: Engine, ourselves: User, folder: Path) -> None:
    program = given(made, engine.processes, WITHOUT)
    engine.user = replace(ourselves, prefix=WITHOUT)
    line = engine.refuses("dump", program.pid, folder / "image")
    assert "BPF map" in line
    assert "CAP_SYS_ADMIN" in line
    engine.user = ourselves
    engine.dump(program.pid, folder / "image", "killed")
    engine.user = replace(ourselves, prefix=WITHOUT)
    done = engine.run("restore", folder / "image", "--detach")
    assert done.status == 12
    assert "CAP_BPF" in one_line(done)


def test_in_place_of_one_that_others_have_by_now(made: int, engine: Engine, folder: Path) -> None:
    program = given(made, engine.processes)
    engine.dump(program.pid, folder / "image", "running")
    ours = taken(program.pid, made)
    try:
        assert f"that process {os.getpid()} has, too" in engine.refuses("dump", program.pid, folder / "more")
        bpf_maps.write(ours, b"key.", b"another.", 1)
        done = engine.must("restore", folder / "image", "--into", program.pid)
        assert f"descriptor {made} is a BPF map that process {os.getpid()} has, too" in done.err
        theirs = taken(program.pid, made)
        try:
            assert bpf_maps.facts(theirs).id != bpf_maps.facts(ours).id
            assert bpf_maps.read(theirs, 4, 8, 3) == (b"key.", b"a value.")
            assert bpf_maps.read(ours, 4, 8, 3) == (b"key.", b"another.")
        finally:
            os.close(theirs)
    finally:
        os.close(ours)
    assert "BPF" not in engine.must("restore", folder / "image", "--into", program.pid).err
