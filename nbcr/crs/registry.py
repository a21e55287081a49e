"""Which components there are, and which one serves.

Ours are built in; others come by entry point group ``nbcr.crs``: its name is the component's name, its value
names a `Component` class. A new checkpoint is taken by the component named in ``NBCR_CRS``, else by the available
one with the highest priority; a snapshot is restarted by the component that made it.

A third party's component that cannot be loaded is nobody's business but its own: it is left out, unless it is the
very one that was asked for, and `broken` says why, for `nbcr doctor`.
"""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from nbcr.crs.base import Availability, Component
from nbcr.errors import EntryDamaged, NotPossible

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

ENTRY_POINT_GROUP = "nbcr.crs"
DEFAULT = "ptrace"
# By falling priority, so that none is imported before it is its turn.
BUILT_IN = {
    "ptrace": ("nbcr.crs.ptrace", "PtraceComponent"),
    "criu": ("nbcr.crs.criu", "CriuComponent"),
    "objects": ("nbcr.crs.objects", "ObjectsComponent"),
}
_HINT = "`nbcr doctor` lists the components"


@dataclass(frozen=True)
class Broken:
    """A third party's component that cannot be used at all."""

    name: str  # of its entry point
    why: str


def components() -> list[Component]:
    """Every component that can be loaded, highest priority first."""
    return list(_by_priority())


def broken() -> list[Broken]:
    """Every third party's component that cannot be loaded, and why."""
    return _foreign()[1]


def by_name(name: str) -> Component:
    """The component called `name`, ready for use. Raises NotPossible when there is none, or it is broken."""
    if name in BUILT_IN:  # the usual case must not pay for looking through the installed packages
        return _ready(_built_in(name))
    for point in _entry_points():
        if point.name == name:
            return _ready(_load(point))
    raise NotPossible(f"there is no CRS component named {name!r}", hint=_HINT)


def maker_of(snapshot: str, component: str | None) -> Component:
    """The component that made `snapshot`, the only one that can read it. Raises NotPossible or EntryDamaged."""
    if not component:
        raise EntryDamaged(f"the manifest of {snapshot!r} does not say which CRS component took it")
    try:
        return by_name(component)
    except NotPossible as error:
        raise NotPossible(
            f"{snapshot!r} was taken by CRS component {component!r}, which is needed to bring it back: {error}",
            hint=f"install what brings that component, here and for the user who restarts; {error.hint}",
        ) from error


def select() -> Component:
    """The component that takes new checkpoints, ready for use. Raises NotPossible when there is none."""
    chosen = os.environ.get("NBCR_CRS")
    if not chosen:
        return _best(tuple(sys.path))
    component = by_name(chosen)
    if component.serves != "image":
        raise NotPossible(f"CRS component {chosen!r} takes no process images (NBCR_CRS)", hint=_HINT)
    return component


def availability(component: Component) -> Availability:
    """Whether `component` can serve here; one whose probe fails cannot."""
    try:
        return component.availability()
    except Exception as error:
        return Availability(False, f"it cannot tell whether it works here: {_said(error)}")


@cache
def _best(path: tuple[str, ...]) -> Component:
    for component in _by_priority():
        if component.serves == "image" and availability(component).available:
            try:
                return _ready(component)
            except Exception:  # the next one will do; who asks for this one by name is told
                continue
    return _ready(_built_in(DEFAULT))  # it says itself, and better than we could, what it misses


def _by_priority() -> Iterator[Component]:
    rivals = sorted(_foreign()[0], key=lambda c: -c.priority)
    for name in BUILT_IN:
        ours = _built_in(name)
        while rivals and rivals[0].priority > ours.priority:
            yield rivals.pop(0)
        yield ours
    yield from rivals


# --- making and preparing them ----------------------------------------------------------------------------------------


@cache
def _built_in(name: str) -> Component:
    module, kind = BUILT_IN[name]
    component = getattr(import_module(module), kind)()
    assert isinstance(component, Component)
    return component


@cache
def _ready(component: Component) -> Component:
    """`component` after its `init`, once in a process; its `finalize` comes when this process ends."""
    try:
        component.init()
    except Exception as error:
        raise NotPossible(f"CRS component {component.name!r} cannot be prepared: {_said(error)}", hint=_HINT) from error
    atexit.register(_finalize, component, os.getpid())
    return component


def _finalize(component: Component, pid: int) -> None:
    if os.getpid() == pid:  # not in a child forked meanwhile
        component.finalize()


def _said(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())


# --- third parties' components ----------------------------------------------------------------------------------------


def _foreign() -> tuple[list[Component], list[Broken]]:
    found: dict[str, Component] = {}
    broken: list[Broken] = []
    for point in _entry_points():
        if point.name in BUILT_IN or point.name in found:
            broken.append(Broken(point.name, f"{_origin(point)}: another component has that name"))
            continue
        try:
            found[point.name] = _load(point)
        except NotPossible as error:
            broken.append(Broken(point.name, str(error)))
    return list(found.values()), broken


@cache
def _load(point: EntryPoint) -> Component:
    """The component of an entry point. Raises NotPossible, whatever is wrong with it."""
    component = None
    try:
        kind = point.load()
        fault = _fault_of(kind)
        if not fault:
            component = kind()
            fault = _fault_in(component, point.name)
    except (Exception, SystemExit) as error:
        fault = f"it cannot be loaded ({_said(error)})"
    if fault or not isinstance(component, Component):
        raise NotPossible(f"CRS component {point.name!r} of {_origin(point)} is broken: {fault}", hint=_HINT)
    return component


def _fault_of(kind: object) -> str:
    """What is wrong with a class that should be a component; empty: nothing."""
    if not (isinstance(kind, type) and issubclass(kind, Component)):
        return "it does not implement the interface (it is no subclass of nbcr.crs.Component)"
    missing = ", ".join(sorted(kind.__abstractmethods__))
    return f"it does not implement the interface ({missing} missing)" if missing else ""


def _fault_in(component: Component, name: str) -> str:
    """What is wrong with how a component introduces itself; empty: nothing."""
    for attribute, kind in (("name", str), ("version", str), ("priority", int)):
        if not isinstance(getattr(component, attribute, None), kind):
            return f"it does not implement the interface (its {attribute} is no {kind.__name__})"
    return "" if component.name == name else f"it calls itself {component.name!r}, not as its entry point does"


def _origin(point: EntryPoint) -> str:
    return f"{point.value} in package {point.dist.name} {point.dist.version}" if point.dist else point.value


def _entry_points() -> list[EntryPoint]:
    if not _foreign_installed():
        return []
    from importlib.metadata import entry_points

    return list(entry_points(group=ENTRY_POINT_GROUP))


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
