"""Component ``criu``: drives an installed CRIU (https://criu.org), where it works. Never required.

What differs from our own engine: it needs root, or CAP_CHECKPOINT_RESTORE; the processes stand still until their memory
is written; they come back fresh and with their old pids only; and CRIU decides what can be taken at all.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import socket
import stat
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from nbcr import __version__, runtime
from nbcr.crs.base import (
    Availability,
    Brought,
    CheckpointOptions,
    Component,
    ProcessSummary,
    Progress,
    RestartOptions,
    SnapshotReference,
    SnapshotSummary,
    Taken,
)
from nbcr.errors import NameTaken, NotPossible, RestartFailed
from nbcr.states import State

if TYPE_CHECKING:
    from nbcr.crs.criu_program import Program
    from nbcr.crs.criu_record import OutsideRecord, Record
    from nbcr.crs.criu_tree import Tree

# Both ways: what a user's process needs. Its cgroups are the present's affair; deleted files travel in the image.
_ALWAYS = ("--shell-job", "--file-locks", "--manage-cgroups=ignore")
_DUMP = ("--ghost-limit=1G",)
_ENDS_WITHIN_S = 10.0


class CriuComponent(Component):
    """Process images by CRIU 4 or newer."""

    name = "criu"
    roots = ("nbcr.json",)
    version = __version__
    priority = 20

    def availability(self) -> Availability:
        """Look for the program, ask its version, and let it check this host."""
        try:
            program = self._program()
        except NotPossible as error:
            return Availability(False, error.line())
        return Availability(True, f"process images by CRIU {program.version} ({program.path})")

    def _program(self) -> Program:
        from nbcr.crs import criu_program

        program = criu_program.find()
        program.check()
        return program

    def checkpoint(self, pid: int, snapshot: SnapshotReference, options: CheckpointOptions) -> Taken:
        """Let CRIU dump the tree at `pid`; it runs again when its memory has been written."""
        from nbcr.crs import criu_record, criu_tree

        program = self._program()
        if options.files != "keep":
            raise NotPossible(f"component criu cannot {options.files} files that are being written")
        if options.tcp != "reset":
            raise NotPossible("component criu does not keep connections to outside")
        tree = criu_tree.look(pid)
        if not options.tree and len(tree.processes) > 1:
            raise NotPossible(f"component criu takes process {pid} with its descendants or not at all")
        outside = criu_tree.leading_outside(tree, options.channel_fd)
        with _staged(snapshot.local) as (folder, work), _standing_meanwhile(tree, options.leave):
            _dump(program, tree, outside, folder, work, options.leave)
            pause_ms, tids = criu_record.pause_ms(work), criu_record.tids(folder)
            processes = tree.named(tids)
            resident = sum(process.resident_bytes for process in processes)
            progress = Progress(pause_ms, resident, len(tids), sum(map(len, tids.values())))
            if options.on_resume is not None and options.leave == "running":
                options.on_resume(progress)
            record = criu_record.Record(
                program.version, _now(), socket.gethostname(), pid, processes, outside, criu_record.digests(folder)
            )
            criu_record.write(folder, record)
            size_bytes = sum(path.stat().st_size for path in folder.iterdir())
        if options.leave == "killed":
            _end(tids)
        if options.on_resume is not None and options.leave != "running":
            options.on_resume(progress)
        state = State.TERM if options.leave == "killed" else State.CONTINUE
        return Taken(state, tuple(tids), pause_ms, size_bytes)

    def restart(self, snapshot: SnapshotReference, options: RestartOptions) -> Brought:
        """Let CRIU bring the tree back, as a fresh one with its old pids."""
        from nbcr.crs import criu_record

        _refuse(snapshot, options)
        program = self._program()
        record = criu_record.read_verified(snapshot.local)
        if options.channel is not None and record.channel is None:
            raise NotPossible(f"snapshot {snapshot.reference} was taken without a channel: it cannot be given one")
        if options.on_ready is not None:
            options.on_ready()
        _check_free(record)
        with ExitStack() as stack:
            work = Path(stack.enter_context(TemporaryDirectory(prefix="nbcr-criu-")))
            given, warnings = _given(record, options, stack)
            if options.on_commit is not None:
                options.on_commit()
            pid = _restore(program, snapshot, record, given, work)
        pids = {process.pid: process.pid for process in record.processes}
        return Brought(pid, pids, warnings=tuple(warnings), wait=(lambda: _reap(pid)) if _is_our_child(pid) else None)

    def verify(self, snapshot: SnapshotReference) -> None:
        """Compare every byte with the digests that were written next to CRIU's images."""
        from nbcr.crs import criu_record

        criu_record.read_verified(snapshot.local)

    def inspect(self, snapshot: SnapshotReference) -> SnapshotSummary:
        """What was seen of the processes when they were taken."""
        from nbcr.crs import criu_record

        record = criu_record.read(snapshot.local)
        processes = tuple(
            ProcessSummary(p.pid, p.ppid, p.exe, tuple(p.argv), len(p.tids), p.resident_bytes, p.cwd)
            for p in record.processes
        )
        return SnapshotSummary(record.root_pid, record.created, record.host, processes)


# --- checkpoint -------------------------------------------------------------------------------------------------------


