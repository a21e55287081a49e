"""JupyterHub with the example of docs/jupyterhub_config.py: its culler stops a user's server, and the session is back.

Everything is real but the proxy, which npm would have to install: users' servers are asked directly.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nbcr.store import Store
from tests.integration.jupyter.sessions import Client
from tests.integration.lab.browser import free_port
from tests.support import CHECKOUT, ProcessTracker

PATIENCE_S = 120.0
TOKEN = "nbcr-tests-of-a-hub-0123456789"
CONFIG = """
import sys
from jupyterhub.proxy import Proxy

class NoProxy(Proxy):
    should_start = False
    routes = {{}}

    async def add_route(self, routespec, target, data):
        self.routes[routespec] = {{"routespec": routespec, "target": target, "data": data}}

    async def delete_route(self, routespec):
        self.routes.pop(routespec, None)

    async def get_all_routes(self):
        return dict(self.routes)

load_subconfig({example!r})
c.JupyterHub.proxy_class = NoProxy
c.JupyterHub.authenticator_class = "dummy"
c.Authenticator.allow_all = True
c.JupyterHub.spawner_class = "jupyterhub.spawner.SimpleLocalProcessSpawner"
c.SimpleLocalProcessSpawner.home_dir_template = {home!r}
c.JupyterHub.bind_url = "http://127.0.0.1:{unused}"
c.JupyterHub.hub_bind_url = "http://127.0.0.1:{port}"
c.JupyterHub.db_url = "sqlite://"
c.Spawner.cmd = [sys.executable, "-m", "jupyterhub.singleuser"]
c.Spawner.args = [*c.Spawner.args, "--allow-root"]
c.Spawner.environment = {{**{environ!r}, "NBCR_STORE": lambda spawner: {store!r}}}
c.JupyterHub.services[0]["command"][-2:] = ["--timeout=6", "--cull-every=2"]
c.JupyterHub.services.append({{"name": "tests", "api_token": {token!r}}})
scopes = ["admin:users", "admin:servers", "access:servers"]
c.JupyterHub.load_roles.append({{"name": "tests", "scopes": scopes, "services": ["tests"]}})
"""


class Hub:
    """A hub with one user, ada."""

    def __init__(self, folder: Path, processes: ProcessTracker) -> None:
        self.folder, self.port = folder, free_port()
        environ = {"IPYTHONDIR": str(folder / "ipython"), "JUPYTER_RUNTIME_DIR": str(folder / "runtime")}
        environ |= {"JUPYTER_CONFIG_DIR": str(folder / "config"), "XDG_RUNTIME_DIR": str(folder), "NBCR_PACK": "never"}
        for place in ("ipython", "runtime", "config"):
            (folder / place).mkdir(mode=0o700)
        folder.chmod(0o700)
        (folder / "jupyterhub_config.py").write_text(
            CONFIG.format(
                example=str(CHECKOUT / "docs" / "jupyterhub_config.py"), home=str(folder / "{username}"),
                unused=free_port(), port=self.port, environ=environ, store=str(folder / "store"), token=TOKEN,
            )
        )  # fmt: skip
        self.log = folder / "hub.log"
        with self.log.open("wb") as log:
            argv = [sys.executable, "-m", "jupyterhub"]
            processes.start(argv, cwd=folder, stdout=log, stderr=log, env={**os.environ, "NBCR_PACK": "never"})
        self.wait(lambda: self.ask("api/"))

    def wait(self, condition: Callable[[], Any]) -> Any:
        deadline = time.monotonic() + PATIENCE_S
        while True:
            with contextlib.suppress(ConnectionError, urllib.error.URLError):
                if found := condition():
                    return found
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.2)

    def ask(self, path: str, body: Any = None, root: str = "") -> Any:
        headers = {"Authorization": f"token {TOKEN}", "Content-Type": "application/json"}
        data = None if body is None else json.dumps(body).encode()
        url = f"{root or f'http://127.0.0.1:{self.port}/hub'}/{path}"
        with urllib.request.urlopen(urllib.request.Request(url, data=data, headers=headers), timeout=60) as answer:
            text = answer.read()
        return json.loads(text) if text.strip() else None

    def server(self) -> dict[str, Any]:
        """What the hub knows of ada's server; nothing when there is none."""
        return dict(self.ask("api/users/ada?include_stopped_servers=1")["servers"].get("", {}))

    def session(self) -> Client:
        """ada opens her notebook, on a server that is started for it."""
        self.ask("api/users/ada/server", {})
        self.wait(lambda: self.server().get("ready"))
        wish = {"path": "fit.ipynb", "name": "fit.ipynb", "type": "notebook", "kernel": {"name": "python3"}}
        kernel = self.ask("api/sessions", wish, self._url())["kernel"]["id"]
        client = Client(self.folder / "runtime" / f"kernel-{kernel}.json")
        client.ready()
        return client

    def _url(self) -> str:
        """Of ada's server, as that has said in its log."""
        lines = [line for line in self.log.read_text().splitlines() if "/user/ada/lab?token" in line]
        return lines[-1].split()[-1].partition("/lab?")[0]


def test_a_culled_server_keeps_the_session(tmp_path: Path, processes: ProcessTracker) -> None:
    hub = Hub(tmp_path, processes)
    hub.ask("api/users/ada", {})
    client = hub.session()
    client.run("import threading; x = 41; generator = iter(range(10)); next(generator); lock = threading.Lock()")
    client.run("lock.acquire()")
    client.close()
    hub.wait(lambda: not hub.server().get("ready") and not hub.server().get("pending"))
    assert "Culling server ada" in hub.log.read_text()
    (entry,) = Store(tmp_path / "store").entries()
    assert entry.notebook == str(tmp_path / "ada" / "fit.ipynb")
    client = hub.session()
    hub.wait(lambda: entry.id in client.run("print('told')"))
    client.run("%load_ext nbcr")
    client.run(f"%restart {entry.id}", PATIENCE_S)
    assert client.run("print(x + 1, next(generator), lock.locked())") == "42 1 True\n"
    client.close()
