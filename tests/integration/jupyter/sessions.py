"""A real Jupyter kernel, started as some user, and a client that sorts what it hears by cell."""

from __future__ import annotations

import json
import os
import queue
import signal
import sys
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.connect import write_connection_file

from tests.support import ProcessTracker, User

STEP_S = 0.02
QUIET_S = 0.4


@dataclass
class Cell:
    """All that came back for one request."""

    text: str = ""
    status: str | None = None
    idles: int = 0
    replies: int = 0
    error: str = ""
    displays: list[dict[str, Any]] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    @property
    def ended(self) -> bool:
        return self.status is not None and self.idles > 0


class Client:
    """A BlockingKernelClient whose messages are sorted by the request they belong to."""

    kernel_id = ""  # as a server knows it

    def __init__(self, connection_file: Path) -> None:
        self.client = BlockingKernelClient(connection_file=str(connection_file))
        self.client.load_connection_file()
        self.client.start_channels()
        self.cells: dict[str, Cell] = {}
        self.strays: list[dict[str, Any]] = []
        self.invalid = 0

    def close(self) -> None:
        self.client.stop_channels()
        self.client.context.destroy(linger=0)  # `term` would wait for ever for a socket that was left open

    def send(self, code: str, *, stop_on_error: bool = True, allow_stdin: bool = False) -> str:
        msg_id = self.client.execute(code, stop_on_error=stop_on_error, allow_stdin=allow_stdin)
        self.cells[msg_id] = Cell()
        return str(msg_id)

    def wait(self, *msg_ids: str, timeout_s: float = 30.0) -> list[Cell]:
        """The cells once they have ended; fails when they do not in time."""
        self.listen(lambda: all(self.cells[m].ended for m in msg_ids), timeout_s)
        late = [m for m in msg_ids if not self.cells[m].ended]
        assert not late, f"no end of {[self.cells[m] for m in late]} within {timeout_s} s"
        return [self.cells[m] for m in msg_ids]

    def run(self, code: str, timeout_s: float = 30.0) -> str:
        """Execute, wait for the end, return what was printed; fails when the cell fails."""
        (cell,) = self.wait(self.send(code), timeout_s=timeout_s)
        assert cell.status == "ok", cell.error
        return cell.text

    def value(self, expression: str, timeout_s: float = 30.0) -> Any:
        """The value of an expression, over JSON."""
        return json.loads(self.run(f"import json as _json; print(_json.dumps({expression}))", timeout_s))

    def listen(self, until: Callable[[], bool], timeout_s: float) -> bool:
        deadline = time.monotonic() + timeout_s
        while not until():
            if time.monotonic() > deadline:
                return False
            self._take(self.client.get_iopub_msg, STEP_S)
            self._take(self.client.get_shell_msg, 0)
            self._take(self.client.get_stdin_msg, 0)
        return True

    def is_asked(self, msg_id: str, *prompts: str, timeout_s: float = 60.0) -> None:
        """Until this cell has asked its user all that, and nothing else; fails when it does not in time."""
        cell = self.cells[msg_id]
        if not self.listen(lambda: cell.asked == list(prompts), timeout_s):
            heard = [message["msg_type"] for message in self.strays]
            raise AssertionError(f"{cell} has not asked {prompts} within {timeout_s} s; all: {self.cells}, {heard}")

    def quiet(self, for_s: float = QUIET_S) -> None:
        """Listen until nothing has come for a while: what must not come has had its chance."""
        last = [time.monotonic(), self._heard()]

        def silent() -> bool:
            if self._heard() != last[1]:
                last[:] = [time.monotonic(), self._heard()]
            return time.monotonic() - last[0] > for_s

        self.listen(silent, 20 * for_s)

    def _heard(self) -> float:
        return sum(len(c.text) + c.idles + c.replies for c in self.cells.values()) + len(self.strays)

    def _take(self, get: Callable[..., dict[str, Any]], timeout_s: float) -> None:
        try:
            message = get(timeout=timeout_s)
        except queue.Empty:
            return
        cell = self.cells.get(message["parent_header"].get("msg_id", ""))
        if cell is None:
            self.strays.append(message)
        else:
            _note(cell, message)

    def control(self, kind: str, content: Mapping[str, Any], timeout_s: float = 10.0) -> dict[str, Any]:
        message = self.client.session.msg(kind, dict(content))
        self.client.control_channel.send(message)
        deadline = time.monotonic() + timeout_s
        while True:
            reply = self.client.get_control_msg(timeout=max(0.0, deadline - time.monotonic()))
            if reply["parent_header"].get("msg_id") == message["header"]["msg_id"]:
                return dict(reply["content"])

    def ready(self, timeout_s: float = 60.0) -> None:
        """Until it answers. On a busy machine one heartbeat may be late, which jupyter_client takes for death."""
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                return self.client.wait_for_ready(timeout=max(1.0, deadline - time.monotonic()))
            except RuntimeError:
                if time.monotonic() >= deadline:
                    raise


