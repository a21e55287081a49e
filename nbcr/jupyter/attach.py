"""Load nbcr into a living Jupyter kernel that never loaded it, also while a cell runs.

ipykernel 7 has subshells: threads of the Jupyter kernel that execute requests beside the main one. One is
made, told to start the checkpoint thread and the handler, and deleted. What such a request disturbs by the
way is put right before it ends (see `BOOTSTRAP`): ipykernel remembers the last request of any thread as the
place where output of background threads belongs, and forgets whether the running cell may ask the user
something; and matplotlib would take the end of our request for the end of the user's cell.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from nbcr import runtime
from nbcr.errors import NbcrError
from nbcr.jupyter.finding import Target

BOOTSTRAP = """
import importlib.util, sys
added = importlib.util.find_spec("nbcr") is None
if added:
    sys.path.append({root!r})
try:
    from nbcr.jupyter import attached
    attached.{call}
finally:
    if added and {root!r} in sys.path:
        sys.path.reverse(); sys.path.remove({root!r}); sys.path.reverse()
"""


def ensure_loaded(target: Target, timeout_s: float = 5.0) -> bool:
    """See that `target` has a checkpoint thread. False when that is not possible: it can be taken from
    outside only.

    Impossible are: a process that is no Jupyter kernel, ipykernel before version 7, a Python before 3.11,
    one which keeps its interpreter's lock for longer than `timeout_s`.
    """
    if _has_thread(target.pid):
        return True
    if not target.is_jupyter:
        return False
    from nbcr.jupyter.wires import Asker

    deadline = time.monotonic() + timeout_s
    try:
        with Asker(target.connection()) as asker:
            _execute(asker, BOOTSTRAP.format(root=str(_root()), call="arrive()"), deadline)
    except (NbcrError, OSError):
        return False
    return _has_thread(target.pid)


def tell(target: Target, text: str, timeout_s: float = 5.0) -> bool:
    """Have the Jupyter kernel `target` show its user a line with its next cell. Loads nothing that stays."""
    from nbcr.jupyter.wires import Asker

    deadline = time.monotonic() + timeout_s
    try:
        with Asker(target.connection()) as asker:
            return _execute(asker, BOOTSTRAP.format(root=str(_root()), call=f"tell({text!r})"), deadline)
    except (NbcrError, OSError):
        return False


def _execute(asker: Any, code: str, deadline: float) -> bool:
    """Run `code` in a subshell of its own. Returns whether it ended well."""
    made = asker.ask("control", "create_subshell_request", {}, timeout_s=_left(deadline))
    subshell = (made or {}).get("subshell_id")
    if not subshell:
        return False
    request = {
        "code": f"exec({code!r}, {{}})",
        "silent": True,
        "store_history": False,
        "user_expressions": {},
        "allow_stdin": False,
        "stop_on_error": False,
    }
    header = {"subshell_id": subshell}
    try:
        reply = asker.ask("shell", "execute_request", request, timeout_s=_left(deadline), header=header)
        return (reply or {}).get("status") == "ok"
    finally:
        asker.ask("control", "delete_subshell_request", {"subshell_id": subshell}, timeout_s=_left(deadline))


def _left(deadline: float) -> float:
    return max(0.2, deadline - time.monotonic())


def _has_thread(pid: int) -> bool:
    connection = runtime.connect_to_thread(pid)
    if connection is None:
        return False
    connection.close()
    return True


def _root() -> Path:
    """The folder that holds the nbcr package."""
    return Path(__file__).resolve().parents[2]
