"""The parts of a running ipykernel that a checkpoint touches, and how to run something on the thread that
owns each.

ipykernel 7 spreads its sockets over four event loops: the shell ROUTER belongs to the "Shell channel"
thread, the control ROUTER to "Control", the XPUB to "IOPub", and the main thread executes. A ZeroMQ socket
may only be touched by its owner, so whatever nbcr does to one it does as a callback on the owner's loop.
"""

from __future__ import annotations

import contextvars
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, TypeVar

from nbcr.errors import NbcrError

T = TypeVar("T")

LOOP_TIMEOUT_S = 10.0


class LoopSilentError(NbcrError):
    """A thread of the Jupyter kernel did not answer in time."""


@dataclass(frozen=True)
class Living:
    """A running IPKernelApp and its parts."""

    app: Any

    @property
    def kernel(self) -> Any:
        """The IPythonKernel object."""
        return self.app.kernel

    @property
    def kernel_id(self) -> str:
        """As its server calls it: its connection file is named after it."""
        from nbcr.jupyter.rekey import kernel_id

        return kernel_id(str(self.app.connection_file)) or ""

    @property
    def session(self) -> Any:
        """The jupyter_client Session that signs every message."""
        return self.kernel.session

    @property
    def iopub(self) -> Any:
        """The IOPubThread, owner of the XPUB socket."""
        return self.app.iopub_thread

    @property
    def shell_thread(self) -> threading.Thread:
        """The thread that owns the shell ROUTER."""
        return self.kernel.shell_channel_thread or threading.main_thread()

    @property
    def shell_loop(self) -> Any:
        """The loop of `shell_thread`."""
        thread = self.kernel.shell_channel_thread
        return thread.io_loop if thread is not None else self.kernel.io_loop

    @property
    def shell_stream(self) -> Any:
        """The ZMQStream around the shell ROUTER."""
        return self.kernel.shell_stream

    @property
    def control_stream(self) -> Any:
        """The ZMQStream around the control ROUTER."""
        return self.kernel.control_stream

    @property
    def manager(self) -> Any:
        """ipykernel's SubshellManager."""
        return self.kernel.shell_channel_thread.manager

    @property
    def main_context(self) -> contextvars.Context | None:
        """The context in which the main thread handles its requests, cells above all; alive, not a copy."""
        stream = self.manager._shell_channel_to_main.to_stream
        for cell in getattr(stream._recv_callback, "__closure__", None) or ():
            if isinstance(cell.cell_contents, contextvars.Context):
                return cell.cell_contents
        return None

    def on_shell(self, call: Callable[[], T]) -> T:
        """Run `call` on the thread that owns the shell ROUTER."""
        return run_on(self.shell_loop, self.shell_thread, call)

    def on_control(self, call: Callable[[], T]) -> T:
        """Run `call` on the thread that owns the control ROUTER."""
        thread = self.kernel.control_thread
        return run_on(thread.io_loop, thread, call)

    def on_iopub(self, call: Callable[[], T]) -> T:
        """Run `call` on the thread that owns the XPUB socket."""
        return run_on(self.iopub.io_loop, self.iopub.thread, call)


def living() -> Living | None:
    """This process's Jupyter kernel, or None when it is none (plain IPython, a script, an embedded one)."""
    module = sys.modules.get("ipykernel.kernelapp")
    if module is None or not module.IPKernelApp.initialized():
        return None
    app = module.IPKernelApp.instance()
    if getattr(app, "kernel", None) is None or getattr(app, "iopub_thread", None) is None:
        return None
    return Living(app)


def run_on(loop: Any, thread: threading.Thread, call: Callable[[], T], timeout_s: float = LOOP_TIMEOUT_S) -> T:
    """Run `call` on `thread`, which runs the tornado `loop`, and return what it returns."""
    if thread is threading.current_thread() or not thread.is_alive():
        return call()
    future: Future[T] = Future()

    def run() -> None:
        if not future.set_running_or_notify_cancel():
            return
        try:
            future.set_result(call())
        except BaseException as error:
            future.set_exception(error)

    loop.add_callback(run)
    try:
        return future.result(timeout_s)
    except TimeoutError:
        if future.cancel():
            raise LoopSilentError(
                f"thread {thread.name!r} of the Jupyter kernel did not answer within {timeout_s:g} s",
                hint="something keeps the interpreter's lock or that thread busy; try again",
            ) from None
        return future.result()
