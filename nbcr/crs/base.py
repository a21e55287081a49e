"""The Checkpoint/Restart Service: what the session layer knows of whatever takes and restores process images.

After Open MPI's CRS framework (2008): a component has a name, a version and a priority; a snapshot
reference says which component made a snapshot and where it is; upper layers know this interface only.
Differences, each for a reason: errors are exceptions instead of return codes; `checkpoint` has a callback
for the moment the process runs again, because writing goes on long after; `restart` can also replace a
living process (`into`). docs/crs.md tells how to write a component.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from nbcr.states import State

if TYPE_CHECKING:
    import socket

_UNDER_WAY_TIMEOUT_S = 30.0  # how long disable_checkpoint waits for a checkpoint that has begun


@dataclass(frozen=True)
class SnapshotReference:
    """Which snapshot is meant: made by which component, called what, kept where."""

    component: str
    reference: str  # unique name of the snapshot (the entry's id)
    local: Path  # its folder on this host
    remote: str | None = None  # where a copy is, as a URL
    cold_start: bool = False  # restarting in a process that knows nothing of the snapshot yet


@dataclass(frozen=True)
class Availability:
    """Whether a component can serve on this host, and why (not)."""

    available: bool
    detail: str = ""


@dataclass(frozen=True)
class Progress:
    """What is known at the moment the checkpointed process runs again."""

    pause_ms: float
    resident_bytes: int = 0  # an estimate of what will be written
    processes: int = 1
    threads: int = 1
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Taken:
    """A snapshot completely written."""

    state: State  # the state in which the process was left: CONTINUE (running), RUNNING never, TERM (killed)
    pids: tuple[int, ...]
    pause_ms: float
    size_bytes: int
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Brought:
    """A process tree that runs again. `wait` returns the root's exit status (None: it is not our child)."""

    pid: int
    pids: Mapping[int, int]
    warnings: tuple[str, ...] = ()
    facts: tuple[str, ...] = ()  # worth knowing, but nothing to worry about
    wait: Callable[[], int] | None = None


@dataclass(frozen=True)
class CheckpointOptions:
    """How a checkpoint is taken."""

    leave: str = "running"  # "running", "stopped" or "killed": what becomes of the process
    tree: bool = True  # with its descendants
    files: str = "keep"  # "keep", "rewind" or "save": what a restart does about files that are being written
    tcp: str = "reset"  # or "keep": what becomes of connections to outside, where `leave` is "killed"
    channel_fd: int | None = None  # descriptor in the process that is its channel to us
    durable: bool = True  # on the disk when it returns; False: complete, and the caller sees to that later
    on_resume: Callable[[Progress], None] | None = None  # called when the process runs again; writing may go on


@dataclass(frozen=True)
class RestartOptions:
    """How a snapshot is brought back."""

    into: int | None = None  # a living process to replace; None: a fresh process tree
    pid: str = "auto"  # "auto", "same" or "any"
    lazy: bool | None = None  # map memory from the snapshot instead of reading it; None: where that is safe
    files: str | None = None  # about files being written, instead of what the checkpoint said
    channel: socket.socket | None = None  # put at the snapshot's channel descriptor
    stdio: tuple[int, int, int] = (-1, -1, -1)  # our descriptors for streams that led outside; -1: /dev/null
    parting: bool = False  # the caller is about to end, and leaves a fresh tree to itself
    on_ready: Callable[[], None] | None = None  # called while the process to replace still runs, as late as can be
    on_commit: Callable[[], None] | None = None  # called just before the point of no return; it may stand still


@dataclass(frozen=True)
class ProcessSummary:
    """One process in a snapshot, without starting it."""

    pid: int
    ppid: int
    exe: str
    argv: tuple[str, ...]
    threads: int
    resident_bytes: int
    cwd: str


@dataclass(frozen=True)
class SnapshotSummary:
    """What is in a snapshot."""

    root_pid: int
    created: str
    host: str
    processes: tuple[ProcessSummary, ...] = ()
    warnings: tuple[str, ...] = field(default=())


class Component(ABC):  # the empty methods are defaults: not every component needs them
    """One way to checkpoint and restart processes.

    All methods raise NbcrError (or an error with ``hint`` and ``exit_code``) when they cannot do what is
    asked; then nothing is left behind and no process was harmed. Making the object and importing its module
    should cost next to nothing: that is done to list it too.
    """

    name: str
    version: str
    priority: int = 0  # the available component with the highest one is chosen
    serves: str = "image"  # what its snapshots hold; only components that serve "image" are chosen for a process
    roots: tuple[str, ...] = ()  # files of a snapshot by which `restart` and `inspect` prove all others; empty: none

    @abstractmethod
    def availability(self) -> Availability:
        """Whether this host can be served, and why not; it probes, within seconds, also before `init`."""

    def init(self) -> None:  # noqa: B027
        """Called once in a process, before the first use."""

    def finalize(self) -> None:  # noqa: B027
        """Called when a process that called `init` ends."""

    @abstractmethod
    def checkpoint(self, pid: int, snapshot: SnapshotReference, options: CheckpointOptions) -> Taken:
        """Write process `pid` to ``snapshot.local``, which does not exist yet: completely, or not at all."""

    @abstractmethod
    def restart(self, snapshot: SnapshotReference, options: RestartOptions) -> Brought:
        """Bring a snapshot back, validating all of it first; an error before the commit changes nothing."""

    @abstractmethod
    def verify(self, snapshot: SnapshotReference) -> None:
        """Raise unless every byte of the snapshot is as it was written."""

    @abstractmethod
    def inspect(self, snapshot: SnapshotReference) -> SnapshotSummary:
        """What is in the snapshot."""

    def digests(self, snapshot: SnapshotReference) -> Mapping[str, str]:
        """BLAKE3 digests (hex) of files of the snapshot, by path, that are known; the store computes the others."""
        return {}

    def layout(self, snapshot: SnapshotReference) -> Mapping[str, Sequence[tuple[int, int, int]]]:
        """Where the bytes of a file belong: runs of (address, length, offset in the file), whole pages, the whole file.

        The store cuts files along them, so that the same memory is recognised in another snapshot.
        """
        return {}

    def disable_checkpoint(self, pid: int) -> None:
        """Hold off checkpoints and restarts of `pid`, whoever asks, until `enable_checkpoint` or our end.

        Who asks meanwhile waits, until their own deadline, and is told by whom it is held off. Raises Busy when a
        checkpoint that has begun does not end.
        """
        from nbcr import runtime

        held: dict[int, ExitStack] = self.__dict__.setdefault("_held", {})
        if pid not in held:
            with ExitStack() as stack:
                told = f"process {runtime.own_pid()} has disabled checkpoints of process {pid}"
                stack.enter_context(runtime.target_lock(pid, _UNDER_WAY_TIMEOUT_S, told))
                held[pid] = stack.pop_all()

    def enable_checkpoint(self, pid: int) -> None:
        """Allow checkpoints of `pid` again; harmless where they are allowed."""
        held: dict[int, ExitStack] = self.__dict__.get("_held", {})
        if pid in held:
            held.pop(pid).close()

    def prelaunch(self, rank: int, argv: Sequence[str], environ: Mapping[str, str]) -> tuple[list[str], dict[str, str]]:
        """Command and environment for launching rank `rank` so that it can be checkpointed."""
        return list(argv), dict(environ)

    def register_thread(self) -> None:  # noqa: B027
        """Announce a further thread that will call this component."""
