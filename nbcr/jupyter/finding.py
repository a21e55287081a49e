"""Finding what a user names: a pid, a connection file, a Jupyter kernel's id or its beginning, a notebook.

Connection files tell how to reach a Jupyter kernel, not whether it lives, nor which process it is. Asking
over the control channel (usage_request, answered in about 5 ms even while a cell runs) tells both. Where
the answer cannot be trusted (another pid namespace), or none comes (the interpreter's lock is held by a
long call), the process is found by its listening sockets.
"""

from __future__ import annotations

import difflib
import json
import os
import socket
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nbcr import runtime
from nbcr.errors import TargetUnknown
from nbcr.jupyter.listening import process_serving, serves
from nbcr.jupyter.rekey import Connection, kernel_id

ANSWER_S = 0.5


@dataclass(frozen=True)
class Target:
    """A process to checkpoint or to overwrite; a Jupyter kernel where `connection_file` is not None."""

    pid: int
    connection_file: Path | None = None
    kernel_id: str | None = None
    notebook: str | None = None

    @property
    def is_jupyter(self) -> bool:
        """Whether it is a Jupyter kernel that can be spoken to."""
        return self.connection_file is not None

    def connection(self) -> Connection:
        """What its connection file says. Raises TargetUnknown when that is gone or no connection file."""
        if self.connection_file is None:
            raise TargetUnknown(f"process {self.pid} is no Jupyter kernel", hint="name one by its id or file")
        return read_connection(self.connection_file)


def find_target(text: str) -> Target:
    """The process that `text` names. Raises TargetUnknown, with names that come near."""
    text = text.strip()
    if text.isdecimal():
        pid = int(text) if _alive(int(text)) else runtime.seen_as(int(text))
        if pid is not None:
            return _by_pid(pid)
    path = Path(text).expanduser()
    if path.suffix == ".json" or (os.sep in text and path.is_file()):
        return _by_file(path)
    kernels = living_kernels()
    if path.suffix == ".ipynb":
        kernels = with_notebooks(kernels)
    found = [k for k in kernels if _names(k, text)]
    exact = [k for k in found if text in (k.kernel_id, k.notebook)]
    if len(exact or found) == 1:
        return (exact or found)[0]
    if found:
        raise TargetUnknown(
            f"{text!r} fits {len(found)} living Jupyter kernels: {_list(found)}",
            hint="name one of them by more letters of its id, or by its pid",
        )
    if text.isdecimal():
        raise TargetUnknown(f"there is no process {text}", hint=_hint(text, kernels))
    raise TargetUnknown(
        f"no living Jupyter kernel, process or connection file is called {text!r}", hint=_hint(text, kernels)
    )


def living_kernels(folders: Iterable[Path] | None = None, answer_s: float = ANSWER_S) -> list[Target]:
    """The Jupyter kernels of this host that answer, or at least run, newest connection file first."""
    files = [file for folder in (folders or runtime_folders()) for file in _connection_files(folder)]
    found = _processes(files, answer_s)
    return [_target(found[file], file) for file in files if file in found]


def runtime_folders() -> list[Path]:
    """Where Jupyter puts connection files for this user."""
    from jupyter_core.paths import jupyter_runtime_dir

    try:
        return [Path(jupyter_runtime_dir())]
    except RuntimeError:  # there is no home folder, and so no Jupyter of this user's
        return []


