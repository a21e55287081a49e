"""Checkpoint and restart of other processes: through their checkpoint thread where they have one, else
from outside."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from nbcr import runtime
from nbcr.channel import Channel, ChannelClosed
from nbcr.errors import Busy, HelperLost, NbcrError, NotPossible, from_wire
from nbcr.session import connections
from nbcr.session.bringing import RestartOrder, bring
from nbcr.session.results import RestartResult
from nbcr.session.spawning import Interpreter, start_packer
from nbcr.session.taking import CheckpointOrder, take
from nbcr.session.terms import Terms, check_files
from nbcr.store import Entry, Store

_LOAD_TIMEOUT_S = 10.0
_RETRY_S = 0.05


class Target(Protocol):
    """A process that somebody named; nbcr.jupyter.finding finds it."""

    @property
    def pid(self) -> int: ...
    @property
    def connection_file(self) -> Path | None: ...
    @property
    def notebook(self) -> str | None: ...


@dataclass(frozen=True)
class Errand:
    """How to talk to other processes: where entries are, how long to wait, who loads nbcr, whom to tell."""

    store: Store
    deadline_s: float = 30.0
    load: Callable[[Any, float], bool] = lambda target, timeout_s: False  # nbcr.jupyter.attach.ensure_loaded
    on_warning: Callable[[str], None] = lambda text: None


def checkpoint(target: Target, terms: Terms, errand: Errand) -> Entry:
    """Checkpoint `target` and wait until it is published. Raises NbcrError, or what the component raises."""
    terms.check()
    _check_not_above(target.pid)
    answer = _ask_thread(target, errand, {"op": "checkpoint", **terms.document()}, final=("DONE",))
    if answer is not None:
        return Entry.from_document(answer["entry"], Path(answer["entry"]["path"]))
    if "objects" in terms.kinds:
        raise NotPossible(
            f"process {target.pid} does not run nbcr, so that nobody can save its objects",
            hint="leave out --objects, or load nbcr there (%load_ext nbcr)",
        )
    order = CheckpointOrder.of_document(
        {**terms.document(), "kinds": ("image",)},
        pid=target.pid,
        deadline_s=errand.deadline_s,
        facts=_facts(target),
        warnings=_warnings(target),
    )
    entry = take(errand.store, order)
    start_packer(errand.store)
    return entry


def facts_of(target: Target, errand: Errand) -> dict[str, Any]:
    """What the handlers in `target` know of it; nothing where it has no checkpoint thread, nor can be given one."""
    answer = _ask_thread(target, errand, {"op": "facts"}, final=("FACTS",))
    return {} if answer is None else dict(answer["facts"])


def restart_fresh(
    entry: Entry,
    *,
    stdio: tuple[int, int, int],
    parting: bool = False,
    present: Mapping[str, Any] | None = None,
    files: str | None = None,
) -> RestartResult:
    """Bring `entry` back as a fresh process tree. Raises ConnectionInUse, or what the component raises."""
    return bring(RestartOrder(entry, stdio=stdio, parting=parting, present=present, files=_known(files)))


def _known(files: str | None) -> str | None:
    if files is not None:
        check_files(files)
    return files


def restart_into(entry: Entry, target: Target, errand: Errand, *, files: str | None = None) -> RestartResult:
    """Replace the living process `target` by `entry`."""
    _check_not_above(target.pid)
    answer = _ask_thread(
        target, errand, {"op": "restart", "id": entry.id, "files": _known(files)}, final=("RESTARTED",)
    )
    if answer is None:
        present = {"connection": _facts(target).get("jupyter")}
        return bring(RestartOrder(entry, into=target.pid, present=present, deadline_s=errand.deadline_s, files=files))
    root = int(answer["pid"])
    here = runtime.numbers_here(target.pid)  # its helper shares its pid namespace, and so its numbers
    pids = {int(old): here.get(int(new), int(new)) for old, new in answer["pids"].items()}
    return RestartResult(
        entry, here.get(root, root), pids, tuple(answer.get("warnings", ())), tuple(answer.get("facts", ()))
    )


def _ask_thread(
    target: Target, errand: Errand, request: Mapping[str, Any], *, final: tuple[str, ...]
) -> dict[str, Any] | None:
    """The last answer to `request` from the target's checkpoint thread, or its helper; None when it has no
    such thread.

    A Jupyter kernel without one is given one first (the extension is loaded into it).
    """
    common = {"store": str(errand.store.root), "deadline_s": errand.deadline_s}
    document = {**request, **common, "helper": Interpreter.ours().document()}
    for channel in _channels(target, errand):
        with channel:
            answer = _converse(channel, document, final, target.pid, errand)
        if answer["state"] != "BUSY":
            return answer
    return None


def _channels(target: Target, errand: Errand) -> Iterator[Channel]:
    """Connections to the target's checkpoint thread, a new one each time the last one was told BUSY."""
    deadline = time.monotonic() + errand.deadline_s
    loaded = False
    while True:
        try:
            sock = runtime.connect_to_thread(target.pid)
        except runtime.ThreadAway:
            sock = None
        else:
            if sock is None and (loaded or not _load(target, errand)):
                return
            loaded = True
        if sock is not None:
            yield Channel(sock)
        if time.monotonic() >= deadline:
            raise Busy(
                f"process {target.pid} was busy with another checkpoint for {errand.deadline_s:g} s",
                hint="wait for it to end and ask again",
            )
        time.sleep(_RETRY_S)  # its socket is closed while an image is taken: there is nothing to wait on


