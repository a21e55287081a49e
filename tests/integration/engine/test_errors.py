"""What goes wrong is said in one line, nothing is left behind, and the dumped process goes on."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from kernel_backend.host import proc
from tests.integration.engine.harness import Engine, Life
from tests.subjects.build import build
from tests.subjects.catalogue import BY_NAME, FOLDER, Subject
from tests.support import ProcessTracker, User, needs, tracked_processes, wait_for_end

Begin = Callable[[Subject, User], tuple[Engine, Life]]
MEMORY = BY_NAME["memory/anonymous"]


@pytest.fixture
def engine(ourselves: User, folder: Path, processes: ProcessTracker) -> Engine:
    return Engine(ourselves, folder, processes)


def a_pid_of_nobody() -> int:
    """The pid of a process that has just ended and was reaped."""
    ended = subprocess.Popen(["true"])
    ended.wait()
    return ended.pid


# --- who cannot be dumped ---------------------------------------------------------------------------------


def test_no_such_process(engine: Engine, folder: Path) -> None:
    pid = a_pid_of_nobody()
    assert str(pid) in engine.refuses("dump", pid, folder / "image")
    assert not (folder / "image").exists()


@pytest.mark.parametrize("pid", ["0", "-1", "abc", "99999999999"])
def test_no_pid_at_all(pid: str, engine: Engine, folder: Path) -> None:
    done = engine.run("dump", "--leave", "running", "--", pid, folder / "image")
    assert done.status != 0
    assert "Traceback" not in done.err
    assert pid in done.err
    assert not (folder / "image").exists()


def test_somebody_elses_process(begin: Begin, ourselves: User, as_user: User, user_dir: Path) -> None:
    needs("root, to have a process of somebody else's", available=not as_user.is_ourselves)
    _, life = begin(MEMORY, ourselves)
    stranger = Engine(as_user, user_dir, life.processes)
    line = stranger.refuses("dump", life.pid, user_dir / "image")
    assert str(life.pid) in line
    assert not (user_dir / "image").exists()
    life.expect_pass()


def test_a_thread_that_is_no_leader(begin: Begin, ourselves: User, folder: Path) -> None:
    engine, life = begin(BY_NAME["threads/names"], ourselves)
    tid = max(int(task.name) for task in Path(f"/proc/{life.pid}/task").iterdir())
    assert str(tid) in engine.refuses("dump", tid, folder / "image")
    life.expect_pass()


def test_the_os_kernels_own_thread(engine: Engine, folder: Path) -> None:
    needs("root, for everybody else's processes", available=os.geteuid() == 0)
    needs("the host's own pid 2", available=Path("/proc/2/comm").read_text() == "kthreadd\n")
    engine.refuses("dump", 2, folder / "image")


THIRTY_TWO_BITS = """
void _start(void) { for (;;) __asm__ volatile("int $0x80" : : "a"(29)); } /* pause() */
"""


def test_a_32_bit_process(engine: Engine, folder: Path, processes: ProcessTracker) -> None:
    program = folder / "thirty-two"
    options = ["-m32", "-nostdlib", "-static", "-ffreestanding", "-fno-pie", "-no-pie", "-x", "c", "-"]
    made = subprocess.run(["cc", *options, "-o", program], input=THIRTY_TWO_BITS, text=True, capture_output=True)
    needs("a compiler for 32-bit programs", available=made.returncode == 0)
    try:
        process = processes.start([program])
    except OSError as error:
        needs("an OS kernel that runs 32-bit programs", why=str(error))
    line = engine.refuses("dump", process.pid, folder / "image")
    assert "64-bit" in line
    assert process.poll() is None
    assert not (folder / "image").exists()


def test_a_zombie(engine: Engine, folder: Path, processes: ProcessTracker) -> None:
    process = processes.start(["true"])
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert f"process {process.pid} has ended" in engine.refuses("dump", process.pid, folder / "image")


def test_a_process_that_is_traced(begin: Begin, ourselves: User, folder: Path, processes: ProcessTracker) -> None:
    engine, life = begin(MEMORY, ourselves)
    seize = f"import ctypes; l = ctypes.CDLL(None); print(l.ptrace(0x4206, {life.pid}, 0, 0), flush=True); input()"
    tracer = processes.start([sys.executable, "-c", seize], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert tracer.stdout
    assert tracer.stdout.readline() == "0\n"
    line = engine.refuses("dump", life.pid, folder / "image")
    assert "trace" in line
    assert str(tracer.pid) in line
    tracer.communicate("\n")
    life.expect_pass()


# --- where the image cannot go ----------------------------------------------------------------------------


def test_image_folder_in_use(begin: Begin, ourselves: User, folder: Path) -> None:
    engine, life = begin(MEMORY, ourselves)
    (folder / "image").mkdir()
    (folder / "image" / "mine").write_text("kept")
    assert "image" in engine.refuses("dump", life.pid, folder / "image")
    assert [path.name for path in (folder / "image").iterdir()] == ["mine"]
    life.expect_pass()


def test_image_folder_is_empty(begin: Begin, ourselves: User, folder: Path) -> None:
    engine, life = begin(MEMORY, ourselves)
    (folder / "image").mkdir()
    engine.dump(life.pid, folder / "image", "running")
    life.expect_pass()


@pytest.fixture
def small_disk(folder: Path) -> Iterator[Path]:
    """A file system with room for 2 MiB; the subject's memory takes 6."""
    needs("root, to mount a small file system", available=os.geteuid() == 0)
    place = folder / "disk"
    place.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "nbcr-small", place], capture_output=True)
    needs("CAP_SYS_ADMIN, to mount", available=done.returncode == 0, why=done.stderr.decode().strip())
    yield place
    subprocess.run(["umount", place], check=True)


