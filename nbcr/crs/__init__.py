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
from nbcr.crs.registry import Broken, availability, broken, by_name, components, maker_of, select
from nbcr.states import State

__all__ = [
    "Availability",
    "Broken",
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
    "availability",
    "broken",
    "by_name",
    "components",
    "maker_of",
    "select",
]
