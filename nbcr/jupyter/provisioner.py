"""A provisioner for Jupyter's servers: a Jupyter kernel that crashed comes back from its last checkpoint.

Jupyter's restarter notices a death and asks for a new process. It tells nobody why: so we remember whether anybody
had asked for the end of the old one. Nobody had: it crashed, or was killed, and its last checkpoint is restored on
the manager's own ports and key, so that clients go on. Somebody had (Restart in a menu): a fresh one is started.
Whatever prevents a restore, and a life that crashes again at once, ends in a fresh one too: it is told in the log.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import select
import signal
import sys
import time
from pathlib import Path
from typing import Any

from jupyter_client.connect import KernelConnectionInfo
from jupyter_client.provisioning.local_provisioner import LocalProvisioner
from traitlets import Enum, Float

from nbcr.jupyter.rekey import CHANNELS


class Adopted:
    """A process that is not our child, with what LocalProvisioner uses of a Popen."""

    stdin = stdout = stderr = None

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._pidfd = os.pidfd_open(pid)

    def poll(self) -> int | None:
        """None while it lives. Its exit status is its parent's to know."""
        if self.returncode is None and select.select([self._pidfd], [], [], 0)[0]:
            self.returncode = 1
            os.close(self._pidfd)
        return self.returncode

    def wait(self) -> int:
        """Wait until it has ended."""
        if self.returncode is None:
            select.select([self._pidfd], [], [])
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
    restore_timeout_s = Float(120.0, help="How long a restore may take before a new one is started.").tag(config=True)
    settled_s = Float(5.0, help="A restored one that ends within this time is not restored again.").tag(config=True)

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._asked = True  # for the end of the process that is no more; there was none yet
        self._restored_at = 0.0

    async def launch_kernel(self, cmd: list[str], **kwargs: Any) -> KernelConnectionInfo:
        """A new process, or the last checkpoint's, on the same connection."""
        crashed, self._asked = not self._asked, False
        again = time.monotonic() - self._restored_at < self.settled_s
        if crashed and self.after_crash == "last" and not again:
            restored = await self._restore(dict(kwargs.get("env") or os.environ))
            if restored is not None:
                self.process = restored  # type: ignore[assignment]
                self.pid, self.pgid = restored.pid, _group_of(restored.pid)
                self._restored_at = time.monotonic()
                return self.connection_info
        return await super().launch_kernel(cmd, **kwargs)

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

    async def _restore(self, environ: dict[str, str]) -> Adopted | None:
        """The last checkpoint of this Jupyter kernel, alive; None, and a word in the log, where that cannot be."""
        order = {"kernel_id": self.kernel_id, "connection": self._connection(), "store": environ.get("NBCR_STORE")}
        answer = await self._ask(order, environ)
        if "pid" not in answer:
            self.log.warning("nbcr: kernel %s starts anew: %s", self.kernel_id, answer.get("error", "no answer"))
            return None
        try:
            adopted = Adopted(int(answer["pid"]))
        except OSError as error:
            self.log.warning("nbcr: kernel %s starts anew: what was restored ended (%s)", self.kernel_id, error)
            return None
        self.log.warning("nbcr: kernel %s crashed and is back: %s", self.kernel_id, answer["what"])
        return adopted

    async def _ask(self, order: dict[str, Any], environ: dict[str, str]) -> dict[str, Any]:
        """In a process of its own: a server's threads have no part in a restore."""
        words = (sys.executable, "-m", "nbcr.jupyter.reviving")
        pipe = asyncio.subprocess.PIPE
        child = await asyncio.create_subprocess_exec(*words, stdin=pipe, stdout=pipe, env=environ)
        try:
            told = json.dumps(order).encode()
            said, _ = await asyncio.wait_for(child.communicate(told), self.restore_timeout_s)
            return dict(json.loads(said))
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                child.kill()
            await child.wait()
            return {"error": f"the restore took longer than {self.restore_timeout_s:g} s"}
        except ValueError:
            return {"error": "the restore ended without an answer"}

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
