"""Messages that were taken out of MPI for an image, and not yet received: each communicator's, in order of arrival."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from nbcr.mpi.world import ANY_SOURCE, ANY_TAG


@dataclass(frozen=True)
class Drained:
    """A message."""

    source: int
    tag: int
    data: bytes


class Queue(list[Drained]):
    """Of one communicator. A list, because whether it is empty is asked at every receive."""

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()

    def add(self, message: Drained) -> None:
        """Put it behind the others."""
        with self._lock:
            self.append(message)

    def put_back(self, message: Drained) -> None:
        """One that has been taken and was not wanted: it is before all that have come after it."""
        with self._lock:
            self.insert(0, message)

    def look(self, source: int, tag: int) -> Drained | None:
        """The first that matches, which stays."""
        with self._lock:
            return next((m for m in self if _matches(m, source, tag)), None)

    def take(self, source: int, tag: int) -> Drained | None:
        """The first that matches, which is the caller's."""
        with self._lock:
            for index, message in enumerate(self):
                if _matches(message, source, tag):
                    return self.pop(index)
        return None


def _matches(message: Drained, source: int, tag: int) -> bool:
    return source in (ANY_SOURCE, message.source) and tag in (ANY_TAG, message.tag)
