"""Keep a restored life from executing again what was queued in its image.

"Run All" sends every cell at once: behind the %checkpoint cell, the image's queue holds all cells below it.
The life that went on has executed them, up to the %restart cell, and hands over what it had not executed
yet: the very same messages. So
- after a restart in place they are dropped without a word. An answer would be wrong: one of them is the
  %restart cell itself, which is answered otherwise. They are not even read: a message whose signature was
  seen is refused as a replay, and the handed one would be that;
- after a fresh restart nobody knows which of them were answered. Cells are aborted, by ipykernel's own
  means, so that a client which still waits hears the end of it; widget messages are dropped.

ipykernel marks the end of a queue to abort by a message of its own ("stop aborting"): here it is also the
mark up to which requests are sieved.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

MARK = b"stop aborting"
NEVER_REPEATED = frozenset({"comm_open", "comm_msg", "comm_close"})


class Sieve:
    """Stands before `kernel.dispatch_shell` until the mark has passed in every queue."""

    def __init__(self, kernel: Any, queues: Iterable[str | None], *, answer: bool) -> None:
        self._kernel = kernel
        self._unmarked = set(queues)
        self._answer = answer
        self._usual = type(kernel).dispatch_shell

    def install(self) -> None:
        """From now on requests pass through here."""
        self._kernel.dispatch_shell = self.dispatch

    async def dispatch(self, msg: Any, /, subshell_id: str | None = None, **named: Any) -> None:
        """In place of ipykernel's own, whose further arguments differ between its versions."""
        if len(msg) == 1 and bytes(msg[0].buffer) == MARK:
            self._unmarked.discard(subshell_id)
            if not self._unmarked and vars(self._kernel).get("dispatch_shell") == self.dispatch:
                del self._kernel.dispatch_shell
        elif subshell_id in self._unmarked and self._drops(msg):
            return
        await self._usual(self._kernel, msg, subshell_id=subshell_id, **named)

    def _drops(self, message: Any) -> bool:
        return not self._answer or header_of(self._kernel.session, message).get("msg_type") in NEVER_REPEATED


def header_of(session: Any, frames: list[Any]) -> dict[str, Any]:
    """The header of a raw request, whatever key it was signed with; empty when it has none."""
    try:
        _, rest = session.feed_identities(frames, copy=False)
        header = session.unpack(bytes(rest[1].bytes))
    except Exception:
        return {}
    return header if isinstance(header, dict) else {}
