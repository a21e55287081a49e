"""An example for operators: a hub whose users' sessions outlive the culling of their servers and of idle kernels.

`docs/operators.md` explains it; the tests run a hub with it. Names, paths and times are to be adapted.
"""

import sys

c = get_config()  # noqa: F821

# A user's server that nobody has used for an hour is stopped (pip install jupyterhub-idle-culler).
c.JupyterHub.services = [
    {
        "name": "idle-culler",
        "command": [sys.executable, "-m", "jupyterhub_idle_culler", "--timeout=3600", "--cull-every=300"],
    }
]
c.JupyterHub.load_roles = [
    {
        "name": "idle-culler",
        "scopes": ["list:users", "read:users:activity", "read:servers", "delete:servers"],
        "services": ["idle-culler"],
    }
]

# It gets SIGTERM first. How long the hub waits before SIGKILL: more than nbcr may take to keep what runs there.
c.LocalProcessSpawner.interrupt_timeout = 1  # SIGINT comes before, and does not stop a Jupyter server
c.LocalProcessSpawner.term_timeout = 30

c.Spawner.args = [
    "--ServerApp.jpserver_extensions={'nbcr': True}",
    "--NbcrServer.stop_timeout_s=20",
    # idle kernels of a server that is in use, too
    "--MappingKernelManager.cull_idle_timeout=3600",
    "--MappingKernelManager.cull_interval=300",
    "--MappingKernelManager.cull_connected=True",
]
# Where checkpoints are, if not in ~/.local/share/nbcr: a folder of the user's own that outlives the server.
c.Spawner.environment = {"NBCR_STORE": lambda spawner: f"/scratch/{spawner.user.name}/nbcr"}
