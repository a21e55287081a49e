"""A checkpoint of a job, brought back: a new mpiexec starts stubs, each is overwritten by its rank's image, and all
go on."""

from __future__ import annotations

import contextlib
import os
import shlex
import socket
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from nbcr.channel import Channel, ChannelClosed
from nbcr.crs import Component
from nbcr.errors import EntryDamaged, NbcrError, NotPossible, RestartFailed
from nbcr.launcher import cooperating, imaging, jobs, placing
from nbcr.launcher.commands import popen
from nbcr.launcher.doors import Doors, wait_for
from nbcr.launcher.hosts import Agent, Hosts
from nbcr.launcher.keeping import Keeping
from nbcr.launcher.launcher import Launcher
from nbcr.launcher.members import Member, hear
from nbcr.launcher.schema import FILE, FOLDER, Schema, image_of
from nbcr.mpi import stub
from nbcr.store import Entry, journal, opening, trust

_ROOT = Path(__file__).resolve().parents[2]
_STUBS_TIMEOUT_S = 60.0
_HELLO_TIMEOUT_S = 5.0
_BRING_TIMEOUT_S = 300.0
_OPEN_TIMEOUT_S = 60.0
_EXPECTED = ("was outside", "the process")  # said of what leads to the mpiexec of then, which is replaced


def is_job(entry: Entry) -> bool:
    """Whether an entry is of a job of several ranks."""
    return jobs.KIND in entry.kinds


def restart(
    entry: Entry,
    *,
    name: str | None = None,
    umask: int = 0o022,
    mpiexec: str | None = None,
    keeps: Keeping | None = None,
) -> int:
    """Bring a job back and run it to its end; its exit status, negative for a signal. Raises NbcrError.

    `mpiexec`: options that say where its ranks go, in the place of those that it was started with. `keeps`: how it is
    checkpointed by itself.
    """
    imaging.keep_to_one_thread()
    entry = trust.proved(entry)
    if entry.component.get("name") == cooperating.MARK.name:
        if mpiexec is not None:
            raise NotPossible(
                f"{entry.name!r} is of ranks that save their own state: it is started by the same command again",
                hint="leave out --mpiexec",
            )
        return _run_anew(entry, name, umask, keeps)
    component = imaging.maker(entry.name, entry.component.get("name"))
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(opening.proved_files(entry, _roots(entry, component), FOLDER))
        launcher = _prepared(entry, folder, name, umask, None if mpiexec is None else shlex.split(mpiexec))
        launcher.keeps = keeps
        stack.callback(launcher.doors.close)
        stack.callback(launcher.end)
        with journal.told(entry.store_root, "restart", id=entry.id, name=entry.name, job=launcher.schema.name):
            _bring(launcher, entry, folder, component)
        return launcher.run()


def _run_anew(entry: Entry, name: str | None, umask: int, keeps: Keeping | None) -> int:
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(opening.proved_files(entry, (), FOLDER))
        launcher = _prepared(entry, folder, name, umask, None)
        launcher.keeps = keeps
        stack.callback(launcher.doors.close)
        stack.callback(launcher.end)
        launcher.schema = replace(launcher.schema, ranks=0)  # until they have said hello
        launcher.start(resume=folder)
        return launcher.run()


def _roots(entry: Entry, component: Component) -> list[str]:
    """The files by which all others are proved: the schema, and what the maker of the images needs of each."""
    paths = [key.removeprefix(f"{FOLDER}/") for key in entry.files if key.startswith(f"{FOLDER}/")]
    return [path for path in paths if Path(path).name in (FILE, *component.roots)]


def _prepared(entry: Entry, folder: Path, name: str | None, umask: int, options: list[str] | None) -> Launcher:
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
    schema = replace(schema, environ=placing.of_now(schema.environ))
    if options is not None:
        schema = replace(schema, argv=placing.placed(schema.argv, options))
    return Launcher(schema, Doors(called, is_spread=placing.is_spread(schema.argv, schema.environ)), umask)


def _bring(launcher: Launcher, entry: Entry, folder: Path, component: Component) -> None:
    schema, doors = launcher.schema, launcher.doors
    environ = {**schema.environ, **doors.environ(), stub.SOCKET_VARIABLE: doors.path, "PYTHONPATH": str(_ROOT)}
    command = [schema.mpiexec, *placing.placing_options(schema.argv), "-n", str(schema.ranks)]
    python = [sys.executable, "-S", "-P", "-m", "nbcr.mpi.stub"]
    began = time.time()
    launcher.adopt(popen([*command, *python], environ, launcher.umask))
    stubs = _stubs(launcher)
    try:
        members = _overwrite(launcher, stubs, entry, folder, component, began)
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

    def __init__(self, channel: Channel, hello: Mapping[str, Any], hosts: Hosts) -> None:
        self.channel, self.pid, self.hello = channel, int(hello["pid"]), hello
        self.rank, self.mpiexec = int(hello["rank"]), dict(hello["mpiexec"])
        hosts.has(channel, hello)
        self.is_here = hosts.of(hello) is None
        self.leading = -1  # to its mpiexec
        if self.is_here:
            _, descriptors, _, _ = socket.recv_fds(channel.sock, 1, 1)
            self.leading = descriptors[0]
        self.pids: dict[str, int] = {}

    def close(self) -> None:
        """Let go of what was its."""
        self.channel.close()
        if self.leading >= 0:
            os.close(self.leading)


