"""Requests that wait: parked while an image is taken, aborted in a restored life, handed from one life to
the next.

A request travels ROUTER → shell-channel thread → in-process socket → main thread. Between the moment a
checkpoint begins and the moment this life goes on, the shell-channel thread parks what arrives instead of
forwarding it, with the time. Then
- in the life that goes on, the parked ones are forwarded, in order;
- in a restored life nothing of that runs again (see `nbcr.jupyter.sieve`), nor what was queued further on;
- requests that arrived after the restore are newer than the image's last moment, and are kept;
- requests which the present had queued behind its %restart are handed over: nothing is lost.

Where the process ends with its image there is no other life: the restored one goes on with all of them.
"""

from __future__ import annotations

import asyncio
import base64
import inspect
import threading
import time
from collections.abc import Coroutine, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeVar

from nbcr.jupyter.living import LOOP_TIMEOUT_S, Living
from nbcr.jupyter.parting import part
from nbcr.jupyter.sieve import Sieve, header_of

T = TypeVar("T")


@dataclass
class Parked:
    """What arrived while the door was shut. Used on the shell thread only."""

    frames: list[tuple[float, list[Any]]] = field(default_factory=list)


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
        """What arrived since `drain`. Clients are sent away for it: what they send later reaches the restored life."""
        return self._run(self._take_late()) if self._parked is not None else []

    def part(self) -> None:
        """Send the clients away: what they sent so far is parked, what they send from now on comes to the next life."""
        self._run(self._part())

    def put_back(self, taken: Sequence[Sequence[bytes]]) -> None:
        """What `drain` took goes back to the front of the queue, and all goes on as usual."""
        self._run(self._go_on(taken))

    def renew(self, handed: Sequence[Sequence[bytes]], *, image_ends: float, between: float, answer: bool) -> None:
        """In a restored life: sieve out what the image had queued, then go on with `handed` and what is new.

        Old is what arrived before `between`, a moment between the image and this life, or says that it was sent
        before `image_ends`: what clients sent while nobody lived to read it is new. `answer`: tell those who sent
        the image's requests that these were aborted.
        """
        self._run(self._renew(handed, image_ends, between, answer))

    # On the shell thread.

    async def _park(self) -> None:
        if self._parked is not None:
            return
        stream = self._living.shell_stream
        self._usual = (stream._recv_callback, stream._recv_copy)
        self._parked = Parked()
        stream.on_recv(self._arrived, copy=False)
        # Requests read before this moment are forwarded by tasks that queue for this lock, in order.
        thread = self._living.kernel.shell_channel_thread
        if thread is not None:
            async with thread.asyncio_lock:
                pass

    def _arrived(self, frames: list[Any]) -> None:
        if self._parked is not None:
            self._parked.frames.append((time.time(), frames))

    async def _take_parked(self) -> list[list[bytes]]:
        self._read_socket()
        assert self._parked is not None
        taken, self._parked.frames = self._parked.frames, []
        return [_plain(frames) for _, frames in taken]

    async def _take_late(self) -> list[list[bytes]]:
        await part(self._living.app)
        return await self._take_parked()

    async def _part(self) -> None:
        await part(self._living.app)
        self._read_socket()

    async def _go_on(self, first: Iterable[Sequence[bytes]]) -> None:
        if self._parked is None:
            return
        parked = self._open_door()
        await self._forward([*map(_frames, first), *(frames for _, frames in parked.frames)])

    async def _renew(self, handed: Sequence[Sequence[bytes]], image_ends: float, between: float, answer: bool) -> None:
        old, new = self._old_and_new(image_ends, between)
        kernel, manager = self._living.kernel, self._living.manager
        subshells: list[str | None] = [None, *manager.list_subshell()]
        Sieve(kernel, subshells, answer=answer).install()
        if answer:
            for subshell in subshells:
                _set_aborting(kernel, manager, subshell)
            await self._forward(old)
        for subshell in subshells:
            kernel._post_dummy_stop_aborting_message(subshell)
        await self._forward([*map(_frames, handed), *new])

    def _old_and_new(self, image_ends: float, between: float) -> tuple[list[list[Any]], list[list[Any]]]:
        """What the image had parked, and what came after the restore."""
        if self._parked is None:
            return [], []
        self._read_socket()
        parked = self._open_door()
        old: list[list[Any]] = []
        new: list[list[Any]] = []
        for arrived, frames in parked.frames:
            sent = _sent_at(header_of(self._living.session, frames))
            is_new = arrived > between and (sent is None or sent > image_ends)
            (new if is_new else old).append(frames)
        return old, new

    def _open_door(self) -> Parked:
        assert self._parked is not None
        assert self._usual is not None
        parked, self._parked = self._parked, None
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
    """Requests that the main loop has read already and that wait, as tasks, for the running cell to end.

    They stay where they are: if the restart fails they run in their turn, else their loop never runs again.
    In order come those that wait for the lock which the cell holds (it has an `await` in it), those which
    have not begun to, and those whose outer task has not begun either.
    """
    loop = getattr(kernel.io_loop, "asyncio_loop", None)
    if loop is None or threading.current_thread() is not threading.main_thread():
        return []
    lock_queue = list(getattr(kernel._main_asyncio_lock, "_waiters", None) or ())
    held: list[tuple[int, int, list[Any]]] = []
    for task in asyncio.all_tasks(loop):
        place, message = _place_and_message(task, lock_queue)
        if isinstance(message, list):
            held.append((*place, message))
    return [message for _, _, message in sorted(held, key=lambda one: one[:2])]


def _place_and_message(task: asyncio.Task[Any], lock_queue: list[Any]) -> tuple[tuple[int, int], Any]:
    coroutine: Any = task.get_coro()
    frame = getattr(coroutine, "cr_frame", None)
    if frame is None:
        return (0, 0), None
    number = int(task.get_name().rpartition("-")[2]) if task.get_name()[-1:].isdecimal() else 0
    begun = inspect.getcoroutinestate(coroutine) != inspect.CORO_CREATED
    if frame.f_code.co_name == "shell_main":
        waiter = getattr(task, "_fut_waiter", None)
        if waiter in lock_queue:
            return (0, lock_queue.index(waiter)), frame.f_locals.get("msg")
        return (1, number), None if begun else frame.f_locals.get("msg")
    if frame.f_code.co_name == "run_in_context" and not begun:
        return (2, number), (frame.f_locals.get("args") or [None])[0]
    return (0, 0), None


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


def _sent_at(header: Mapping[str, Any]) -> float | None:
    """When its sender says that it was sent."""
    from jupyter_client.jsonutil import parse_date

    date: Any = parse_date(header.get("date"))
    return float(date.timestamp()) if isinstance(date, datetime) else None


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
