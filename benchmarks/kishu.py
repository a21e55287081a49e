"""Kishu in a virtual environment of its own, which is made once and kept in the user's cache."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

VERSION = "0.3.4"
_WITH = ("ipykernel", "numpy", "pandas")
_OLDER = ("3.12", "3.11", "3.10")
_INSTALL_TIMEOUT_S = 900.0


class NotInstalled(Exception):
    """Kishu cannot be had here; the message says why."""


def python() -> Path:
    """The Python that has it. Raises NotInstalled."""
    reasons = []
    for candidate in _pythons():
        try:
            return _installed(*candidate)
        except NotInstalled as error:
            reasons.append(str(error))
    raise NotInstalled("; ".join(reasons))


def _pythons() -> list[tuple[str, Path]]:
    """Our own version first, then older ones that this machine has."""
    own = f"{sys.version_info.major}.{sys.version_info.minor}"
    found = {own: Path(sys.executable)}
    for version in _OLDER:
        path = shutil.which(f"python{version}")
        if path is not None:
            found.setdefault(version, Path(path))
    return list(found.items())


def _installed(version: str, base: Path) -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    venv = cache / "nbcr-benchmarks" / f"kishu-{VERSION}-python{version}"
    made = venv / "bin/python"
    if not (venv / "complete").exists():
        shutil.rmtree(venv, ignore_errors=True)
        _run([str(base), "-m", "venv", str(venv)])
        _run([str(made), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", f"kishu=={VERSION}", *_WITH])
        _run([str(made), "-c", "from kishu import init_kishu"])
        (venv / "complete").touch()
    return made


def _run(words: list[str]) -> None:
    try:
        done = subprocess.run(
            words, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=_INSTALL_TIMEOUT_S
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotInstalled(f"{words[0]}: {error}") from error
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        raise NotInstalled(f"Kishu {VERSION} cannot be installed for {words[0]}: {last}")
