"""Process images: capture a living process tree from outside, and bring it back. Pure Python, no root needed.

Layers, top to bottom; each imports only from those below (tests/unit/test_layers.py reads the imports):

    engine          the two pipelines (capture.py, rebuild.py and the files beside them are their steps)
    resources       one file per kind of OS-kernel object, capture and rebuild in one room
    tracee | image  a stopped process as an object | the format on disk
    host            libc and /proc
    abi             numbers and structures

This package knows Linux. It knows nothing of Python objects, notebooks or MPI.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kernel_backend.engine import DumpProgress, DumpReport, Restored, dump, preload, restore
    from kernel_backend.host.features import Feature, probe
    from kernel_backend.summary import ImageSummary, ProcessSummary, inspect, verify

__all__ = [
    "DumpProgress",
    "DumpReport",
    "Feature",
    "ImageSummary",
    "ProcessSummary",
    "Restored",
    "dump",
    "inspect",
    "preload",
    "probe",
    "restore",
    "verify",
]

_HOME = {
    **dict.fromkeys(("DumpProgress", "DumpReport", "Restored", "dump", "preload", "restore"), "engine"),
    **dict.fromkeys(("Feature", "probe"), "host.features"),
    **dict.fromkeys(("ImageSummary", "ProcessSummary", "inspect", "verify"), "summary"),
}


def __getattr__(name: str) -> object:
    """Import a public name when it is first used: `import kernel_backend` costs next to nothing."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