def _first_word(channel: Channel) -> dict[str, Any] | None:
    """What somebody says who has come; None of one who only looked whether we are there (`jobs.running`)."""
    try:
        return channel.receive(_HELLO_TIMEOUT_S)
    except (ChannelClosed, TimeoutError, ValueError):
        channel.close()
        return None


def _stubs(launcher: Launcher) -> dict[int, Stub]:
    """All of them, and agents on the hosts of those that are not on this one."""
    stubs: dict[int, Stub] = {}
    hosts, ranks = launcher.hosts, launcher.schema.ranks
    end = time.monotonic() + _STUBS_TIMEOUT_S
    try:
        while len(stubs) < ranks or hosts.lacking():
            channel = wait_for(launcher.doors, end)
            if channel is None:
                raise TimeoutError
            hello = _first_word(channel)
            if hello is None:
                continue
            if hello.get("op") == "stub":
                stubs[int(hello["rank"])] = Stub(channel, hello, hosts)
            elif hello.get("op") == "agent":
                hosts.welcome(channel, hello)
            elif hello.get("op") == "checkpoint":
                launcher.answer_later(channel, hello)
            else:
                channel.close()
    except (TimeoutError, ChannelClosed) as error:
        if len(stubs) == ranks:
            raise RestartFailed(
                f"no agent of nbcr came from host {hosts.lacking()[0]} within {_STUBS_TIMEOUT_S:g} s",
                hint=f"is {sys.executable} there, with nbcr?",
            ) from error
        raise RestartFailed(
            f"the new mpiexec had started {len(stubs)} of {ranks} ranks within {_STUBS_TIMEOUT_S:g} s", hint="try again"
        ) from error
    return stubs


def _overwrite(
    launcher: Launcher, stubs: Mapping[int, Stub], entry: Entry, folder: Path, component: Component, began: float
) -> list[Member]:
    """The ranks, which have been told that they are back."""
    members: dict[int, Member] = {}
    with imaging.Workers() as workers:
        for rank, each in sorted(stubs.items()):
            agent, image = launcher.hosts.of(each.hello), image_of(folder, rank)
            if agent is None:
                members[rank] = _start_here(workers, rank, each.pid, image, entry, component)
            else:
                _start_there(workers, agent, rank, each, image, entry, component)
        brought = workers.hear("BROUGHT", _BRING_TIMEOUT_S)
        for rank, answer in sorted(brought.items()):
            stubs[rank].pids = dict(answer["pids"])
            _print_warnings(rank, answer["warnings"])
        now = {rank: str(each.hello["mark"]) for rank, each in stubs.items()}
        sharing = placing.sharing(launcher.schema, now)
        for each in stubs.values():
            each.mpiexec.update(sharing)
        for rank, each in stubs.items():
            agent = launcher.hosts.of(each.hello)
            if agent is not None:
                workers.tell(agent, rank, _news(each, entry, began))
        members |= _members_elsewhere(launcher, stubs)
    for rank, each in stubs.items():
        if each.is_here:
            members[rank].channel.send(_news(each, entry, began))
            socket.send_fds(members[rank].channel.sock, [b"\0"], [each.leading])
    return [members[rank] for rank in sorted(members)]


def _start_here(
    workers: imaging.Workers, rank: int, pid: int, image: Path, entry: Entry, component: Component
) -> Member:
    """Begin to restore a rank over the stub `pid` of this host; the rank, with its new connection."""
    ours, theirs = Channel.pair()
    work = imaging.bring(component, pid, image, entry.id, theirs)
    workers.start(rank, work, keep=(theirs.fileno(),))
    theirs.close()
    return Member(rank, pid, ours, {})


def _start_there(
    workers: imaging.Workers, agent: Agent, rank: int, target: Stub, image: Path, entry: Entry, component: Component
) -> None:
    """… or of another one, by the agent there: such a rank connects by itself (`_members_elsewhere`)."""
    order = {"op": "BRING", "component": component.name, "pid": target.pid, "folder": str(image)}
    order |= {"entry": entry.id, "entry_name": entry.name, "leading": target.mpiexec["PMI_FD"]}
    workers.start_at(agent, rank, order)


def _print_warnings(rank: int, warnings: Iterable[str]) -> None:
    for warning in warnings:
        if not any(word in warning for word in _EXPECTED):
            print(f"nbcr: warning: rank {rank}: {warning}", file=sys.stderr)


def _members_elsewhere(launcher: Launcher, stubs: Mapping[int, Stub]) -> dict[int, Member]:
    """Ranks on other hosts come back with connections of their own."""
    awaited = {rank: each for rank, each in stubs.items() if not each.is_here}
    members: dict[int, Member] = {}
    end = time.monotonic() + _OPEN_TIMEOUT_S
    while members.keys() != awaited.keys():
        channel = wait_for(launcher.doors, end)
        if channel is None:
            late = min(awaited.keys() - members.keys())
            raise RestartFailed(f"rank {late} did not come back within {_OPEN_TIMEOUT_S:g} s", hint="try again")
        hello = _first_word(channel)
        if hello is None:
            continue
        rank = int(hello.get("rank", -1))
        if hello.get("op") == "member" and rank in awaited:
            members[rank] = Member(rank, awaited[rank].pid, channel, awaited[rank].hello)
        else:
            channel.close()
    return members


def _news(taken: Stub, entry: Entry, began: float) -> dict[str, Any]:
    """What a restored rank has to know."""
    return {
        "op": "RESTART",
        "pids": taken.pids,
        "began": began,
        "in_place": False,
        "entry": entry.document(),
        "mpiexec": taken.mpiexec,
    }
