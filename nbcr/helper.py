"""The helper: the process that traces. ``python -m nbcr.helper PATH…``, started by session.spawning.

It is never part of the tree it dumps: its first act is to fork and let its parent end. Over descriptor 3,
one end of a socket pair, it talks with the process that started it:

    helper → READY {pid}
    process → {"op": "checkpoint", …} or {"op": "restart", …}
    checkpoint: helper → ACCEPTED {id, name, created, snapshot};  process → {"op": "go"}, then blocks in a read
                helper → CONTINUE {pause_ms, resident_bytes, …}, then, all of it written, DONE {entry}
                Where the objects are wanted as well, the process forks when it reads CONTINUE: its child, which is
                in no image, writes them to the folder `snapshot`, and process → {"op": "objects", counts or failure}.
                Of a process that will not go on, the word is part of "go"
    restart:    helper → COMMIT;  process → {late}: what reached it since it prepared itself
                Then it is replaced. The restored life finds a new socket at its image's channel descriptor
                with RESTART {pids, ppid, connection, cell, …} in it, and answers RESTARTED {warnings}
    either:     helper → ERROR {type, message, hint, exit_code}: nothing happened, or (after CONTINUE) no
                entry came of it

Where the request says ``report``, a descriptor follows it: the connection to whoever asked from outside, who
hears CONTINUE, DONE, RESTARTED and ERROR too. ACCEPTED and "go" are two steps because the process must be in a
read without a deadline when its image is taken, and because a message in flight would be in no image.

Whoever asked may die or hang up at any time: before "go" nothing has happened, and nothing is left; after
it the entry is finished, unless the process could not be told that it goes on. The helper itself may be
killed at any time: the channel then ends, and the process goes on.
"""

from __future__ import annotations

import contextlib
import os
import signal
import stat
import sys
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import socket

    from nbcr.channel import Channel
    from nbcr.crs import Progress
    from nbcr.session.taking import CheckpointOrder
    from nbcr.store import Draft, Entry, Store

CHANNEL_FD = 3
_HANG_UP_TIMEOUT_S = 2.0
_COMMIT_TIMEOUT_S = 2.0
_UNHURRIED = 19  # how much nicer to others
_ORDER_TIMEOUT_S = 60.0  # handlers of the process run meanwhile
_OBJECTS_TIMEOUT_S = 660.0  # more than a snapshot may take; a process that was stopped must not hold up its image


def main() -> None:
    """Detach, serve one order, end."""
    if not _is_socket(CHANNEL_FD):
        sys.exit("nbcr.helper: started by nbcr itself, with a channel as descriptor 3; use the `nbcr` command")
    _detach()
    sys.path += [p for p in sys.argv[1:] if p not in sys.path]
    os.chdir("/")
    published = _serve()
    if published is not None:
        _become_packer(published)


def _is_socket(descriptor: int) -> bool:
    try:
        return stat.S_ISSOCK(os.fstat(descriptor).st_mode)
    except OSError:
        return False


def _detach() -> None:
    """Leave the process tree and the session of whoever started us, and every descriptor that is not ours."""
    if os.fork():
        os._exit(0)
    os.setsid()
    os.umask(0o077)
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGPIPE, signal.SIGTSTP):
        signal.signal(number, signal.SIG_IGN)
    os.closerange(CHANNEL_FD + 1, 1 << 20)


def _serve() -> Store | None:
    """Wait for the order, warm, for as long as the process lives; then do it. The store in which it put an entry."""
    import socket

    from nbcr.channel import Channel, ChannelClosed

    channel = Channel(socket.socket(fileno=CHANNEL_FD))
    with contextlib.suppress(ChannelClosed):  # a process that declines hangs up early, but its word is there
        channel.send({"state": "READY", "pid": os.getpid()})
    with contextlib.suppress(Exception):  # what is wrong will be wrong again, and answered, when the order comes
        _warm_up()
    with contextlib.suppress(ChannelClosed), channel:
        request = channel.receive()
        report = Channel(_received(channel.sock)) if request.get("report") else None
        conversation = Conversation(channel, report)
        with _log_of(request):
            conversation.serve(request)
        return conversation.published
    return None


def _become_packer(store: Store) -> None:
    """Pack what was published, unless the store's settings forbid it; without us, it is packed after the next one."""
    from nbcr import packer
    from nbcr.errors import NbcrError
    from nbcr.store import settings

    with contextlib.suppress(OSError, NbcrError):
        if settings.read(store.root).packs_in_background:
            packer.instead_of_us(store.root, sys.argv[1:])


def _received(sock: socket.socket) -> socket.socket:
    """The connection that follows a request for a report."""
    import socket

    _, descriptors, _, _ = socket.recv_fds(sock, 1, 1)
    return socket.socket(fileno=descriptors[0])


def _warm_up() -> None:
    """Import what an order will need, before it comes or while the process runs its handlers."""
    from nbcr import crs
    from nbcr.session import taking  # noqa: F401
    from nbcr.store import manifest, opening, trust  # noqa: F401

    crs.select()


