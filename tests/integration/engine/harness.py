"""Leads one subject through its life: start, ready, dump, restore, go, verdict; and sees that nothing is left over."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kernel_backend.stages import VARIABLE
from tests.integration.engine.observe import Observed, differences_that_stay, observe_settled
from tests.integration.engine.warm import Warm
from tests.subjects.build import command
from tests.subjects.catalogue import Subject
from tests.support import ProcessTracker, User, describe_process, fail, family_of, needs, wait_for_end

COMMAND_LIMIT_S = 60.0
SUBJECT_LIMIT_S = 30.0
SUBJECTS_KEYS = 0x6E


@dataclass(frozen=True)
class Finished:
    """A command of the engine that ended."""

    status: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        return json.loads(self.out)


@dataclass
class Engine:
    """`python -m kernel_backend`, run by `user` in `folder`; its temporary files go to a folder that we watch.

    With `warm`, commands are forked from a process that has the engine loaded: ten times as many in a time.
    """

    user: User
    folder: Path
    processes: ProcessTracker
    warm: Warm | None = None

    def __post_init__(self) -> None:
        self.scratch = self.folder / "scratch"
        self.scratch.mkdir(mode=0o700)
        self.user.give(self.scratch)

    def argv(self, *words: str | Path | int) -> list[str]:
        """The command line of one command."""
        return self.user.command(
            [sys.executable, "-m", "kernel_backend", *(str(word) for word in words)], cwd=self.folder
        )

    def environ(self) -> dict[str, str]:
        return self.user.environ({"TMPDIR": str(self.scratch)})

    def run(self, *words: str | Path | int, fault: str = "") -> Finished:
        """Run one command to its end, whichever that is; with a fault injected (kernel_backend/stages.py)."""
        # files, not pipes: a restored tree may hold our end of a pipe open for as long as it lives
        out, err = self.folder / "command.out", self.folder / "command.err"
        for path in (out, err):
            path.write_text("")
            self.user.give(path)
        try:
            status = self._run([str(word) for word in words], fault, out, err)
        except (subprocess.TimeoutExpired, TimeoutError):
            fail(f"{words[0]} does not end within {COMMAND_LIMIT_S:.0f} s")
        return Finished(status, out.read_text(), err.read_text())

    def _run(self, words: list[str], fault: str, out: Path, err: Path) -> int:
        if self.warm is not None:
            return self.warm.run(words, fault, out, err, self.folder, self.environ(), COMMAND_LIMIT_S)
        environ = self.environ() | {VARIABLE: fault}
        with out.open("w") as to, err.open("w") as errors:
            return subprocess.run(
                self.argv(*words), stdin=subprocess.DEVNULL, stdout=to, stderr=errors, env=environ,
                timeout=COMMAND_LIMIT_S, check=False,
            ).returncode  # fmt: skip

    def must(self, *words: str | Path | int) -> Finished:
        """Run one command that has to succeed."""
        done = self.run(*words)
        if done.status != 0:
            fail(f"{words[0]} failed with status {done.status}: {done.err.strip()[-1500:]}")
        return done

    def dump(self, pid: int, image: Path, leave: str = "killed", *options: str) -> dict[str, Any]:
        """Dump and verify."""
        report: dict[str, Any] = self.must("dump", pid, image, "--leave", leave, *options, "--json").document
        self.must("verify", image)
        return report

    def restore(self, image: Path, *options: str | int) -> int:
        """Restore, detached; the new root's pid."""
        root = int(self.must("restore", image, *options, "--detach", "--json").document["pid"])
        self.processes.adopt(root)
        return root

    def refuses(self, *words: str | Path | int) -> str:
        """Run a command that has to fail in the agreed way: no output, one line on stderr. Returns the line."""
        done = self.run(*words)
        assert done.status != 0, f"{words[0]} succeeded: {done.out}"
        return one_line(done)


def one_line(done: Finished) -> str:
    """The line with which a command says why it failed."""
    lines = done.err.strip().splitlines()
    assert len(lines) == 1, f"not one line on stderr but {len(lines)}:\n{done.err}"
    assert "Traceback" not in done.err
    assert ":" in lines[0], f"no reason or hint: {lines[0]}"
    return lines[0]


def base_name(folder: Path) -> Path:
    """The first argument of a subject: what the names of its files begin with."""
    return folder / "s"


