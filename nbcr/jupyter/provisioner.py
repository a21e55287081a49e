"""A provisioner for Jupyter's servers: a Jupyter kernel that crashed comes back from its last checkpoint, and so
does a session that a server ended, when its notebook is opened again.

Jupyter's restarter notices a death and asks for a new process. It tells nobody why: so we remember whether anybody
had asked for the end of the old one. Nobody had: it crashed, or was killed, and its last checkpoint is restored on
the manager's own ports and key, so that clients go on. Somebody had (Restart in a menu): a fresh one is started.
Whatever prevents a restore, and a life that crashes again at once, ends in a fresh one too: it is told in the log.

What a server culls, or ends as it stops itself, is kept (`nbcr.jupyter.kept`): the first process that is asked for
the same notebook later is that session. Culling needs nothing but this provisioner to be minded; a server that stops
is minded by `nbcr.jupyter.serverextension`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from pathlib import Path
from typing import Any

from jupyter_client.connect import KernelConnectionInfo
from jupyter_client.provisioning.local_provisioner import LocalProvisioner
from traitlets import Bool, Enum, Float, Int

from nbcr.jupyter import culling, errands, kept
from nbcr.jupyter.rekey import CHANNELS
from nbcr.runtime import readable


class Adopted:
    """A process that is not our child, with what LocalProvisioner uses of a Popen."""

    stdin = stdout = stderr = None

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._pidfd = os.pidfd_open(pid)

    def poll(self) -> int | None:
        """None while it lives. Its exit status is its parent's to know."""
        if self.returncode is None and readable(self._pidfd):
            self.returncode = 1
            os.close(self._pidfd)
        return self.returncode

    def wait(self) -> int:
        """Wait until it has ended."""
        if self.returncode is None:
            readable(self._pidfd, None)
        return self.poll() or 1

    def send_signal(self, number: int) -> None:
        """Send a signal to it, and to nobody who has its pid after it."""
        if self.poll() is None:
            signal.pidfd_send_signal(self._pidfd, number)

    def kill(self) -> None:
        """End it."""
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        """Ask it to end."""
        self.send_signal(signal.SIGTERM)


class NbcrProvisioner(LocalProvisioner):
    """Starts Jupyter kernels as usual, and brings those that crashed back from their last checkpoint."""

    after_crash = Enum(
        ["last", "clean"],
        default_value="last",
        help="What a crashed kernel becomes: its last checkpoint, or a new one.",
    ).tag(config=True)
    after_cull = Enum(
        ["last", "clean"],
        default_value="last",
        help="What the first kernel of a notebook becomes whose session a server has culled, or kept as it stopped: "
        "that session, or a new one.",
    ).tag(config=True)
    at_cull = Bool(True, help="Keep idle kernels before the server culls them.").tag(config=True)
    cull_unkept = Bool(False, help="Cull also those that cannot be kept.").tag(config=True)
    keep = Int(2, min=1, help="How many of what was kept stay, of each notebook.").tag(config=True)
    restore_timeout_s = Float(120.0, help="How long a restore may take before a new one is started.").tag(config=True)
    settled_s = Float(5.0, help="A restored one that ends within this time is not restored again.").tag(config=True)

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._asked = True  # for the end of the process that is no more; there was none yet
        self._is_first = True
        self._restored_at = 0.0

    async def launch_kernel(self, cmd: list[str], **kwargs: Any) -> KernelConnectionInfo:
        """A new process, or the last checkpoint's, on the same connection."""
        environ = dict(kwargs.get("env") or os.environ)
        order = await self._order(environ)
        restored = None if order is None else await self._restore(order, environ)
        if restored is None:
            return await super().launch_kernel(cmd, **kwargs)
        self.process = restored  # type: ignore[assignment]
        self.pid, self.pgid = restored.pid, _group_of(restored.pid)
        self._restored_at = time.monotonic()
        return self.connection_info

    async def _order(self, environ: dict[str, str]) -> dict[str, Any] | None:
        """What is to be brought back in place of a new process; None: nothing."""
        crashed, self._asked = not self._asked, False
        first, self._is_first = self._is_first, False
        again = time.monotonic() - self._restored_at < self.settled_s
        if crashed and self.after_crash == "last" and not again:
            return {"op": "revive", "kernel_id": self.kernel_id}
        if not first:
            return None
        self._mind_culling()
        notebook, store = environ.get("JPY_SESSION_NAME"), environ.get("NBCR_STORE")
        if not notebook or self.after_cull != "last" or await asyncio.to_thread(kept.waiting, notebook, store) is None:
            return None
        return {"op": "resume", "notebook": notebook, "environ": environ}

    def _mind_culling(self) -> None:
        manager = getattr(self.parent, "parent", None)  # of all Jupyter kernels of a server
        if manager is not None and self.at_cull:
            culling.mind(manager, culling.Rules(self.restore_timeout_s, self.keep, self.cull_unkept))

    async def kill(self, restart: bool = False) -> None:
        """As usual; who is alive now does not crash."""
        await self._note_end()
        await super().kill(restart)

    async def terminate(self, restart: bool = False) -> None:
        """As usual; who is alive now does not crash."""
        await self._note_end()
        await super().terminate(restart)

    async def shutdown_requested(self, restart: bool = False) -> None:
        """Somebody asked it to end."""
        self._asked = True
        await super().shutdown_requested(restart)

    async def _note_end(self) -> None:
        """Its end was asked for, unless it had ended by itself before."""
        if await self.poll() is None:
            self._asked = True

    async def _restore(self, order: dict[str, Any], environ: dict[str, str]) -> Adopted | None:
        """What is ordered, alive; None, and a word in the log, where that cannot be."""
        order = {**order, "connection": self._connection(), "store": environ.get("NBCR_STORE")}
        answer = await errands.ask(order, timeout_s=self.restore_timeout_s, environ=environ)
        if "pid" not in answer:
            self.log.warning("nbcr: kernel %s starts anew: %s", self.kernel_id, answer.get("error", "no answer"))
            return None
        try:
            adopted = Adopted(int(answer["pid"]))
        except OSError as error:
            self.log.warning("nbcr: kernel %s starts anew: what was restored ended (%s)", self.kernel_id, error)
            return None
        self.log.warning("nbcr: kernel %s is brought back %s", self.kernel_id, answer["what"])
        return adopted

    def _connection(self) -> dict[str, Any]:
        """The manager's, as a restored life is told of it."""
        known = {key: _text(value) for key, value in self.connection_info.items()}
        file = getattr(self.parent, "connection_file", "")
        return {
            **{key: known.get(key) for key in ("transport", "ip", "key", "curve_publickey", "curve_secretkey")},
            "ports": {name: int(known[f"{name}_port"]) for name in CHANNELS},
            "signature_scheme": known.get("signature_scheme") or "hmac-sha256",
            "connection_file": str(Path(file).absolute()) if file else "",
        }


def _text(value: Any) -> Any:
    return value.decode() if isinstance(value, bytes) else value


def _group_of(pid: int) -> int | None:
    """Its process group, where it is of its own: a signal to it must not reach anybody else."""
    with contextlib.suppress(OSError):
        group = os.getpgid(pid)
        return group if group == pid else None
    return None
