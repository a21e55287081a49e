"""A bound on everything that is waited for between a request and its answer."""

from __future__ import annotations

import time

DEFAULT_DEADLINE_S = 30.0


class Deadline:
    """So many seconds from now on. Only good in the life in which it was made: a restored one has other clocks."""

    def __init__(self, bound_s: float = DEFAULT_DEADLINE_S) -> None:
        self.bound_s = bound_s
        self._begun = time.monotonic()

    @property
    def left_s(self) -> float:
        """Seconds that are left, 0.0 when it has passed."""
        return max(0.0, self.bound_s - self.elapsed_s)

    @property
    def elapsed_s(self) -> float:
        """Seconds since it began."""
        return time.monotonic() - self._begun

    @property
    def passed(self) -> bool:
        """Whether nothing is left."""
        return self.elapsed_s >= self.bound_s
