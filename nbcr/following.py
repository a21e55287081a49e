"""A line on a terminal that tells how far a checkpoint is, as long as one waits for it. Nothing elsewhere."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nbcr.store import Store

_FIRST_S, _EACH_S = 1.0, 0.5
_CLEAR = "\r\x1b[K"


@contextlib.contextmanager
def shown(store: Store) -> Iterator[None]:
    """Show what is being written into `store` during the block, if stderr is a terminal and it takes a while."""
    if not sys.stderr.isatty():
        yield
        return
    ended = threading.Event()
    thread = threading.Thread(target=_show, args=(store, ended), name="nbcr-following", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _show(store: Store, ended: threading.Event) -> None:
    from nbcr.rendering import size_text, time_text
    from nbcr.session.overview import writing

    if ended.wait(_FIRST_S):
        return
    while not ended.wait(_EACH_S):
        found = []
        with contextlib.suppress(OSError):
            found = writing(store)
        told = (f"{each.name}: {size_text(each.written_bytes)}, {time_text(each.age_s * 1000)}" for each in found)
        print(f"{_CLEAR}writing {'; '.join(told)}" if found else _CLEAR, end="", file=sys.stderr, flush=True)
    print(_CLEAR, end="", file=sys.stderr, flush=True)
