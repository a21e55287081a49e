"""The launcher: starts a command, listens for its ranks and for requests, ends as the command ends.

It is one thread, asleep in poll. A checkpoint is taken right here; whoever asks meanwhile waits in the socket's
queue. Every wait of a checkpoint is bounded, so that nobody waits for ever. The command does without it: should the
launcher be killed, the job runs on and can no longer be checkpointed.
"""

from __future__ import annotations

import contextlib
import functools
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from nbcr import runtime
from nbcr.channel import Channel, ChannelClosed
from nbcr.errors import Busy, NbcrError, NotPossible, UsageProblem, is_damage, to_wire
from nbcr.launcher import cooperating, coordinating, imaging, jobs, keeping, leftovers, placing, scripts
from nbcr.launcher.commands import Command, Restored, popen
from nbcr.launcher.doors import Doors, wait_for
from nbcr.launcher.hosts import Hosts
from nbcr.launcher.keeping import Keeping, Wants
from nbcr.launcher.members import Gone, Member
from nbcr.launcher.schema import Schema
from nbcr.mpi import cooperative, entering, modes
from nbcr.store import Entry, Store, journal

_HELLO_TIMEOUT_S = 5.0
_LOOK_S = 0.05
_END_TIMEOUT_S = 10.0
_AGENT_TIMEOUT_S = 20.0
_AGAIN_TIMEOUT_S, _SLICE_S = 20.0, 1.0
_NOTHING_MORE = Wants()
_ROOT = Path(__file__).resolve().parents[2]
_SITE = _ROOT / "nbcr" / "mpi" / "site"


