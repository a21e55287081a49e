"""A clock in the image that tells a restored life when the image was taken.

While a checkpoint is under way it ticks on the IOPub thread. In a restored life it goes on ticking until
the handler stops it; the image was taken where the ticks have their widest gap. With every tick stdout and
stderr send what they have: so what was printed before the image is among the messages that a restored life
drops, up to the last hundredth of a second.
"""

from __future__ import annotations

import sys
import time
from itertools import pairwise
from typing import Any

TICK_S = 0.01
MARGIN_S = 0.05


class Clock:
    """Ticks between `start` and `stop`."""

    def __init__(self, iopub: Any) -> None:
        self._iopub = iopub
        self._ticks: list[float] | None = None

    def start(self) -> None:
        """Begin to tick."""
        self._ticks = ticks = [time.time()]
        self._iopub.io_loop.add_callback(lambda: self._tick(ticks))

    def stop(self) -> float:
        """Tick no more. Returns, in a restored life, a moment between the image and the restore."""
        ticks, self._ticks = self._ticks, None
        if ticks is None:
            return 0.0
        moments = [*ticks, time.time()]
        gap, before = max((after - before, before) for before, after in pairwise(moments))
        return before + min(MARGIN_S, gap / 2)

    def _tick(self, ticks: list[float]) -> None:
        if ticks is not self._ticks:
            return
        ticks.append(time.time())
        streams: list[Any] = [sys.stdout, sys.stderr]
        for stream in streams:
            if getattr(stream, "pub_thread", None) is self._iopub:
                stream._flush()
        self._iopub.io_loop.call_later(TICK_S, lambda: self._tick(ticks))
