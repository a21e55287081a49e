"""Jupyter connection info: the facts in a manifest, the file on disk, and whether its ports are free."""

from __future__ import annotations

import errno
import json
import re
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nbcr.errors import ConnectionInUse
from nbcr.session.leftover import end_orphans
from nbcr.store import Entry
from nbcr.store.files import write_atomically

PORTS = ("shell_port", "iopub_port", "stdin_port", "control_port", "hb_port")
_KERNEL_ID = re.compile(r"kernel-(.+)\.json")


def facts_from_file(path: Path) -> dict[str, Any]:
    """The facts (`nbcr.handlers.Request`) that connection file `path` tells. Raises OSError, ValueError."""
    document = json.loads(path.read_text(encoding="utf-8"))
    match = _KERNEL_ID.fullmatch(path.name)
    return {
        "connection_file": str(path.absolute()),
        "kernel_id": match.group(1) if match else None,
        "transport": document.get("transport", "tcp"),
        "ip": document.get("ip", "127.0.0.1"),
        "ports": {port.removesuffix("_port"): int(document[port]) for port in PORTS if port in document},
        "key": document.get("key", ""),
        "signature_scheme": document.get("signature_scheme", "hmac-sha256"),
        "kernel_name": document.get("kernel_name", ""),
    }


def document_from_facts(facts: Mapping[str, Any]) -> dict[str, Any]:
    """The connection file's contents for these facts."""
    key = facts.get("key", "")
    document: dict[str, Any] = {
        f"{name.removesuffix('_port')}_port": int(number) for name, number in dict(facts["ports"]).items()
    }
    document.update(
        ip=facts.get("ip", "127.0.0.1"),
        key=key.decode() if isinstance(key, bytes) else key,
        transport=facts.get("transport", "tcp"),
        signature_scheme=facts.get("signature_scheme") or "hmac-sha256",
        kernel_name=facts.get("kernel_name") or "",
    )
    document.update({k: facts[k] for k in ("curve_publickey", "curve_secretkey") if facts.get(k)})
    return document


def check_free(entry: Entry) -> list[str]:
    """Raise ConnectionInUse when somebody listens where the checkpointed Jupyter kernel would come back.

    Workers that this one left there when it was killed are ended; what was done, in words.
    """
    if entry.jupyter is None:
        return []
    ended = []
    places = _places(entry.jupyter)
    taken = [place for place in places if _is_taken(*place)]
    if taken:
        ended = end_orphans([port for _, port in places])
        taken = [place for place in taken if _is_taken(*place)]
    if taken:
        where = ", ".join(f"{ip}:{port}" for ip, port in taken)
        file = entry.jupyter.get("connection_file")
        raise ConnectionInUse(
            f"{entry.name!r} would come back on ports that are in use ({where})",
            hint=f"shut down the Jupyter kernel of {file} first, or replace it with --into {file}",
        )

    names = ", ".join(map(str, ended))
    return [f"ended {names}: left behind by the Jupyter kernel that was killed, with its ports"] if ended else []


def _places(facts: Mapping[str, Any]) -> list[tuple[str, int]]:
    if facts.get("transport", "tcp") != "tcp":
        return []
    ip, ports = str(facts.get("ip", "127.0.0.1")), dict(facts.get("ports") or {})
    return [(ip, int(port)) for port in ports.values()]


def _is_taken(ip: str, port: int) -> bool:
    """Whether binding there fails as for the restored listener (SO_REUSEADDR is set, as libzmq does)."""
    host = "" if ip == "*" else ip
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen(1)
        except OSError as error:
            return error.errno == errno.EADDRINUSE
    return False


def rewrite_file(facts: Mapping[str, Any]) -> Path | None:
    """Put the connection file back where clients look for it, 0600; None when the facts name none.

    A file that says the same already is left alone.
    """
    name = facts.get("connection_file")
    if not name or not facts.get("ports"):
        return None
    path = Path(name)
    wanted = document_from_facts(facts)
    try:
        present = json.loads(path.read_text(encoding="utf-8"))
        if all(present.get(key) == value for key, value in wanted.items() if key != "kernel_name"):
            return path
    except (OSError, ValueError, AttributeError):
        pass
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_atomically(path, json.dumps(wanted, indent=2).encode())
    path.chmod(0o600)
    return path
