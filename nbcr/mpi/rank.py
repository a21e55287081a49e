"""A rank's part in a checkpoint: the conversation with the launcher, and the handler of layer MPI.

    launcher → rank    HOLD            no collective begins any more beyond the targets
               COUNT, TARGETS          until all members of every communicator have begun the same collectives
               LOCK                    nobody calls MPI any more                                    rank → LOCKED
               DRAIN                   what is in flight is drained                                 rank → DRAINED
               DOWN                    MPI is torn down                                             rank → DOWN
                                       the other handlers are told; the rank blocks in a read       rank → READY
               CONTINUE                the image is taken: MPI is set up again                      rank → OPEN
               RESTART + descriptor    the same in a restored life, under another mpiexec           rank → OPEN
               ABORT                   at any time: go on as if nothing had been                    rank → OPEN
                                       after LOCK, in two steps: rank → STOPPED; launcher → SWEEP,
                                       who has sent markers that must not reach the program
               END                     after the image: the job was to be stopped

The image is taken while the rank is in the read after READY, by a process of the launcher's.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import threading
from typing import Any, NoReturn

from nbcr import __version__, runtime, sealed
from nbcr.channel import Channel, ChannelClosed
from nbcr.errors import NbcrError, NotPossible, to_wire
from nbcr.handlers import Deadline, Handler, Layer, Passage, Request, RestartEvent, pid_alias, registry
from nbcr.handlers.contexts import ProcessPlaces, checkpoint_thread
from nbcr.handlers.sections import all_left
from nbcr.mpi import agents, besides, buffered, dialling, draining, leaving, support
from nbcr.mpi.communicators import live
from nbcr.mpi.gate import gate, waited
from nbcr.mpi.windows import epochs, helping
from nbcr.mpi.world import MPI, world

THREAD_NAME = "nbcr-mpi"
_OF_MPIEXEC = ("PMI_", "PMIX_", "MPI_", "HYDRA_", "HYDI_", "SLURM_")
SHARING = ("MPIR_CVAR_NOLOCAL", "UCX_TLS")  # who may share memory; read at each initialisation
_LAUNCHER_LOST = 70
_SETTLE_TIMEOUT_S = 20.0


class _Aborted(NbcrError):
    """The launcher gave the checkpoint up; it has told why."""


class Rank(Handler):
    """This process, as the launcher sees it; `rank` below."""

    layer = Layer.MPI
    context = "thread"

    def __init__(self) -> None:
        self.ended = False
        self._channel: sealed.SealedChannel | None = None
        self._network = ""  # how the launcher is reached from other hosts
        self._order: dict[str, Any] | None = None  # of the checkpoint under way
        self._torn: draining.Torn | None = None
        self._drain: draining.Drain | None = None
        self._is_down = False
        self._last: Any = None
        self._abort_status = 0
        self._has_failed = False  # and has told the launcher
        self._abort_heard = False
        self._answered = threading.Event()  # no checkpoint is under way, and the launcher knows
        self._answered.set()

    # The beginning and the end

    def begin(self, path: str, network: str, last: Any) -> None:
        """Say hello to the launcher, and listen to it. `last` is a communicator of all ranks, for their end."""
        self._last, self._network = last, network
        try:
            self._channel = sealed.connect(path, network)
            self._channel.send(self._hello())
        except OSError as error:  # the job can do without it
            if network:
                host = socket.gethostname()
                print(f"nbcr: rank {world.rank} on {host} does not reach the launcher: {error}", file=sys.stderr)
            self._channel = None
            return
        registry.register(self)
        checkpoint_thread.start()
        with contextlib.suppress(NotPossible, OSError):
            if threading.current_thread() is threading.main_thread():
                from nbcr.handlers import main_thread

                main_thread.install()
        threading.Thread(target=self._listen, name=THREAD_NAME, daemon=True).start()
        os.register_at_fork(after_in_child=self._forget_in_child)

    def _hello(self) -> dict[str, Any]:
        return {
            "op": "hello",
            "rank": world.rank,
            "size": world.size,
            "pid": runtime.own_pid(),
            "host": socket.gethostname(),
            "mark": sealed.this_host(),
            "local": int(os.environ.get("MPI_LOCALNRANKS", "0")),
            "library": MPI.Get_library_version().split("\n")[0].rstrip("\0"),
            "python": sys.version.split()[0],
            "version": __version__,
        }

    def _forget_in_child(self) -> None:
        """A forked child is no rank."""
        if self._channel is not None:
            self._channel.close()
            self._channel = None
        registry.remove(self)

    def set_abort_status(self, status: Any) -> None:
        """mpi4py's own, for `python -m mpi4py`: the program failed, and the others must not wait for it at its end."""
        self._abort_status = status if isinstance(status, int) else int(bool(status))

    def end(self) -> None:
        """The program's MPI_Finalize, at its end too. A checkpoint that has begun is waited for."""
        if self.ended or os.getpid() != runtime.own_pid():
            return
        if self._abort_status:
            leaving.abort(world.comm, self._abort_status)
        buffered.flush_all()
        self._await_all()
        self._come_to_end()
        helping.end()
        self._answered.wait(_SETTLE_TIMEOUT_S)  # the launcher must not take this end for a failure
        world.finish()

    @gate.matches
    def _come_to_end(self) -> None:
        while gate.alert:
            gate.wait_until_calm()
        self.ended = True

    def _await_all(self) -> None:
        """Until all ranks have come here, by messages of ours: whoever waits here can still be checkpointed."""
        last = self._last
        if world.rank:
            last.Send(b"", 0)
            last.Recv(bytearray(), 0)
            return
        for peer in range(1, world.size):
            last.Recv(bytearray(), peer)
        for peer in range(1, world.size):
            last.Send(b"", peer)

    # The conversation

    def _listen(self) -> None:
        while self._channel is not None:
            try:
                order = self._channel.receive()
            except (ChannelClosed, ValueError, OSError):
                self._channel = dialling.again(self._channel, self._network, self._hello())
                continue
            if order.get("op") == "HOLD":
                self._serve(order)
            elif order.get("op") == "AGENT":
                agents.start(self._network)

    def _serve(self, order: dict[str, Any]) -> None:
        """One checkpoint, to its end in this life or in another."""
        assert self._channel is not None
        self._answered.clear()
        self._has_failed = self._abort_heard = False
        problems: list[Any] = []
        try:
            try:
                problems = self._course(order)
            except _Aborted:
                pass
            except NbcrError as error:
                self._fail(self._channel, error)
            self._channel.send({"state": "OPEN", "problems": [str(problem) for problem in problems]})
        except ChannelClosed:
            if self._is_down:
                self._give_up()
        finally:
            self._answered.set()

    def _fail(self, channel: Channel, error: BaseException) -> None:
        """Tell the launcher, and wait until it has told the others."""
        if self._has_failed:
            return
        self._has_failed = True
        channel.send({"state": "FAILED", **to_wire(error)})
        while not self._abort_heard and channel.receive().get("op") != "ABORT":
            pass
        self._abort_heard = True

    def _give_up(self, why: str = "the launcher is gone in the middle of a checkpoint") -> NoReturn:
        """MPI is down, and nobody can say any more when all ranks may set it up again."""
        os.write(2, f"nbcr: rank {world.rank} ends: {why}\n".encode())
        os._exit(_LAUNCHER_LOST)

    def _course(self, order: dict[str, Any]) -> list[Any]:
        assert self._channel is not None
        channel = self._channel
        self._refuse()
        # Every wait in our own handler ends before this does: it is not late, but says what is wrong.
        deadline = Deadline(4 * float(order["deadline_s"]) + _SETTLE_TIMEOUT_S)
        launcher_pid = int(order["launcher"])
        runtime.allow_tracing_by(launcher_pid)
        with all_left(deadline, lambda holders: None):
            request = Request(name=order.get("name"), origin="thread")
            self._order = order
            try:
                passage = registry.enter(request, places=ProcessPlaces(), deadline=deadline)
            finally:
                self._order = None
            try:
                answer = self._through_image(channel, request)
            except ChannelClosed:
                answer = self._ask_again()
            except BaseException:
                if self._is_down:
                    self._give_up()
                passage.aborted()
                raise
            return self._go_on(channel, passage, answer)

    def _through_image(self, channel: sealed.SealedChannel, request: Request) -> dict[str, Any]:
        """Say READY and read on, as often as the image is restored: what the launcher says to the life that reads."""
        message = {"state": "READY", "pid": runtime.own_pid(), "channel_fd": channel.fileno()}
        warnings = [*request.warnings, *filter(None, (support.wrapper(),))]
        channel.send({**message, "warnings": warnings, "connections": besides.connections()})
        # Two returns: the image is taken in this read, and each life reads its own answer.
        answer = channel.receive()
        if answer.get("op") == "PING":
            channel.send({"state": "PONG"})
            answer = channel.receive()
        return answer

    def _go_on(self, channel: sealed.SealedChannel, passage: Passage, answer: dict[str, Any]) -> list[Any]:
        """As the launcher says: end, go on in this life or in a restored one, or as if nothing had been asked."""
        state = answer.get("op")
        if state == "END":
            leaving.in_order()
            os._exit(0)
        if state == "RESTART":
            self._take_over(channel, answer)
            event = RestartEvent.from_message(answer, pid=runtime.own_number(), ppid=os.getppid())
            return passage.restart(event)
        if state == "CONTINUE":
            return passage.continue_()
        self._abort_heard = True
        passage.aborted()
        return []

    def _ask_again(self) -> dict[str, Any]:
        """The connection broke while MPI is down: what to do, from a launcher that has noticed it too."""
        assert self._channel is not None
        hello = {**self._hello(), "is_down": True}
        self._channel = dialling.again(self._channel, self._network, hello)
        if self._channel is None:
            self._give_up()
        try:
            return self._channel.receive(dialling.TIMEOUT_S)
        except (ChannelClosed, TimeoutError, ValueError):
            self._give_up()

    def _refuse(self) -> None:
        """What can be known to be in the way before anything is touched. Raises NotPossible."""
        if self.ended:
            raise NotPossible(f"rank {world.rank} has finalised MPI", hint="the job is at its end")
        found = support.in_the_way()
        if found:
            raise NotPossible(
                f"rank {world.rank} uses {', '.join(found)}, which no checkpoint of a job can hold",
                hint=support.way_out(found),
            )

    def _take_over(self, channel: sealed.SealedChannel, answer: dict[str, Any]) -> None:
        """What connects the stub with its mpiexec becomes ours."""
        _, descriptors, _, _ = socket.recv_fds(channel.sock, 1, 2)
        number = int(os.environ["PMI_FD"])
        os.dup2(descriptors[0], number, inheritable=True)
        os.close(descriptors[0])
        given = {name: str(value) for name, value in dict(answer["mpiexec"]).items()}
        for name in [name for name in os.environ if name.startswith(_OF_MPIEXEC) or name in SHARING]:
            del os.environ[name]
        os.environ.update({**given, "PMI_FD": str(number)})
        self._network = str(answer.get("network", ""))
        if len(descriptors) > 1:  # the launcher is on another host
            channel.become(descriptors[1], bytes.fromhex(answer["key"]))
            channel.send({"op": "member", "rank": world.rank})

    # The handler

    def checkpoint(self, request: Request) -> None:
        """HOLD to DOWN."""
        if self._order is None:
            raise NotPossible(
                f"this process is rank {world.rank} of an MPI job, which can only be checkpointed as a whole",
                hint="`nbcr checkpoint JOB` from a shell",
            )
        assert self._channel is not None
        channel = self._channel
        pid_alias.install()  # asyncio's running loops, and libzmq: the next life's pid is another one
        try:
            gate.hold()
            self._answer_until_down(channel, float(self._order["deadline_s"]))
        except BaseException as error:
            if self._is_down:
                self._give_up(f"MPI could not be torn down: {str(error).splitlines()[0] if str(error) else error!r}")
            try:
                if not isinstance(error, _Aborted):
                    self._fail(channel, error if isinstance(error, NbcrError) else NotPossible(str(error)))
            finally:
                self._settle(channel)
            raise

    def _settle(self, channel: Channel) -> None:
        """After ABORT: take the markers that are under way, so that the program never sees them, and open the gate."""
        drain = self._drain
        if drain is not None:
            marked: list[int] = list(range(world.size))
            with contextlib.suppress(ChannelClosed, TimeoutError):
                channel.send({"state": "STOPPED", "marked": drain.has_marked})
                marked = [int(rank) for rank in channel.receive(_SETTLE_TIMEOUT_S)["marked"]]
            if not drain.sweep(marked):
                support.note("messages of a checkpoint that failed (they may still come)")
        self._up()

    def _answer_until_down(self, channel: Channel, deadline_s: float) -> None:
        channel.send({"state": "HELD"})
        while True:
            order = channel.receive(deadline_s)
            operation = order.get("op")
            if operation == "COUNT":
                channel.send({"state": "COUNTS", **self._counts()})
            elif operation == "TARGETS":
                gate.raise_to({str(key): int(target) for key, target in order["targets"].items()})
            elif operation == "LOCK":
                self._take_all(channel, deadline_s)
            elif operation == "DOWN":
                assert self._torn is not None
                self._is_down = True
                self._torn.down()
                with contextlib.suppress(ChannelClosed):  # READY will show it, where there is a way on
                    channel.send({"state": "DOWN"})
                return
            else:
                self._abort_heard = True
                raise _Aborted("the launcher gave the checkpoint up")

    def _counts(self) -> dict[str, Any]:
        """Collectives begun: {key: [how many, members]}."""
        counts = gate.report([*gate.counts.values(), *live.values()])
        return {"counts": counts, "held": gate.waiting_for(), "ended": self.ended}

    def _take_all(self, channel: Channel, deadline_s: float) -> None:
        if not epochs.close(lambda done, limit_s: waited(lambda: done() or channel.readable(), limit_s), deadline_s):
            raise NotPossible(
                f"rank {world.rank} has had an exclusive lock of a window (MPI.Win.Lock), or waited for one, for "
                f"{deadline_s:g} s",
                hint="ask again, or with a longer --deadline",
            )
        gate.lock()
        drain = self._drain = draining.Drain(deadline_s, channel.readable)
        try:
            drain.begin()
            self._refuse()  # the program may have begun to use more
            channel.send({"state": "LOCKED"})
            drain.await_word()
            if channel.receive().get("op") != "DRAIN":
                self._abort_heard = True
                raise _Aborted("the launcher gave the checkpoint up")
            drain.finish()
        except draining.GivenUp:
            return  # the order that waits says so
        except TimeoutError as error:
            raise NotPossible(f"rank {world.rank} could not be drained within {deadline_s:g} s: {error}") from None
        self._torn = draining.Torn()
        channel.send({"state": "DRAINED", "messages": drain.messages, "size_bytes": drain.size_bytes})

    def continue_(self) -> None:
        self._up_or_end()

    def restart(self, event: RestartEvent) -> None:
        self._up_or_end()

    def _up_or_end(self) -> None:
        """Without MPI this rank is of no use, and the others would wait for it."""
        try:
            self._up()
        except Exception as error:
            first = str(error).splitlines()[0]
            os.write(2, f"nbcr: rank {world.rank} ends: MPI could not be set up again: {first}\n".encode())
            os._exit(_LAUNCHER_LOST)

    def aborted(self) -> None:
        if (
            self._is_down and not self._abort_heard
        ):  # a handler of a lower layer failed: all ranks must come back together
            assert self._channel is not None
            self._fail(self._channel, NotPossible(f"a handler of rank {world.rank} failed"))
        self._up()

    def _up(self) -> None:
        """MPI as it was, and everybody may use it."""
        gate.keeper = threading.get_ident()
        torn, self._torn = self._torn, None
        if self._is_down and torn is not None:
            torn.up()
            self._is_down = False
            gate.forget_what_is_over()
        if self._drain is not None:
            draining.post_again()
            self._drain = None
        epochs.open()
        gate.open()


rank = Rank()
