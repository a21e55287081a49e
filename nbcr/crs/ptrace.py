"""Component ``ptrace``: our own engine, kernel_backend, behind the CRS interface."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from nbcr import __version__
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
from nbcr.states import State

if TYPE_CHECKING:
    import kernel_backend
    from kernel_backend.image.entries import PageRun

_ESSENTIAL = ("ptrace", "pidfd_getfd", "kcmp")  # without these features of the host nothing works
# How the engine begins to say which pids a fresh tree got: it works all the same.
_FACTS = ("the processes keep their pids only inside a pid namespace", "the processes have new pids")


class PtraceComponent(Component):
    """Process images taken from outside by ptrace."""

    name = "ptrace"
    version = __version__
    priority = 50
    roots = ("inventory.json",)

    def init(self) -> None:
        """Load the engine now, not while a user waits."""
        import kernel_backend

        kernel_backend.preload()

    def availability(self) -> Availability:
        """Ask the engine's probe."""
        import kernel_backend

        features = kernel_backend.probe()
        missing = [features[n] for n in _ESSENTIAL if n in features and not features[n].available]
        if missing:
            return Availability(False, "; ".join(f"{f.name}: {f.detail}" for f in missing))
        return Availability(True, "process images by ptrace")

    def checkpoint(self, pid: int, snapshot: SnapshotReference, options: CheckpointOptions) -> Taken:
        """Dump the process tree at `pid`."""
        import kernel_backend

        def resumed(progress: kernel_backend.DumpProgress) -> None:
            if options.on_resume is not None:
                options.on_resume(
                    Progress(
                        pause_ms=progress.pause_ms,
                        resident_bytes=progress.resident_bytes,
                        processes=progress.processes,
                        threads=progress.threads,
                        warnings=tuple(progress.warnings),
                    )
                )

        report = kernel_backend.dump(
            pid,
            snapshot.local,
            leave=options.leave,
            tree=options.tree,
            files=options.files,
            tcp=options.tcp,
            channel_fd=options.channel_fd,
            on_resume=resumed,
            durable=options.durable,
        )
        return Taken(
            state=State.TERM if options.leave == "killed" else State.CONTINUE,
            pids=tuple(report.pids),
            pause_ms=report.pause_ms,
            size_bytes=report.size_bytes,
            warnings=tuple(report.warnings),
        )

    def restart(self, snapshot: SnapshotReference, options: RestartOptions) -> Brought:
        """Restore the image; the engine validates it first."""
        import kernel_backend

        restored = kernel_backend.restore(
            snapshot.local,
            into=options.into,
            pid=options.pid,
            lazy=options.lazy,
            files=options.files,
            channel=options.channel,
            stdio=options.stdio,
            parting=options.parting,
            on_ready=options.on_ready,
            on_commit=options.on_commit,
        )

        def wait() -> int:
            return os.waitstatus_to_exitcode(restored.wait())

        facts = tuple(text for text in restored.warnings if text.startswith(_FACTS))
        return Brought(
            restored.pid,
            dict(restored.pids),
            warnings=tuple(text for text in restored.warnings if text not in facts),
            facts=facts,
            wait=None if options.into is not None else wait,
        )

    def verify(self, snapshot: SnapshotReference) -> None:
        """Check every hash in the image."""
        import kernel_backend

        kernel_backend.verify(snapshot.local)

    def inspect(self, snapshot: SnapshotReference) -> SnapshotSummary:
        """Read the image's inventory."""
        import kernel_backend

        summary = kernel_backend.inspect(snapshot.local)
        processes = tuple(
            ProcessSummary(p.pid, p.ppid, p.exe, tuple(p.argv), p.threads, p.resident_bytes, p.cwd)
            for p in summary.processes
        )
        return SnapshotSummary(summary.root_pid, summary.created, summary.host, processes, tuple(summary.warnings))

    def digests(self, snapshot: SnapshotReference) -> Mapping[str, str]:
        """The inventory has them."""
        from kernel_backend.image.reader import read_inventory

        return {name: file.blake3 for name, file in read_inventory(snapshot.local).files.items()}

    def layout(self, snapshot: SnapshotReference) -> Mapping[str, Sequence[tuple[int, int, int]]]:
        """Addresses of pages; of shared memory, offsets inside the object."""
        from kernel_backend.image.reader import read_inventory
        from kernel_backend.resources.pages import pages_name

        inventory = read_inventory(snapshot.local)
        found = {pages_name(process.pid): _runs(process.pagemap) for process in inventory.processes}
        return found | {shared.pages: _runs(shared.runs) for shared in inventory.shared_memory}


def _runs(runs: Iterable[PageRun]) -> list[tuple[int, int, int]]:
    return [(run.address, run.length, run.offset) for run in runs]
