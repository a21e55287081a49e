"""Rolling back the variables of another Jupyter kernel: `nbcr restart NAME --into TARGET --objects`.

The names of a session are its main thread's: they are rolled back by a request in the queue of cells, after the one
that runs. It may wait there for longer than whoever asked does; then it must do nothing when its turn comes.
"""

from __future__ import annotations

import ast
import json
import time
from pathlib import Path
from typing import Any

from nbcr.errors import Busy, NotPossible, from_wire, to_wire
from nbcr.jupyter.attach import ensure_loaded
from nbcr.jupyter.finding import Target

_HOME = "nbcr.jupyter.rolling"


def roll_back(target: Target, entry_id: str, *, store: Path, deadline_s: float) -> dict[str, Any]:
    """What became of each name: `text` for people, `report` for programs. Raises NbcrError when nothing was loaded."""
    if not target.is_jupyter:
        raise NotPossible(
            f"process {target.pid} is no Jupyter kernel: nobody can roll back its variables from outside",
            hint="leave out --objects, to bring its process image back",
        )
    if not ensure_loaded(target):
        raise NotPossible(
            f"nbcr cannot be loaded into the Jupyter kernel {target.pid}",
            hint="run %load_ext nbcr in it, and try again",
        )
    from nbcr.jupyter.wires import Asker

    arguments = (entry_id, str(store), time.time() + deadline_s, deadline_s)
    request = {
        "code": "",
        "silent": True,
        "store_history": False,
        "user_expressions": {"nbcr": f"__import__({_HOME!r}, fromlist=['serve']).serve{arguments!r}"},
        "allow_stdin": False,
        "stop_on_error": False,
    }
    with Asker(target.connection()) as asker:
        reply = asker.ask("shell", "execute_request", request, timeout_s=deadline_s)
    if reply is None:
        raise Busy(
            f"the Jupyter kernel {target.pid} runs a cell for longer than {deadline_s:g} s",
            hint="nothing was rolled back, nor will be: ask again when the cell has ended, or with a longer --deadline",
        )
    return _answer(reply, target.pid)


def _answer(reply: dict[str, Any], pid: int) -> dict[str, Any]:
    answer = reply.get("user_expressions", {}).get("nbcr", {})
    if answer.get("status") != "ok":
        why = answer.get("evalue") or reply.get("evalue") or reply.get("status")
        raise NotPossible(f"the Jupyter kernel {pid} did not roll back its variables: {why}")
    told: dict[str, Any] = json.loads(ast.literal_eval(answer["data"]["text/plain"]))
    if "error" in told:
        raise from_wire(told["error"])
    return told


def serve(entry_id: str, store: str, until: float, deadline_s: float) -> str:
    """Roll back the names of this session, in its main thread, unless it is too late."""
    from nbcr import session

    if time.time() > until:
        return json.dumps({"error": to_wire(Busy("it came to its turn too late, and did nothing"))})
    try:
        result = session.restart(entry_id, store=store, objects=True, deadline_s=deadline_s)
        return json.dumps({"text": repr(result), "report": result.report.document()})
    except Exception as error:
        return json.dumps({"error": to_wire(error)})
