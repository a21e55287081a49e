"""The Checkpoint/Restart Service: one interface, interchangeable components."""

from __future__ import annotations

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
from nbcr.crs.registry import by_name, components, select
from nbcr.states import State

__all__ = [
    "Availability",
    "Brought",
    "CheckpointOptions",
    "Component",
    "ProcessSummary",
    "Progress",
    "RestartOptions",
    "SnapshotReference",
    "SnapshotSummary",
    "State",
    "Taken",
    "by_name",
    "components",
    "select",
]