def read_connection(file: Path) -> Connection:
    """The contents of a connection file. Raises TargetUnknown."""
    try:
        facts = json.loads(file.read_text(encoding="utf-8"))
        return Connection.read({**facts, "connection_file": str(file.absolute())})
    except OSError as error:
        raise TargetUnknown(
            f"connection file {file} cannot be read: {error.strerror}", hint="is it the right path?"
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise TargetUnknown(
            f"{file} is no Jupyter connection file", hint="those are called kernel-<id>.json"
        ) from error


def connection_file_of(pid: int) -> Path | None:
    """The connection file that a Jupyter kernel serves, when there is one."""
    named = [Path(word) for word in _words(pid) if word.endswith(".json")]
    folders = runtime_folders()
    near = [folder / path.name for path in named for folder in folders]
    for file in (*named, *near, *(file for folder in folders for file in _connection_files(folder))):
        try:
            if file.is_absolute() and file.is_file() and serves(pid, read_connection(file)):
                return file
        except TargetUnknown:
            continue
    return None


def notebook_of(pid: int) -> str | None:
    """The notebook that a Jupyter server started this Jupyter kernel for."""
    try:
        environ = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return None
    for variable in environ.split(b"\0"):
        if variable.startswith(b"JPY_SESSION_NAME="):
            return os.fsdecode(variable.partition(b"=")[2]) or None
    return None


# The three ways to name a target


def _by_pid(pid: int) -> Target:
    file = connection_file_of(pid)
    return _target(pid, file) if file is not None else Target(pid, notebook=notebook_of(pid))


def _by_file(path: Path) -> Target:
    path = next((p for p in (path, *(f / path.name for f in runtime_folders())) if p.is_file()), path)
    connection = read_connection(path)
    file = Path(connection.connection_file)
    pid = _processes([file], 2 * ANSWER_S).get(file)
    if pid is None:
        raise TargetUnknown(
            f"nothing answers on connection file {file}",
            hint="the Jupyter kernel died or is on another host; `nbcr list` shows what can be restarted",
        )
    return _target(pid, file)


def _names(target: Target, text: str) -> bool:
    if target.kernel_id is not None and target.kernel_id.startswith(text):
        return True
    notebook = target.notebook
    return notebook is not None and (text == Path(notebook).name or _same_path(Path(text), Path(notebook)))


def _same_path(one: Path, other: Path) -> bool:
    return one.expanduser().absolute() == other.absolute()


def with_notebooks(kernels: Iterable[Target]) -> list[Target]:
    """With the notebooks' present paths: a server also knows those it has not told its Jupyter kernels."""
    from nbcr.jupyter.servers import notebooks_by_kernel

    known = notebooks_by_kernel(runtime_folders())
    return [replace(k, notebook=known.get(k.kernel_id or "", k.notebook)) for k in kernels]


# Who is alive


def _connection_files(folder: Path) -> list[Path]:
    try:
        files = [(file.stat().st_mtime, file) for file in folder.glob("kernel-*.json")]
    except OSError:
        return []
    return [file for _, file in sorted(files, reverse=True)]


def _processes(files: Iterable[Path], answer_s: float) -> dict[Path, int]:
    """The process behind each connection file, where one lives on this host."""
    found: dict[Path, int] = {}
    for file, answered in _answers(files, answer_s).items():
        pid = process_serving(read_connection(file), answered)
        if pid is not None and _alive(pid):
            found[file] = pid
    return found


def _answers(files: Iterable[Path], answer_s: float) -> dict[Path, int | None]:
    """Ask all at once who they are: what each answers, None for the silent; damaged files are left out."""
    import zmq

    from nbcr.jupyter.wires import Asker

    found: dict[Path, int | None] = {}
    context: zmq.Context[Any] = zmq.Context()
    poller = zmq.Poller()
    waiting: dict[Any, tuple[Path, Asker, str]] = {}
    try:
        for file in files:
            try:
                asker = Asker(read_connection(file), context)
            except TargetUnknown:
                continue
            found[file] = None
            try:
                message_id = asker.send("control", "usage_request", {})
            except (zmq.ZMQError, AttributeError):
                asker.close()
                continue
            waiting[asker.socket("control")] = (file, asker, message_id)
            poller.register(asker.socket("control"), zmq.POLLIN)
        found.update(_collect(poller, dict(waiting), time.monotonic() + answer_s))
    finally:
        for _, asker, _ in waiting.values():
            asker.close()
        context.term()
    return found


def _collect(poller: Any, waiting: dict[Any, tuple[Path, Any, str]], deadline: float) -> Iterator[tuple[Path, int]]:
    while waiting:
        ready = poller.poll(max(0, int((deadline - time.monotonic()) * 1000)))
        if not ready:
            return
        for answering, _ in ready:
            file, asker, message_id = waiting[answering]
            reply = asker.read("control", message_id)
            if reply is None:
                continue
            poller.unregister(answering)
            del waiting[answering]
            if reply.get("hostname") == socket.gethostname() and isinstance(reply.get("pid"), int):
                yield file, reply["pid"]


def _words(pid: int) -> list[str]:
    try:
        raw = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return []
    return [os.fsdecode(word) for word in raw.split(b"\0")]


def _alive(pid: int) -> bool:
    """Whether there is such a process; one that has ended and was not reaped yet is none."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return status[status.rindex(")") + 2] not in "ZX"


# Saying it


def _target(pid: int, file: Path) -> Target:
    file = file.absolute()
    return Target(pid, file, kernel_id(str(file)), notebook_of(pid))


def _list(targets: Iterable[Target]) -> str:
    return ", ".join(f"{target.kernel_id} (pid {target.pid})" for target in targets)


def _hint(text: str, kernels: list[Target]) -> str:
    ids = {str(name): k for k in kernels for name in (k.kernel_id, k.notebook, k.pid) if name}
    near = difflib.get_close_matches(text, list(ids), n=3, cutoff=0.4)
    if near:
        return f"did you mean {' or '.join(near)}?"
    if kernels:
        return f"living Jupyter kernels: {_list(kernels[:8])}"
    return "no Jupyter kernel of this user is running; `nbcr list` shows what can be restarted"
