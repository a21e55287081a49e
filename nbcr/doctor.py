"""What this host allows, and what follows from it, in plain words."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nbcr.errors import NbcrError
from nbcr.store import Store


@dataclass(frozen=True)
class Finding:
    """One thing looked at. `needed`: without it nbcr does not work here."""

    name: str
    ok: bool
    detail: str
    needed: bool = False


@dataclass(frozen=True)
class ComponentState:
    """One CRS component. Of a broken one neither version nor priority is known."""

    name: str
    version: str
    priority: int | None
    state: str  # "selected" (takes new checkpoints), "available", "unavailable" (on this host) or "broken"
    detail: str

    def finding(self) -> Finding:
        """As a line among the others."""
        ok = self.state in ("selected", "available")
        return Finding(f"component {self.name} {self.version}".rstrip(), ok, f"{self._standing()}: {self.detail}")

    def _standing(self) -> str:
        return self.state if self.priority is None else f"{self.state}, priority {self.priority}"


@dataclass(frozen=True)
class Diagnosis:
    """All findings; `ok` when checkpoints can be taken and restarted here."""

    findings: tuple[Finding, ...]
    components: tuple[ComponentState, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether everything that is needed is there."""
        return all(f.ok for f in self.findings if f.needed)

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "ok": self.ok,
            "findings": [asdict(f) for f in self.findings],
            "components": [asdict(c) for c in self.components],
        }


def examine(store: Store) -> Diagnosis:
    """Look at the system, the engine's features, the components and the store. Raises nothing."""
    chosen, components = _components()
    lines = (component.finding() for component in components)
    findings = (_system(), *_engine(), chosen, *lines, _mpi(), _runtime(), *_store(store))
    return Diagnosis(findings, tuple(components))


def _system() -> Finding:
    host, python = f"{platform.system()} {platform.release()}", platform.python_version()
    machine = f"{host} on {platform.machine()}, Python {python}"
    ok = sys.platform == "linux" and platform.machine() == "x86_64"
    detail = machine if ok else f"{machine}: process images need Linux on x86_64"
    return Finding("system", ok, detail, needed=True)


def _engine() -> list[Finding]:
    try:
        import kernel_backend

        features = kernel_backend.probe()
    except Exception as error:
        return [Finding("engine", False, f"cannot be asked: {error}", needed=True)]
    return [Finding(f.name, f.available, f.detail) for f in features.values()]


def _components() -> tuple[Finding, list[ComponentState]]:
    """Who takes new checkpoints, and every component."""
    from nbcr import crs

    try:
        selected, why = crs.select().name, ""
    except NbcrError as error:
        selected, why = "", f"NBCR_CRS: {error.line()}"
    chosen = Finding("new checkpoints", False, why or f"component {selected} should take them, and cannot", needed=True)
    found = []
    for component in crs.components():
        answer = crs.availability(component)
        state = "available" if answer.available else "unavailable"
        if answer.available and component.name == selected:
            state = "selected"
            chosen = Finding("new checkpoints", True, f"taken by component {selected}", needed=True)
        found.append(ComponentState(component.name, component.version, component.priority, state, answer.detail))
    found += [ComponentState(problem.name, "", None, "broken", problem.why) for problem in crs.broken()]
    return chosen, found


def _mpi() -> Finding:
    """Whether jobs of several ranks can be saved, and how."""
    from importlib.util import find_spec

    program = shutil.which(
        "mpiexec", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    )
    missing = [what for what, there in (("mpi4py", find_spec("mpi4py")), ("mpiexec", program)) if not there]
    if missing:
        return Finding("MPI jobs", False, f"{' and '.join(missing)} missing: `pip install nbcr[mpi]` brings both")
    from nbcr import runtime
    from nbcr.mpi import modes

    mode = modes.mode_of(str(program), sys.executable, os.environ, memory=runtime.runtime_folder())
    how = {
        modes.IMAGES: "ranks are saved by images",
        modes.COOPERATIVE: "ranks save their own state where they call nbcr.mpi.checkpoint_here",
    }[mode.name]
    return Finding("MPI jobs", bool(mode.library) or mode.name == modes.COOPERATIVE, f"{program}: {how}: {mode.why}")


def _runtime() -> Finding:
    from nbcr import runtime

    try:
        return Finding("runtime folder", True, str(runtime.runtime_folder()), needed=True)
    except NbcrError as error:
        return Finding("runtime folder", False, error.line(), needed=True)


def _store(store: Store) -> list[Finding]:
    try:
        entries, damaged = store.entries(), store.damaged()
    except NbcrError as error:
        return [Finding("store", False, error.line(), needed=True)]
    place = store.root
    while not place.exists():
        place = place.parent
    free_gib = shutil.disk_usage(place).free / 2**30
    detail = f"{store.root}: {len(entries)} checkpoints, {free_gib:.1f} GiB free"
    found = [Finding("store", True, detail, needed=True)]
    return found + [Finding("entry", False, problem.line()) for problem in damaged]
