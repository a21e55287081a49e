"""Notice when clients have come back to a restored Jupyter kernel.

The XPUB socket hears every new subscription, so the first one after the restore is the event to wait for; on a busy
host it may have been heard before anybody waits for it. Each channel of each client connects again by itself, within
some tenths of a second: what was held leaves when all are there that were there before, and have had time to say who
they are. One that does not come back is not waited for long.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

SETTLE_S = 1.0
"""How long to wait for the others when one is back: libzmq tries again after 0.1 to 0.2 s, on a busy host later."""
GREETING_S = 0.02
"""What two ends that are connected need to greet each other (ZMTP), and half as much again."""
UNHEARD_S = 0.5
"""The same where we do not know whether a subscription was heard before we listened: only connections are seen."""
NOBODY_S = 1.5
"""How long to wait where perhaps no client is left to come back."""
REQUESTER_S = 10.0
"""How long to wait when a client is known to wait for the end of its cell."""
_LOOK_S = 0.005


class Return:
    """Calls `then` once, on the IOPub thread, when clients have come back or the cap has passed.

    `is_one_back` tells whether anybody listens already, `are_back` whether as many are connected as are expected.
    """

    def __init__(
        self,
        iopub: Any,
        is_one_back: Callable[[], bool],
        are_back: Callable[[], bool],
        then: Callable[[], None],
        cap_s: float,
    ) -> None:
        self._iopub = iopub
        self._is_one_back = is_one_back
        self._are_back = are_back
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
        if self._is_one_back():
            self._look(UNHEARD_S)

    def _heard(self, frames: list[bytes]) -> None:
        self._iopub._handle_subscription(frames)
        if not self._settling and any(frame[:1] == b"\x01" for frame in frames):
            self._settling = True
            self._iopub.io_loop.call_later(SETTLE_S, self._finish)
            self._look(GREETING_S)

    def _look(self, greeting_s: float) -> None:
        if self._done:
            return
        if self._are_back():
            self._iopub.io_loop.call_later(greeting_s, self._finish)
        else:
            self._iopub.io_loop.call_later(_LOOK_S, self._look, greeting_s)

    def _finish(self) -> None:
        if self._done:
            return
        self._done = True
        stream = getattr(self._iopub, "_xpub_stream", None)
        if stream is not None:
            stream.on_recv(self._iopub._handle_subscription)
        self._then()