def test_disk_full(begin: Begin, ourselves: User, small_disk: Path) -> None:
    engine, life = begin(MEMORY, ourselves)
    before = life.observe()
    for _ in range(3):  # the space is given back each time
        line = engine.refuses("dump", life.pid, small_disk / "image", "--leave", "killed")
        assert "space" in line.lower() or "room" in line.lower()
        assert list(small_disk.iterdir()) == []
    life.expect_like(before)
    life.expect_pass()


def test_file_size_limit(begin: Begin, ourselves: User, folder: Path) -> None:
    engine, life = begin(MEMORY, ourselves)
    words = ("dump", life.pid, folder / "image", "--leave", "killed")
    script = 'ulimit -f 2000; exec "$@"'
    argv = ["bash", "-c", script, "limited", *engine.argv(*words)]
    done = subprocess.run(argv, capture_output=True, text=True, env=engine.environ(), timeout=60)
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    assert not (folder / "image").exists()
    life.expect_pass()


# --- images that are not what they were -------------------------------------------------------------------


@pytest.fixture(scope="module")
def good_image(tmp_path_factory: pytest.TempPathFactory, ourselves: User) -> Path:
    """An image to spoil copies of."""
    folder = tmp_path_factory.mktemp("good")
    with tracked_processes() as processes:
        engine, life = Engine(ourselves, folder, processes), Life(MEMORY, ourselves, folder, processes).start()
        engine.dump(life.pid, folder / "image")
        life.close()
    return folder / "image"


def files_of(image: Path) -> list[Path]:
    return sorted(path for path in image.rglob("*") if path.is_file())


def expect_rejected(engine: Engine, image: Path, processes: ProcessTracker) -> None:
    """Found by verify and before a restore touches anything, fresh or in place."""
    engine.refuses("verify", image)
    engine.refuses("restore", image, "--detach")
    bystander = processes.start(["sleep", "600"])
    engine.refuses("restore", image, "--into", bystander.pid, "--detach")
    assert not wait_for_end(bystander.pid, 0), "the process that was to be overwritten is gone"
    assert Path(f"/proc/{bystander.pid}/comm").read_text() == "sleep\n"
    assert processes.strays() == []


def test_truncated_image(engine: Engine, good_image: Path, folder: Path, processes: ProcessTracker) -> None:
    for number, path in enumerate(files_of(good_image)):
        image = folder / f"copy{number}"
        shutil.copytree(good_image, image)
        os.truncate(image / path.relative_to(good_image), path.stat().st_size - 1)
        expect_rejected(engine, image, processes)


def test_image_with_a_file_missing(engine: Engine, good_image: Path, folder: Path, processes: ProcessTracker) -> None:
    for number, path in enumerate(files_of(good_image)):
        image = folder / f"copy{number}"
        shutil.copytree(good_image, image)
        (image / path.relative_to(good_image)).unlink()
        expect_rejected(engine, image, processes)


def flip(path: Path, at: int, bit: int) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 1 << bit]))


def flip_and_verify(engine: Engine, good_image: Path, image: Path, rng: random.Random, times: int) -> None:
    shutil.copytree(good_image, image)
    for _ in range(times):
        path = rng.choice(files_of(image))
        at, bit = rng.randrange(path.stat().st_size), rng.randrange(8)
        flip(path, at, bit)
        try:
            engine.refuses("verify", image)
        except AssertionError as error:
            raise AssertionError(f"bit {bit} of byte {at} of {path.name}: {error}") from error
        flip(path, at, bit)
    engine.must("verify", image)