@contextlib.contextmanager
def _log_of(request: Mapping[str, Any]) -> Iterator[None]:
    """Our stderr in the store's log folder, where there is one; removed when nothing was said."""
    from nbcr.errors import NbcrError
    from nbcr.store import Store

    store = Store(request["store"])
    try:
        store.log_folder()
    except NbcrError:  # a store that can only be read, or not even that: the order will say so
        yield
        return
    path = store.helper_log(os.getpid())
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
    os.dup2(descriptor, 2)
    os.close(descriptor)
    try:
        yield
    finally:
        sys.stderr.flush()
        if os.fstat(2).st_size == 0:
            path.unlink(missing_ok=True)


class Conversation:
    """One order and its answers."""

    def __init__(self, channel: Channel, report: Channel | None) -> None:
        self._channel = channel
        self._report = report
        self._resumed = False
        self._word: Mapping[str, Any] | None = None  # about the objects
        self.published: Store | None = None  # where an entry was put

    def serve(self, request: dict[str, Any]) -> None:
        """Do what `request` asks; every failure is answered, none escapes."""
        from nbcr.errors import UsageProblem, to_wire

        try:
            if request.get("op") == "checkpoint":
                self._checkpoint(request)
            elif request.get("op") == "restart":
                self._restart(request)
            else:
                raise UsageProblem(f"the helper does not know the order {request.get('op')!r}")
        except Exception as error:
            if not hasattr(error, "hint"):  # not one of ours: somebody will want to see where it came from
                import traceback

                traceback.print_exc()
            self._say({"state": "ERROR", **to_wire(error)})

    def _say(self, message: dict[str, Any], *, to_process: bool = True) -> None:
        """Tell both sides; one that hung up does not need to hear it."""
        from nbcr.channel import ChannelClosed

        for listener in (self._report, self._channel if to_process else None):
            if listener is not None:
                with contextlib.suppress(ChannelClosed):
                    listener.send(message)

    def _checkpoint(self, request: dict[str, Any]) -> None:
        from nbcr.session.taking import CheckpointOrder, take
        from nbcr.store import Store

        order = CheckpointOrder.from_message(request)

        def done(entry: Entry) -> None:
            self._say({"state": "DONE", "entry": entry.document()})
            self._wait_for_hang_up(order)

        store = Store(request["store"])
        take(
            store,
            order,
            on_accept=lambda draft: self._accept(order, draft),
            on_resume=lambda progress: self._resume(order, progress),
            on_objects=self._objects,
            on_done=done,
        )
        self.published = store

    def _accept(self, order: CheckpointOrder, draft: Draft) -> None:
        from nbcr.errors import NotPossible

        accepted = {"id": draft.id, "name": draft.name, "created": draft.created, "snapshot": str(draft.snapshot)}
        self._channel.send({"state": "ACCEPTED", **accepted})
        # Handlers run, and of a process that will be stopped or killed the objects are saved meanwhile.
        message = self._channel.receive(_ORDER_TIMEOUT_S if order.leave == "running" else _OBJECTS_TIMEOUT_S)
        if message.get("op") != "go":
            raise NotPossible("the process did not say that it is ready to be captured")
        self._word = message.get("objects")

    def _resume(self, order: CheckpointOrder, progress: Progress) -> None:
        """The process runs again: it must hear so, or its caller would wait for ever."""
        if self._resumed or order.leave == "killed":
            return
        self._resumed = True
        message = {
            "state": "CONTINUE",
            "pause_ms": progress.pause_ms,
            "resident_bytes": progress.resident_bytes,
            "warnings": list(progress.warnings),
        }
        self._channel.send(message)
        self._say(message, to_process=False)
        if order.automatic in ("cell", "timer"):  # nobody waits for it: the cells of the user go first
            os.nice(_UNHURRIED)

    def _objects(self) -> Mapping[str, Any]:
        """The process's word about its objects, when its child has ended."""
        from nbcr.channel import ChannelClosed

        try:
            return self._word or self._channel.receive(_OBJECTS_TIMEOUT_S)
        except ChannelClosed:
            return {"failure": "the process ended before they were written"}
        except TimeoutError:
            return {"failure": f"the process did not say within {_OBJECTS_TIMEOUT_S:g} s what became of them"}

    def _wait_for_hang_up(self, order: CheckpointOrder) -> None:
        """Let the process close the channel before another checkpoint may find it open in its descriptors."""
        if order.leave == "running":
            self._channel.readable(_HANG_UP_TIMEOUT_S)

    def _late_requests(self, pid: int | None) -> list[Any]:
        """What reached the present since it prepared itself; nothing once it is stopped and cannot answer."""
        from nbcr.channel import ChannelClosed
        from nbcr.runtime import is_stopped

        if pid is None or is_stopped(pid):
            return []
        try:
            self._channel.send({"state": "COMMIT"})
            return list(self._channel.receive(_COMMIT_TIMEOUT_S).get("late", ()))
        except (ChannelClosed, TimeoutError):
            return []

    def _restart(self, request: dict[str, Any]) -> None:
        from nbcr.session.bringing import RestartOrder, bring
        from nbcr.store import Store

        entry = Store(request["store"]).find(request["id"])
        files = request.get("files")
        order = RestartOrder(entry, into=int(request["into"]), present=request.get("present"), files=files)
        result = bring(order, on_ready=lambda: self._late_requests(order.into))
        answer = {"state": "RESTARTED", **result.document(), "warnings": list(result.warnings)}
        self._say(answer, to_process=False)


if __name__ == "__main__":
    main()
