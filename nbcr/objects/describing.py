"""How a value looks, for whoever looks into a snapshot without restoring it: type, shape, and a short repr.
 Anybody's ``__repr__`` may take for ever, or worse. Only that of a value itself is called, not those of what
is in it, and only in a forked child, where it is given a moment before an alarm ends it.
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

from nbcr.objects.board import Late, Orphaned
from nbcr.objects.names import is_a

_LONGEST = 120
_FEW = 8
_EACH_S = 0.05
_ALTOGETHER_S = 0.25
_CONTAINERS = (list, tuple, dict, set, frozenset)
_VALUES = (str, bytes, bytearray, int, float, complex, type(None))
_HARMLESS_ROOTS = frozenset("builtins datetime decimal fractions pathlib uuid re _thread".split())


class Describer:
    """Describes values one after the other, within a bound on the time for all of them."""

    def __init__(self, *, forked: bool) -> None:
        self._forked = forked
        self._left_s = _ALTOGETHER_S
        self._short = _Short()

    def asks_anybody(self, value: Any) -> bool:
        """Whether describing `value` runs code that we do not know."""
        return self._forked and self._left_s > 0 and not _is_harmless(value)

    def repr_of(self, value: Any) -> str:
        """At most a line of repr."""
        try:
            if _is_harmless(value):
                text = self._short.repr(value)
            elif self.asks_anybody(value):
                text = self._in_time(value)
            else:
                text = f"<{type_name(value)}>"
        except (Late, Orphaned):
            raise
        except BaseException:  # _TooSlow is one; also what ends a process
            text = f"<{type_name(value)}>"
        line = " ".join(text[: 4 * _LONGEST].split())
        return line if len(line) <= _LONGEST else line[: _LONGEST - 3] + "..."

    def _in_time(self, value: Any) -> str:
        begun = time.monotonic()
        try:
            with _alarm(_EACH_S):
                return repr(value)
        finally:
            self._left_s -= time.monotonic() - begun


class _Short(reprlib.Repr):
    """Abridged, and without anybody's own ``__repr__``."""

    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxother = _LONGEST
        self.maxlong = 60

    def repr1(self, x: Any, level: int) -> str:
        if is_a(x, *_CONTAINERS) and type(x) not in _CONTAINERS:
            plain: Any = next(kind for kind in _CONTAINERS if is_a(x, kind))
            method = getattr(self, f"repr_{plain.__name__}")
            return f"{type(x).__name__}({method(x, level)})"
        if _is_array(x):
            return _array(x)
        return super().repr1(x, level) if _is_harmless(x) else f"<{type_name(x)}>"


def _is_harmless(value: Any) -> bool:
    """Whether `_Short` knows how to show it: by itself, or by a ``__repr__`` of Python's own."""
    if is_a(value, *_CONTAINERS) or type(value) in _VALUES or _is_array(value):
        return True
    return str(type(value).__module__).partition(".")[0] in _HARMLESS_ROOTS or is_a(value, type, FunctionType)


def _is_array(value: Any) -> bool:
    numpy = sys.modules.get("numpy")
    return numpy is not None and type(value) is getattr(numpy, "ndarray", None)


def _array(value: Any) -> str:
    shown = [_number(number) for number in value.reshape(-1)[:_FEW].tolist()]
    return f"array([{', '.join(shown)}{', ...' if value.size > _FEW else ''}], dtype={value.dtype})"


def _number(value: Any) -> str:
    if is_a(value, float):
        return f"{value:.6g}"
    return repr(value)[:_LONGEST] if is_a(value, *_VALUES) else f"<{type_name(value)}>"


class _TooSlow(Exception):
    pass


@contextlib.contextmanager
def _alarm(seconds: float) -> Iterator[None]:
    """Raise _TooSlow after a while. Whatever alarm was set before rings when it would have."""

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


def type_name(value: Any) -> str:
    """Dotted name of the type, as one writes it."""
    type_ = type(value)
    module = str(type_.__module__)
    return type_.__qualname__ if module in ("builtins", "__main__") else f"{module}.{type_.__qualname__}"


def shape_of(value: Any) -> str:
    """How much there is of it: "5000000 x 6", "3 items"; empty where that makes no sense."""
    if is_a(value, str, bytes, bytearray):
        return f"{len(value)} characters" if is_a(value, str) else f"{len(value)} bytes"
    if type(value) in _CONTAINERS:
        return f"{len(value)} items" if len(value) != 1 else "1 item"
    if is_a(value, type, ModuleType) or type(value).__module__ in ("builtins", "__main__"):
        return ""
    try:
        return " x ".join(str(int(length)) for length in value.shape)
    except Exception:
        return ""
