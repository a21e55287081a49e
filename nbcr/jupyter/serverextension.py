"""An extension of Jupyter's server: sessions are kept before the server stops or culls them, and offered again later.

Servers are stopped by SIGTERM: by a hub that culls, a pod that is evicted, a host that is shut down. A hub sends SIGINT
first, which without a terminal would end the server on the spot: it is made to mean the same. Extensions are told
before the Jupyter kernels are ended, and have as long as whoever sent the signal is patient. So all are checkpointed at
the same time, each by a process of its own, and what is not done in time is given up. What was kept is told in the
log, at ``/nbcr/kept``, and by the next Jupyter kernel of the notebook with its first cell.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
from typing import Any, ClassVar

from jupyter_server.base.handlers import APIHandler
from jupyter_server.extension.application import ExtensionApp
from tornado import web
from traitlets import Bool, Float, Int

from nbcr.jupyter import culling, errands, kept

KERNEL_EVENTS = "https://events.jupyter.org/jupyter_server/kernel_actions/v1"
_MOST_AT_START = 20
_OFFER_S = 60.0


class NbcrServer(ExtensionApp):
    """`jupyter server extension enable nbcr`."""

    name = "nbcr"
    load_other_extensions = True

    at_stop = Bool(True, help="Checkpoint living kernels before the server stops.").tag(config=True)
    stop_timeout_s = Float(20.0, help="How long that may take; less than whoever stops the server waits.").tag(
        config=True
    )
    at_cull = Bool(True, help="Checkpoint an idle kernel before the server culls it.").tag(config=True)
    cull_timeout_s = Float(120.0, help="How long that may take.").tag(config=True)
    cull_unkept = Bool(False, help="Cull also kernels that cannot be kept.").tag(config=True)
    offer = Bool(
        True, help="A new kernel tells its user, with the first cell, what was kept of the notebook before."
    ).tag(config=True)
    _keeping: asyncio.Future[None] | None = None
    keep = Int(2, min=1, help="How many of what is kept stay, of each notebook.").tag(config=True)
    at_once = Int(4, min=1, help="How many kernels are checkpointed at the same time.").tag(config=True)

    def initialize_handlers(self) -> None:
        """Serve what was kept."""
        self.handlers.append((r"/nbcr/kept", KeptHandler))

    async def _start_jupyter_server_extension(self, serverapp: Any) -> None:
        """The server starts: tell what the last one kept, and what it may want to have back."""
        _stop_on_interrupt(serverapp)
        if self.at_cull:
            rules = culling.Rules(self.cull_timeout_s, self.keep, self.cull_unkept)
            culling.mind(serverapp.kernel_manager, rules)
        if self.offer:
            serverapp.event_logger.add_listener(schema_id=KERNEL_EVENTS, listener=self._kernel_event)
        await asyncio.to_thread(kept.retire, self.keep)
        for each in (await asyncio.to_thread(kept.documents))[-_MOST_AT_START:]:
            if not each["back"]:
                where = each["notebook"] or f"Jupyter kernel {each['kernel_id']}"
                self.log.info("nbcr: %s was kept at %s: %s", where, each["created"], each["command"])

    async def _kernel_event(self, logger: Any, schema_id: str, data: dict[str, Any]) -> None:
        """A Jupyter kernel was started: what was kept of its notebook is offered."""
        kernel = data.get("kernel_id")
        if data.get("action") != "start" or not kernel or not await asyncio.to_thread(kept.entries):
            return
        order = {"op": "offer", "connection_file": self._connection_file(kernel), "deadline_s": _OFFER_S}
        answer = await errands.ask(order, timeout_s=_OFFER_S + self.stop_timeout_s)
        if "error" in answer:
            self.log.warning("nbcr: kernel %s was not told what was kept: %s", kernel, answer["error"])

    def _connection_file(self, kernel: str) -> str:
        server: Any = self.serverapp
        return str(server.kernel_manager.get_kernel(kernel).connection_file)

    async def stop_extension(self) -> None:
        """The server stops, and its Jupyter kernels still live. Told once for each signal: all wait for the same."""
        if self._keeping is None:
            self._keeping = asyncio.ensure_future(self._keep_all())
        await asyncio.shield(self._keeping)

    async def _keep_all(self) -> None:
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
        order = {
            "op": "keep",
            "reason": kept.AT_STOP,
            "connection_file": self._connection_file(kernel),
            "deadline_s": self.stop_timeout_s,
            "keep": self.keep,
        }
        async with turns:
            answer = await errands.ask(order, timeout_s=2 * self.stop_timeout_s)  # whoever waits for us ends it earlier
        if "error" in answer:
            self.log.warning("nbcr: kernel %s is not kept: %s", kernel, answer["error"])
        elif "nothing" in answer:
            self.log.info("nbcr: kernel %s is not kept: %s", kernel, answer["nothing"])
        else:
            whose = answer["notebook"] or "no notebook"
            self.log.info("nbcr: kernel %s (%s) is kept as %s", kernel, whose, answer["id"])


def _stop_on_interrupt(serverapp: Any) -> None:
    """Where nobody can be asked at a terminal, SIGINT stops a server as SIGTERM does."""

    def stop(number: int, frame: Any) -> None:
        serverapp.stop(from_signal=True)

    with contextlib.suppress(ValueError):  # in another thread than the main one
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, stop)


class KeptHandler(APIHandler):
    """GET /nbcr/kept."""

    auth_resource: ClassVar[str] = "kernels"

    @web.authenticated
    async def get(self) -> None:
        """The list, as JSON."""
        found = await asyncio.to_thread(kept.documents)
        self.finish(json.dumps(found))
