"""What Jupyter's servers want done about a Jupyter kernel, each in a process of its own: ``python -m`` of this module.

An order as JSON on stdin, an answer as JSON on stdout, in which "error" says why nothing was done. A server's event
loop and threads have no part in checkpoints and restarts, and whoever is late can be ended.

    keep     checkpoint a Jupyter kernel that is about to be ended       {"id", "notebook"} | {"nothing"} | {"changed"}
    revive   bring back what crashed, on its manager's connection        {"pid", "what"}
    resume   bring back what was kept of a notebook                      {"pid", "what"}
    offer    tell a new Jupyter kernel's user what was kept              {"id"} | {"nothing"}
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from nbcr import session
from nbcr.errors import NbcrError, TargetUnknown
from nbcr.jupyter import kept
from nbcr.jupyter.attach import ensure_loaded, tell
from nbcr.jupyter.finding import Target, find_target
from nbcr.rendering import when_text
from nbcr.session import Entry
from nbcr.session.overview import wait_for_writers

_END_S = 2.0
_LOOK_S = 0.2
_WRITTEN_S = 30.0  # for which a checkpoint on its way to the disk is waited for


async def ask(
    order: Mapping[str, Any], *, timeout_s: float, environ: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Have an errand done. One that is late, or is cancelled, is ended: it leaves no entry that is not whole."""
    words = (sys.executable, "-m", __name__)
    pipe = asyncio.subprocess.PIPE
    env = None if environ is None else dict(environ)
    child = await asyncio.create_subprocess_exec(*words, stdin=pipe, stdout=pipe, env=env)
    try:
        said, _ = await asyncio.wait_for(child.communicate(json.dumps(order).encode()), timeout_s)
        return dict(json.loads(said))
    except TimeoutError:
        await _end(child)
        return {"error": f"it took longer than {timeout_s:g} s"}
    except asyncio.CancelledError:
        await _end(child)
        raise
    except ValueError:
        return {"error": "nbcr ended without an answer"}


async def _end(child: asyncio.subprocess.Process) -> None:
    """End it. Asyncio waits until nobody has its pipes any more, also who outlives it: not for ever."""
    for stop in (child.terminate, child.kill):
        with contextlib.suppress(ProcessLookupError, TimeoutError):
            stop()
            await asyncio.wait_for(child.wait(), _END_S)
            return


def do(order: Mapping[str, Any]) -> dict[str, Any]:
    """What became of an order; raises nothing."""
    try:
        return {"keep": keep, "revive": revive, "resume": resume, "offer": offer}[order["op"]](order)
    except Exception as error:
        return {"error": error.line() if isinstance(error, NbcrError) else f"{type(error).__name__}: {error}"}


def keep(order: Mapping[str, Any]) -> dict[str, Any]:
    """Checkpoint a Jupyter kernel that is about to be ended, unless there is nothing in it."""
    target, store, deadline_s = find_target(order["connection_file"]), order.get("store"), float(order["deadline_s"])
    before = session.facts_of(target, store=store, deadline_s=deadline_s, load=ensure_loaded)
    if before.get("executed") == 0:
        return {"nothing": "no cell was run in it"}
    entry = session.checkpoint_other(
        target,
        session.Terms(
            name=kept.name_of(order["reason"], str(target.kernel_id or target.pid)),
            replace=True,
            note=kept.NOTES[order["reason"]],
        ),
        store=store,
        deadline_s=deadline_s,
        load=ensure_loaded,
    )
    kept.retire(int(order["keep"]), store)
    after = session.facts_of(target, store=store, deadline_s=deadline_s)
    changed = before.get("executed") != after.get("executed")
    return {"id": entry.id, "notebook": entry.notebook, **({"changed": True} if changed else {})}


def revive(order: Mapping[str, Any]) -> dict[str, Any]:
    """Bring back the last checkpoint of a Jupyter kernel that crashed."""
    # The last one may be on its way: its image was taken, and is written whatever became of the process.
    wait_for_writers(_WRITTEN_S, store=order.get("store"))
    mine = [e for e in session.checkpoints(order.get("store")) if _is_of(e, order)]
    if not mine:
        return {"error": "it has no checkpoint with a process image"}
    crashed = when_text(datetime.now(UTC).isoformat())
    what = f"as it was at {when_text(mine[-1].created)}, in checkpoint {mine[-1].name!r}"
    news = f"this Jupyter kernel ended unexpectedly (noticed {crashed}) and is {what}; what came after is gone"
    return _bring(mine[-1], order, what, news)


def resume(order: Mapping[str, Any]) -> dict[str, Any]:
    """Bring back what was kept of a notebook, as the Jupyter kernel that is started for it."""
    entry = kept.waiting(order["notebook"], order.get("store"))
    if entry is None or "image" not in entry.kinds:
        return {"error": "nothing that waits for this notebook has a process image"}
    what = f"as it was at {when_text(entry.created)}, {entry.note}"
    news = f"this session goes on {what}; Kernel → Restart begins a new one"
    return _bring(entry, order, what, news)


def _bring(entry: Entry, order: Mapping[str, Any], what: str, news: str) -> dict[str, Any]:
    present = {"connection": order["connection"], "news": news, "environ": order.get("environ")}
    result = session.restart_fresh(entry.id, store=order.get("store"), present=present)
    return {"pid": result.pid, "what": what}


def _is_of(entry: Entry, order: Mapping[str, Any]) -> bool:
    facts, file = entry.jupyter or {}, order["connection"].get("connection_file")
    mine = facts.get("kernel_id") == order["kernel_id"] or (file and facts.get("connection_file") == file)
    return "image" in entry.kinds and bool(mine)


def offer(order: Mapping[str, Any]) -> dict[str, Any]:
    """Have a new Jupyter kernel tell its user, above the first cell's output, what was kept of the notebook."""
    deadline = time.monotonic() + float(order["deadline_s"])
    target = _started(order["connection_file"], deadline)
    entry = kept.waiting(target.notebook, order.get("store")) if target.notebook else None
    if entry is None:
        return {"nothing": "nothing waits for this notebook"}
    text = (
        f"this notebook's session as it was at {when_text(entry.created)} was {entry.note}: "
        f"`%load_ext nbcr` and `%restart {entry.id}` bring it back"
    )
    if not tell(target, text, max(1.0, deadline - time.monotonic())):
        return {"error": "the Jupyter kernel could not be told"}
    return {"id": entry.id}


def _started(connection_file: str, deadline: float) -> Target:
    """A Jupyter kernel that has only just been started. Raises TargetUnknown."""
    while True:
        try:
            return find_target(connection_file)
        except TargetUnknown:
            if time.monotonic() > deadline:
                raise
            time.sleep(_LOOK_S)


if __name__ == "__main__":
    print(json.dumps(do(json.load(sys.stdin))))
