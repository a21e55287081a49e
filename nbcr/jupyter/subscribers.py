"""Notice when clients have come back to a restored Jupyter kernel.

The XPUB socket hears every new subscription, so the first one after the restore is the event to wait for; that somebody
is connected does not tell whether that is heard yet. `Subscriptions` listens from before the image on: on a busy host
a subscription may come before anything of ours has run in the restored life. Each channel of each client connects again
by itself, within some tenths of a second: what was held leaves when all are there that were there before, have had time
to say who they are, and have subscribed, each of them. One that does not come back is not waited for long.

One that is connected and does not subscribe is a program that does not look at its socket just now (a script that
sleeps before it reads): libzmq connects again by itself, but subscribes only when the program comes by. Undisturbed,
it would have found everything in its queue. So what is published waits for it, as much as libzmq itself would queue.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

SETTLE_S = 2.0
"""How long to wait for the others when one is back: libzmq tries again after 0.1 to 0.2 s, on a busy host later."""
GREETING_S = 0.02
"""What two ends that are connected need to greet each other (ZMTP), and half as much again."""
UNHEARD_S = 0.5
"""The same where a plain PUB socket hears nothing, and only connections are seen."""
NOBODY_S = 1.5
"""How long to wait where perhaps no client is left to come back."""
REQUESTER_S = 10.0
"""How long to wait when a client is known to wait for the end of its cell."""
MOST_HELD = 1000
"""How many messages wait for one that is connected and has not subscribed: as many as libzmq keeps for a reader."""
_LOOK_S = 0.005
_STAY_S = 0.5


class Subscriptions:
    """Hears each subscription while an image is taken, and after it. All of it on the IOPub thread."""

    def __init__(self, iopub: Any) -> None:
        self._iopub = iopub
        self._moments: list[float] = []
        self._tell: Callable[[], None] | None = None

    @property
    def are_heard(self) -> bool:
        """Whether this socket hears them at all."""
        return self._stream is not None

    @property
    def _stream(self) -> Any:
        return getattr(self._iopub, "_xpub_stream", None)

    def listen(self) -> None:
        """From now on. Also those to what another connection has subscribed, which may not be known to be gone yet."""
        self._moments.clear()
        if self.are_heard:
            self._be_verbose(1)
            self._stream.on_recv(self._heard)

    def stop(self) -> None:
        """Leave the socket as it was."""
        self._tell = None
        if self.are_heard:
            self._be_verbose(0)
            self._stream.on_recv(self._iopub._handle_subscription)

    def since(self, moment: float) -> int:
        """How many were heard later than that."""
        return sum(heard > moment for heard in self._moments)

    def on_next(self, tell: Callable[[], None]) -> None:
        """Call this at each that comes."""
        self._tell = tell

    def _be_verbose(self, how: int) -> None:
        import zmq

        self._iopub.socket.setsockopt(zmq.XPUB_VERBOSE, how)

    def _heard(self, frames: list[bytes]) -> None:
        self._iopub._handle_subscription(frames)
        begun = sum(frame[:1] == b"\x01" for frame in frames)
        self._moments += [time.time()] * begun
        if begun and self._tell is not None:
            self._tell()


class ClientsReturn:
    """Calls `then` once, on the IOPub thread, when clients have come back or the cap has passed.

    `listeners` are the connections of those that are there, `before` those of the image (which a restart may have
    kept, and their subscriptions with them); `are_back` tells whether as many are there as are expected; `restored` is
    a moment between the image and all that came after it. Where one has connected since and not subscribed, `late` is
    called at the cap, and `then` when it has, when it is gone, or when `may_stay` says that it is enough.
    """

    def __init__(
        self,
        iopub: Any,
        subscriptions: Subscriptions,
        restored: float,
        listeners: Callable[[], frozenset[Any]],
        before: frozenset[Any],
        are_back: Callable[[], bool],
        then: Callable[[], None],
        cap_s: float,
        late: Callable[[], None],
        may_stay: Callable[[], bool],
    ) -> None:
        self._iopub = iopub
        self._subscriptions = subscriptions
        self._restored = restored
        self._listeners = listeners
        self._before = before
        self._are_back = are_back
        self._then = then
        self._cap_s = cap_s
        self._tell_late = late
        self._may_stay = may_stay
        self._settling = False
        self._done = False
        self._paused = self._missed = self._is_late = False

    def watch(self) -> None:
        """Start to wait. Call on the IOPub thread."""
        self._iopub.io_loop.call_later(self._cap_s, self._late)
        self._subscriptions.on_next(self._heard)
        if self._subscriptions.since(self._restored):
            self._heard()
        elif not self._subscriptions.are_heard and self._listeners():
            self._look(UNHEARD_S)

    def pause(self) -> bool:
        """Wait no longer, until `resume` is called; whether there was still something to wait for. On that thread."""
        self._paused = not self._done
        return self._paused

    def resume(self) -> None:
        """Wait again. On that thread."""
        self._paused = False
        if self._missed:
            self._heard()
        elif self._is_late:
            self._late()

    def _heard(self) -> None:
        if self._paused:
            self._missed = True
        elif not self._settling:
            self._settling = True
            self._iopub.io_loop.call_later(SETTLE_S, self._finish)
            self._look(GREETING_S)

    def _look(self, greeting_s: float) -> None:
        if self._done:
            return
        if self._are_back() and not self._awaits_subscriptions():
            self._iopub.io_loop.call_later(greeting_s, self._finish)
        else:
            self._iopub.io_loop.call_later(_LOOK_S, self._look, greeting_s)

    def _late(self) -> None:
        """The cap has passed."""
        self._is_late = True
        if self._paused:
            return
        if self._done or self._settling or not self._is_one_unheard():
            self._finish()
        else:
            self._tell_late()
            self._stay()

    def _stay(self) -> None:
        if self._done or self._paused or self._settling:
            return
        if self._may_stay() and self._is_one_unheard():
            self._iopub.io_loop.call_later(_STAY_S, self._stay)
        else:
            self._finish()

    def _is_one_unheard(self) -> bool:
        return self._subscriptions.are_heard and bool(self._listeners() - self._before)

    def _awaits_subscriptions(self) -> bool:
        """Whether there are more new connections than subscriptions."""
        heard = self._subscriptions.since(self._restored)
        return self._subscriptions.are_heard and heard < len(self._listeners() - self._before)

    def _finish(self) -> None:
        if self._done or self._paused:
            return
        self._done = True
        self._subscriptions.stop()
        self._then()
