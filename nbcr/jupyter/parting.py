"""Part from clients just before the present is replaced, so that no request and no answer of theirs is lost.

What a client has written to a connection is gone when the connection goes with its process. A client whose
connection was ended in good order, however, keeps what it sends until it is connected again, a tenth of a second
later at the earliest: then it is the restored life that it reaches. So we finish sending (FIN), the client closes,
and whatever was on its way to us arrives before its own FIN does.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

from nbcr.jupyter.links import of_clients

PARTING_S = 0.5
_POLL_S = 0.001


async def part(app: Any) -> None:
    """End the connections by which clients ask and answer `app`. What they had sent can be received after this."""
    wires = [*of_clients(app, "shell"), *of_clients(app, "stdin")]
    for wire in wires:
        wire.finish_sending()
    deadline = time.monotonic() + PARTING_S
    while any(wire.is_open for wire in wires) and time.monotonic() < deadline:
        await asyncio.sleep(_POLL_S)  # libzmq's own thread reads and closes; it tells nobody who did not ask before
