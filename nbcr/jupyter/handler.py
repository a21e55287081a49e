"""The Jupyter handler: makes a running ipykernel ready for an image, and a restored one ready for its
clients.

What is true at each stage:

    CHECKPOINT   everything printed so far has been sent; from here on outgoing messages are held and incoming
                 requests parked; no history transaction is open; the parent's death is not watched
    CONTINUE     all of that undone, nothing lost, nothing out of order
    RESTART      the process knows its pid and parent, serves the right connection under a session id of its own;
                 the cell that asked for the restart has taken the place of the one that ran in the image; requests
                 of the image are aborted, those of the present queued; what is held leaves as clients come back

A checkpoint with which the process ends (``--stop``) has one life after it only: no request is aborted, nothing held is
dropped, and clients are parted with before the image, so that what they send meanwhile waits for the restored life.
"""

from __future__ import annotations

import contextvars
import ctypes
import os
import sys
import threading
from collections.abc import Callable
from typing import Any

from nbcr.handlers import pid_alias
from nbcr.handlers.base import Handler, Request, RestartEvent
from nbcr.jupyter import identity, links, questions, subshells, thumbnails, widgets
from nbcr.jupyter.gates import Outgoing, ask_when_routable
from nbcr.jupyter.history import History
from nbcr.jupyter.living import LOOP_TIMEOUT_S, Living, LoopSilentError, living
from nbcr.jupyter.rekey import Connection, put_right, rekey
from nbcr.jupyter.requests import Drained, Inbox, decode, encode
from nbcr.jupyter.running import Running, running_in, running_in_main, take_over
from nbcr.jupyter.subscribers import MOST_HELD, NOBODY_S, REQUESTER_S, ClientsReturn, Subscriptions
from nbcr.jupyter.ticking import Clock
from nbcr.states import Layer

MOST_SOURCE = 2000  # characters of the running cell's text that an entry keeps


