"""Component ``objects``: the place of the objects tier, which is not there yet."""

from __future__ import annotations

from typing import NoReturn

from nbcr import __version__
from nbcr.crs.base import Availability, CheckpointOptions, Component, RestartOptions, SnapshotReference
from nbcr.errors import NotPossible

_REASON = "this version of nbcr does not save and load objects yet"


class ObjectsComponent(Component):
    """Listed so that `nbcr doctor` tells what is missing; refuses everything."""

    name = "objects"
    version = __version__
    priority = 0

    def availability(self) -> Availability:
        """Never."""
        return Availability(False, _REASON)

    def checkpoint(self, pid: int, snapshot: SnapshotReference, options: CheckpointOptions) -> NoReturn:
        """Raise NotPossible."""
        _refuse(f"process {pid} cannot be checkpointed")

    def restart(self, snapshot: SnapshotReference, options: RestartOptions) -> NoReturn:
        """Raise NotPossible."""
        _refuse(f"snapshot {snapshot.reference} cannot be restarted")

    def verify(self, snapshot: SnapshotReference) -> NoReturn:
        """Raise NotPossible."""
        _refuse(f"snapshot {snapshot.reference} cannot be verified")

    def inspect(self, snapshot: SnapshotReference) -> NoReturn:
        """Raise NotPossible."""
        _refuse(f"snapshot {snapshot.reference} cannot be read")


def _refuse(what: str) -> NoReturn:
    raise NotPossible(f"{what} by component objects: {_REASON}", hint="unset NBCR_CRS, or choose another component")
