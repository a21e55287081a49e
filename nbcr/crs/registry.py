"""Which components there are, and which one serves.

Ours are built in; others come by entry point group ``nbcr.crs`` (each names a `Component` class). A new
checkpoint is taken by the component named in ``NBCR_CRS``, else by the available one with the highest
priority; a snapshot is restarted by the component that made it.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from nbcr.crs.base import Component
from nbcr.errors import NotPossible

ENTRY_POINT_GROUP = "nbcr.crs"
DEFAULT = "ptrace"


def components() -> list[Component]:
    """Every component that can be loaded, highest priority first."""
    found: dict[str, Component] = {DEFAULT: _built_in()}
    for component in _foreign():
        found.setdefault(component.name, component)
    return sorted(found.values(), key=lambda c: -c.priority)


def by_name(name: str) -> Component:
    """The component called `name`. Raises NotPossible when there is none."""
    if name == DEFAULT:  # the usual case must not pay for looking through the installed packages
        return _built_in()
    for component in components():
        if component.name == name:
            return component
    raise NotPossible(f"there is no CRS component named {name!r}", hint="`nbcr doctor` lists the components")


def select() -> Component:
    """The component that takes new checkpoints. Raises NotPossible when this host can be served by none."""
    chosen = os.environ.get("NBCR_CRS")
    if chosen:
        return by_name(chosen)
    ours = _built_in()
    rivals = [c for c in _foreign() if c.priority > ours.priority]
    if not rivals:
        return ours  # not probed: the engine says itself, and better, what it misses
    for component in sorted(rivals, key=lambda c: -c.priority):
        if component.availability().available:
            return component
    return ours


def _built_in() -> Component:
    from nbcr.crs.ptrace import PtraceComponent

    return PtraceComponent()


def _foreign() -> list[Component]:
    if not _foreign_installed():
        return []
    from importlib.metadata import entry_points

    found: list[Component] = []
    for point in entry_points(group=ENTRY_POINT_GROUP):
        component = point.load()()
        if not isinstance(component, Component):
            raise NotPossible(f"CRS component {point.name!r} ({point.value}) does not implement the interface")
        found.append(component)
    return found


def _foreign_installed() -> bool:
    """Whether any installed package names our entry point group.

    A look into the packages' entry_points.txt takes a few milliseconds, importlib.metadata ten times that,
    while the user who asked for a checkpoint waits.
    """
    marker = f"[{ENTRY_POINT_GROUP}]".encode()
    for folder in sys.path:
        try:
            names = [e.path for e in os.scandir(folder or ".") if e.name.endswith((".dist-info", ".egg-info"))]
        except OSError:
            continue
        for name in names:
            try:
                if marker in Path(name, "entry_points.txt").read_bytes():
                    return True
            except OSError:
                continue
    return False
