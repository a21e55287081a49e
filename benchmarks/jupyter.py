"""A real Jupyter kernel and its client, timed from the client's side."""

from __future__ import annotations

import ast
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import KernelManager

from benchmarks import host

CELL_TIMEOUT_S = 240.0
_READING_S = 1.0


class CellFailed(Exception):
    """A cell raised; the message is its last line."""


class JupyterKernel:
    """One Jupyter kernel with a folder of its own for store, history and files."""

    def __init__(self, folder: Path, python: Path | None = None, environ: Mapping[str, str] | None = None) -> None:
        """`python`: another than ours, which does not know nbcr. `environ`: more for its environment."""
        self.folder = folder
        self.environ = {
            **host.environ(),
            "NBCR_STORE": str(folder / "store"),
            "IPYTHONDIR": str(folder / "ipython"),
            "PYDEVD_DISABLE_FILE_VALIDATION": "1",
            **(environ or {}),
        }
        self._manager = KernelManager()
        self._knows_nbcr = python is None
        if python is not None:
            argv = [str(python), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
            self._manager._kernel_spec = KernelSpec(argv=argv, display_name="another", language="python")
        self.client: BlockingKernelClient
        self.pid = 0
        self._brought_back: list[int] = []

    def __enter__(self) -> JupyterKernel:
        self._manager.start_kernel(env=self.environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.client = self._manager.blocking_client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=60)
        self.pid = self.value("__import__('os').getpid()")
        if self._knows_nbcr:
            self.run("%load_ext nbcr")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.client.stop_channels()
        for pid in self._brought_back:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)
        if self._manager.has_kernel:
            self._manager.shutdown_kernel(now=True)

    def run(self, code: str) -> float:
        """Execute a cell; seconds until the client has its reply and hears that the Jupyter kernel is idle."""
        begun = time.perf_counter()
        reply = self.client.execute_interactive(code, timeout=CELL_TIMEOUT_S, output_hook=lambda message: None)
        took = time.perf_counter() - begun
        content = reply["content"]
        if content["status"] != "ok":
            raise CellFailed(f"{content.get('ename')}: {content.get('evalue')}".splitlines()[0])
        return took

    def value(self, expression: str) -> Any:
        """The value of an expression (a literal)."""
        reply = self.client.execute_interactive(
            "", user_expressions={"value": f"({expression})"}, timeout=CELL_TIMEOUT_S, store_history=False,
            output_hook=lambda message: None,
        )  # fmt: skip
        answer = reply["content"]["user_expressions"]["value"]
        if answer["status"] != "ok":
            raise CellFailed(f"{answer.get('ename')}: {answer.get('evalue')}")
        return ast.literal_eval(answer["data"]["text/plain"])

    def settle(self) -> None:
        """Wait until the next checkpoint finds its helper warm, as it is when a user has looked at a cell's output."""
        self.run("import time as _time; from nbcr.session import inprocess as _inprocess")
        self.run("while not _inprocess.prepared(): _time.sleep(0.05)")
        time.sleep(_READING_S)

    def kill(self) -> None:
        """SIGKILL, and reap, as whoever supervises Jupyter kernels does."""
        os.kill(self.pid, signal.SIGKILL)
        provisioner = self._manager.provisioner
        process = getattr(provisioner, "process", None)
        if process is not None:
            process.wait()

    def bring_back(self, name: str) -> float:
        """`nbcr restart NAME --detach` from a shell, until the old client has an answer: seconds."""
        begun = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-m", "nbcr.cli", "restart", name, "--detach", "--json"],
            env=self.environ, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode != 0:
            raise CellFailed((done.stderr.strip().splitlines() or ["nbcr restart failed"])[-1])
        self._brought_back.append(json.loads(done.stdout)["pid"])
        self.value("1")
        return time.perf_counter() - begun