@dataclass
class Life:
    """One subject, from its start to its verdict."""

    subject: Subject
    user: User
    folder: Path
    processes: ProcessTracker
    arguments: list[str] = field(default_factory=list)
    pid: int = 0
    popen: subprocess.Popen[bytes] | None = None
    differences: list[str] = field(default_factory=list)
    _fifos: dict[str, int] = field(default_factory=dict)

    @property
    def base(self) -> Path:
        return base_name(self.folder)

    def path(self, suffix: str) -> Path:
        return self.folder / f"s.{suffix}"

    def start(self) -> Life:
        """Start it and wait until it is ready."""
        for name in ("ready", "spoiled"):
            os.mkfifo(self.path(name), 0o600)
            self.user.give(self.path(name))
            self._fifos[name] = os.open(self.path(name), os.O_RDONLY | os.O_NONBLOCK)
        argv = self.user.command([*command(self.subject, self.base), *self.arguments], cwd=self.folder)
        with self.path("out").open("ab") as out:
            self.user.give(self.path("out"))
            self.popen = self.processes.start(
                argv, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=self.user.environ(), umask=0o022
            )
        self.pid = self.popen.pid
        self._hear("ready")
        return self

    def _hear(self, name: str) -> None:
        """Wait until the subject opens its FIFO, or ends."""
        pidfd = os.pidfd_open(self.pid)
        try:
            heard, _, _ = select.select([self._fifos[name], pidfd], [], [], SUBJECT_LIMIT_S)
        finally:
            os.close(pidfd)
        if self._fifos[name] not in heard:
            self.judge(self.verdict() if heard else f"not {name} within {SUBJECT_LIMIT_S:.0f} s")
            fail(f"{self.subject.name} passed before it was {name}")

    def spoil(self) -> None:
        """Have it break its own state."""
        self.path("spoil").touch()
        self._hear("spoiled")

    def go(self) -> None:
        self.path("go").touch()

    def again(self) -> None:
        """Take the word and the verdict back, for the next life of the same subject."""
        self.path("go").unlink(missing_ok=True)
        self.path("result").unlink(missing_ok=True)

    def continue_as(self, pid: int) -> None:
        """From now on `pid` is the subject."""
        self.pid = pid
        self.popen = None

    def verdict(self) -> str:
        """What the subject says about itself once it has ended."""
        if not wait_for_end(self.pid, SUBJECT_LIMIT_S):
            where = "; ".join(_where(pid) for pid in family_of(self.pid))
            return f"does not end within {SUBJECT_LIMIT_S:.0f} s after go: {where}"
        status = self.processes.reap(self.pid)
        try:
            return self.path("result").read_text().strip()
        except FileNotFoundError:
            out = self.path("out").read_text(errors="replace").strip()
            return f"ended with status {status} and without a verdict. {out[-500:]}"

    def judge(self, verdict: str) -> None:
        """PASS, or the test ends here."""
        if verdict.startswith("SKIP: "):
            needs(verdict.removeprefix("SKIP: "))
        if verdict != "PASS" or self.differences:
            shown = "".join(f"\n  /proc: {line}" for line in self.differences[:20])
            fail(f"{self.subject.name}: {verdict}{shown}")

    def expect_pass(self) -> None:
        self.go()
        self.judge(self.verdict())

    def expect_fail(self) -> None:
        """It ends and says that something is not as it looks for."""
        self.go()
        found = self.verdict()
        assert found.startswith("FAIL"), f"{self.subject.name}: {found}"

    def expect_killed(self) -> None:
        """The original was killed by the dump, not by anything else."""
        assert self.popen is not None
        status = self.popen.wait(SUBJECT_LIMIT_S)
        assert status == -9, f"the original ended with {status} instead of SIGKILL"

    def observe(self) -> Observed | None:
        return observe_settled(self.pid) if self.subject.steady else None

    def expect_like(self, before: Observed | None) -> None:
        """/proc shows what it showed before; told together with the verdict, which often says why."""
        if before is not None:
            self.differences += differences_that_stay(before, self.pid)

    def close(self) -> None:
        for fifo in self._fifos.values():
            os.close(fifo)


def _where(pid: int) -> str:
    calls = []
    for thread in sorted(Path(f"/proc/{pid}/task").glob("*"), key=lambda path: int(path.name)):
        try:
            calls.append(f"{thread.name}: {(thread / 'syscall').read_text().strip()}")
        except OSError as error:
            calls.append(f"{thread.name}: {error}")
    return f"{describe_process(pid)} in {', '.join(calls)}"


# --- nothing is left over ---------------------------------------------------------------------------------


def segment_key(base: Path) -> int:
    """The key that the subject ipc/sysv_shm makes of its base name."""
    made = 5381
    for byte in os.fsencode(base):
        made = (made * 33 ^ byte) & 0xFFFFFFFF
    return SUBJECTS_KEYS << 24 | made & 0xFFFFFF


def abandoned_segments(base: Path, *, living_too: bool = False) -> set[str]:
    """System V segments whose creator has ended and which nobody has attached; none of other subjects than `base`."""
    rows = [line.split() for line in Path("/proc/sysvipc/shm").read_text().splitlines()]
    key, identity, creator, attached = (rows[0].index(name) for name in ("key", "shmid", "cpid", "nattch"))
    return {
        f"System V shared memory: id {row[identity]}, key {row[key]}"
        for row in rows[1:]
        if (int(row[key]) >> 24 != SUBJECTS_KEYS or int(row[key]) == segment_key(base))
        and (living_too or (row[attached] == "0" and not Path(f"/proc/{row[creator]}").exists()))
    }


def system_wide(folder: Path, *, before: bool = False) -> set[str]:
    """What a restore could leave behind outside its folder. Tests may run beside these: theirs is not counted."""
    # A pid may be given anew, and an old segment seem to have an owner.
    found = abandoned_segments(base_name(folder), living_too=before)
    found |= {f"mount: {line}" for line in Path("/proc/self/mounts").read_text().splitlines() if str(folder) in line}
    for name in os.listdir("/dev/shm"):
        if "nbcr" in name and ("nbcr-subject" not in name or folder.name in name):  # subjects name theirs after it
            found.add(f"/dev/shm/{name}")
    return found


@contextmanager
def nothing_left(engine: Engine) -> Iterator[None]:
    """Neither process nor file nor shared memory nor mount is more afterwards than before."""
    before = system_wide(engine.folder, before=True)
    yield
    deadline = time.monotonic() + 2
    while (strays := engine.processes.strays()) and time.monotonic() < deadline:
        for pid in strays:  # a helper that is just ending is none
            engine.processes.reap(pid, 0.1)
    assert not strays, f"processes left over: {[describe_process(pid) for pid in strays]}"
    left = [str(path) for path in engine.scratch.iterdir()]
    assert not left, f"temporary files left over: {left}"
    while (ours := system_wide(engine.folder) - before) and time.monotonic() < deadline:
        time.sleep(0.02)  # a guardian has its work to do; it may be that of a test beside us
    assert not ours, f"left over: {sorted(ours)}"