def _note(cell: Cell, message: Mapping[str, Any]) -> None:
    kind, content = message["msg_type"], message["content"]
    if kind == "stream":
        cell.text += content["text"]
    elif kind in ("display_data", "execute_result", "comm_msg", "comm_open"):
        cell.displays.append(content)
    elif kind == "error":
        cell.error = "\n".join(content["traceback"])
    elif kind == "input_request":
        cell.asked.append(content["prompt"])
    elif kind == "status" and content["execution_state"] == "idle":
        cell.idles += 1
    elif kind == "execute_reply":
        cell.status = content["status"]
        cell.replies += 1


@dataclass
class Jupyter:
    """A Jupyter kernel's process and everything needed to talk to it."""

    pid: int
    connection_file: Path
    client: Client
    user: User
    environ: dict[str, str]

    def kill(self, processes: ProcessTracker) -> None:
        os.kill(self.pid, signal.SIGKILL)
        processes.reap(self.pid)


class Stage:
    """Starts Jupyter kernels as one user, in folders of that user's own."""

    def __init__(self, user: User, folder: Path, processes: ProcessTracker) -> None:
        self.user, self.folder, self.processes = user, folder, processes
        self.started: list[Jupyter] = []
        for name in ("runtime", "store", "ipython", "work"):
            (folder / name).mkdir(mode=0o700, exist_ok=True)
            user.give(folder / name)
        self.configure("c.NbcrAuto.before_restart = False")  # tests that want the present kept switch it on
        self.environ = user.environ(
            {
                "JUPYTER_RUNTIME_DIR": str(folder / "runtime"),
                "IPYTHONDIR": str(folder / "ipython"),
                "NBCR_STORE": str(folder / "store"),
                "JPY_PARENT_PID": str(os.getpid()),
            }
        )

    def configure(self, *lines: str) -> None:
        """Settings of every Jupyter kernel that is started from now on."""
        profile = self.folder / "ipython" / "profile_default"
        profile.mkdir(mode=0o700, exist_ok=True)
        self.user.give(profile)
        file = profile / "ipython_kernel_config.py"
        file.write_text("\n".join(["c = get_config()", *lines]) + "\n")
        self.user.give(file)

    def connection_file(self, *, transport: str = "tcp", more: Mapping[str, Any] | None = None) -> Path:
        """A connection file that nobody serves yet."""
        file = self.folder / "runtime" / f"kernel-{uuid.uuid4()}.json"
        ip = "127.0.0.1" if transport == "tcp" else str(self.folder / "runtime" / uuid.uuid4().hex[:8])
        write_connection_file(str(file), ip=ip, transport=transport, key=uuid.uuid4().hex.encode())
        if more:
            file.write_text(json.dumps({**json.loads(file.read_text()), **more}))
        self.user.give(file)
        return file

    def start(self, file: Path | None = None, arguments: Iterable[str] = ()) -> Jupyter:
        """A Jupyter kernel that answers."""
        file = file or self.connection_file()
        words = [sys.executable, "-m", "ipykernel_launcher", "-f", file, *arguments]
        log = (self.folder / f"{file.stem}.log").open("wb")
        self.user.give(Path(log.name))
        with log:
            process = self.processes.start(
                self.user.command(words, cwd=self.folder / "work"), env=self.environ, stdout=log, stderr=log
            )
        jupyter = Jupyter(process.pid, file, Client(file), self.user, self.environ)
        self.started.append(jupyter)
        try:
            jupyter.client.ready()
        except RuntimeError as error:
            raise AssertionError(f"the Jupyter kernel does not answer: {Path(log.name).read_text()}") from error
        return jupyter

    def close(self) -> None:
        for jupyter in self.started:
            jupyter.client.close()
