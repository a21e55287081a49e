"""A crashed Jupyter kernel comes back from its last checkpoint, as plain jupyter_client restarts it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import KernelManager
from jupyter_client.restarter import KernelRestarter

PATIENCE_S = 120.0


class Session:
    """A manager with Jupyter's own restarter, and a client that is connected all the time."""

    def __init__(self, folder: Path, *flags: str) -> None:
        self.environ = {**os.environ, "PYDEVD_DISABLE_FILE_VALIDATION": "1"}
        for variable in ("NBCR_STORE", "IPYTHONDIR", "JUPYTER_RUNTIME_DIR", "XDG_RUNTIME_DIR"):
            place = folder / variable.lower()
            place.mkdir(mode=0o700)
            self.environ[variable] = str(place)
        words = [sys.executable, "-m", "nbcr.cli", "kernelspec", "install", "--prefix", str(folder), *flags]
        said = subprocess.run(words, env=self.environ, capture_output=True, text=True, check=True).stdout
        kernels = folder / "share" / "jupyter" / "kernels"
        assert said.strip() == f"installed nbcr in {kernels / 'nbcr'}"
        specs = KernelSpecManager(kernel_dirs=[str(kernels)])
        file = folder / "jupyter_runtime_dir" / "kernel-crashing.json"
        self.manager = KernelManager(kernel_name="nbcr", kernel_spec_manager=specs, connection_file=str(file))
        self.manager.start_kernel(env=self.environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.restarter = KernelRestarter(kernel_manager=self.manager)
        self.client = self.manager.blocking_client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=PATIENCE_S)

    def run(self, code: str) -> str:
        said: list[str] = []

        def hear(message: dict[str, Any]) -> None:
            said.append(message["content"].get("text", ""))
            assert message["msg_type"] != "error", message["content"]

        self.client.execute_interactive(code, timeout=PATIENCE_S, output_hook=hear)
        return "".join(said)

    def crash(self) -> None:
        """kill -9, and the restarter notices."""
        pid = int(self.run("import os; print(os.getpid())").split()[-1])
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not self.manager.is_alive())
        self.restarter.poll()
        assert self.manager.is_alive()

    def close(self) -> None:
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)
        wait_until(lambda: not self.manager.has_kernel)


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture
def begin() -> Iterator[Callable[..., Session]]:
    begun: list[Session] = []
    folder = Path(tempfile.mkdtemp(prefix="nbcr-"))  # short: Unix sockets are below it

    def start(*flags: str) -> Session:
        begun.append(Session(folder, *flags))
        return begun[-1]

    yield start
    for session in begun:
        session.close()
    shutil.rmtree(folder, ignore_errors=True)


def test_it_comes_back_on_the_managers_ports(begin: Callable[..., Session]) -> None:
    session = begin("--auto", "--every 1h")
    assert "every            1h" in session.run("%nbcr auto")
    session.run("import threading; x = [1]; thread = threading.Thread(target=threading.Event().wait, daemon=True)")
    session.run("thread.start()")
    session.run("import os; ballast = os.urandom(1 << 28)")
    ports = json.loads(Path(session.manager.connection_file).read_text())
    session.run("%checkpoint before")  # which is still being written when it crashes
    session.run("x.append(2)")
    session.crash()
    said = session.run("print(x, thread.is_alive())")
    assert "[1] True" in said
    assert "ended unexpectedly" in said
    assert "in checkpoint 'before'; what came after is gone" in said
    assert session.run("print('quiet')") == "quiet\n"
    after = json.loads(Path(session.manager.connection_file).read_text())
    assert {name: ports[name] for name in ports if name.endswith("port")} == {
        name: after[name] for name in after if name.endswith("port")
    }
    # interrupts reach it, and a restart that somebody asks for starts anew
    session.manager.interrupt_kernel()
    session.manager.restart_kernel(now=True)
    session.client.wait_for_ready(timeout=PATIENCE_S)
    assert session.run("print('x' in globals())") == "False\n"


def test_it_starts_anew_where_that_is_wanted_or_nothing_is_there(begin: Callable[..., Session]) -> None:
    session = begin("--after-crash", "clean", "--auto", "")
    session.run("x = 1")
    session.run("%checkpoint before --wait")
    session.crash()
    session.client.wait_for_ready(timeout=PATIENCE_S)
    assert session.run("print('x' in globals())") == "False\n"
    session.manager.provisioner.after_crash = "last"
    session.run("!rm -r $NBCR_STORE/entries")
    session.crash()
    session.client.wait_for_ready(timeout=PATIENCE_S)
    assert session.run("print('x' in globals())") == "False\n"
