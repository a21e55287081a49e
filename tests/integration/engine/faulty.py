"""A stand on which one subject is dumped and restored again and again, each time with another fault injected.

After every fault it looks at what the engine promises: the dumped process goes on, or the restart has failed cleanly
and can be done again; and nothing is left over.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from kernel_backend.host import proc
from kernel_backend.stages import FAULTS, Stage
from tests.integration.engine.harness import (
    Engine,
    Finished,
    Life,
    abandoned_segments,
    one_line,
    segment_key,
    system_wide,
)
from tests.subjects.catalogue import Subject
from tests.support import User, describe_process, family_of, wait_for_end

Begin = Callable[[Subject, User], tuple[Engine, Life]]
SETTLES_WITHIN_S = 15.0
T = TypeVar("T")

_DUMPS = [stage for stage in Stage if stage.startswith("dump.")]
_RESTORES = [stage for stage in Stage if stage.startswith("restore.")]
_LEFT_RUNNING = {Stage.DUMP_NOT_FORKED, Stage.DUMP_TWINS, Stage.DUMP_TWIN, Stage.DUMP_RESUMED}
_NOT_LEFT = {Stage.DUMP_TAKE_LAST, Stage.DUMP_LEAVE}
_IN_PLACE = {Stage.RESTORE_FREEZE, Stage.RESTORE_JUDGE, Stage.RESTORE_EMPTY, Stage.RESTORE_EMPTIED}

# What is asked of the engine, and the stages that this goes through.
COURSES: dict[str, list[Stage]] = {
    "left running": [stage for stage in _DUMPS if stage not in _NOT_LEFT],
    "killed": [stage for stage in _DUMPS if stage not in _LEFT_RUNNING],
    "fresh": [stage for stage in _RESTORES if stage not in _IN_PLACE],
    "in place": [stage for stage in _RESTORES if stage is not Stage.RESTORE_SPAWN],
}
_order = list(Stage).index
ABOUT_NO_PROCESS = {Stage.DUMP_RECORD, Stage.DUMP_INVENTORY, Stage.DUMP_RENAME, Stage.DUMP_RENAMED}
NEW_PIDS = "child processes have new pids"
FALLS_BACK = {Stage.DUMP_TWINS, Stage.DUMP_TWIN}  # where a fork that fails only lengthens the pause


@dataclass(frozen=True)
class Fault:
    """One fault at one stage of one course."""

    course: str
    stage: Stage
    what: str

    @property
    def order(self) -> str:
        return f"{self.stage}:{self.what}"

    def __str__(self) -> str:
        return f"{self.course}, {self.order}"

    @property
    def costs_the_present(self) -> bool:
        return self.course == "in place" and _order(self.stage) >= _order(Stage.RESTORE_EMPTY)


PF_EXITING = 0x4


def ancestors_of(pid: int) -> list[int]:
    """Those above a process, the nearest first; of one that has ended, none."""
    found: list[int] = []
    with contextlib.suppress(OSError):
        while pid := proc.stat(pid).ppid:
            found.append(pid)
    return found


def is_ending(pid: int) -> bool:
    """Whether it was killed and only has to notice."""
    try:
        status, stat = proc.status(pid), proc.stat(pid)
    except OSError:
        return True
    if stat.state in "ZX":
        return not wait_for_end(pid, 0)  # its other threads are on their way
    killed = (int(status["SigPnd"], 16) | int(status["ShdPnd"], 16)) >> (signal.SIGKILL - 1) & 1
    return bool(killed or stat.flags & PF_EXITING)


EVERY_FAULT = [Fault(course, stage, what) for course, stages in COURSES.items() for stage in stages for what in FAULTS]


class Stand:
    """A subject under test: it lives between the faults, and there is a spare image of it."""

    def __init__(self, begin: Begin, subject: Subject, user: User) -> None:
        self.engine, self.life = begin(subject, user)
        self.folder = self.life.folder
        self.key = segment_key(self.life.base)
        self.chooses_identifiers = user.is_ourselves and os.geteuid() == 0
        self.program = os.readlink(f"/proc/{self.life.pid}/exe")
        self.members = len(family_of(self.life.pid))
        self.spare, self.image = self.folder / "spare", self.folder / "image"
        self.engine.dump(self.life.pid, self.spare, "running")
        self._known = self._look_around() | {
            it for it in system_wide(self.folder, before=True) if it not in self._own()
        }

    def inject(self, fault: Fault) -> None:
        """Let it happen, and see what became of everything."""
        try:
            self._dump(fault) if fault.course in ("left running", "killed") else self._restore(fault)
        except BaseException as error:
            error.add_note(f"injected: {fault}")
            raise

    def _dump(self, fault: Fault) -> None:
        leave = "running" if fault.course == "left running" else "killed"
        before = self._garbage()  # of a helper killed earlier: one that fails before it begins leaves it to the next
        done = self.engine.run("dump", self.life.pid, self.image, "--leave", leave, "--json", fault=fault.order)
        self._judge(fault, done)
        if done.status == 0 or self.image.exists():
            self.engine.must("verify", self.image)
        else:
            assert fault.what == "kill" or set(self._garbage()) <= set(before)
        if fault.what in ("target", "child"):
            self._revive()
        elif leave == "killed" and (done.status == 0 or fault.stage is Stage.DUMP_THAW):
            assert wait_for_end(self.life.pid, SETTLES_WITHIN_S), "it was not killed"
            self._revive()
        else:
            self._goes_on()
        shutil.rmtree(self.image, ignore_errors=True)

    def _restore(self, fault: Fault) -> None:
        fresh = fault.course == "fresh"
        if fresh:
            self._end_life()
            self._forget_shared_objects()
        words = ["--detach"] if fresh else ["--into", str(self.life.pid)]
        done = self.engine.run("restore", self.spare, *words, "--json", fault=fault.order)
        self._judge(fault, done)
        if done.status == 0:
            self._adopt(int(done.document["pid"]))
            if fault.what not in ("target", "child"):
                self._goes_on()
            if NEW_PIDS in done.err:
                self._revive()  # it goes on, but would wait for its children under their old pids
        elif fault.stage is Stage.RESTORE_LETTING_GO and self._lives_whole():
            self._goes_on()
            self._revive_renumbered()
        elif fault.what == "target" and not (fresh or fault.costs_the_present):
            assert wait_for_end(self.life.pid, SETTLES_WITHIN_S), "it does not die"
        elif fresh or fault.costs_the_present:
            assert wait_for_end(self.life.pid, SETTLES_WITHIN_S), "what could not be restored lives on"
            self.engine.processes.reap(self.life.pid)
            left = self._until_empty(lambda: self._left_over(with_shared_objects=fresh))
            assert not left, f"left over: {left}"
            self._revive()
        else:
            self._goes_on()
        if fault.what in ("target", "child"):
            self._revive()

    def count_steps(self, course: str) -> int:
        """How many moments a restore has at which `kill_at_step` can kill it."""
        steps = self.kill_at_step(course, -1)
        assert steps > 0
        return steps

    def kill_at_step(self, course: str, turn: int) -> int:
        """Kill a restore before or after one of its ptrace(2) calls (warm.py); how many it came to."""
        fresh = course == "fresh"
        if fresh:
            self._end_life()
            self._forget_shared_objects()
        words = ["--detach"] if fresh else ["--into", str(self.life.pid)]
        done = self.engine.run("restore", self.spare, *words, "--json", fault=f"step:{turn}")
        assert done.status in (0, -signal.SIGKILL), f"step {turn}: {done}"
        assert self.engine.warm is not None
        steps = self.engine.warm.steps
        if done.status == 0:
            self._adopt(int(done.document["pid"]))
        lives = self._lives_whole()
        if lives:
            self._goes_on()
        else:
            self.engine.processes.reap(self.life.pid)
            left = self._until_empty(lambda: self._left_over(with_shared_objects=fresh))
            assert not left, f"step {turn}: left over: {left}"
        if not lives:
            self._revive()
        elif done.status != 0:
            self._revive_renumbered()
        elif NEW_PIDS in done.err:
            self._revive()
        return steps

    def _judge(self, fault: Fault, done: Finished) -> None:
        """The command ended as the fault has it, and said so on one line."""
        if fault.what == "kill":
            assert done.status == -signal.SIGKILL, f"not reached: {done}"
            return
        if fault.what == "eintr":
            assert done.status == 0, done.err
        elif fault.what not in ("target", "child") and fault.stage not in FALLS_BACK:
            assert done.status != 0, "nothing happened"
        if done.status != 0:
            assert done.out == ""
            one_line(done)

    # --- lives ------------------------------------------------------------------------------------------------------
    def _revive(self) -> None:
        """End the old life, and begin one from the spare image, which is none the worse for what was tried with it."""
        self._end_life()
        self._adopt(self.engine.restore(self.spare))

    def _revive_renumbered(self) -> None:
        """A restore that was killed has not said whether children have new pids, which would be looked for in vain."""
        if not self.chooses_identifiers:
            self._revive()

    def _adopt(self, pid: int) -> None:
        self.life.continue_as(pid)
        self.engine.processes.adopt(pid)

    def _end_life(self) -> None:
        """Kill all of it; children whose parent a fault has killed are ours by now, or those of a keeper."""
        self._kill(family_of(self.life.pid))
        assert wait_for_end(self.life.pid, SETTLES_WITHIN_S)
        self.engine.processes.reap(self.life.pid)
        self._kill([pid for pid in self._strays() if self._is_keeper(pid) or self._program_of(pid) == self.program])

    def _kill(self, pids: list[int]) -> None:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _goes_on(self) -> None:
        """It lives, nobody traces it, nobody has stopped it."""
        assert not wait_for_end(self.life.pid, 0), "the process is gone"
        for pid in family_of(self.life.pid):
            for status in Path(f"/proc/{pid}/task").glob("*/status"):
                text = status.read_text()
                assert "TracerPid:\t0" in text, f"{describe_process(pid)} is traced"
                assert "State:\tT" not in text, f"{describe_process(pid)} is stopped"

    def _lives_whole(self) -> bool:
        """Whether all of the tree runs; fails unless it is all or nothing. For when the helper was killed."""
        roots: list[int] = []

        def undecided() -> list[int]:
            found = [pid for pid in (*self._strays(), self.life.pid) if not wait_for_end(pid, 0)]
            everybody = {member for pid in found for member in family_of(pid)}  # it may be below a keeper
            members = everybody - {pid for pid in everybody if self._is_keeper(pid)}
            ours = {pid for pid in members if self._program_of(pid) in (self.program, "")}  # "": it has ended
            whole = ours == members and len(ours) == self.members and not any(map(is_ending, everybody))
            whole = whole and not any(wait_for_end(pid, 0) for pid in found)  # a keeper's end takes all with it
            roots[:] = [pid for pid in members if not members & set(ancestors_of(pid))]
            whole = whole and not any(wait_for_end(pid, 0) for pid in roots)  # dead, and the keeper has to notice
            return sorted(members) if members and not whole else []

        left = self._until_empty(undecided)
        assert not left, [describe_process(pid) for pid in left]
        for pid in roots:
            self._adopt(pid)
        return bool(roots)

    def _is_keeper(self, pid: int) -> bool:
        """Whether it is the first process of a namespace that was made for the tree."""
        try:
            return Path(f"/proc/{pid}/comm").read_text() == "nbcr-init\n"
        except OSError:
            return False

    def _program_of(self, pid: int) -> str:
        try:
            return os.readlink(f"/proc/{pid}/exe")
        except OSError:
            return ""

    def finish(self) -> None:
        """The subject itself has the last word."""
        self.engine.dump(self.life.pid, self.image, "running")  # which cleans up behind killed helpers
        assert self._garbage() == []
        assert len(family_of(self.life.pid)) == self.members, "more processes than before"
        self.life.expect_pass()

    # --- what is left over ------------------------------------------------------------------------------------------
    def _left_over(self, *, with_shared_objects: bool) -> list[str]:
        """Processes, files and shared memory that were not there at first; named objects may be the subject's own."""
        processes = [describe_process(pid) for pid in self._strays()]
        kept = set() if self.chooses_identifiers else self._own_segments()
        own = kept if with_shared_objects else self._own()
        return [*processes, *sorted(self._look_around() - self._known - own)]

    def _own(self) -> set[str]:
        """The named shared memory of the subject itself, which outlives it when it is killed."""
        return {str(path) for path in self._shared_files()} | self._own_segments()

    def _own_segments(self) -> set[str]:
        segments = abandoned_segments(self.life.base, living_too=True)
        return {text for text in segments if text.endswith(f"key {self.key}")}

    def _look_around(self) -> set[str]:
        files = {str(path) for folder in (self.folder, self.engine.scratch) for path in folder.iterdir()}
        own = {str(self.folder / name) for name in ("command.out", "command.err", "image")}
        garbage = {str(self.folder / name) for name in self._garbage()}  # goes with the next dump
        return (files - own - garbage) | system_wide(self.folder)

    def _strays(self) -> list[int]:
        """Processes of unknown origin that are not just ending."""
        for pid in self.engine.processes.strays():
            self.engine.processes.reap(pid, 0)
        return self.engine.processes.strays()

    def _until_empty(self, look: Callable[[], list[T]]) -> list[T]:
        deadline = time.monotonic() + SETTLES_WITHIN_S
        while (found := look()) and time.monotonic() < deadline:
            time.sleep(0.02)  # several processes may have to end, by each other's hands
        return found

    def _garbage(self) -> list[str]:
        return sorted(path.name for path in self.folder.glob(".*.tmp"))

    def _forget_shared_objects(self) -> None:
        """Remove the named shared memory that the subject has left: a restore then has to make it again.

        Not so System V segments of an ordinary user, who could not choose their identifiers, which the subject knows.
        """
        for path in self._shared_files():
            path.unlink()
        if not self.chooses_identifiers:
            return
        for line in Path("/proc/sysvipc/shm").read_text().splitlines()[1:]:
            if line.split()[0] == str(self.key):
                ctypes.CDLL(None).shmctl(int(line.split()[1]), 0, None)

    def _shared_files(self) -> list[Path]:
        return list(Path("/dev/shm").glob(f"nbcr-subject*{self.folder.name}*"))