class JupyterHandler(Handler):
    """Takes a Jupyter kernel through checkpoints and restarts. One per process: see `current`."""

    layer = Layer.JUPYTER

    def __init__(self, here: Living) -> None:
        self._here = here
        self._outgoing = Outgoing(here)
        self._inbox = Inbox(here)
        self._clock = Clock(here.iopub)
        self._subscriptions = Subscriptions(here.iopub)
        self._history = History(here.kernel.shell)
        self._parent = identity.Parent(here.app)
        self._image_pid = os.getpid()
        self._requester = threading.get_ident()  # thread that asked for the image, or asks for another life
        self._drained: Drained | None = None
        self._ends = False  # whether the process was to end with its image
        self._reached = threading.Event()  # replies leave again
        self._reached.set()
        self._return: ClientsReturn | None = None  # of clients, in a restored life
        self._listened: frozenset[Any] = frozenset()  # connections when the image was taken, of those who listen
        self._connected: frozenset[Any] = frozenset()  # … and of all channels
        self._unheard = False  # outputs wait still for one who has not subscribed, across the checkpoint

    # One checkpoint

    def checkpoint(self, request: Request) -> None:
        """Bring the Jupyter kernel to rest, and tell the manifest about it."""
        if not self._reached.wait(REQUESTER_S + LOOP_TIMEOUT_S):
            raise LoopSilentError("the previous restart is still waiting for its clients")
        pid_alias.install()
        self._image_pid = os.getpid()
        self._requester = request.requester
        request.facts.update(self._facts())
        self._flush()
        try:
            self._history.hold()
            self._parent.disarm()
            self._inbox.park()
            self._listened = links.listeners(self._here.app)
            self._here.on_iopub(self._pause_return)
            self._outgoing.close()
            self._here.on_iopub(self._subscriptions.listen)
            self._ends = request.leave == "killed"
            if self._ends:
                self._connected = frozenset(wire.name for wire in links.of_clients(self._here.app, *links.ALL_CHANNELS))
            self._clock.start()
        except BaseException:
            self.aborted()
            raise

    def part(self) -> None:
        """Clients are sent away so late that they cannot be back before everything stands still."""
        self._inbox.part()

    def continue_(self) -> None:
        """The life that goes on: everything held leaves, everything parked is served."""
        self._clock.stop()
        self._open(parted=self._ends)
        self._inbox.resume()
        self._parent.rearm()
        self._history.release()

    def _pause_return(self) -> None:
        self._unheard = self._return is not None and self._return.pause()

    def _open(self, *, parted: bool) -> None:
        unheard, self._unheard = self._unheard, False
        if not unheard:
            self._here.on_iopub(self._subscriptions.stop)
        if parted:
            self._outgoing.open_after_parting(published=not unheard)
        else:
            self._outgoing.open(published=not unheard)
        if unheard and self._return is not None:
            self._here.on_iopub(self._return.resume)

    def aborted(self) -> None:
        """No image, or no restart, after all: as if nothing had been asked."""
        drained, self._drained = self._drained, None
        self._clock.stop()
        if drained is not None:
            self._open(parted=True)
            self._inbox.put_back(drained.taken)
        else:
            self._open(parted=self._ends)
            self._inbox.resume()
        self._parent.rearm()
        self._history.release()

    # One restart, in the present that is about to be replaced

    def prepare_restart(self) -> dict[str, Any]:
        """What the restored life needs to go on where this one ends. `aborted` undoes it."""
        self._flush()
        self._requester = threading.get_ident()
        running = self._running()
        self._here.on_iopub(self._pause_return)
        self._drained = self._inbox.drain()
        return {
            "connection": Connection.of(self._here.app).as_dict(),
            "cell": running.describe() if running is not None else None,
            "handed": encode([*self._drained.held, *self._drained.taken]),
            "environ": dict(os.environ),
            "subshells": subshells.known(self._here),
            "clients": links.counts(self._here.app),
        }

    def late_requests(self) -> list[list[str]]:
        """What arrived since `prepare_restart`: to be handed over behind the rest."""
        self._outgoing.part()
        late = self._inbox.take_late()
        if self._drained is not None:
            self._drained.taken.extend(late)
        return encode(late)

    # One restart, in the restored life

    def restart(self, event: RestartEvent) -> None:
        """Become part of the present. Every step is tried; the first failure is raised at the end."""
        here, steps = self._here, Steps()
        self._drained = None
        self._unheard = False
        self._reached.clear()
        image_ends = self._clock.stop()
        between = max(image_ends, event.began)  # after all that the image holds, before all that came later
        only_life = self._ends and not event.in_place
        if not only_life:
            steps.do(lambda: self._outgoing.drop(between))
        if self._ends:
            steps.do(lambda: links.cut(here.app, self._connected))
        steps.do(lambda: identity.renew_pid(here, self._image_pid))
        steps.do(lambda: self._parent.adopt(event.ppid if event.in_place else None))
        if event.environ is not None:
            environ = event.environ
            steps.do(lambda: identity.adopt_environment(environ, here))
        steps.do(lambda: identity.renew_session(here))
        steps.do(lambda: self._rekey(event))
        steps.do(lambda: ask_when_routable(here.kernel.stdin_socket))
        steps.do(lambda: self._history.reopen(event.warnings))
        if event.cell is not None:
            cell = event.cell
            steps.do(lambda: take_over(here, self._requester, cell))
        steps.do(lambda: subshells.make(here, event.present.get("subshells") or ()))
        steps.do(self._inbox.resume if only_life else lambda: self._renew_requests(event, image_ends, between))
        steps.do(widgets.send_states)
        steps.do(lambda: _revive_panels(event))
        steps.do(self._tell_state)
        steps.do(lambda: self._await_clients(event, image_ends))
        steps.do(lambda: questions.ask_again(here, at_once=event.cell is not None, may_ask=self._reached.is_set))
        steps.finish()

    def _renew_requests(self, event: RestartEvent, image_ends: float, between: float) -> None:
        handed = decode(event.handed)
        self._inbox.renew(handed, image_ends=image_ends, between=between, answer=not event.in_place)

    def _rekey(self, event: RestartEvent) -> None:
        was = Connection.of(self._here.app)
        if event.connection is not None and rekey(self._here, Connection.read(event.connection)):
            self._outgoing.resign()
        put_right(self._here, was, event.warnings)

    def _tell_state(self) -> None:
        """An idle Jupyter kernel says so: a frontend may have marked it as dead or busy."""
        if self._running() is None:
            self._here.kernel._publish_status("idle", "shell", parent={})

    def _await_clients(self, event: RestartEvent, image_ends: float) -> None:
        cap_s = REQUESTER_S if event.cell is not None else NOBODY_S
        before = event.present.get("clients") or {}

        def replies() -> None:
            try:
                self._outgoing.reply_to_returning()
            finally:
                self._reached.set()

        def back() -> None:
            try:
                self._outgoing.publish()
            finally:
                replies()

        here = self._here
        self._return = ClientsReturn(
            here.iopub,
            self._subscriptions,
            image_ends,
            lambda: links.listeners(here.app),
            self._listened,
            lambda: links.are_back(here.app, before),
            back,
            cap_s,
            replies,
            lambda: self._outgoing.published < MOST_HELD,
        )
        here.on_iopub(self._return.watch)

    # Facts and flushing

    def _running(self) -> Running | None:
        """The request in which a checkpoint or a restart was asked for, else the one that the user waits for."""
        return running_in(self._requester) or running_in_main(self._here)

    def _facts(self) -> dict[str, Any]:
        running = self._running()
        more: dict[str, Any] = {} if running is None else {"cell_source": running.source[:MOST_SOURCE]}
        figure = thumbnails.current()
        if figure is not None:
            more["thumbnail"] = figure
        return {"jupyter": {**Connection.of(self._here.app).as_dict(), **more}, **self.facts()}

    def facts(self) -> dict[str, Any]:
        """Which notebook this is, which cell runs, and how many were run."""
        here = self._here
        running = self._running()
        names = here.kernel.shell.user_ns if here.kernel.shell is not None else {}
        notebook = os.environ.get("JPY_SESSION_NAME") or names.get("__vsc_ipynb_file__")
        return {
            "notebook": str(notebook) if notebook else None,
            "cell": _prompt(here.kernel) if running is not None and running.executes else None,
            "executed": max(0, int(here.kernel.execution_count) - 1),
        }

    def context_of_cells(self) -> contextvars.Context | None:
        """See `namespaces.cells_run_in`."""
        return self._here.main_context

    def _flush(self) -> None:
        """Everything printed so far leaves now, so that no other life prints it again."""
        _flush_c_streams()
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except (AttributeError, OSError, ValueError):
                pass  # closed or replaced by the user: there is nothing of ours in it
        sent = threading.Event()
        self._here.iopub.schedule(sent.set)
        if not sent.wait(LOOP_TIMEOUT_S):
            raise LoopSilentError("the IOPub thread of the Jupyter kernel does not send")


