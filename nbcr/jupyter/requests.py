"""Requests that wait: parked while an image is taken, aborted in a restored life, handed from one life to
the next.

A request travels ROUTER → shell-channel thread → in-process socket → main thread. Between the moment a
checkpoint begins and the moment this life goes on, the shell-channel thread parks what arrives instead of
forwarding it, with the time. Then
- in the life that goes on, the parked ones are forwarded, in order;
- in a restored life, what was parked or queued in the image is aborted by ipykernel's own means (it marks the
  queue with a message that ends the aborting), because the life that went on has answered it: nothing runs
  twice;
- requests that arrived after the restore are newer than the image's last moment, and are kept;
- requests which the present had queued behind its %restart are handed over, and follow the mark: nothing is
  lost.
"""

from __future__ import annotations

import asyncio
import base64
import threading
import time
from collections.abc import Coroutine, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from nbcr.jupyter.living import LOOP_TIMEOUT_S, Living

T = TypeVar("T")

TICK_S = 0.01
"""How finely the image knows its own last moment."""
MARGIN_S = 0.02
NOT_REPEATED = frozenset({"comm_open", "comm_msg", "comm_close"})


@dataclass
class Parked:
    """What arrived while the door was shut. Used on the shell thread only."""

    frames: list[tuple[float, list[Any]]] = field(default_factory=list)
    alive_at: float = field(default_factory=time.time)
    shut: bool = True


@dataclass
class Drained:
    """What waited in the present, in order: first what tasks of the main loop hold, then what was taken."""

    held: list[list[bytes]]
    taken: list[list[bytes]]


class Inbox:
    """The shell channel's incoming side of one Jupyter kernel."""

    def __init__(self, living: Living) -> None:
        self._living = living
        self._parked: Parked | None = None
        self._usual: tuple[Any, bool] | None = None

    # The four moments; each runs on the shell thread and is waited for.

    def park(self) -> None:
        """From now on nothing is forwarded; what is already read is forwarded before this returns."""
        self._run(self._park())

    def resume(self) -> None:
        """Forward what was parked, in order, and go on as usual."""
        self._run(self._go_on([]))

    def drain(self) -> Drained:
        """Park, and take all that waits behind the running cell, in order. Call in the main thread's cell."""
        self.park()
        held = [_plain(frames) for frames in _held_by_tasks(self._living.kernel)]
        taken = [_plain(frames) for frames in self._take_from_main()]
        return Drained(held, taken + self._run(self._take_parked()))

    def take_late(self) -> list[list[bytes]]:
        """What arrived since the last `drain` or `take_late`."""
        return self._run(self._take_parked()) if self._parked is not None else []

    def put_back(self, taken: Sequence[Sequence[bytes]]) -> None:
        """What `drain` took goes back to the front of the queue, and all goes on as usual."""
        self._run(self._go_on(taken))

    def abort_and_follow(self, handed: Sequence[Sequence[bytes]], *, readable: bool = True) -> None:
        """In a restored life: abort what the image had queued, then go on with `handed` and what is new.

        `readable`: the session's key is still the one with which the image's requests were signed.
        """
        if not readable and threading.current_thread() is threading.main_thread():
            self._take_from_main()
        self._run(self._abort(handed, readable))

    # On the shell thread.

    async def _park(self) -> None:
        if self._parked is not None:
            return
        stream = self._living.shell_stream
        self._usual = (stream._recv_callback, stream._recv_copy)
        self._parked = Parked()
        stream.on_recv(self._arrived, copy=False)
        self._tick(self._parked)
        # Requests read before this moment are forwarded by tasks that queue for this lock, in order.
        thread = self._living.kernel.shell_channel_thread
        if thread is not None:
            async with thread.asyncio_lock:
                pass

    def _arrived(self, frames: list[Any]) -> None:
        if self._parked is not None:
            self._parked.frames.append((time.time(), frames))

    def _tick(self, parked: Parked) -> None:
        if parked.shut:
            parked.alive_at = time.time()
            self._living.shell_loop.call_later(TICK_S, lambda: self._tick(parked))

    async def _take_parked(self) -> list[list[bytes]]:
        self._read_socket()
        assert self._parked is not None
        taken, self._parked.frames = self._parked.frames, []
        return [_plain(frames) for _, frames in taken]

    async def _go_on(self, first: Iterable[Sequence[bytes]]) -> None:
        if self._parked is None:
            return
        parked = self._open_door()
        await self._forward([*map(_frames, first), *(frames for _, frames in parked.frames)])

    async def _abort(self, handed: Sequence[Sequence[bytes]], readable: bool) -> None:
        if self._parked is not None:
            self._read_socket()
        parked = self._open_door() if self._parked is not None else Parked(alive_at=0.0)
        image_ends = parked.alive_at + MARGIN_S
        old, new = [], []
        for arrived, frames in parked.frames:
            sent, kind = self._sent_at(frames)
            if arrived > image_ends and (sent is None or sent > image_ends):
                new.append(frames)
            elif readable and kind not in NOT_REPEATED:
                old.append(frames)
        kernel, manager = self._living.kernel, self._living.manager
        subshells: list[str | None] = [None, *manager.list_subshell()]
        for subshell in subshells:
            _set_aborting(kernel, manager, subshell)
        await self._forward(old)
        for subshell in subshells:
            kernel._post_dummy_stop_aborting_message(subshell)
        await self._forward([*map(_frames, handed), *new])

    def _open_door(self) -> Parked:
        assert self._parked is not None
        assert self._usual is not None
        parked, self._parked = self._parked, None
        parked.shut = False
        callback, copy = self._usual
        self._living.shell_stream.on_recv(callback, copy=copy)
        return parked

    async def _forward(self, messages: Iterable[list[Any]]) -> None:
        for frames in messages:
            await self._living.kernel.shell_channel_thread_main(frames)

    def _read_socket(self) -> None:
        assert self._parked is not None
        now = time.time()
        self._parked.frames.extend((now, frames) for frames in _receive_all(self._living.shell_stream.socket))

    def _sent_at(self, frames: list[Any]) -> tuple[float | None, str]:
        """When its sender says that it was sent, and of what type it is."""
        try:
            session = self._living.session
            _, rest = session.feed_identities(frames, copy=False)
            header = session.unpack(bytes(rest[1].bytes))
            from jupyter_client.jsonutil import parse_date

            sent: Any = parse_date(header.get("date"))
            return float(sent.timestamp()), str(header.get("msg_type"))
        except Exception:
            return None, ""

    # On the main thread, or for it.

    def _take_from_main(self) -> list[list[Any]]:
        """What the main thread has not read yet. The main thread itself calls: the socket is its own."""
        if threading.current_thread() is not threading.main_thread():
            return []
        socket = self._living.manager._shell_channel_to_main.to_socket
        return [frames for frames in _receive_all(socket) if len(frames) > 1]

    def _run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        loop = self._living.shell_loop.asyncio_loop
        return asyncio.run_coroutine_threadsafe(coroutine, loop).result(LOOP_TIMEOUT_S)


