"""Plain numbers that are addresses in this process: using them in another one ends it with a crash.

``p = libc.malloc(64)`` is an int to Python. Where a namespace has to do with ctypes or cffi, an int that
lies in the process's own writable memory is taken for such an address, and said to be lost.
"""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

from nbcr.objects.names import is_a

_LOWEST, _HIGHEST = 1 << 16, 1 << 47
_LOW_LEVEL = ("ctypes", "_ctypes", "cffi", "_cffi_backend")


def suspicious(values: dict[str, Any]) -> dict[str, str]:
    """Names whose ints are addresses, with the reason for losing them."""
    numbers = {name: value for name, value in values.items() if type(value) is int and _LOWEST <= value < _HIGHEST}
    if not numbers or not any(_is_low_level(value) for value in values.values()):
        return {}
    areas = _writable_areas()
    return {
        name: f"{value:#x} is an address in the memory of this process"
        for name, value in numbers.items()
        if any(start <= value < end for start, end in areas)
    }


def _is_low_level(value: Any) -> bool:
    if is_a(value, ModuleType):
        return value.__name__.partition(".")[0] in _LOW_LEVEL
    types = value.__mro__ if is_a(value, type) else type(value).__mro__
    return any(str(base.__module__).partition(".")[0] in _LOW_LEVEL for base in types)


def _writable_areas() -> list[tuple[int, int]]:
    found = []
    try:
        for line in Path("/proc/self/maps").read_text(encoding="ascii", errors="replace").splitlines():
            area, mode = line.split()[:2]
            if "w" in mode:
                start, end = area.split("-")
                found.append((int(start, 16), int(end, 16)))
    except OSError:  # another system: nothing can be told
        pass
    return found