def test_bit_flipped_image(
    engine: Engine, good_image: Path, folder: Path, processes: ProcessTracker, rng: random.Random
) -> None:
    flip_and_verify(engine, good_image, folder / "copy", rng, 12)
    path = max(files_of(folder / "copy"), key=lambda path: path.stat().st_size)
    flip(path, path.stat().st_size // 2, 3)
    expect_rejected(engine, folder / "copy", processes)


@pytest.mark.long
@pytest.mark.parametrize("part", range(10))
def test_many_bits_flipped(part: int, engine: Engine, good_image: Path, folder: Path, rng: random.Random) -> None:
    flip_and_verify(engine, good_image, folder / "copy", rng, 100)


@pytest.mark.parametrize("what", ["missing", "empty folder", "file"])
def test_no_image_there(what: str, engine: Engine, folder: Path) -> None:
    image = folder / "image"
    if what == "empty folder":
        image.mkdir()
    elif what == "file":
        image.write_text("no image")
    for words in (("verify", image), ("show", image), ("restore", image, "--detach")):
        assert "image" in engine.refuses(*words)


def test_replaced_executable(
    ourselves: User, folder: Path, processes: ProcessTracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Recompiled since the dump: refused by name instead of run into a crash."""
    program = folder / "program"
    shutil.copy(build(MEMORY.source), program)
    monkeypatch.setattr("tests.integration.engine.harness.command", lambda _, base: [str(program), str(base)])
    engine, life = Engine(ourselves, folder, processes), Life(MEMORY, ourselves, folder, processes).start()
    engine.dump(life.pid, folder / "image")
    life.expect_killed()
    program.unlink()
    changed = MEMORY.source.read_text().replace("12u << 20", "14u << 20").replace('"../', f'"{FOLDER}/c/')
    subprocess.run(["cc", "-D_GNU_SOURCE", "-O1", "-x", "c", "-", "-o", program], input=changed, text=True, check=True)
    assert str(program) in engine.refuses("restore", folder / "image", "--detach")
    bystander = processes.start(["sleep", "600"])
    assert str(program) in engine.refuses("restore", folder / "image", "--into", bystander.pid)
    assert not wait_for_end(bystander.pid, 0)
    program.unlink()
    assert str(program) in engine.refuses("restore", folder / "image", "--detach")
    life.close()


@pytest.mark.parametrize(
    ("how", "told"),
    [("data", "RLIMIT_DATA"), ("stack", "RLIMIT_STACK"), ("filter", "seccomp"), ("namespace", "user namespace")],
)
def test_a_present_that_has_confined_itself(how: str, told: str, begin: Begin, as_user: User, folder: Path) -> None:
    """What it could not get out of would end it half-way, or stay with the restored life."""
    engine, life = begin(replace(BY_NAME["identity/confined:data"], name=f"identity/confined:{how}"), as_user)
    engine.must("dump", life.pid, folder / "image")
    life.spoil()
    assert told in engine.refuses("restore", folder / "image", "--into", life.pid)
    life.expect_pass()


def test_a_restored_process_makes_a_namespace(begin: Begin, as_user: User, folder: Path) -> None:
    """It lives in some of our making by then, and in them what it has made itself is not ours all the same."""
    engine, life = begin(replace(BY_NAME["identity/confined:data"], name="identity/confined:namespace"), as_user)
    engine.dump(life.pid, folder / "image")
    life.expect_killed()
    life.continue_as(engine.restore(folder / "image"))
    life.spoil()
    engine.dump(life.pid, folder / "again", "killed")
    assert wait_for_end(life.pid, 10)
    life.processes.reap(life.pid)
    life.continue_as(engine.restore(folder / "again"))
    made_by_us = os.stat(f"/proc/{proc.stat(life.pid).ppid}/ns/user")
    assert os.stat(f"/proc/{life.pid}/ns/user").st_ino != made_by_us.st_ino
    life.expect_pass()


def test_a_filter_is_roots_to_suspend(begin: Begin, as_user: User, folder: Path) -> None:
    engine, life = begin(BY_NAME["identity/seccomp:woken"], as_user)  # which would die of being stopped
    told = engine.refuses("dump", life.pid, folder / "image")
    assert "seccomp filter of its own" in told
    assert "root can checkpoint it" in told
    life.expect_pass()


def test_a_present_under_another_filter(begin: Begin, ourselves: User, folder: Path) -> None:
    needs("root, to suspend filters", available=os.geteuid() == 0)
    engine, life = begin(replace(BY_NAME["identity/confined:data"], name="identity/confined:filter"), ourselves)
    engine.must("dump", life.pid, folder / "image")
    life.spoil()
    assert "seccomp filter" in engine.refuses("restore", folder / "image", "--into", life.pid)
    life.expect_pass()


def test_restore_into_nobody(engine: Engine, good_image: Path) -> None:
    pid = a_pid_of_nobody()
    assert str(pid) in engine.refuses("restore", good_image, "--into", pid)


# --- a helper that dies -----------------------------------------------------------------------------------


def kill_while_dumping(engine: Engine, life: Life, rng: random.Random, times: int) -> None:
    """SIGKILL the dumping process at random moments; the subject must go on each time."""
    image = life.folder / "image"
    started = time.monotonic()
    engine.must("dump", life.pid, image, "--leave", "running")
    usual_s = time.monotonic() - started
    shutil.rmtree(image)
    for _ in range(times):
        helper = life.processes.start(
            engine.argv("dump", life.pid, image, "--leave", "running"),
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=engine.environ(),
        )  # fmt: skip
        delay_s = rng.random() * usual_s
        if not wait_for_end(helper.pid, delay_s):
            os.killpg(helper.pid, signal.SIGKILL)
        helper.wait()
        assert not wait_for_end(life.pid, 0), f"killed after {delay_s:.4f} s: {life.verdict()}"
        assert "TracerPid:\t0" in Path(f"/proc/{life.pid}/status").read_text()
        for path in life.folder.iterdir():
            if path.name.startswith(("image", ".image")):
                shutil.rmtree(path)
        for path in engine.scratch.iterdir():
            path.unlink()


KILLED = ["threads/compute", "memory/anonymous", "threads/names", "files/offset"]


@pytest.mark.parametrize("name", KILLED)
def test_helper_killed_while_dumping(name: str, begin: Begin, ourselves: User, rng: random.Random) -> None:
    engine, life = begin(BY_NAME[name], ourselves)
    kill_while_dumping(engine, life, rng, 6)
    life.expect_pass()


@pytest.mark.long
@pytest.mark.parametrize("part", range(10))
@pytest.mark.parametrize("name", KILLED)
def test_helper_killed_often_while_dumping(
    name: str, part: int, begin: Begin, ourselves: User, rng: random.Random
) -> None:
    engine, life = begin(BY_NAME[name], ourselves)
    kill_while_dumping(engine, life, rng, 40)
    life.expect_pass()


def test_target_killed_while_dumping(begin: Begin, ourselves: User, folder: Path) -> None:
    """The dumped process dies meanwhile: an error, no image, no hang. (Its twin may complete the image: fine too.)"""
    engine, life = begin(MEMORY, ourselves)
    helper = life.processes.start(
        engine.argv("dump", life.pid, folder / "image", "--leave", "running"),
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=engine.environ(),
    )  # fmt: skip
    status = Path(f"/proc/{life.pid}/status")
    while "TracerPid:\t0" in status.read_text() and helper.poll() is None:
        pass
    os.kill(life.pid, signal.SIGKILL)
    _, err = helper.communicate(timeout=60)
    assert b"Traceback" not in err
    if helper.returncode:
        assert not (folder / "image").exists()
    else:
        engine.must("verify", folder / "image")


# --- the commands themselves ------------------------------------------------------------------------------


def test_restore_in_the_foreground_exits_as_the_root_does(begin: Begin, ourselves: User, folder: Path) -> None:
    engine, life = begin(MEMORY, ourselves)
    engine.dump(life.pid, folder / "image")
    life.expect_killed()
    life.go()
    assert engine.must("restore", folder / "image").status == 0
    assert life.path("result").read_text() == "PASS\n"


def test_left_stopped(begin: Begin, ourselves: User, folder: Path) -> None:
    engine, life = begin(MEMORY, ourselves)
    engine.dump(life.pid, folder / "image", "stopped")
    state = Path(f"/proc/{life.pid}/stat").read_text().rpartition(")")[2].split()[0]
    assert state == "T"
    os.kill(life.pid, signal.SIGCONT)
    life.expect_pass()


def test_show_and_probe_speak_json(engine: Engine, good_image: Path) -> None:
    assert isinstance(engine.must("show", good_image, "--json").document, dict)
    assert engine.must("probe", "--json").document
    assert engine.must("show", good_image).out.strip()
    assert engine.must("probe").out.strip()
