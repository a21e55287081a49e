"""Finds the object that keeps a name from being saved, and the path that leads to it.

"model.callbacks[2]._lock".
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from types import CellType, FunctionType, MethodType
from typing import Any

from nbcr.objects.board import Late, Orphaned
from nbcr.objects.deep import is_too_deep
from nbcr.objects.kinds.base import CannotSave
from nbcr.objects.names import is_a
from nbcr.objects.pickling import Context, failure_of

_DEEPEST = 40
_SEARCH_S = 3.0


def find(name: str, value: Any, context: Context, failure: BaseException) -> tuple[str, str]:
    """Path and reason: the deepest part of `value` that cannot be pickled on its own."""
    if is_too_deep(failure):  # whatever part is next is only where it stopped
        return name, reason_of(failure)
    path, until = name, time.monotonic() + _SEARCH_S
    above = [value]  # they fail because of what is below them: a way back to them is no way to the culprit
    while len(above) < _DEEPEST and not _is_refused(value, context):
        candidates = [(label, part) for label, part in _seen_in(value) if not any(part is known for known in above)]
        found = _first_failing(candidates, above, context, until)
        if found is None:
            break
        label, value, failure = found
        above.append(value)
        path += label
    return path, reason_of(failure)


def _seen_in(value: Any) -> list[tuple[str, Any]]:
    """The parts of `value`, as far as it lets itself be looked at."""
    found = []
    try:
        for part in parts_of(value):
            found.append(part)
    except (Late, Orphaned):
        raise
    except BaseException:  # also what would end a process
        pass
    return found


def _is_refused(value: Any, context: Context) -> bool:
    """Whether the value itself is the culprit, whatever may be inside it."""
    kind = context.kinds.kind_of(type(value))
    return kind is not None and kind.refuses


def _first_failing(
    candidates: list[tuple[str, Any]], above: list[Any], context: Context, until: float
) -> tuple[str, Any, BaseException] | None:
    """The first of the candidates that cannot be pickled, halving as in a dictionary."""
    if failure_of([part for _, part in candidates], context, above) is None:
        return None
    while len(candidates) > 1 and time.monotonic() < until:
        half = candidates[: len(candidates) // 2]
        fails = failure_of([part for _, part in half], context, above) is not None
        candidates = half if fails else candidates[len(half) :]
    label, part = candidates[0]
    why = failure_of(part, context, above)
    return None if why is None else (label, part, why)


def reason_of(failure: BaseException) -> str:
    """One line that says why."""
    while failure.__cause__ is not None and not isinstance(failure, CannotSave):
        failure = failure.__cause__
    text = " ".join(str(failure).split())
    if isinstance(failure, CannotSave):
        return text
    if isinstance(failure, RecursionError):
        return "it is nested too deeply"
    text = text[:1].lower() + text[1:] if text[:2] != text[:2].upper() else text
    return text if isinstance(failure, TypeError) and text else f"{type(failure).__name__}: {text}"


def parts_of(value: Any) -> Iterator[tuple[str, Any]]:
    """What is in `value`, each with how one writes the way to it."""
    if is_a(value, dict):
        for key, item in list(value.items()):
            yield f"[{_short(key)}]", item
            yield f".keys()[{_short(key)}]", key
    elif is_a(value, list, tuple):
        fields = getattr(value, "_fields", ())
        yield from ((f".{fields[i]}" if i < len(fields) else f"[{i}]", item) for i, item in enumerate(value))
    elif is_a(value, set, frozenset):
        yield from ((f".{{{_short(item)}}}", item) for item in value)
    elif is_a(value, FunctionType):
        yield from _parts_of_function(value)
    elif is_a(value, MethodType):
        yield ".__self__", value.__self__
    elif is_a(value, CellType):
        yield "", value.cell_contents
    elif is_a(value, type):
        yield from ((f".{name}", item) for name, item in vars(value).items())
    yield from _attributes(value)
    yield from _reduced(value)


def _parts_of_function(function: FunctionType) -> Iterator[tuple[str, Any]]:
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield f".<{name}>", cell.cell_contents
        except ValueError:
            continue
    for i, default in enumerate(function.__defaults__ or ()):
        yield f".__defaults__[{i}]", default
    for name, default in (function.__kwdefaults__ or {}).items():
        yield f".__kwdefaults__[{name!r}]", default


def _attributes(value: Any) -> Iterator[tuple[str, Any]]:
    if is_a(value, type):
        return
    try:
        own = dict(vars(value))
    except TypeError:  # it has no attributes of its own
        own = {}
    for cls in type(value).__mro__:
        slots = cls.__dict__.get("__slots__", ())
        for slot in (slots,) if isinstance(slots, str) else slots:
            try:
                own[slot] = getattr(value, slot)
            except AttributeError:
                continue
    yield from ((f".{name}", item) for name, item in own.items())
    for name in ("func", "args", "keywords", "__wrapped__"):
        if name not in own and type(value).__module__ == "functools" and hasattr(value, name):
            yield f".{name}", getattr(value, name)
    if type(value).__module__ == "numpy" and getattr(getattr(value, "dtype", None), "hasobject", False):
        yield from ((f".flat[{i}]", item) for i, item in enumerate(value.ravel().tolist()))


def _reduced(value: Any) -> Iterator[tuple[str, Any]]:
    """What pickle would be given, for objects whose attributes tell nothing."""
    reduction = value.__reduce_ex__(5)
    if not isinstance(reduction, tuple):
        return
    state = reduction[2] if len(reduction) > 2 else None
    if isinstance(state, dict):
        yield from ((f".{name}", item) for name, item in state.items())
    elif state is not None:
        yield ".__getstate__()", state
    if isinstance(reduction[1], tuple):
        yield from ((f".__reduce__()[1][{i}]", item) for i, item in enumerate(reduction[1]))


def _short(key: Any) -> str:
    text = repr(key) if isinstance(key, str | int | float | bool | tuple | type(None)) else f"<{type(key).__name__}>"
    return text if len(text) <= 60 else text[:57] + "..."
