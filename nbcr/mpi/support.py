"""What a job may use but no checkpoint can hold: allowed, noted, and then the checkpoint is refused by name."""

from __future__ import annotations

import functools
from typing import Any

used: dict[str, None] = {}  # in order


def note(what: str) -> None:
    """The program uses it."""
    used.setdefault(what)


def unsupported(what: str, base: Any) -> Any:
    """`base` as before, noted when it is called. Properties and classmethods too."""
    if isinstance(base, property) or not callable(base):
        return property(lambda self: _noted(what, base.__get__(self)))

    @functools.wraps(base, assigned=("__name__", "__doc__"), updated=())
    def call(*args: Any, **named: Any) -> Any:
        return _noted(what, base(*args, **named))

    return call


def _noted(what: str, result: Any) -> Any:
    note(what)
    return result
