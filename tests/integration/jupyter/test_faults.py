"""Bad input and faults: one line says what is wrong, nothing is lost, nothing is left behind."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from nbcr.store import journal
from tests.integration.jupyter.faults import (
    SETTLE_S,
    assert_nothing_left,
    cut_short,
    fails,
    flip_a_bit,
    has_open,
    helpers,
    left_over,
    living_strays,
    names,
    nbcr_fails,
    on_a_small_disk,
)
from tests.integration.jupyter.lives import assert_usable, assert_whole, kill, nbcr, set_up, spoil
from tests.integration.jupyter.sessions import Jupyter, Stage
from tests.support import needs

pytestmark = pytest.mark.either("any_stage")

UNUSED_PID = 2**22 + 1


def with_extension(stage: Stage) -> Jupyter:
    jupyter = stage.start()
    jupyter.client.run("%load_ext nbcr\nx = 1")
    return jupyter


# --- names


def test_an_unknown_name_offers_near_misses(any_stage: Stage) -> None:
    client = with_extension(any_stage).client
    client.run("%checkpoint --wait before-fit")
    assert "did you mean 'before-fit'" in fails(client, "%restart befor-fit")
    assert "did you mean 'before-fit'" in nbcr_fails(any_stage, 20, "restart", "befor-fit", "--detach")
    assert "before-fit" in nbcr_fails(any_stage, 20, "show", "before-fitt")
    assert "no checkpoint named 'zzz'" in nbcr_fails(any_stage, 20, "remove", "zzz")
    assert client.value("x") == 1
    assert names(any_stage) == ["before-fit"]


def test_a_taken_name_needs_force(any_stage: Stage) -> None:
    jupyter = with_extension(any_stage)
    client = jupyter.client
    client.run("%checkpoint --wait a")
    assert "--force" in fails(client, "%checkpoint a")
    assert "--force" in nbcr_fails(any_stage, 21, "checkpoint", jupyter.pid, "--name", "a")
    client.run("x = 2")
    client.run("%checkpoint --force --wait a")
    client.run("x = 3")
    client.run("%restart a", 60)
    assert client.value("x") == 2
    nbcr(any_stage, "checkpoint", jupyter.pid, "--name", "a", "--force")
    (entry,) = nbcr(any_stage, "list")
    assert (entry["name"], entry["parent"]) == ("a", None)  # not the one that was replaced, which nobody finds any more
    assert_nothing_left(client, any_stage.folder / "store")


# --- targets


def test_a_pid_of_nobody(any_stage: Stage) -> None:
    assert str(UNUSED_PID) in nbcr_fails(any_stage, 26, "checkpoint", UNUSED_PID, "--name", "x")
    assert names(any_stage) == []


def test_somebody_elses_process(user_stage: Stage) -> None:
    """Ours for the ordinary user, when root runs the tests; init for an ordinary user who runs them."""
    target = subprocess.Popen(["sleep", "600"]) if os.geteuid() == 0 else None
    pid = target.pid if target is not None else 1
    try:
        line = nbcr_fails(user_stage, (4, 26), "checkpoint", pid, "--name", "x")
        assert str(pid) in line
        assert target is None or target.poll() is None
    finally:
        if target is not None:
            target.kill()
            target.wait()
    assert names(user_stage) == []
    assert left_over(user_stage.folder / "store") == []


def os_kernel_thread() -> int | None:
    for path in Path("/proc").iterdir():
        if path.name.isdecimal():
            try:
                stat = (path / "stat").read_text()
            except OSError:
                continue
            if int(stat[stat.rindex(")") + 2 :].split()[6]) & 0x00200000:  # PF_KTHREAD
                return int(path.name)
    return None


def test_an_os_kernels_thread(any_stage: Stage) -> None:
    pid = os_kernel_thread()
    if pid is None:
        needs("a thread of the OS kernel within sight")
    line = nbcr_fails(any_stage, (4, 6, 26), "checkpoint", str(pid), "--name", "x")
    assert str(pid) in line
    assert names(any_stage) == []
    assert left_over(any_stage.folder / "store") == []


THIRTY_TWO_BITS = """
void _start(void) { for (;;) __asm__ volatile("int $0x80" : : "a"(29)); } /* pause() */
"""


def test_a_32_bit_process(any_stage: Stage) -> None:
    program = any_stage.folder / "work" / "thirty-two"
    options = ["-m32", "-nostdlib", "-static", "-ffreestanding", "-fno-pie", "-no-pie", "-x", "c", "-"]
    made = subprocess.run(["cc", *options, "-o", program], input=THIRTY_TWO_BITS, text=True, capture_output=True)
    needs("a compiler for 32-bit programs", available=made.returncode == 0)
    program.chmod(0o755)
    runs = subprocess.Popen([program])
    os.kill(runs.pid, 0)
    runs.kill()
    needs("an OS kernel that runs 32-bit programs", available=runs.wait() == -signal.SIGKILL)
    process = any_stage.processes.start(any_stage.user.command([program]))
    assert "64-bit" in nbcr_fails(any_stage, 6, "checkpoint", process.pid, "--name", "x")
    assert process.poll() is None
    assert names(any_stage) == []
    assert left_over(any_stage.folder / "store") == []


# --- the disk


@pytest.fixture
def small_stage(any_stage: Stage) -> Iterator[Stage]:
    """A stage whose store is on a real file system of 400 MiB."""
    small = on_a_small_disk(any_stage, any_stage.folder / "disk", "400m")
    yield small
    small.close()


def with_ballast(stage: Stage) -> tuple[Jupyter, Path]:
    """A Jupyter kernel of 300 MiB that no format makes smaller, and its disk as we see it."""
    jupyter = with_extension(stage)
    jupyter.client.run("import nbcr, numpy, os, pathlib; ballast = numpy.random.default_rng(1).random(5 << 23)")
    return jupyter, Path(f"/proc/{jupyter.pid}/root{stage.environ['NBCR_STORE']}")


# Takes all room that is left while an image is written: that there is enough of it was checked just before its pages
# file was made. The writer, whose pid the draft's name tells, stands still meanwhile, so that this needs no hurry.
FILL_UP = """
import os, pathlib, signal, sys, time
disk, deadline = pathlib.Path(sys.argv[1]), time.monotonic() + 30
print('ready', flush=True)
while not (found := list(disk.glob('entries/.tmp-*/.image*/pages-*'))):
    assert time.monotonic() < deadline, 'no image is being written'
    time.sleep(0.0005)
