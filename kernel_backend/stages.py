"""The stages of a dump and of a restore, in order: an error says where it happened, and tests make faults happen there.

Each stage is reached by one line at its beginning, `reach(Stage.X, pid)`. With `KERNEL_BACKEND_FAULT=STAGE:FAULT[:NTH]`
in the environment, the NTH time that STAGE is reached (the first, unless given) FAULT happens:

    ENOSPC, EIO …    the OS kernel refuses a call: OSError with that number
    MemoryError      there is no memory for ourselves
    kill             we are killed, without a chance to clean up
    target           the process that we hold or build is killed
    child            so is its first child
    eintr            from here on a signal interrupts whatever we do, a thousand times a second

tests/integration/engine/test_faults.py injects every one at every stage, and so knows of a new stage at once.
"""

from __future__ import annotations

import enum
import errno
import os
import signal
from pathlib import Path

import msgspec

VARIABLE = "KERNEL_BACKEND_FAULT"
FAULTS = ("ENOSPC", "ENOMEM", "EIO", "MemoryError", "kill", "target", "child", "eintr")
_STORM_S = 0.001


class Stage(enum.StrEnum):
    """Where a dump or a restore is; what is said of each is true as it begins."""

    DUMP_PREPARE = "dump.prepare"  # nothing was done yet
    DUMP_LOOK = "dump.look"  # the folder that is written to exists; the processes run
    DUMP_FREEZE = "dump.freeze"
    DUMP_FROZEN = "dump.frozen"  # every thread is stopped: the pause
    DUMP_PROCESSES = "dump.processes"
    DUMP_DESCRIPTORS = "dump.descriptors"
    DUMP_SHARED_MEMORY = "dump.shared_memory"
    DUMP_NOT_FORKED = "dump.not_forked"
    DUMP_TWINS = "dump.twins"
    DUMP_TWIN = "dump.twin"  # one twin was just born: as often as there are processes
    DUMP_THAW = "dump.thaw"  # all twins stand
    DUMP_RESUMED = "dump.resumed"  # the originals run again
    DUMP_PAGES = "dump.pages"  # of one process
    DUMP_TAKE_LAST = "dump.take_last"  # only where the tree does not go on by itself
    DUMP_RECORD = "dump.record"  # all contents are written
    DUMP_INVENTORY = "dump.inventory"
    DUMP_RENAME = "dump.rename"
    DUMP_RENAMED = "dump.renamed"  # the image exists
    DUMP_LEAVE = "dump.leave"  # only where the tree does not go on by itself

    RESTORE_READ = "restore.read"
    RESTORE_CHECK = "restore.check"
    RESTORE_READY = "restore.ready"  # the image is good
    RESTORE_FREEZE = "restore.freeze"  # in place
    RESTORE_JUDGE = "restore.judge"  # in place: the present is stopped
    RESTORE_PREPARE = "restore.prepare"
    RESTORE_SHARED_MEMORY = "restore.shared_memory"  # of one object
    RESTORE_DESCRIPTIONS = "restore.descriptions"
    RESTORE_QUEUES = "restore.queues"  # every description stands, by itself
    RESTORE_COMMIT = "restore.commit"  # the last stage before the point of no return
    RESTORE_EMPTY = "restore.empty"  # in place: the present is being ended
    RESTORE_EMPTIED = "restore.emptied"  # in place
    RESTORE_SPAWN = "restore.spawn"  # fresh
    RESTORE_TREE = "restore.tree"
    RESTORE_BECOME = "restore.become"  # from here to the threads: of one process
    RESTORE_FILL = "restore.fill"
    RESTORE_PLACE = "restore.place"
    RESTORE_SETTLE = "restore.settle"
    RESTORE_THREADS = "restore.threads"
    RESTORE_ZOMBIES = "restore.zombies"
    RESTORE_FINISH = "restore.finish"
    RESTORE_IDENTITY = "restore.identity"  # of one process
    RESTORE_REFILL = "restore.refill"
    RESTORE_SIGNALS = "restore.signals"
    RESTORE_REGISTERS = "restore.registers"  # of one process
    RESTORE_LET_GO = "restore.let_go"  # all of them are whole and stopped
    RESTORE_LETTING_GO = "restore.letting_go"  # one process runs: as often as there are processes


_latest: Stage | None = None


def latest() -> Stage | None:
    """The stage that was reached last."""
    return _latest


def reach(stage: Stage, pid: int = 0) -> None:
    """Begin a stage; `pid` is the process that it is about, if there is one already."""
    global _latest
    _latest = stage
    if _fault is not None:
        _fault.reached(stage, pid)


# --- injected faults --------------------------------------------------------------------------------------------------


class _Fault(msgspec.Struct):
    stage: Stage
    what: str
    turns: int  # how often the stage is still to be reached

    @classmethod
    def parse(cls, text: str) -> _Fault:
        stage, what, nth = [*text.split(":"), "1"][:3]
        if what not in FAULTS:
            raise ValueError(f"{VARIABLE} names an unknown fault: {text}")
        return cls(Stage(stage), what, int(nth))

    def reached(self, stage: Stage, pid: int) -> None:
        if stage is not self.stage:
            return
        self.turns -= 1
        if self.turns == 0:
            self._happen(pid)

    def _happen(self, pid: int) -> None:
        if self.what == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif self.what == "MemoryError":
            raise MemoryError
        elif self.what == "eintr":
            _storm()
        elif self.what in ("target", "child"):
            _end(pid if self.what == "target" else _first_child(pid))
        else:
            number = getattr(errno, self.what)
            raise OSError(number, f"{os.strerror(number)} (injected at {self.stage})")


def _storm() -> None:
    """Interrupt calls all the time; Python itself repeats its own, the rest is up to us."""
    signal.signal(signal.SIGALRM, lambda _number, _frame: None)
    signal.siginterrupt(signal.SIGALRM, True)
    signal.setitimer(signal.ITIMER_REAL, _STORM_S, _STORM_S)


def _first_child(pid: int) -> int:
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split() if pid else []
    return int(found[0]) if found else 0


def _end(pid: int) -> None:
    if pid > 0:
        os.kill(pid, signal.SIGKILL)


_fault: _Fault | None = None


def inject(text: str) -> None:
    """Let a fault happen in this process, as the environment says it; "" for none."""
    global _fault
    _fault = _Fault.parse(text) if text else None


inject(os.environ.get(VARIABLE, ""))