def _converse(
    channel: Channel,
    request: Mapping[str, Any],
    final: tuple[str, ...],
    pid: int,
    errand: Errand,
) -> dict[str, Any]:
    heard = False
    try:
        channel.send(request)
        while True:
            # Once heard, however long the image takes; a helper that dies ends the connection.
            answer = channel.receive(None if heard else errand.deadline_s)
            heard = True
            if answer["state"] == "WAITING":
                errand.on_warning(f"process {pid} goes on first with {'; '.join(answer['for'])}")
            if answer["state"] == "ERROR":
                raise from_wire(answer)
            if answer["state"] == "BUSY" or answer["state"] in final:
                return answer
    except TimeoutError as error:
        raise _deaf(pid, errand.deadline_s) from error
    except ChannelClosed as error:
        if not heard:
            return {"state": "BUSY"}
        raise HelperLost(
            f"the helper, or process {pid}, ended without an answer",
            hint="no checkpoint was made; see the store's log folder",
        ) from error


def _deaf(pid: int, waited_s: float) -> Busy:
    """Nothing was done, nor will be: when the process comes to our request, it finds that nobody waits."""
    if runtime.is_stopped(pid):
        why, hint = "it is stopped", f"continue it (kill -CONT {pid}) and ask again"
    else:
        why = "a call of its holds Python's interpreter lock"
        hint = "ask again when that call is over, or with a longer --deadline"
    return Busy(f"process {pid} did not hear the request within {waited_s:g} s: {why}", hint=hint)


def _load(target: Target, errand: Errand) -> bool:
    """Load nbcr into a Jupyter kernel that lacks it; whether it now has a checkpoint thread."""
    if target.connection_file is None:
        return False
    try:
        if errand.load(target, _LOAD_TIMEOUT_S):
            return True
        reason = "it did not answer"
    except (OSError, NbcrError, TimeoutError) as error:
        reason = str(error)
    errand.on_warning(f"nbcr could not be loaded into the Jupyter kernel {target.pid} ({reason}): taken from outside")
    return False


def _facts(target: Target) -> dict[str, Any]:
    facts: dict[str, Any] = {"notebook": target.notebook}
    if target.connection_file is not None:
        try:
            facts["jupyter"] = connections.facts_from_file(target.connection_file)
        except (OSError, ValueError):
            pass
    return facts


def _warnings(target: Target) -> tuple[str, ...]:
    if target.connection_file is None:
        return ()
    return ("taken without nbcr in the Jupyter kernel: it can come back on its own ports and pid only",)


def _check_not_above(pid: int) -> None:
    """A process above us in the tree would be captured with us in it. Raises NotPossible."""
    above = os.getpid()
    while above > 1:
        if above == pid:
            raise NotPossible(
                f"process {pid} is an ancestor of this command, which would become part of the image",
                hint="use %checkpoint in the notebook, or run this from another terminal",
            )
        above = _parent(above)


def _parent(pid: int) -> int:
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return 0
    return int(text[text.rindex(")") + 2 :].split()[1])
