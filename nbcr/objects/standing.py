"""Objects that every session has one of: a pickle refers to them by number, and finds those of its own session.

Before the first object of a unit the pickler's memo, and the unpickler's, hold these. That is how functions
are bound to the living namespace, how ``g = globals()`` does not drag everything along, and how a handler's
``sys.stderr`` stays just that. It costs nothing per object, which a ``persistent_id`` would.
"""

from __future__ import annotations

import builtins
import os
import sys
from typing import Any

COUNT = 16  # FORMAT.md: places from 12 on are kept for later versions

# Bytes of a pickle that asks ``persistent_load`` for each of them and memoizes it.
PRELUDE = b"\x80\x05" + b"".join(b"K" + bytes([number]) + b"Q\x940" for number in range(COUNT)) + b"N."


def standing(namespace: dict[str, Any]) -> list[Any]:
    """The standing objects of this session, by number; None where it has none."""
    found = [
        namespace,
        builtins.__dict__,
        sys.modules,
        sys.stdin,
        sys.stdout,
        sys.stderr,
        sys.__stdin__,
        sys.__stdout__,
        sys.__stderr__,
        os.environ,
        _shell(namespace),
        sys,
    ]
    return found + [None] * (COUNT - len(found))


def pickler_memo(objects: list[Any]) -> dict[int, tuple[int, Any]]:
    """What a pickler's memo holds at the beginning.

    Exactly `COUNT` entries, so that numbers go on alike on both sides.
    """
    memo: dict[int, tuple[int, Any]] = {}
    for number, obj in enumerate(objects):
        if obj is None or id(obj) in memo:
            obj = _Vacant()
        memo[id(obj)] = (number, obj)
    return memo


class _Vacant:
    """Holds a place in the memo."""


def _shell(namespace: dict[str, Any]) -> Any:
    get_ipython = namespace.get("get_ipython")
    try:
        return get_ipython() if callable(get_ipython) else None
    except Exception:  # a name of the user's that happens to be called so
        return None
