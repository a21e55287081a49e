"""What is nested more deeply than the stack of a thread of Python's allows is pickled in one that has a larger stack.

A linked list of some hundred nodes is enough: each refers to the next.
"""

from __future__ import annotations

import contextvars
import ctypes
import sys
import threading
from collections.abc import Callable
from typing import Any, TypeVar

Result = TypeVar("Result")
_STACK_BYTES = 1 << 30  # of addresses: what is not used takes no memory
_LEVELS = 100_000  # each has more room than in a main thread, with its 1000 levels in 8 MiB
_LAST_WORD_S = 1.0


def is_too_deep(failure: BaseException | None) -> bool:
    """Whether it is for lack of stack that something failed."""
    while failure is not None:
        if isinstance(failure, RecursionError):
            return True
        failure = failure.__cause__
    return False


def with_larger_stack(work: Callable[[], Result]) -> Result:
    """What `work` returns, or raises, in a thread with room for many levels.

    Values that are local to the thread are not there.
    """
    found: list[Result] = []
    failed: list[BaseException] = []

    def go() -> None:
        try:
            found.append(work())
        except BaseException as error:
            failed.append(error)

    usual = sys.getrecursionlimit()
    sys.setrecursionlimit(max(usual, _LEVELS))
    try:
        _finished(_started(contextvars.copy_context(), go))
    finally:
        sys.setrecursionlimit(usual)
    if failed:
        raise failed[0]
    return found[0]


def _started(context: contextvars.Context, go: Callable[[], Any]) -> threading.Thread:
    thread = threading.Thread(target=context.run, args=(go,), name="nbcr-deep", daemon=True)
    usual = threading.stack_size(_STACK_BYTES)
    try:
        thread.start()
    except RuntimeError as error:
        raise RecursionError("there is no room for a larger stack") from error
    finally:
        threading.stack_size(usual)
    return thread


def _finished(thread: threading.Thread) -> None:
    """Wait for it; where we are not to wait any longer, have it give up at its next line of Python."""
    try:
        thread.join()
    except BaseException:
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident or 0), ctypes.py_object(SystemExit))
        thread.join(_LAST_WORD_S)
        raise
