"""Notice when clients have come back to a restored Jupyter kernel.

The XPUB socket hears every new subscription, so the first one after the restore is the event to wait for.
The other channels of that client connect at the same time, give or take: `SETTLE_S` covers the difference.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

SETTLE_S = 0.1
NOBODY_S = 1.5
"""How long to wait where perhaps no client is left to come back."""
REQUESTER_S = 10.0
"""How long to wait when a client is known to wait for the end of its cell."""


class Return:
    """Calls `then` once, on the IOPub thread, when a client has subscribed again or the cap has passed."""

    def __init__(self, iopub: Any, then: Callable[[], None], cap_s: float) -> None:
        self._iopub = iopub
        self._then = then
        self._cap_s = cap_s
        self._settling = False
        self._done = False

    def watch(self) -> None:
        """Start to listen. Call on the IOPub thread."""
        loop = self._iopub.io_loop
        stream = getattr(self._iopub, "_xpub_stream", None)
        if stream is not None:
            stream.on_recv(self._heard)
        loop.call_later(self._cap_s, self._finish)

    def _heard(self, frames: list[bytes]) -> None:
        self._iopub._handle_subscription(frames)
        if not self._settling and any(frame[:1] == b"\x01" for frame in frames):
            self._settling = True
            self._iopub.io_loop.call_later(SETTLE_S, self._finish)

    def _finish(self) -> None:
        if self._done:
            return
        self._done = True
        stream = getattr(self._iopub, "_xpub_stream", None)
        if stream is not None:
            stream.on_recv(self._iopub._handle_subscription)
        self._then()
