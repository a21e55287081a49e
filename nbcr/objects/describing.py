"""How a value looks, for whoever looks into a snapshot without restoring it: type, shape, and a short repr.

Anybody's ``__repr__`` may take for ever. In a forked child it is given a moment, and an alarm ends it; in
the process itself only types that we know are asked.
"""

from __future__ import annotations

import contextlib
import reprlib
import signal
import sys
import time
from collections.abc import Iterator
from types import FrameType, FunctionType, ModuleType
from typing import Any

_LONGEST = 120
_FEW = 8
_EACH_S = 0.05
_ALTOGETHER_S = 0.25
_KNOWN_ROOTS = frozenset("builtins datetime decimal fractions collections pathlib uuid re numpy".split())


class Describer:
    """Describes values one after the other, within a bound on the time for all of them."""

    def __init__(self, *, forked: bool) -> None:
        self._forked = forked
        self._until = time.monotonic() + _ALTOGETHER_S
        self._short = reprlib.Repr()
        self._short.maxstring = self._short.maxother = _LONGEST
        self._short.maxlong = 60

    def repr_of(self, value: Any) -> str:
        """At most a line of repr."""
        known = all(str(base.__module__).partition(".")[0] in _KNOWN_ROOTS for base in type(value).__mro__)
        kind = f"<{type_name(value)}>"
        if isinstance(value, type | FunctionType | ModuleType):
            return repr(value)[:_LONGEST]
        try:
            if isinstance(value, list | tuple | dict | set | frozenset | str | bytes | bytearray | int | float):
                text = self._built_in(value)
            elif known and type(value).__module__ == "numpy":
                text = _array(value)
            elif time.monotonic() > self._until or not (known or self._forked):
                return kind
            else:
                with _alarm(_EACH_S) if self._forked else contextlib.nullcontext():
                    text = repr(value)
        except Exception:  # _TooSlow is one
            return kind
        line = " ".join(text[: 4 * _LONGEST].split())
        return line if len(line) <= _LONGEST else line[: _LONGEST - 3] + "..."

    def _built_in(self, value: Any) -> str:
        if not isinstance(value, list | tuple | dict | set | frozenset):
            return self._short.repr(value)
        with _alarm(_EACH_S) if self._forked else contextlib.nullcontext():
            return self._short.repr(value) if self._forked or _holds_plain_values(value) else f"<{type_name(value)}>"


class _TooSlow(Exception):
    pass


@contextlib.contextmanager
def _alarm(seconds: float) -> Iterator[None]:
    def ring(_number: int, _frame: FrameType | None) -> None:
        raise _TooSlow

    before = signal.signal(signal.SIGALRM, ring)
    left, _ = signal.setitimer(signal.ITIMER_REAL, seconds)
    begun = time.monotonic()
    try:
        yield
    finally:
        signal.signal(signal.SIGALRM, before)
        signal.setitimer(signal.ITIMER_REAL, max(0.001, left - (time.monotonic() - begun)) if left else 0)


def _holds_plain_values(value: Any) -> bool:
    members = list(value)[:8] if not isinstance(value, dict) else [m for pair in list(value.items())[:8] for m in pair]
    return all(type(member).__module__ == "builtins" for member in members)


def _array(value: Any) -> str:
    numpy = sys.modules["numpy"]
    if not isinstance(value, numpy.ndarray):
        return repr(value)
    if value.size > _FEW or value.dtype.kind not in "biuf":
        shown = [_number(number) for number in value.reshape(-1)[:_FEW].tolist()]
        return f"array([{', '.join(shown)}{', ...' if value.size > _FEW else ''}], dtype={value.dtype})"
    return f"array({value.tolist()}, dtype={value.dtype})"


def _number(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else reprlib.repr(value)


def type_name(value: Any) -> str:
    """Dotted name of the type, as one writes it."""
    type_ = type(value)
    module = str(type_.__module__)
    return type_.__qualname__ if module in ("builtins", "__main__") else f"{module}.{type_.__qualname__}"


def shape_of(value: Any) -> str:
    """How much there is of it: "5000000 x 6", "3 items"; empty where that makes no sense."""
    if type(value).__module__ == "builtins":
        if isinstance(value, list | tuple | dict | set | frozenset):
            return f"{len(value)} items" if len(value) != 1 else "1 item"
        if isinstance(value, str | bytes | bytearray | memoryview):
            return f"{len(value)} characters" if isinstance(value, str) else f"{len(value)} bytes"
        return ""
    if isinstance(value, type | ModuleType) or type(value).__module__ == "__main__":
        return ""
    try:
        shape = value.shape
        return " x ".join(str(int(length)) for length in shape)
    except Exception:
        return ""
