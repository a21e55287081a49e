"""A server that culls an idle Jupyter kernel keeps its session first, and the notebook gets it back."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nbcr.store import Store
from tests.integration.jupyter.test_server import PATIENCE_S, Server
from tests.support import ProcessTracker

CULLING = ("--MappingKernelManager.cull_idle_timeout=4", "--MappingKernelManager.cull_interval=1")
STATE = (
    "import threading; x = 41; generator = iter(range(10)); next(generator); lock = threading.Lock(); lock.acquire()"
)


def wait_until(condition: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + PATIENCE_S
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return found


def culled(server: Server, kernel: str) -> bool:
    return kernel not in [each["id"] for each in server.ask("api/kernels")]


@pytest.mark.either("minded_by")
@pytest.mark.parametrize("minded_by", ["extension", "provisioner"])
def test_it_is_kept_and_comes_back(
    minded_by: str, tmp_path: Path, processes: ProcessTracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    provisioned = minded_by == "provisioner"
    flags = ["--NbcrServer.cull_timeout_s=8", *CULLING, "--MappingKernelManager.cull_connected=True"]
    if provisioned:
        words = [sys.executable, "-m", "nbcr.cli", "kernelspec", "install", "--prefix", str(tmp_path), "--auto", ""]
        subprocess.run(words, check=True, capture_output=True)
        monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "share" / "jupyter"))
        flags.append("--ServerApp.jpserver_extensions={'nbcr': False}")
    server = Server(tmp_path, processes, *flags)
    kernel_name = "nbcr" if provisioned else "python3"
    fit = server.session("fit.ipynb", kernel_name)
    fit.run(STATE)
    empty, held = server.session("empty.ipynb", kernel_name), None
    if not provisioned:
        held = server.session("held.ipynb")
        held.run("%load_ext nbcr")
        held.run("import nbcr; nbcr.disable_checkpoint()")
    for client in (fit, empty):
        wait_until(lambda client=client: culled(server, client.kernel_id))
        client.close()
    (entry,) = Store(tmp_path / "nbcr_store").entries()
    assert entry.notebook == str(tmp_path / "work" / "fit.ipynb")
    if held is not None:
        wait_until(lambda: f"{held.kernel_id} cannot be kept and is not culled" in server.log.read_text())
        assert held.run("print('alive')") == "alive\n"
        held.close()
    server.process.kill()
    assert entry.note == "kept when the Jupyter kernel was idle and culled"
    # another day, and the notebook is opened again
    server = Server(tmp_path, processes, *flags[-1:] if provisioned else ())
    again = server.session("fit.ipynb", kernel_name)
    if provisioned:
        said = again.run("print(x + 1, next(generator), lock.locked())")
        assert said.endswith("42 1 True\n")
        assert "was idle and culled; Kernel → Restart begins a new one" in said
        assert again.run("print('quiet')") == "quiet\n"
        server.ask(f"api/kernels/{again.kernel_id}/restart", {})
        again.ready()
        assert again.run("print('x' in globals())") == "False\n"
    else:
        wait_until(lambda: entry.id in again.run("print('told')"))
        again.run("%load_ext nbcr")
        again.run(f"%restart {entry.id}", PATIENCE_S)
        assert again.run("print(x + 1, next(generator), lock.locked())") == "42 1 True\n"
    again.close()
    server.process.kill()
