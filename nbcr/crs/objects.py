"""Component ``objects``: the variables of the process we are in, behind the CRS interface.

It serves "objects", not "image": it is never chosen to take a process, can save no other process than its own, and
brings variables back into a session that runs already. The session layer calls nbcr.objects itself (docs/crs.md says
why); this is for whoever knows the interface only.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from nbcr import __version__
from nbcr.crs.base import (
    Availability,
    Brought,
    CheckpointOptions,
    Component,
    Progress,
    RestartOptions,
    SnapshotReference,
    SnapshotSummary,
    Taken,
)
from nbcr.errors import NotPossible, UsageProblem
from nbcr.states import State

if TYPE_CHECKING:
    from nbcr.objects import Saving


class ObjectsComponent(Component):
    """Variables of this process: saved by a child of it, loaded into it."""

    name = "objects"
    version = __version__
    priority = 0
    serves = "objects"

    def availability(self) -> Availability:
        """Whether the libraries that it needs are there."""
        try:
            import cloudpickle

            from nbcr import objects

            objects.preload()
        except Exception as error:
            return Availability(False, f"variables cannot be saved: {error}")
        return Availability(True, f"variables of notebooks, by cloudpickle {cloudpickle.__version__}")

    def checkpoint(self, pid: int, snapshot: SnapshotReference, options: CheckpointOptions) -> Taken:
        """Save this process's names, without those that cannot be saved: the warnings tell of them."""
        _check_ours(pid)
        if options.leave != "running":
            raise NotPossible(f"process {pid} is not {options.leave} by component objects: it saves variables only")
        if snapshot.local.exists():
            raise UsageProblem(f"{snapshot.local} is there already", hint="choose another folder")
        saving = _begin(snapshot.local)
        try:
            if options.on_resume is not None:
                options.on_resume(Progress(saving.blocked_ms))
            report = saving.wait()
        except BaseException:
            saving.cancel()
            _clear(snapshot.local)
            raise
        return Taken(State.CONTINUE, (pid,), saving.blocked_ms, report.size_bytes, tuple(report.lines()))

    def restart(self, snapshot: SnapshotReference, options: RestartOptions) -> Brought:
        """Roll this process's names back: `into` is itself. What did not come back is told by the warnings."""
        from nbcr import objects
        from nbcr.objects import here

        if options.into is None:
            raise NotPossible(
                f"snapshot {snapshot.reference} holds variables, from which no process can be started",
                hint="load them into a session: `%restart NAME --objects`",
            )
        _check_ours(options.into)
        self.verify(snapshot)
        for callback in (options.on_ready, options.on_commit):
            if callback is not None:
                callback()
        report = objects.load(snapshot.local, here.namespace(), hidden=here.hidden(), remove_new=True)
        return Brought(options.into, {options.into: options.into}, tuple(report.lines()))

    def verify(self, snapshot: SnapshotReference) -> None:
        """Read every byte."""
        from nbcr import objects

        objects.verify(snapshot.local)

    def inspect(self, snapshot: SnapshotReference) -> SnapshotSummary:
        """When it was saved, and what is not in it. No processes are: `nbcr show --vars` lists the variables."""
        from nbcr.objects import index
        from nbcr.objects.saving import report_of

        return SnapshotSummary(
            0, index.read(snapshot.local).created, "", warnings=tuple(report_of(snapshot.local).lines())
        )


def _check_ours(pid: int) -> None:
    if pid != os.getpid():
        raise NotPossible(
            f"variables of process {pid} are out of reach: component objects works in its own process ({os.getpid()})",
            hint="ask that process: `nbcr checkpoint PID --objects`",
        )


def _begin(place: Path) -> Saving:
    from nbcr import objects
    from nbcr.objects import here

    return objects.save(here.namespace(), place, hidden=here.hidden())


def _clear(place: Path) -> None:
    import shutil

    shutil.rmtree(place, ignore_errors=True)
