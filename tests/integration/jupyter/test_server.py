"""A Jupyter server that is stopped keeps its sessions, and offers them when it starts: with the operators' example."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nbcr.store import Store
from tests.integration.jupyter.sessions import Client
from tests.integration.lab.browser import TOKEN, free_port
from tests.support import CHECKOUT, ProcessTracker

PATIENCE_S = 120.0


class Server:
    """A Jupyter server without a browser, configured as docs/operators.md says."""

    def __init__(self, folder: Path, processes: ProcessTracker, *more: str, inside: Sequence[str] = ()) -> None:
        self.folder = folder
        environ = {**os.environ, "NBCR_PACK": "never"}
        for variable in ("NBCR_STORE", "IPYTHONDIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR", "XDG_RUNTIME_DIR"):
            place = folder / ("run" if variable == "XDG_RUNTIME_DIR" else variable.lower())  # a socket's path is short
            place.mkdir(mode=0o700, exist_ok=True)
            environ[variable] = str(place)
        (folder / "work").mkdir(exist_ok=True)
        text = (CHECKOUT / "docs" / "operators.md").read_text().partition("This configuration is run by the tests")[2]
        (config,) = re.findall(r"```python\n(.*?)```", text.partition("## JupyterHub")[0], re.DOTALL)
        (folder / "jupyter_config_dir" / "jupyter_server_config.py").write_text(config)
        self.port = free_port()
        argv = [
            *inside, sys.executable, "-m", "jupyter_server", "--allow-root", "--no-browser", "--ip=127.0.0.1",
            f"--port={self.port}", "--ServerApp.port_retries=0", f"--IdentityProvider.token={TOKEN}",
            f"--ServerApp.root_dir={folder / 'work'}", *more,
        ]  # fmt: skip
        self.log = folder / f"{self.port}.log"
        with self.log.open("wb") as log:
            self.process: subprocess.Popen[Any] = processes.start(argv, env=environ, stdout=log, stderr=log)
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                self.ask("api/status")
                return
            except OSError:
                assert time.monotonic() < deadline, self.log.read_text()
                time.sleep(0.1)

    def ask(self, path: str, body: Any = None) -> Any:
        headers = {"Authorization": f"token {TOKEN}", "Content-Type": "application/json"}
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}/{path}", data=data, headers=headers)
        with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
            return json.load(answer)

    def session(self, notebook: str, kernel_name: str = "python3") -> Client:
        """A notebook's Jupyter kernel, and a client of it."""
        wish = {"path": notebook, "name": notebook, "type": "notebook", "kernel": {"name": kernel_name}}
        kernel = self.ask("api/sessions", wish)["kernel"]["id"]
        client = Client(self.folder / "jupyter_runtime_dir" / f"kernel-{kernel}.json")
        client.kernel_id = kernel
        client.ready()
        return client

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(PATIENCE_S)


def test_kept_and_offered(tmp_path: Path, processes: ProcessTracker) -> None:
    server = Server(tmp_path, processes, "--NbcrServer.stop_timeout_s=20", "--NbcrServer.keep=1")
    fit, held = server.session("fit.ipynb"), server.session("held.ipynb")
    fit.run("x = 41; generator = iter(range(10)); next(generator)")
    held.run("%load_ext nbcr")
    held.run("import nbcr; nbcr.disable_checkpoint()")
    server.stop()
    for client in (fit, held):
        client.close()
    told = server.log.read_text()
    assert "2 living kernels are kept, for at most 20 s" in told
    assert re.search(r"is not kept: nbcr: no checkpoint can be taken|1 kernels were not kept within", told), told
    (entry,) = Store(tmp_path / "nbcr_store").entries()
    assert entry.notebook == str(tmp_path / "work" / "fit.ipynb")
    assert list((tmp_path / "nbcr_store" / "entries").glob(".tmp-*")) == []
    # another day
    server = Server(tmp_path, processes)
    (offer,) = server.ask("nbcr/kept")
    assert (offer["id"], offer["notebook"]) == (entry.id, entry.notebook)
    client = server.session("fit.ipynb")
    client.run("%load_ext nbcr")
    client.run(f"import nbcr; nbcr.restart({offer['id']!r})", PATIENCE_S)  # no face of ours takes part
    assert client.run("print(x + 1, next(generator))") == "42 1\n"
    client.close()
    (offer,) = server.ask("nbcr/kept")
    assert offer["back"]  # and so not offered once more
    assert f"fit.ipynb was kept at {entry.created}: %load_ext nbcr and %restart {entry.id}" in server.log.read_text()
    server.process.kill()
