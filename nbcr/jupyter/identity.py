"""Who this process is: what a restored life must learn about its pid, its parent, its session and its
surroundings."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Mapping
from typing import Any

from nbcr.jupyter.living import Living

SURROUNDINGS = (
    "COLORTERM", "DBUS_SESSION_BUS_ADDRESS", "DISPLAY", "JPY_", "JUPYTERHUB_", "JUPYTER_SERVER_", "SSH_",
    "WAYLAND_DISPLAY", "XAUTHORITY", "XDG_RUNTIME_DIR", "XDG_SESSION_ID",
)  # fmt: skip
"""Environment variables (or their beginnings) that tell of the present's surroundings, not of the user's
work."""


class AnyParent(int):
    """A parent pid that equals every other: ipykernel's ParentPoller finds nothing changed.

    The poller ends the process when its parent's pid is another than it remembers, and it looks once a
    second by an absolute clock: in a restored life it may look at the very first instant, before anyone
    could tell it the new pid. So it is disarmed in the image, and armed again where the new parent is known
    to be a supervisor.
    """

    def __eq__(self, other: object) -> bool:
        return isinstance(other, int)

    def __ne__(self, other: object) -> bool:
        return not isinstance(other, int)

    def __bool__(self) -> bool:
        return True

    __hash__ = int.__hash__


class Parent:
    """ipykernel's ParentPoller across a checkpoint."""

    def __init__(self, app: Any) -> None:
        self._poller = getattr(app, "poller", None)
        self._armed: int | None = None

    def disarm(self) -> None:
        """Accept any parent, until further notice."""
        if self._poller is not None and not isinstance(self._poller.parent_pid, AnyParent):
            self._armed = int(self._poller.parent_pid)
            self._poller.parent_pid = AnyParent(self._armed)

    def rearm(self) -> None:
        """This life goes on: watch the parent as before."""
        if self._poller is not None and self._armed is not None:
            self._poller.parent_pid = self._armed
            self._armed = None

    def adopt(self, pid: int | None) -> None:
        """In a restored life: watch `pid`, or nobody."""
        if self._poller is not None:
            self._poller.parent_pid = pid if pid else AnyParent(1)
            self._armed = None


def renew_pid(living: Living, image_pid: int) -> None:
    """Tell those who remember the pid that it is another one (nothing happens when it is the same)."""
    pid = os.getpid()
    living.session.pid = pid
    living.iopub._master_pid = pid
    streams = [sys.stdout, sys.stderr, living.kernel._stdout, living.kernel._stderr]
    for stream in streams:
        if hasattr(stream, "_master_pid"):
            stream._master_pid = pid
    if pid != image_pid:
        _renew_libraries(image_pid, pid)
        for loop in _loops(living):
            _renew_loop(loop)


def renew_session(living: Living) -> None:
    """A new session id: message ids would repeat those of the life that went on."""
    from jupyter_client.session import new_id

    living.session.session = new_id()


def adopt_environment(present: Mapping[str, str], living: Living) -> None:
    """Take over what the environment tells of the surroundings; leave what the user's work set."""
    for name in [name for name in os.environ if _is_surrounding(name)]:
        if name not in present:
            del os.environ[name]
    for name, value in present.items():
        if _is_surrounding(name):
            os.environ[name] = value
    notebook = os.environ.get("JPY_SESSION_NAME")
    shell = living.kernel.shell
    if notebook and shell is not None and "__session__" in shell.user_ns:
        shell.user_ns["__session__"] = notebook


def _is_surrounding(name: str) -> bool:
    return any(name == known or (known.endswith("_") and name.startswith(known)) for known in SURROUNDINGS)


def _renew_libraries(old: int, new: int) -> None:
    garbage = sys.modules.get("zmq.utils.garbage")
    if garbage is not None and garbage.gc.pid == old:
        garbage.gc.pid = new
        if garbage.gc.thread is not None:
            garbage.gc.thread.pid = new
    zmq = sys.modules.get("zmq")
    if zmq is not None and zmq.Context._instance_pid == old:
        zmq.Context._instance_pid = new


def _loops(living: Living) -> list[Any]:
    kernel = living.kernel
    threads = [kernel.control_thread, kernel.shell_channel_thread, *living.manager._cache.values()]
    loops = [kernel.io_loop, living.iopub.io_loop]
    loops += [thread.io_loop for thread in threads if thread is not None]
    return [loop.asyncio_loop for loop in loops]


def _renew_loop(loop: Any) -> None:
    """Make a running event loop known as running under the new pid.

    Some versions of asyncio remember the pid beside the running loop and deny it in any other process. The
    correction must run in the loop's own thread, before any callback that asks for the running loop: hence
    the front of the queue.
    """
    handle = asyncio.Handle(asyncio._set_running_loop, (loop,), loop)
    ready = getattr(loop, "_ready", None)
    if ready is not None and loop.is_running():
        ready.appendleft(handle)
        loop._write_to_self()
