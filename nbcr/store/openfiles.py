"""Files kept open for many threads, but not too many of them."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

_Key = TypeVar("_Key", bound=Hashable)


class OpenFiles(Generic[_Key]):
    """Descriptors by key, made by `opener`; those in nobody's use are closed when there are more than `most`."""

    def __init__(self, opener: Callable[[_Key], int], most: int = 128) -> None:
        self._opener, self._most = opener, most
        self._lock = threading.Lock()
        self._open: OrderedDict[_Key, list[int]] = OrderedDict()  # descriptor, users

    def __enter__(self) -> OpenFiles[_Key]:
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._close_idle(0)

    @contextmanager
    def of(self, key: _Key) -> Iterator[int]:
        """The descriptor for `key`, open as long as the block lasts. Raises OSError."""
        with self._lock:
            if key not in self._open:
                self._open[key] = [self._opener(key), 0]
            held = self._open[key]
            self._open.move_to_end(key)
            held[1] += 1
        try:
            yield held[0]
        finally:
            with self._lock:
                held[1] -= 1
                if len(self._open) > self._most:
                    self._close_idle(self._most)

    def _close_idle(self, most: int) -> None:
        idle = [key for key, (_, users) in self._open.items() if not users]
        for key in idle[: max(0, len(self._open) - most)]:
            os.close(self._open.pop(key)[0])