writer = int(found[0].parts[-3].rpartition('.')[2])
os.kill(writer, signal.SIGSTOP)
try:
    with (disk / 'filler').open('wb') as filler:
        for megabyte in range(1 << 12):
            os.posix_fallocate(filler.fileno(), megabyte << 20, 1 << 20)
except OSError as error:
    print(error.errno, flush=True)
finally:
    os.kill(writer, signal.SIGCONT)
"""


@contextlib.contextmanager
def filled_up(stage: Stage, disk: Path) -> Iterator[None]:
    """Within this block the disk gets full while an image is written to it; after it there is room again."""
    argv = stage.user.command([sys.executable, "-c", FILL_UP, str(disk)])
    filler = stage.processes.start(argv, env=stage.environ, stdout=subprocess.PIPE, text=True)
    assert filler.stdout is not None
    assert filler.stdout.readline() == "ready\n"
    yield
    assert (filler.stdout.read(), filler.wait(60)) == (f"{errno.ENOSPC}\n", 0)
    (disk / "filler").unlink()


NO_SPACE = "writing the image failed: No space left on device"  # half way, not when the room was checked


def used_bytes(disk: Path) -> int:
    """What the store takes, but for its journal, which tells of the failure."""
    return sum(f.stat().st_blocks * 512 for f in disk.rglob("*") if f.is_file() and f.name != journal.FILE)


def test_a_disk_that_is_too_small_from_the_beginning(small_stage: Stage) -> None:
    jupyter, disk = with_ballast(small_stage)
    client = jupyter.client
    client.run(
        "filler = open(os.environ['NBCR_STORE'] + '/filler', 'wb'); filler.write(bytes(200 << 20)); filler.close()"
    )
    for number in range(2):
        line = fails(client, f"%checkpoint --image --wait big{number}")
        assert re.search(r"needs \d+ MiB, .* has \d+ MiB left", line)
        assert client.value("len(nbcr.checkpoints())") == 0
    (disk / "filler").unlink()
    assert_nothing_left(client, disk)
    assert used_bytes(disk) == 0
    client.run("%checkpoint --image --wait now-it-fits", 60)


def test_a_disk_that_gets_full_half_way(small_stage: Stage, any_stage: Stage) -> None:
    """The entry never appears, the space is given back, the session goes on and hears of it."""
    jupyter, disk = with_ballast(small_stage)
    client = jupyter.client
    set_up(client)
    with filled_up(any_stage, disk):
        assert NO_SPACE in fails(client, "%checkpoint --image --wait waited-for")
        assert_nothing_left(client, disk)
    assert used_bytes(disk) == 0

    with filled_up(any_stage, disk):
        (cell,) = client.wait(client.send("%checkpoint --image behind", stop_on_error=False))
        assert_nothing_left(client, disk)
    told, deadline = cell.error, time.monotonic() + SETTLE_S
    while not told and time.monotonic() < deadline:
        told = client.run("time.sleep(.05)")
    told += client.run("time.sleep(.05)")
    (line,) = told.splitlines()
    assert "behind" in line
    assert NO_SPACE in line
    assert client.value("len(nbcr.checkpoints())") == 0
    assert_whole(client)
    assert_usable(client)
    assert used_bytes(disk) == 0
    client.run("%checkpoint --image --wait now-it-fits", 60)


def test_a_disk_that_gets_full_half_way_from_the_shell(small_stage: Stage, any_stage: Stage) -> None:
    jupyter, disk = with_ballast(small_stage)
    words = ("checkpoint", jupyter.pid, "--image", "--name", "big", "--store", small_stage.environ["NBCR_STORE"])
    with filled_up(any_stage, disk):
        assert NO_SPACE in nbcr_fails(any_stage, (13, 24), *words)
        assert_nothing_left(jupyter.client, disk)
    assert used_bytes(disk) == 0
    nbcr(any_stage, "checkpoint", jupyter.pid, "--name", "elsewhere")
    assert jupyter.client.value("x") == 1


# --- damaged images


DAMAGED = (*range(8, 16), 23)  # what the engine finds, and what the store finds by the entry's manifest


def files_of(image: Path) -> list[Path]:
    return sorted(path for path in image.rglob("*") if path.is_file() and path.stat().st_size)


@pytest.mark.parametrize("damage", [flip_a_bit, cut_short])
def test_a_damaged_image_is_found_before_the_present_is_touched(
    any_stage: Stage, damage: object, rng: random.Random
) -> None:
    jupyter = with_extension(any_stage)
    client = jupyter.client
    set_up(client)
    entry = nbcr(any_stage, "checkpoint", jupyter.pid, "--name", "good")
    client.run("generation = 'present'")
    image = any_stage.folder / "store" / "entries" / entry["id"] / "image"
    kept = any_stage.folder / "kept"
    shutil.copytree(image, kept)
    files = files_of(kept)
    largest = max(files, key=lambda file: file.stat().st_size)
    chosen = {largest, *rng.sample(files, min(4, len(files)))}
    for file in sorted(chosen):
        damaged = image / file.relative_to(kept)
        damage(damaged, rng)  # type: ignore[operator]
        fails(client, "%restart good")
        nbcr_fails(any_stage, DAMAGED, "restart", "good", "--into", jupyter.pid)
        shutil.copyfile(file, damaged)
        assert client.value("generation") == "present"
    assert_whole(client)
    kill(any_stage, jupyter)
    damage(image / largest.relative_to(kept), rng)  # type: ignore[operator]
    nbcr_fails(any_stage, DAMAGED, "restart", "good", "--detach")
    assert living_strays(any_stage) == []
    shutil.copyfile(largest, image / largest.relative_to(kept))
    any_stage.processes.adopt(int(nbcr(any_stage, "restart", "good", "--detach")["pid"]))
    assert_whole(client)


# --- files that are not what they were


def compile_library(path: Path, answer: int) -> None:
    source = f"int answer(void) {{ return {answer}; }} int filler[{answer}] = {{1}};\n"
    part = path.with_suffix(".new")
    subprocess.run(["cc", "-shared", "-fPIC", "-x", "c", "-", "-o", part], input=source, text=True, check=True)
    part.chmod(0o755)
    part.replace(path)


def test_a_library_replaced_since_is_refused_by_name(any_stage: Stage) -> None:
    jupyter = with_extension(any_stage)
    client, library = jupyter.client, any_stage.folder / "work" / "libanswer.so"
    compile_library(library, 42)
    client.run(f"import ctypes; library = ctypes.CDLL({str(library)!r})")
    client.run("%checkpoint --image --wait a")
    shutil.copy2(library, library.with_suffix(".kept"))
    compile_library(library, 4711)
    client.run("x = 2")
    assert str(library) in fails(client, "%restart a")
    assert client.value("[x, library.answer()]") == [2, 42]
    kill(any_stage, jupyter)
    assert str(library) in nbcr_fails(any_stage, 11, "restart", "a", "--detach")
    assert living_strays(any_stage) == []
    library.with_suffix(".kept").replace(library)
    any_stage.processes.adopt(int(nbcr(any_stage, "restart", "a", "--detach")["pid"]))
    assert client.value("[x, library.answer()]") == [1, 42]


PAUSE = "#include <unistd.h>\nint state[%d] = {7}; int main(void) { for (;;) pause(); }\n"


def compile_program(path: Path, size: int) -> None:
    part = path.with_suffix(".new")
    subprocess.run(["cc", "-x", "c", "-", "-o", part], input=PAUSE % size, text=True, check=True)
    part.chmod(0o755)
    part.replace(path)


def test_an_executable_replaced_since_is_refused_by_name(any_stage: Stage) -> None:
    program = any_stage.folder / "work" / "program"
    compile_program(program, 1000)
    streams = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
    process = any_stage.processes.start(any_stage.user.command([program]), **streams)
    while os.readlink(f"/proc/{process.pid}/exe") != str(program):  # the ordinary user's prefix runs first
        time.sleep(0.01)
    nbcr(any_stage, "checkpoint", process.pid, "--name", "a", "--leave", "killed")
    compile_program(program, 9000)
    assert str(program) in nbcr_fails(any_stage, 11, "restart", "a", "--detach")
    program.unlink()
    assert str(program) in nbcr_fails(any_stage, 11, "restart", "a", "--detach")
    assert living_strays(any_stage) == []
    assert names(any_stage) == ["a"]


# --- helpers that die, and others at the same time


def test_a_helper_killed_at_any_moment_of_a_checkpoint(any_stage: Stage, rng: random.Random) -> None:
    client = with_extension(any_stage).client
    set_up(client)
    client.run("import nbcr; ballast = np.random.default_rng(1).random(1 << 21)")
    lost = 0
    for turn in range(10):
        cell = client.send(f"%checkpoint --wait n{turn}", stop_on_error=False)
        client.listen(lambda: False, rng.uniform(0, 0.35))
        for pid in helpers():
            os.kill(pid, signal.SIGKILL)
        (done,) = client.wait(cell, timeout_s=60)
        if done.status == "error":
            assert re.search(r"HelperLost: the helper \(?.*this process goes on", done.error), done.error
            assert len(done.error.splitlines()) == 1
            lost += 1
        assert (done.status == "ok") == (f"n{turn}" in client.run("print(nbcr.checkpoints())"))
        assert client.value("1 + 1") == 2
    assert_whole(client)
    client.run("%checkpoint --wait last")
    assert_nothing_left(client, any_stage.folder / "store")
    spoil(client)
    client.run("%restart last", 60)
    assert_whole(client)
    assert_usable(client)


def test_two_at_once_are_serialised(any_stage: Stage) -> None:
    jupyter = with_extension(any_stage)
    client = jupyter.client
    client.run("import numpy; ballast = numpy.random.rand(1 << 23)")
    argv = [sys.executable, "-m", "nbcr.cli", "checkpoint", str(jupyter.pid), "--json", "--name"]
    shells = [
        any_stage.processes.start(
            any_stage.user.command([*argv, f"shell{n}"]), env=any_stage.environ, stdout=subprocess.PIPE
        )
        for n in range(2)
    ]
    cells = [client.send(f"%checkpoint cell{n}") for n in range(2)]
    assert [c.status for c in client.wait(*cells, timeout_s=90)] == ["ok", "ok"]
    assert [shell.wait(60) for shell in shells] == [0, 0]
    client.run("import nbcr; [r.wait(60) for r in nbcr.session.writing()]", 90)
    assert sorted(names(any_stage)) == ["cell0", "cell1", "shell0", "shell1"]
    assert_nothing_left(client, any_stage.folder / "store")
    client.run("x = 2")
    client.run("%restart cell1", 60)  # those of the shells may hold the middle of a cell that checkpoints
    assert client.value("x") == 1


# --- a restart that fails


def test_ports_in_use_are_said_before_anything_starts(any_stage: Stage) -> None:
    jupyter = with_extension(any_stage)
    nbcr(any_stage, "checkpoint", jupyter.pid, "--name", "a")
    assert "in use" in nbcr_fails(any_stage, 29, "restart", "a", "--detach")
    assert living_strays(any_stage) == []
    assert jupyter.client.value("x") == 1


def test_a_helper_killed_while_a_restart_is_validated(any_stage: Stage) -> None:
    """The present goes on, its queue too; the cell raises."""
    client = with_extension(any_stage).client
    set_up(client)
    client.run("ballast = np.random.default_rng(1).random(1 << 27)", 60)
    client.run("%checkpoint --wait a", 120)
    for pages in (any_stage.folder / "store").rglob("pages-*.img"):
        pages.chmod(0o600)  # touched since it was written, so all of it is read and hashed
    asked = client.send("%restart a", stop_on_error=False)
    follower = client.send("print('follower')")
    reading: list[int] = []
    deadline = time.monotonic() + 60
    while not reading:  # and hashing 1 GiB, for a while
        assert time.monotonic() < deadline
        client.listen(lambda: False, 0.005)
        reading = [pid for pid in helpers() if has_open(pid, "pages-")]
    for pid in reading:
        os.kill(pid, signal.SIGKILL)
    done, after = client.wait(asked, follower)
    assert "HelperLost" in done.error
    assert after.text == "follower\n"
    assert_whole(client)
    client.run("%restart a", 120)
    assert_whole(client)


# --- stores


def test_a_store_that_others_can_write_to_is_refused(any_stage: Stage) -> None:
    jupyter = with_extension(any_stage)
    client, store = jupyter.client, any_stage.folder / "store"
    client.run("%checkpoint --wait a")
    for folder in (store, store / "entries"):
        folder.chmod(0o777)
        for line in (
            fails(client, "%checkpoint b"),
            fails(client, "%restart a"),
            fails(client, "%checkpoints"),
            nbcr_fails(any_stage, 22, "checkpoint", jupyter.pid, "--name", "b"),
            nbcr_fails(any_stage, 22, "restart", "a", "--detach"),
            nbcr_fails(any_stage, 22, "list"),
        ):
            assert "can be written by others" in line
        folder.chmod(0o700)
    assert names(any_stage) == ["a"]
    assert client.value("x") == 1


def test_a_store_of_somebody_else_is_refused(any_stage: Stage, tmp_path: Path) -> None:
    needs("root, to give a folder away", available=os.geteuid() == 0)
    folder = any_stage.folder / "foreign"
    folder.mkdir(mode=0o755)
    os.chown(folder, 12345, 12345)
    assert "belongs to user 12345" in nbcr_fails(any_stage, 22, "list", "--store", str(folder))
