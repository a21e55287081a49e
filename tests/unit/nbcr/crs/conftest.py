"""Third parties' packages with a CRS component, installed for one test; and scripts that answer as some criu would."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

WORKING = """
from nbcr.crs import Availability, Component

class Crs(Component):
    name, version, priority = {name!r}, "7", {priority}

    def availability(self): return Availability({available}, "as the test wants it")
    def init(self): {init}
    def checkpoint(self, pid, snapshot, options): raise NotImplementedError
    def restart(self, snapshot, options): raise NotImplementedError
    def verify(self, snapshot): raise NotImplementedError
    def inspect(self, snapshot): raise NotImplementedError
"""

Install = Callable[..., Path]
_numbers = itertools.count()


def working(name: str, *, priority: int = 90, available: bool = True, init: str = "pass") -> str:
    """The source of a component that does as it says."""
    return WORKING.format(name=name, priority=priority, available=available, init=init)


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Install a package whose entry point `name` names class Crs of a module with `source`; the folder it is in."""

    def installed(name: str, source: str, kind: str = "Crs") -> Path:
        number = next(_numbers)  # modules stay in sys.modules
        module, site = f"acme_{number}", tmp_path / f"site{number}"
        info = site / f"acme{number}-1.5.dist-info"
        info.mkdir(parents=True)
        (site / f"{module}.py").write_text(source)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: acme{number}\nVersion: 1.5\n")
        (info / "entry_points.txt").write_text(f"[nbcr.crs]\n{name} = {module}:{kind}\n")
        monkeypatch.syspath_prepend(str(site))
        return site

    monkeypatch.delenv("NBCR_CRS", raising=False)
    return installed


@pytest.fixture
def criu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Make a program that answers as criu would, for what is asked of one before it does anything; its path."""

    def made(version: str = "Version: 4.1.1", check: str = "echo Looks good.", work: str = "exit 1") -> Path:
        path = tmp_path / "criu"
        path.write_text(
            f"""#!{sys.executable}
import os, sys
words = [word for word in sys.argv[1:] if word != "--unprivileged"]
if words == ["--version"]:
    print({version!r})
    sys.exit(0)
os.environ["WORK"] = words[words.index("--work-dir") + 1] if "--work-dir" in words else ""
os.execv("/bin/sh", ["sh", "-c", {check!r} if words == ["check"] else {work!r}])
"""
        )
        path.chmod(0o755)
        monkeypatch.setenv("NBCR_CRIU", str(path))
        return path

    return made