def _prompt(kernel: Any) -> int:
    """The number beside the cell that runs. Some versions of IPython count on before the cell, others behind it."""
    history = getattr(kernel.shell, "history_manager", None)
    return int(kernel.execution_count) if history is None else len(history.input_hist_parsed) - 1


def _revive_panels(event: RestartEvent) -> None:
    shown = event.present.get("panels")
    if shown:
        from nbcr.panels import revive

        revive(shown)


class Steps:
    """Runs steps that must all be tried; the first failure is raised at the end."""

    def __init__(self) -> None:
        self._failure: Exception | None = None

    def do(self, step: Callable[[], Any]) -> Any:
        """Run one step; None when it fails."""
        try:
            return step()
        except Exception as error:
            self._failure = self._failure or error
            return None

    def finish(self) -> None:
        """Raise the first failure, if there was one."""
        if self._failure is not None:
            raise self._failure


_current: JupyterHandler | None = None


def current() -> JupyterHandler | None:
    """This process's handler, made on first use; None where there is no Jupyter kernel."""
    global _current
    if _current is None:
        here = living()
        if here is not None:
            _current = JupyterHandler(here)
    return _current


def _flush_c_streams() -> None:
    """C's own stdout and stderr, into which libraries print. Others may be locked by a thread that reads."""
    libc = ctypes.CDLL(None)
    for name in ("stdout", "stderr"):
        try:
            libc.fflush(ctypes.c_void_p.in_dll(libc, name))
        except ValueError:
            pass  # another C library, other names