def _held_by_tasks(kernel: Any) -> list[list[Any]]:
    """Requests that the main loop has read and that wait, as tasks, for a cell with an `await` in it to end.

    They stay where they are: if the restart fails they run in their turn, else their loop never runs again.
    """
    loop = getattr(kernel.io_loop, "asyncio_loop", None)
    waiters = list(getattr(kernel._main_asyncio_lock, "_waiters", None) or ())
    if loop is None or threading.current_thread() is not threading.main_thread():
        return []
    held: dict[int, list[Any]] = {}
    for task in asyncio.all_tasks(loop):
        frame = getattr(task.get_coro(), "cr_frame", None)
        waiter = getattr(task, "_fut_waiter", None)
        if frame is not None and waiter in waiters and isinstance(frame.f_locals.get("msg"), list):
            held[waiters.index(waiter)] = frame.f_locals["msg"]
    return [held[place] for place in sorted(held)]


def encode(messages: Iterable[Sequence[bytes]]) -> list[list[str]]:
    """Raw requests as JSON."""
    return [[base64.b64encode(frame).decode() for frame in frames] for frames in messages]


def decode(messages: Iterable[Sequence[str]]) -> list[list[bytes]]:
    """What `encode` made."""
    return [[base64.b64decode(frame) for frame in frames] for frames in messages]


def _receive_all(socket: Any) -> Iterator[list[Any]]:
    import zmq

    while True:
        try:
            yield socket.recv_multipart(zmq.NOBLOCK, copy=False)
        except zmq.Again:
            return


def _plain(frames: Iterable[Any]) -> list[bytes]:
    return [bytes(frame.bytes) for frame in frames]


def _frames(raw: Iterable[bytes]) -> list[Any]:
    import zmq

    return [zmq.Frame(frame) for frame in raw]


def _set_aborting(kernel: Any, manager: Any, subshell: str | None) -> None:
    if subshell is None:
        kernel._aborting = True
    else:
        manager.set_subshell_aborting(subshell, True)