class Launcher:
    """One job."""

    def __init__(self, schema: Schema, doors: Doors, umask: int, keeps: Keeping | None = None) -> None:
        self.schema = schema
        self.keeps = keeps
        self.members: dict[int, Member] = {}
        self.doors = doors
        self.hosts = Hosts()
        self.umask = umask
        self._command: Command | None = None
        self._began_s = time.time()
        self._stopped_as = ""
        self._lost: coordinating.Lost | None = None
        self._asked: list[tuple[Channel, Mapping[str, Any]]] = []

    # Starting

    def start(self, resume: Path | None = None) -> None:
        """Start the command as it would be without us, but for what lets the gate into its ranks. `resume`: the folder
        of the states that its ranks have saved in another life."""
        environ = {
            **self.schema.environ,
            **self.doors.environ(),
            entering.SOCKET_VARIABLE: self.doors.path,
            entering.PATH_VARIABLE: self.schema.environ.get("PYTHONPATH", ""),
            "NBCR_JOB_ROOT": str(_ROOT),
        }
        if self.schema.mpiexec:
            environ[modes.VARIABLE] = self.schema.mode
            if resume is not None:
                environ[cooperative.RESUME_VARIABLE] = str(resume)
            environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(_SITE), self.schema.environ.get("PYTHONPATH")]))
        else:
            environ = dict(self.schema.environ)
        self.adopt(popen(list(self.schema.argv), environ, self.umask, self.schema.cwd))

    def adopt(self, command: Command) -> None:
        """The command, which runs."""
        self._command = command

    @property
    def pid(self) -> int:
        """The command's."""
        assert self._command is not None
        return self._command.pid

    # Running

    def run(self) -> int:
        """Until the command ends; its exit status, negative for a signal."""
        assert self._command is not None
        descriptor = os.pidfd_open(self._command.pid)
        try:
            with _signals_to(self._command, self.keeps):
                self._answer_those_who_asked()
                while not runtime.readable(descriptor):
                    self._once(descriptor)
                self._settle()
        finally:
            os.close(descriptor)
        status = self._command.wait()
        if self._lost is not None:
            raise self._lost
        if self.keeps is not None and self.keeps.ending is not None:
            print(f"nbcr: job {self.schema.name} is kept; the same command with --resume goes on", file=sys.stderr)
            return -self.keeps.ending
        if self._stopped_as:
            print(f"nbcr: job {self.schema.name} was stopped: `nbcr restart {self._stopped_as}`", file=sys.stderr)
            return 0
        if self.keeps is not None and status == 0:
            self.keeps.forget()
        return status

    def _settle(self) -> None:
        """The command has ended, and so does a checkpoint that is under way. Whoever asks for one is told."""
        while self.keeps is not None and self.keeps.is_busy:
            channel = self.doors.accept(_LOOK_S)
            if channel is not None:
                with channel, contextlib.suppress(ChannelClosed):
                    channel.send({"state": "ERROR", **to_wire(NotPossible(f"job {self.schema.name} has ended"))})
        if self.keeps is not None:
            self.keeps.settle()

    def answer_later(self, channel: Channel, message: Mapping[str, Any]) -> None:
        """Somebody asks for a checkpoint of ranks that are not back yet: answered by `run`."""
        self._asked.append((channel, message))

    def _answer_those_who_asked(self) -> None:
        while self._asked:
            channel, message = self._asked.pop(0)
            with channel:
                self._answer(channel, message)

    def _once(self, descriptor: int) -> None:
        keeps = self.keeps
        poller = select.poll()
        for number in (descriptor, *self.doors.filenos, *(keeps.filenos if keeps is not None else ())):
            poller.register(number, select.POLLIN)
        timeout_s = None if keeps is None else keeps.timeout_s
        poller.poll(None if timeout_s is None else timeout_s * 1000)
        number = None if keeps is None else keeps.look()
        if number is not None and self._command is not None:  # it could not be kept
            self._command.send_signal(number)
        channel = self.doors.accept(0)
        if channel is not None:
            self._hear(channel)

    def _hear(self, channel: Channel) -> None:
        """The first message on a new connection."""
        try:
            message = channel.receive(_HELLO_TIMEOUT_S)
            if message.get("op") == "hello":
                self._welcome(channel, message)
                return
            if message.get("op") == "agent":
                self.hosts.welcome(channel, message)
                return
            if message.get("op") == "checkpoint":
                self._answer(channel, message)
        except (ChannelClosed, TimeoutError, ValueError):
            pass
        channel.close()

    def _welcome(self, channel: Channel, hello: Mapping[str, Any]) -> None:
        rank = int(hello["rank"])
        before = self.members.pop(rank, None)
        if before is not None:
            before.channel.close()
        self.members[rank] = Member(rank, int(hello["pid"]), channel, hello)
        if self._stopped_as:  # it has not heard that the others have been told to end
            self.end()
            return
        if hello.get("is_down"):  # the checkpoint that it was in has failed, or does in a moment
            channel.send({"op": "ABORT"})
        if self.schema.mode == modes.IMAGES:
            self.hosts.has(channel, hello)
        if not self.schema.ranks and len(self.members) == int(hello["size"]):
            facts = {str(number): dict(member.hello) for number, member in sorted(self.members.items())}
            self.schema = self.schema.with_ranks(len(self.members), str(hello["library"]), facts)

    def _answer(self, channel: Channel, message: Mapping[str, Any]) -> None:
        try:
            if not self.schema.mpiexec:
                scripts.check(self.pid)
                job = keeping.mark(self.schema.name, self.schema.argv)
                channel.send({"state": "PLAIN", "pid": self.pid, "job": dict(job)})
                return
            order = coordinating.JobOrder.from_message(message)
            self._await_ranks(order.deadline_s)
            self._await_again(min(order.deadline_s, _AGAIN_TIMEOUT_S))
            members = [self.members[rank] for rank in sorted(self.members)]
            if self.schema.mode == modes.IMAGES:
                self._await_agents(members, order.deadline_s)
                members = [replace(member, agent=self.hosts.of(member.hello)) for member in members]
            how = cooperating if self.schema.mode == modes.COOPERATIVE else coordinating
            with journal.told(order.store.root, "checkpoint", job=self.schema.name, name=order.name) as told:
                begun = functools.partial(channel.send, {"state": "BEGUN"})
                entry = how.checkpoint(members, self.schema, order, self.pid, begun, self._rejoin)
                told.update(id=entry.id, name=entry.name, size_bytes=entry.size_bytes, pause_ms=entry.pause_ms)
            if order.leave == "killed":
                self._stopped_as = entry.name
            channel.send({"state": "DONE", "entry": entry.document()})
        except ChannelClosed:  # whoever asked has gone
            pass
        except coordinating.Lost as lost:
            self._lost = lost
            with contextlib.suppress(ChannelClosed):
                channel.send({"state": "ERROR", **to_wire(lost)})
            self.end()
        except Exception as error:
            if not isinstance(error, NbcrError) and os.environ.get("NBCR_DEBUG"):
                raise
            with contextlib.suppress(ChannelClosed):
                channel.send({"state": "ERROR", **to_wire(error)})

    def _await_ranks(self, timeout_s: float) -> None:
        """All ranks have said hello, and live. Raises NotPossible."""
        end = time.monotonic() + timeout_s
        while not self.schema.ranks:
            channel = wait_for(self.doors, end)
            if channel is None:
                there = f"{len(self.members)} of its ranks" if self.members else "none of its ranks"
                raise NotPossible(
                    f"{there} had come to `from mpi4py import MPI` within {timeout_s:g} s",
                    hint="only programs that use mpi4py can be checkpointed as MPI jobs; any other where it stays on "
                    "this host, with its mpiexec: nbcr run -- sh -c 'mpiexec …'",
                )
            self._hear_of_ranks(channel)

    def _await_again(self, timeout_s: float) -> None:
        """Ranks whose connections have broken have made others. Raises Gone."""
        end = time.monotonic() + timeout_s
        while lost := [member for _, member in sorted(self.members.items()) if member.calls_again]:
            if time.monotonic() > end or (self._command is not None and self._command.poll() is not None):
                raise Gone(lost[0])
            channel = wait_for(self.doors, min(end, time.monotonic() + _SLICE_S))
            if channel is not None:
                self._hear_of_ranks(channel)

    def _rejoin(self) -> None:
        """In a checkpoint that has failed: who lost us while MPI is down goes on with the others."""
        with contextlib.suppress(Gone):
            self._await_again(_AGAIN_TIMEOUT_S)

    def _await_agents(self, members: Sequence[Member], timeout_s: float) -> None:
        """An agent of ours lives on every other host. Raises NotPossible."""
        end = time.monotonic() + min(timeout_s, _AGENT_TIMEOUT_S)
        self.hosts.ask_again(members)
        while lacking := self.hosts.lacking():
            channel = wait_for(self.doors, end)
            if channel is None:
                raise NotPossible(
                    f"no agent of nbcr came from host {lacking[0]} within {min(timeout_s, _AGENT_TIMEOUT_S):g} s",
                    hint=f"is {sys.executable} there, with nbcr, and can that host reach this one by TCP?",
                )
            self._hear_of_ranks(channel)

    def _hear_of_ranks(self, channel: Channel) -> None:
        """The first message on a new connection, while a request waits for ranks and agents."""
        with contextlib.suppress(ChannelClosed, TimeoutError, ValueError):
            message = channel.receive(_HELLO_TIMEOUT_S)
            if message.get("op") in ("hello", "agent"):
                (self._welcome if message["op"] == "hello" else self.hosts.welcome)(channel, message)
                return
            channel.send({"state": "ERROR", **to_wire(Busy("another request waits for the ranks", hint="ask again"))})
        channel.close()

    def end(self) -> None:
        """End the command, should it still run."""
        command = self._command
        if command is not None and command.poll() is None:
            command.terminate()
            try:
                command.wait(_END_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                command.kill()
                command.wait()
        if self.schema.mpiexec:
            leftovers.remove(self._began_s)


@contextlib.contextmanager
def _signals_to(command: Command, keeps: Keeping | None) -> Iterator[None]:
    """A terminal's Ctrl-C reaches the command itself; what is sent to us alone is passed on, or has the job kept."""

    def pass_on(number: int, frame: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            command.send_signal(number)

    handlers: dict[int, Any] = {signal.SIGTERM: pass_on, signal.SIGHUP: pass_on, signal.SIGINT: lambda *_: None}
    if keeps is not None:
        ring = keeps.ring
        handlers |= {number: lambda number, frame: ring(number) for number in keeps.wants.signals}
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def run(
    argv: list[str],
    *,
    name: str | None = None,
    umask: int = 0o022,
    wants: Wants = _NOTHING_MORE,
    store: str | os.PathLike[str] | None = None,
) -> int:
    """Run a command as a job, to its end; its exit status, negative for a signal. Raises NbcrError.

    Where `wants` say so it goes on from its last checkpoint in `store`. Whoever has said what is to be saved hears
    before anything starts that nothing can be.
    """
    imaging.keep_to_one_thread()
    if wants.resume and name is None:
        raise UsageProblem("--resume has to know which job goes on", hint="add --name JOB, as at the first run")
    called = name or f"job-{os.getpid()}"
    jobs.check_name(called)
    schema = Schema.of(called, argv)
    with contextlib.closing(Keeping(called, Store(store), wants)) as keeps:
        if wants != _NOTHING_MORE:
            keeps.store.prepare()
        entries = keeps.lasts(schema.argv) if wants.resume else []
        if entries:
            return _go_on_from_whole(entries, schema, keeps, umask)
        return _begin(schema, keeps, umask, is_named=name is not None)


def _go_on_from_whole(entries: Sequence[Entry], schema: Schema, keeps: Keeping, umask: int) -> int:
    """From the first of these that is whole: who has the job started again at night cannot be asked about damage."""
    for problem in keeps.store.damaged():
        print(f"nbcr: warning: {problem}", file=sys.stderr)
    *newer, oldest = entries
    for entry in newer:
        try:
            return _go_on(entry, schema, keeps, umask)
        except Exception as error:
            if not is_damage(error):
                raise
            print(f"nbcr: warning: {error}: the checkpoint before it is taken", file=sys.stderr)
    return _go_on(oldest, schema, keeps, umask)


def _go_on(entry: Entry, schema: Schema, keeps: Keeping, umask: int) -> int:
    from nbcr.launcher import returning
    from nbcr.session import restart_fresh

    print(f"nbcr: job {schema.name} goes on from {entry.name}, {entry.created}", file=sys.stderr)
    if returning.is_job(entry):
        return returning.restart(entry, name=schema.name, umask=umask, keeps=keeps)
    launcher = Launcher(schema, Doors(schema.name, is_spread=False), umask, keeps)
    try:
        result = restart_fresh(entry.id, store=entry.store_root, stdio=(0, 1, 2))
        for warning in result.warnings:
            print(f"nbcr: warning: {warning}", file=sys.stderr)
        launcher.adopt(Restored(result))
        return launcher.run()
    finally:
        launcher.end()
        launcher.doors.close()


def _begin(schema: Schema, keeps: Keeping, umask: int, *, is_named: bool) -> int:
    argv, called = list(schema.argv), schema.name
    if schema.mpiexec:
        mode = modes.mode_of(
            schema.mpiexec, modes.python_of(argv, sys.executable), schema.environ, runtime.runtime_folder()
        )
        schema = replace(schema, mode=mode.name)
    doors = Doors(called, is_spread=bool(schema.mpiexec) and placing.is_spread(argv, schema.environ))
    launcher = Launcher(schema, doors, umask, keeps)
    try:
        launcher.start()
        if not is_named:
            print(f"nbcr: job {called}", file=sys.stderr)
        return launcher.run()
    finally:
        launcher.end()
        doors.close()
