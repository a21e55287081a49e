"""Names of running jobs: a socket each in the runtime folder, at which its launcher listens."""

from __future__ import annotations

import contextlib
import os
import re
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nbcr import runtime
from nbcr.channel import Channel, ChannelClosed
from nbcr.errors import Busy, HelperLost, NameTaken, NotPossible, UsageProblem, from_wire
from nbcr.store import Entry, Store

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from nbcr.session.terms import Terms

KIND = "job"  # of entries
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_HEAR_S = 5.0
_MAX_PATH_BYTES = 107  # unix(7)


def check_name(name: str) -> None:
    """Raise UsageProblem unless `name` can be a job's."""
    if not _NAME.fullmatch(name) or name.isdecimal():
        raise UsageProblem(
            f"{name!r} cannot be the name of a job", hint="use letters, digits, '.', '_', '-'; not digits alone"
        )


def _path(folder: Path, name: str) -> Path:
    return folder / f"job-{name}.sock"


def listen(name: str) -> socket.socket:
    """The socket of a job called `name`, which is ours from now on. Raises NameTaken."""
    path = _path(runtime.runtime_folder(), name)
    if len(os.fsencode(path)) > _MAX_PATH_BYTES:
        raise NotPossible(f"{path} is too long for a socket", hint="a shorter --name, or a shorter XDG_RUNTIME_DIR")
    if connect(name) is not None:
        raise NameTaken(f"a job named {name!r} is running", hint="choose another with --name")
    path.unlink(missing_ok=True)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.bind(os.fspath(path))
    sock.listen(1024)
    return sock


def forget(sock: socket.socket) -> None:
    """Take the name away."""
    with contextlib.suppress(OSError):
        Path(sock.getsockname()).unlink(missing_ok=True)
    sock.close()


def connect(name: str) -> socket.socket | None:
    """A connection to the launcher of job `name`; None when there is no such job."""
    if not _NAME.fullmatch(name) or name.isdecimal():
        return None
    for folder in runtime.candidate_folders():
        path = _path(folder, name)
        if not runtime.is_private(folder) or not path.exists():
            continue
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.connect(os.fspath(path))
            if runtime.peer_uid(sock) == os.geteuid():
                return sock
        except OSError:
            pass
        sock.close()
    return None


def running() -> list[tuple[str, int]]:
    """Names of the jobs that run, each with its launcher's pid."""
    found = {}
    for folder in runtime.candidate_folders():
        for path in sorted(folder.glob("job-*.sock")) if runtime.is_private(folder) else ():
            name = path.name.removeprefix("job-").removesuffix(".sock")
            sock = connect(name)
            if sock is not None:
                with sock:
                    found[name] = runtime.peer_pid(sock)
    return list(found.items())


def checkpoint(
    job: str,
    sock: socket.socket,
    terms: Terms,
    *,
    store: Store,
    deadline_s: float,
    on_plain: Callable[[int, Mapping[str, Any]], Entry],
) -> Entry:
    """Have `job` checkpointed, and wait for the entry. `on_plain` takes a program that has no ranks, of which
    it is told the pid and what its manifest says of the job.

    Raises NbcrError; then there is no entry, and the job goes on.
    """
    with Channel(sock) as channel:
        try:
            where = {"store": str(store.root), "deadline_s": deadline_s}
            channel.send({"op": "checkpoint", **terms.document(), **where})
            answer = channel.receive(deadline_s + _HEAR_S)
            if answer.get("state") == "BEGUN":  # however long the images take; a launcher that dies ends the connection
                answer = channel.receive()
        except TimeoutError:
            raise Busy(
                f"job {job!r} is busy with another checkpoint for {deadline_s:g} s", hint="ask again later"
            ) from None
        except ChannelClosed:
            raise HelperLost(
                f"the launcher of job {job!r} ended without an answer", hint="is the job at its end?"
            ) from None
    if answer.get("state") == "PLAIN":
        return on_plain(int(answer["pid"]), dict(answer["job"]))
    if answer.get("state") == "ERROR":
        raise from_wire(answer)
    return Entry.from_document(answer["entry"], Path(answer["entry"]["path"]))
