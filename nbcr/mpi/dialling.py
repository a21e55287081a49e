"""A connection to the launcher that broke is made anew. Standard library only.

Only those by TCP break while both ends live: a network between hosts drops them. The end of one over a Unix socket is
the launcher's.
"""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Mapping
from typing import Any

from nbcr import sealed

TIMEOUT_S = 60.0  # the launcher may be in a checkpoint, and answers when that has failed
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.05, 2.0


def again(broken: sealed.SealedChannel, network: str, hello: Mapping[str, Any]) -> sealed.SealedChannel | None:
    """A new connection in the place of `broken`, on which `hello` has been said; None where the launcher has ended, or
    is not reached in time."""
    if not network or not broken.is_far:
        return None
    broken.close()
    there = sealed.Network.of(network)
    end, pause_s = time.monotonic() + TIMEOUT_S, _FIRST_PAUSE_S
    while True:
        try:
            channel = there.call()
            channel.send({**hello, "again": True})
        except OSError as error:
            if time.monotonic() + pause_s > end:
                _complain(hello, error)
                return None
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
        else:
            return channel


def _complain(hello: Mapping[str, Any], error: OSError) -> None:
    who = f"rank {hello['rank']} on {socket.gethostname()}"
    what = f"has lost the launcher and does not reach it again: {error}; the job cannot be checkpointed any more"
    print(f"nbcr: {who} {what}", file=sys.stderr, flush=True)
