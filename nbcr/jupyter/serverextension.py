"""An extension of Jupyter's server: sessions are kept before the server stops, and offered again when it starts.

Servers are stopped by SIGTERM: by a hub that culls, a pod that is evicted, a host that is shut down. Extensions are
told before the Jupyter kernels are ended, and have as long as whoever sent the signal is patient. So all are
checkpointed at the same time, each by a command of its own, and what is not done in time is given up. What was kept is
told in the log, and at ``/nbcr/kept``.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from pathlib import Path
from typing import Any, ClassVar

from jupyter_server.base.handlers import APIHandler
from jupyter_server.extension.application import ExtensionApp
from tornado import web
from traitlets import Bool, Float, Int

from nbcr import session
from nbcr.errors import NbcrError

PREFIX = "at-stop"  # of the names of what is kept
NOTE = "kept when the Jupyter server stopped"
_END_S = 2.0
_MOST_AT_START = 20


class NbcrServer(ExtensionApp):
    """`jupyter server extension enable nbcr`."""

    name = "nbcr"
    load_other_extensions = True

    at_stop = Bool(True, help="Checkpoint living kernels before the server stops.").tag(config=True)
    stop_timeout_s = Float(20.0, help="How long that may take; less than whoever stops the server waits.").tag(
        config=True
    )
    keep = Int(
        2, min=1, help="How many of these are kept of each notebook; the server removes older ones at its start."
    ).tag(config=True)
    at_once = Int(4, min=1, help="How many kernels are checkpointed at the same time.").tag(config=True)

    def initialize_handlers(self) -> None:
        """Serve what was kept."""
        self.handlers.append((r"/nbcr/kept", KeptHandler))

    async def _start_jupyter_server_extension(self, serverapp: Any) -> None:
        """The server starts: tell what the last one kept, and what it may want to have back."""
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, retire, self.keep)
        for each in (await loop.run_in_executor(None, kept))[-_MOST_AT_START:]:
            where = each["notebook"] or f"kernel {each['kernel_id']}"
            self.log.info("nbcr: %s was kept at %s: %s", where, each["created"], each["command"])

    async def stop_extension(self) -> None:
        """The server stops, and its Jupyter kernels still live."""
        manager = getattr(self.serverapp, "kernel_manager", None)
        kernels = list(manager.list_kernel_ids()) if manager is not None and self.at_stop else []
        if not kernels:
            return
        self.log.info("nbcr: %d living kernels are kept, for at most %g s", len(kernels), self.stop_timeout_s)
        turns = asyncio.Semaphore(self.at_once)
        doing = [asyncio.ensure_future(self._keep(kernel, turns)) for kernel in kernels]
        _, late = await asyncio.wait(doing, timeout=self.stop_timeout_s)
        for each in late:
            each.cancel()
        await asyncio.gather(*doing, return_exceptions=True)
        if late:
            self.log.warning("nbcr: %d kernels were not kept within %g s", len(late), self.stop_timeout_s)

    async def _keep(self, kernel: str, turns: asyncio.Semaphore) -> None:
        words = ["checkpoint", kernel, "--name", f"{PREFIX} {kernel}", "--force", "--note", NOTE, "--json"]
        words += ["--deadline", f"{self.stop_timeout_s:g}"]
        pipe = asyncio.subprocess.PIPE
        async with turns:
            child = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "nbcr.cli", *words, stdin=asyncio.subprocess.DEVNULL, stdout=pipe, stderr=pipe
            )
            try:
                said, complained = await child.communicate()
            except asyncio.CancelledError:
                await _end(child)
                raise
        if child.returncode:
            self.log.warning("nbcr: kernel %s is not kept: %s", kernel, complained.decode(errors="replace").strip())
            return
        entry = json.loads(said)
        self.log.info("nbcr: kernel %s (%s) is kept as %s", kernel, entry["notebook"] or "no notebook", entry["id"])


async def _end(child: asyncio.subprocess.Process) -> None:
    """End a command that is late: it leaves no entry that is not whole."""
    if child.returncode is None:
        child.terminate()
        try:
            await asyncio.wait_for(child.wait(), _END_S)
        except TimeoutError:
            child.kill()
            await child.wait()


def _entries() -> list[session.Entry]:
    """What servers kept, the oldest first; none where the store cannot be read."""
    try:
        return [entry for entry in session.checkpoints() if entry.note == NOTE and entry.name.startswith(PREFIX)]
    except NbcrError:
        return []


def retire(keep: int) -> None:
    """Remove all but the last `keep` of each notebook; what has a tag stays."""
    seen: dict[str, int] = {}
    for entry in reversed(_entries()):
        place = entry.notebook or entry.name
        seen[place] = seen.get(place, 0) + 1
        if seen[place] > keep and not entry.tags:
            with contextlib.suppress(NbcrError, OSError):
                session.remove(entry.id)


def kept() -> list[dict[str, Any]]:
    """What can be gone on with, the oldest first."""
    return [
        {
            "id": entry.id,
            "name": entry.name,
            "created": entry.created,
            "kernel_id": (entry.jupyter or {}).get("kernel_id"),
            "notebook": entry.notebook,
            "command": f"%load_ext nbcr and %restart {entry.id}" + _place(entry.notebook),
        }
        for entry in _entries()
    ]


def _place(notebook: str | None) -> str:
    return f" in {Path(notebook).name}" if notebook else " in a notebook"


class KeptHandler(APIHandler):
    """GET /nbcr/kept."""

    auth_resource: ClassVar[str] = "kernels"

    @web.authenticated
    async def get(self) -> None:
        """The list, as JSON."""
        found = await asyncio.get_running_loop().run_in_executor(None, kept)
        self.finish(json.dumps(found))
