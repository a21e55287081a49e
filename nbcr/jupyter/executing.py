"""Notebooks without a browser: ``nbcr execute``. A checkpoint after each cell; a run that died goes on behind it.

The checkpoint and the output file are in step: the file is written when the checkpoint of the same state is, and says
which it is. A run that died in between repeats one cell, from the state before that cell: so the checkpoint that the
file names stays until the file names the next. Two names of its own take turns for each output file, and none is
kept when the notebook has come to its end.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nbcr import session
from nbcr.errors import NbcrError, NotPossible, UsageProblem
from nbcr.session import Outcome, Store
from nbcr.store.files import write_atomically

MARK = "nbcr"  # in the output's metadata, until it is whole
_WIDGETS = "application/vnd.jupyter.widget-state+json"  # the other key in it, where nbformat has them
_EXPRESSION = "__import__('nbcr.jupyter.executing', fromlist=['_']).{call}"


class RunFailed(NbcrError):
    """A cell failed, or the Jupyter kernel died; what was done is in the output file."""


def execute(
    source: Path,
    target: Path,
    *,
    resume: bool = False,
    kernel_name: str | None = None,
    store: str | None = None,
    timeout_s: float | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> int:
    """Execute notebook `source` into `target`. Returns how many cells were executed. Raises RunFailed, NbcrError.

    `resume`: go on behind the last cell of which `target` and a checkpoint hold the state, where there is one. Where
    `target` is the whole run of these very cells, nothing is executed.
    """
    try:
        notebook = _format().read(source, as_version=4)
    except (OSError, ValueError) as error:
        raise UsageProblem(f"notebook {source} cannot be read: {error}") from error
    run = _Run(notebook, source, target, Store(store), say)
    if resume and run.is_done():
        run.forget()
        say(f"{target} holds the whole run of this notebook: nothing is left to do (without --resume it is run again)")
        return 0
    return run.whole(run.first_cell() if resume else 0, kernel_name, timeout_s)


class Course:
    """How far a run into one output file has come: its checkpoint, and the mark of it in the notebook."""

    def __init__(self, target: str, store: Store, say: Callable[[str], None]) -> None:
        self._store, self._say = store, say
        self._entry: str | None = None
        number = hashlib.sha256(target.encode()).hexdigest()[:8]
        self._names = [f"execute {Path(target).name[:100]} {number} {turn}" for turn in ("a", "b")]
        self._last = ""  # of them: what the output file names
        self._displays: dict[str, list[tuple[int, list[int]]]] = {}  # of the cells that were taken over
        self._widgets: dict[str, Any] = {}  # … and what they have made

    def take_over(self, notebook: Any, before: Any) -> int:
        """Where `notebook` goes on, with the cells that `before`, the output of an earlier run, has done already.

        0 where there is nothing to go on from. Raises NotPossible, UnknownName.
        """
        try:
            mark = before.metadata[MARK]
            entry, first = str(mark["entry"]), int(mark["next"])
            displays = dict(mark.get("displays", {}))
        except (KeyError, TypeError, ValueError, AttributeError):
            return 0
        mine, theirs = notebook.cells[:first], before.cells[:first]
        if [cell.source for cell in mine] != [cell.source for cell in theirs]:
            raise NotPossible(
                "cells that were executed already have changed since", hint="begin anew, without --resume"
            )
        self._last = self._store.find(entry).name
        self._entry, self._displays = entry, displays
        self._widgets = dict(before.metadata.get("widgets", {}).get(_WIDGETS, {}).get("state", {}))
        notebook.cells[:first] = theirs
        return first

    def begin(self, client: Any, first: int) -> None:
        """In a Jupyter kernel that has just started: become the session that the earlier run left."""
        root = str(self._store.root)
        look_again_after_sending(client.kc.shell_channel)
        if first:  # a display is updated wherever it was shown
            client._display_id_map = {shown: dict(where) for shown, where in self._displays.items()}
            _give_widgets(client, self._widgets)
        if first and self._entry is not None:
            came = _ask(client, f"become({self._entry!r}, {root!r})")
            self._say(f"goes on with cell {first + 1}, from checkpoint {came}")

    def keep(self, client: Any, notebook: Any, index: int) -> bool:
        """Cell `index` has ended: checkpoint the session, and mark the notebook; whether there was anything to keep."""
        cell = notebook.cells[index]
        if cell.cell_type != "code" or not cell.source.strip():
            return False
        name = next(each for each in self._names if each != self._last)
        self._entry = _ask(client, f"keep({name!r}, {str(self._store.root)!r})")
        self._last = name
        displays = {shown: list(where.items()) for shown, where in getattr(client, "_display_id_map", {}).items()}
        notebook.metadata[MARK] = {"entry": self._entry, "next": index + 1, "displays": displays}
        client.set_widgets_metadata()
        return True

    def unmark(self, notebook: Any) -> None:
        """The notebook has come to its end."""
        notebook.metadata.pop(MARK, None)

    def forget(self) -> None:
        """… and its output is written: checkpoints are not needed any more."""
        for entry in self._store.entries():
            if entry.name in self._names:
                session.remove(entry.id, store=self._store)


def look_again_after_sending(channel: Any) -> None:
    """Let a channel of an asynchronous client miss nothing that arrives while something is sent on it.

    nbclient's Output widgets send while it waits for the reply of the cell. ZeroMQ tells of what has come but once, to
    whoever uses the socket next (zmq_getsockopt(3), ZMQ_FD): if that was the sending, the other waited for ever.
    """
    import zmq

    send, socket = channel.send, channel.socket

    def sending(message: Any) -> None:
        send(message)
        socket.get(zmq.EVENTS)  # by which pyzmq's asynchronous sockets look again

    channel.send = sending


def _give_widgets(client: Any, widgets: dict[str, Any]) -> None:
    """Let a client of nbclient know widgets as if it had seen them made: their states, and who captures output."""
    for key, widget in widgets.items():
        client.widget_state[key] = state = widget["state"]
        if buffers := widget.get("buffers"):
            client.widget_buffers[key] = {tuple(buffer["path"]): buffer for buffer in buffers}
        made = client.on_comm_open_jupyter_widget({"content": {"comm_id": key, "data": {"state": state}}})
        if made is not None:
            client.comm_objects[key] = made


class _Run:
    def __init__(self, notebook: Any, source: Path, target: Path, store: Store, say: Callable[[str], None]) -> None:
        self._notebook, self._source, self._target, self._say = notebook, source, target, say
        self._course = Course(str(target.absolute()), store, say)
        self._client: Any = None

    def is_done(self) -> bool:
        """Whether the output is that of a run of these cells that has come to its end."""
        before = None if self._target.absolute() == self._source.absolute() else self._before()
        if before is None or MARK in before.metadata:
            return False
        same = [(cell.cell_type, cell.source) for cell in self._notebook.cells]
        return same == [(cell.cell_type, cell.source) for cell in before.cells] and all(map(_has_ended, before.cells))

    def forget(self) -> None:
        """Remove what a run that died at its very end has left."""
        self._course.forget()

    def _before(self) -> Any:
        """The output file as it is; None without one."""
        try:
            return _format().read(self._target, as_version=4)
        except (OSError, ValueError):
            return None

    def first_cell(self) -> int:
        """Where to go on: takes over what an earlier run has done. 0 where there is nothing to go on from."""
        first = self._course.take_over(self._notebook, self._before())
        if not first:
            self._say(f"{self._target} holds no run to go on with: from the first cell")
        return first

    def whole(self, first: int, kernel_name: str | None, timeout_s: float | None) -> int:
        """Execute the cells from `first` on, to the end."""
        from nbclient import NotebookClient
        from nbclient.exceptions import CellExecutionError, DeadKernelError

        options: dict[str, Any] = {} if kernel_name is None else {"kernel_name": kernel_name}
        place = {"metadata": {"path": str(self._source.absolute().parent)}}
        self._client = NotebookClient(self._notebook, timeout=timeout_s, resources=place, **options)
        index = first
        try:
            with self._client.setup_kernel():
                self._begin(first)
                for index in range(first, len(self._notebook.cells)):
                    self._one(index)
        except CellExecutionError as error:
            self._write()
            raise RunFailed(f"cell {index + 1} of {self._source} failed: {error.ename}: {error.evalue}") from error
        except (DeadKernelError, RuntimeError) as error:
            raise RunFailed(
                f"the Jupyter kernel died in cell {index + 1} of {self._source} ({error})",
                hint="--resume goes on with that cell",
            ) from error
        self._course.unmark(self._notebook)
        self._write()
        self._course.forget()
        return len(self._notebook.cells) - first

    def _begin(self, first: int) -> None:
        self._client.reset_execution_trackers()
        info = self._client.wait_for_reply(self._client.kc.kernel_info())
        self._notebook.metadata["language_info"] = info["content"]["language_info"]
        self._course.begin(self._client, first)

    def _one(self, index: int) -> None:
        self._client.execute_cell(self._notebook.cells[index], index)
        if self._course.keep(self._client, self._notebook, index):
            self._write()

    def _write(self) -> None:
        write_atomically(self._target, _format().writes(self._notebook).encode())


def _has_ended(cell: Any) -> bool:
    """Whether a cell of an output is text, or was executed and did not fail, or was allowed to."""
    if cell.cell_type != "code" or not cell.source.strip():
        return True
    may_fail = "raises-exception" in cell.metadata.get("tags", ())
    failed = any(output.output_type == "error" for output in cell.outputs)
    return cell.execution_count is not None and (may_fail or not failed)


def _ask(client: Any, call: str) -> str:
    """The value of a call of this module's in a client's Jupyter kernel; nothing of it is seen in the session."""
    wanted = {"value": _EXPRESSION.format(call=call)}
    reply = client.wait_for_reply(client.kc.execute("", silent=True, store_history=False, user_expressions=wanted))
    answer = reply["content"]["user_expressions"]["value"]
    if answer["status"] != "ok":
        raise NotPossible(f"{answer['ename']}: {answer['evalue']}")
    return str(answer["data"]["text/plain"]).strip("'\"")


def _format() -> Any:
    """nbformat, whose functions carry no types."""
    import nbformat

    return nbformat


# In the Jupyter kernel


def keep(name: str, root: str) -> str:
    """Checkpoint this session under `name`, in place of the last one of that name; its id. Returns twice, with it."""
    from nbcr.jupyter import start_service

    start_service()
    result = session.checkpoint(name, store=root, force=True, image=True, origin="execute")
    if result.outcome is Outcome.CONTINUE:
        result.wait()
    return result.id


def become(entry_id: str, root: str) -> str:
    """Become that session; it is its `keep` that returns."""
    from nbcr.jupyter import start_service

    start_service()
    session.restart(entry_id, store=root)
    raise NotPossible(f"checkpoint {entry_id} holds no process image")
