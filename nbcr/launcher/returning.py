"""A checkpoint of a job, brought back: a new mpiexec starts stubs, each is overwritten by its rank's image, and all
go on."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from nbcr.channel import Channel, ChannelClosed
from nbcr.crs import Component
from nbcr.errors import Busy, EntryDamaged, NbcrError, NotPossible, RestartFailed, to_wire
from nbcr.launcher import cooperating, imaging, jobs
from nbcr.launcher.launcher import Launcher, popen
from nbcr.launcher.members import Member, hear
from nbcr.launcher.schema import FILE, FOLDER, Schema, image_of
from nbcr.mpi import stub
from nbcr.store import Entry, journal, opening, trust

_ROOT = Path(__file__).resolve().parents[2]
_STUBS_TIMEOUT_S = 60.0
_BRING_TIMEOUT_S = 300.0
_OPEN_TIMEOUT_S = 60.0
_EXPECTED = ("was outside", "the process")  # said of what leads to the mpiexec of then, which is replaced


def is_job(entry: Entry) -> bool:
    """Whether an entry is of a job of several ranks."""
    return jobs.KIND in entry.kinds


def restart(entry: Entry, *, name: str | None = None, umask: int = 0o022) -> int:
    """Bring a job back and run it to its end; its exit status, negative for a signal. Raises NbcrError."""
    imaging.keep_to_one_thread()
    entry = trust.proved(entry)
    if entry.component.get("name") == cooperating.MARK.name:
        return _run_anew(entry, name, umask)
    component = imaging.maker(entry.name, entry.component.get("name"))
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(opening.proved_files(entry, _roots(entry, component), FOLDER))
        launcher, listener = _prepared(entry, folder, name, umask)
        stack.callback(jobs.forget, listener)
        stack.callback(launcher.end)
        with journal.told(entry.store_root, "restart", id=entry.id, name=entry.name, job=launcher.schema.name):
            _bring(launcher, listener, entry, folder, component)
        return launcher.run()


def _run_anew(entry: Entry, name: str | None, umask: int) -> int:
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(opening.proved_files(entry, (), FOLDER))
        launcher, listener = _prepared(entry, folder, name, umask)
        stack.callback(jobs.forget, listener)
        stack.callback(launcher.end)
        launcher.schema = replace(launcher.schema, ranks=0)  # until they have said hello
        launcher.start(resume=folder)
        return launcher.run()


def _roots(entry: Entry, component: Component) -> list[str]:
    """The files by which all others are proved: the schema, and what the maker of the images needs of each."""
    paths = [key.removeprefix(f"{FOLDER}/") for key in entry.files if key.startswith(f"{FOLDER}/")]
    return [path for path in paths if Path(path).name in (FILE, *component.roots)]


def _prepared(entry: Entry, folder: Path, name: str | None, umask: int) -> tuple[Launcher, socket.socket]:
    schema = Schema.read(folder)
    for rank in range(schema.ranks):
        if not image_of(folder, rank).is_dir():
            raise EntryDamaged(
                f"the image of rank {rank} of {entry.name!r} is missing", hint=f"`nbcr remove {entry.name}`"
            )
    if not Path(schema.mpiexec).exists():
        raise NotPossible(f"{schema.mpiexec}, by which the job was started, is not there any more")
    called = name or (schema.name if jobs.connect(schema.name) is None else f"job-{os.getpid()}")
    jobs.check_name(called)
    listener = jobs.listen(called)
    return Launcher(schema, listener, umask), listener


def _bring(launcher: Launcher, listener: socket.socket, entry: Entry, folder: Path, component: Component) -> None:
    schema = launcher.schema
    began = time.time()
    environ = {
        **schema.environ, stub.SOCKET_VARIABLE: str(listener.getsockname()), "PYTHONPATH": str(_ROOT),
    }  # fmt: skip
    python = [sys.executable, "-S", "-P", "-m", "nbcr.mpi.stub"]
    launcher.adopt(popen([schema.mpiexec, "-n", str(schema.ranks), *python], environ, launcher.umask))
    stubs = _stubs(listener, schema.ranks)
    try:
        members = _overwrite(stubs, entry, folder, component)
        for member in members:
            _tell(member, stubs[member.rank], entry, began)
        answers = hear(members, "OPEN", _OPEN_TIMEOUT_S)
    except (NbcrError, OSError) as error:
        if isinstance(error, RestartFailed):
            raise
        raise RestartFailed(
            f"job {schema.name} could not be brought back: {error}", hint=getattr(error, "hint", "") or "try again"
        ) from error
    finally:
        for each in stubs.values():
            each.close()
    for rank, answer in sorted(answers.items()):
        for problem in answer["problems"]:
            print(f"nbcr: warning: rank {rank}: {problem}", file=sys.stderr)
    launcher.members = {member.rank: member for member in members}


class Stub:
    """A process that waits to be overwritten."""

    def __init__(self, channel: Channel, hello: Mapping[str, Any]) -> None:
        self.channel, self.pid = channel, int(hello["pid"])
        self.mpiexec = dict(hello["mpiexec"])
        _, descriptors, _, _ = socket.recv_fds(channel.sock, 1, 1)
        self.leading = descriptors[0]  # to its mpiexec
        self.pids: dict[str, int] = {}

    def close(self) -> None:
        """Let go of what was its."""
        self.channel.close()
        os.close(self.leading)


def _stubs(listener: socket.socket, ranks: int) -> dict[int, Stub]:
    stubs: dict[int, Stub] = {}
    listener.settimeout(_STUBS_TIMEOUT_S)
    try:
        while len(stubs) < ranks:
            connection, _ = listener.accept()
            channel = Channel(connection)
            hello = channel.receive(_STUBS_TIMEOUT_S)
            if hello.get("op") == "stub":
                stubs[int(hello["rank"])] = Stub(channel, hello)
            else:
                with channel:
                    channel.send({"state": "ERROR", **to_wire(Busy("the job is being brought back", hint="ask again"))})
    except (TimeoutError, ChannelClosed) as error:
        raise RestartFailed(
            f"the new mpiexec had started {len(stubs)} of {ranks} ranks within {_STUBS_TIMEOUT_S:g} s", hint="try again"
        ) from error
    finally:
        listener.settimeout(None)
    return stubs


def _overwrite(stubs: Mapping[int, Stub], entry: Entry, folder: Path, component: Component) -> list[Member]:
    members = []
    with imaging.Workers() as workers:
        for rank, each in sorted(stubs.items()):
            ours, theirs = Channel.pair()
            work = imaging.bring(component, each.pid, image_of(folder, rank), entry.id, theirs)
            workers.start(rank, work, keep=(theirs.fileno(),))
            theirs.close()
            members.append(Member(rank, each.pid, ours, {}))
        brought = workers.hear("BROUGHT", _BRING_TIMEOUT_S)
    for rank, answer in sorted(brought.items()):
        stubs[rank].pids = dict(answer["pids"])
        for warning in answer["warnings"]:
            if not any(word in warning for word in _EXPECTED):
                print(f"nbcr: warning: rank {rank}: {warning}", file=sys.stderr)
    return members


def _tell(member: Member, taken: Stub, entry: Entry, began: float) -> None:
    member.channel.send(
        {
            "op": "RESTART",
            "pids": taken.pids,
            "began": began,
            "in_place": False,
            "entry": entry.document(),
            "mpiexec": taken.mpiexec,
        }
    )
    socket.send_fds(member.channel.sock, [b"\0"], [taken.leading])
