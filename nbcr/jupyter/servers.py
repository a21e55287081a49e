"""Running Jupyter servers: which notebook belongs to which Jupyter kernel, and requests to the one that has ours."""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nbcr.errors import NotPossible

ANSWER_S = 1.0
REQUEST_S = 30.0


@dataclass(frozen=True)
class Server:
    """A Jupyter server that answers us."""

    url: str
    token: str
    root: Path

    @property
    def base(self) -> str:
        """The beginning of the paths of its pages, as a browser sees them."""
        return urllib.parse.urlparse(self.url).path.rstrip("/") + "/"

    def ask(self, path: str, body: Any = None, *, method: str | None = None, timeout_s: float = REQUEST_S) -> Any:
        """Send a request to its API; the answer's JSON. Raises OSError, ValueError."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"Authorization": f"token {self.token}", "Content-Type": "application/json"}
        address = f"{self.url.rstrip('/')}/api/{urllib.parse.quote(path)}"
        request = urllib.request.Request(address, data=data, headers=headers, method=method)
        with urllib.request.urlopen(request, timeout=timeout_s) as answer:
            text = answer.read()
        return json.loads(text) if text.strip() else None


def server_of(kernel_id: str, folders: Iterable[Path]) -> Server:
    """The server that has Jupyter kernel `kernel_id`. Raises NotPossible."""
    why = "none is running"
    for file in (file for folder in folders for file in folder.glob("jpserver-*.json")):
        try:
            facts = json.loads(file.read_text(encoding="utf-8"))
            os.kill(int(facts["pid"]), 0)
            token = facts["token"] or os.environ.get("JUPYTERHUB_API_TOKEN", "")
            server = Server(facts["url"], token, Path(facts.get("root_dir") or "."))
            if any(kernel["id"] == kernel_id for kernel in server.ask("kernels", timeout_s=ANSWER_S)):
                return server
            why = "it belongs to none of those that are running"
        except urllib.error.HTTPError as error:
            why = f"the server {file.stem} answers {error.code} {error.reason}"
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue  # it has ended
    raise NotPossible(f"the Jupyter server of Jupyter kernel {kernel_id} cannot be asked for another: {why}")


def notebooks_by_kernel(folders: Iterable[Path]) -> dict[str, str]:
    """Jupyter kernel id → path of its notebook, from /api/sessions of every server that answers."""
    found: dict[str, str] = {}
    for folder in folders:
        for file in folder.glob("jpserver-*.json"):
            for session in _sessions(file):
                kernel, path = session.get("kernel") or {}, session.get("path")
                if kernel.get("id") and path:
                    found[str(kernel["id"])] = str(path)
    return found


def _sessions(file: Path) -> list[dict[str, Any]]:
    try:
        server = json.loads(file.read_text(encoding="utf-8"))
        os.kill(int(server["pid"]), 0)
        address = f"{server['url'].rstrip('/')}/api/sessions"
        request = urllib.request.Request(address, headers={"Authorization": f"token {server['token']}"})
        with urllib.request.urlopen(request, timeout=ANSWER_S) as answer:
            sessions = json.load(answer)
        root = Path(server.get("root_dir") or ".")
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return []  # it has ended, or keeps its sessions to itself
    whole = [session for session in sessions if isinstance(session, dict)]
    return [{**session, "path": str(root / str(session.get("path") or ""))} for session in whole]