def _dump(program: Program, tree: Tree, outside: list[OutsideRecord], folder: Path, work: Path, leave: str) -> None:
    from nbcr.crs.criu_program import CriuFailed

    # Never CRIU's own killing: what is to end stands still until its snapshot is whole.
    left = "--leave-running" if leave == "running" else "--leave-stopped"
    arguments = ["--tree", str(tree.root), "--images-dir", str(folder), left, *_ALWAYS, *_DUMP]
    for other in outside:
        if other.key.startswith("tty"):
            arguments += ["--external", other.key]
        elif other.key.startswith("socket"):
            arguments += ["--external", other.key.replace("socket:", "unix")]
    try:
        program.run("dump", arguments, work)
    except CriuFailed as error:
        raise NotPossible(
            f"CRIU cannot checkpoint process {tree.root}: {error}", hint="component ptrace may: unset NBCR_CRS"
        ) from None


@contextmanager
def _staged(final: Path) -> Iterator[tuple[Path, Path]]:
    """A folder for the image, which gets its name when all is done, and one for logs, which goes."""
    if final.exists():
        raise NameTaken(f"{final} exists already", hint="choose another folder, or remove this one first")
    folder = final.parent / f".{final.name}.{os.urandom(6).hex()}.tmp"
    folder.mkdir(mode=0o700)
    try:
        with TemporaryDirectory(prefix="nbcr-criu-") as work:
            yield folder, Path(work)
        folder.rename(final)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


@contextmanager
def _standing_meanwhile(tree: Tree, leave: str) -> Iterator[None]:
    """Processes that CRIU leaves stopped go on when their snapshot comes to nothing."""
    try:
        yield
    except BaseException:
        if leave != "running":
            tree.go_on()
        raise


def _end(pids: Iterable[int]) -> None:
    """Kill processes and wait until they have ended; reaping them is their parents' business."""
    with ExitStack() as stack:
        ending = []
        for pid in pids:
            with suppress(ProcessLookupError):
                pidfd = os.pidfd_open(pid)
                stack.callback(os.close, pidfd)
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                ending.append(pidfd)
        deadline = time.monotonic() + _ENDS_WITHIN_S
        for pidfd in ending:
            runtime.readable(pidfd, deadline - time.monotonic())


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


# --- restart ----------------------------------------------------------------------------------------------------------


def _refuse(snapshot: SnapshotReference, options: RestartOptions) -> None:
    """What CRIU has no way to do is refused by name."""
    asked = {
        "replace a living process": options.into is not None,
        "map memory from the snapshot (lazy)": options.lazy,
        "give processes new pids": options.pid == "any",
        "rewind or put back files": options.files not in (None, "keep"),
    }
    for what, wanted in asked.items():
        if wanted:
            raise NotPossible(
                f"snapshot {snapshot.reference} was taken by component criu, which cannot {what}",
                hint="`nbcr restart NAME` brings it back as a fresh process tree, when its old one has ended",
            )


def _check_free(record: Record) -> None:
    """Refuse while somebody has one of the old numbers."""
    from kernel_backend.old_pids import await_numbers

    taken = await_numbers([tid for process in record.processes for tid in process.tids], set(), os.getpid())
    if taken:
        raise NotPossible(
            f"pid {taken[0]}, which the snapshot needs, is in use: CRIU cannot give processes new pids",
            hint="end the process that has it, or whose process group or session it names; if it has just ended, wait",
        )


def _given(record: Record, options: RestartOptions, stack: ExitStack) -> tuple[list[tuple[int, str]], list[str]]:
    """Descriptors of ours for what led outside, by CRIU's names, and what the user should know."""
    given, warnings = [], []
    for other in record.outside:
        ours = options.stdio[other.stream] if other.stream >= 0 else -1
        if other.stream < 0 and options.channel is not None:
            ours = options.channel.fileno()
        if other.key.startswith("tty") and (ours < 0 or not os.isatty(ours)):
            raise NotPossible(
                f"standard stream {other.stream} was a terminal, and CRIU can put only a terminal in its place",
                hint="restart it in a terminal, without --detach",
            )
        if other.key.startswith("socket") and (ours < 0 or not stat.S_ISSOCK(os.fstat(ours).st_mode)):
            ours = _closed_socket(stack)
            if other.stream >= 0:
                warnings.append(f"standard stream {other.stream} was a socket to outside: its other end is closed now")
        elif ours < 0:
            ours = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
            stack.callback(os.close, ours)
        beyond = fcntl.fcntl(ours, fcntl.F_DUPFD_CLOEXEC, 3)  # criu's own standard streams are others than ours
        stack.callback(os.close, beyond)
        given.append((beyond, other.key))
    return given, warnings


def _closed_socket(stack: ExitStack) -> int:
    """A connected socket whose peer is gone."""
    kept, gone = socket.socketpair()
    gone.close()
    return stack.enter_context(kept).fileno()


def _restore(
    program: Program, snapshot: SnapshotReference, record: Record, given: list[tuple[int, str]], work: Path
) -> int:
    """Run criu; the root's pid. The root becomes a child of ours, as a sibling of criu."""
    from nbcr.crs.criu_program import CriuFailed

    pidfile = work / "pid"
    arguments = ["--images-dir", str(snapshot.local), "--restore-detached", "--restore-sibling", *_ALWAYS]
    arguments += ["--pidfile", str(pidfile)]
    for descriptor, key in given:
        arguments += ["--inherit-fd", f"fd[{descriptor}]:{key}"]
    try:
        program.run("restore", arguments, work, [descriptor for descriptor, _ in given])
        return int(pidfile.read_text())
    except CriuFailed as error:
        if _is_our_child(record.root_pid):  # half-made; criu kills it, but cannot reap our child
            os.kill(record.root_pid, signal.SIGKILL)
            _reap(record.root_pid)
        raise RestartFailed(f"CRIU cannot bring snapshot {snapshot.reference} back: {error}") from None


def _is_our_child(pid: int) -> bool:
    """Whether we can wait for it: a criu that is started by another program (sudo, say) has another parent."""
    try:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def _reap(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
