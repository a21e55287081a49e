"""Clients that come back to a restored Jupyter kernel, by a real XPUB socket of ipykernel's and a real SUB."""

# ipykernel carries no types.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import zmq
from ipykernel.iostream import IOPubThread
from jupyter_client.session import Session

from nbcr.jupyter import links
from nbcr.jupyter.living import run_on
from nbcr.jupyter.subscribers import SETTLE_S, UNHEARD_S, ClientsReturn, Subscriptions

CAP_S = 60.0
_CLIENT = """
import signal, sys, zmq
socket = zmq.Context().socket(zmq.SUB)
socket.subscribe(b"")
socket.connect(sys.argv[1])
signal.pause()
"""

_SILENT = """
import signal, socket, sys
host, port = sys.argv[1].removeprefix("tcp://").split(":")
connection = socket.create_connection((host, int(port)))
signal.pause()
"""


class Channel:
    """The IOPub channel of a Jupyter kernel, and clients of it."""

    def __init__(self) -> None:
        self.context = zmq.Context()
        made = self.context.socket(zmq.XPUB)
        self.port = made.bind_to_random_port("tcp://127.0.0.1")
        self.app = SimpleNamespace(ip="127.0.0.1", iopub_port=self.port, shell_port=-1, stdin_port=-1)
        self.thread = IOPubThread(made, session=Session(key=b"secret"))
        self.thread.start()
        self.subscriptions = Subscriptions(self.thread)
        self.image_ends = 0.0
        self.before: frozenset[Any] = frozenset()
        self.late, self.is_enough = threading.Event(), False
        self.clients: list[subprocess.Popen[bytes]] = []

    def close(self) -> None:
        for client in self.clients:
            client.kill()
            client.wait()
        loop: Any = self.thread.io_loop  # tornado's, which has asyncio's within
        asyncio.run_coroutine_threadsafe(self._end_tasks(), loop.asyncio_loop).result(CAP_S)
        self.thread.stop()
        self.thread.close()
        self.context.destroy(linger=0)

    async def _end_tasks(self) -> None:
        """Of ipykernel's, which otherwise complain at the interpreter's end."""
        task = self.thread._event_pipe_gc_task
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def add_client(self, program: str = _CLIENT) -> None:
        """In a process of its own: who connects to itself is no client."""
        self.clients.append(subprocess.Popen([sys.executable, "-c", program, f"tcp://127.0.0.1:{self.port}"]))

    def take_image(self) -> None:
        """What a restored life believes to have been its last moment."""
        self.thread.io_loop.add_callback(self.subscriptions.listen)
        self.image_ends = time.time()

    def watch(self, count: int, cap_s: float = CAP_S) -> threading.Event:
        """Wait as a restored life does for `count` listeners."""
        done = threading.Event()
        self.waits = ClientsReturn(
            self.thread,
            self.subscriptions,
            self.image_ends,
            lambda: links.listeners(self.app),
            self.before,
            lambda: links.counts(self.app)["iopub"] >= count,
            done.set,
            cap_s,
            self.late.set,
            lambda: not self.is_enough,
        )
        self.thread.io_loop.add_callback(self.waits.watch)
        return done


def await_connection(channel: Channel) -> None:
    deadline = time.monotonic() + CAP_S / 2
    while not links.listeners(channel.app) and time.monotonic() < deadline:
        time.sleep(0.01)


@pytest.fixture
def channel() -> Iterator[Channel]:
    with contextlib.closing(Channel()) as made:
        yield made


def test_one_that_comes_is_noticed(channel: Channel) -> None:
    channel.take_image()
    done = channel.watch(1)
    channel.add_client()
    assert done.wait(CAP_S / 2)


def test_one_that_was_back_before_anybody_waited(channel: Channel) -> None:
    channel.take_image()
    channel.add_client()
    await_connection(channel)
    time.sleep(0.2)  # its subscription is read by the thread, which tells nobody
    assert channel.watch(1).wait(CAP_S / 2)


def test_one_that_stays_away_is_not_waited_for_long(channel: Channel) -> None:
    channel.take_image()
    done = channel.watch(2)
    channel.add_client()
    assert done.wait(SETTLE_S + CAP_S / 2)


def test_one_that_subscribes_to_what_another_has_subscribed(channel: Channel) -> None:
    """As when the connection that an image has brought along is not known to be gone yet."""
    channel.add_client()
    await_connection(channel)
    channel.take_image()
    done = channel.watch(2)
    channel.add_client()
    assert done.wait(CAP_S / 2)


def test_one_that_is_connected_and_has_not_subscribed_is_waited_for(channel: Channel) -> None:
    """Its connection is seen; what was sent to it before its subscription is heard would be lost."""
    channel.take_image()
    channel.add_client(_SILENT)
    await_connection(channel)
    done = channel.watch(1)
    assert not done.wait(2 * UNHEARD_S)
    channel.add_client()
    assert done.wait(CAP_S / 2)


def test_the_slower_of_two_is_waited_for_after_it_has_connected(channel: Channel) -> None:
    """It would lose what was held, and its cell would never end."""
    channel.take_image()
    channel.add_client(_SILENT)
    await_connection(channel)
    done = channel.watch(2)
    channel.add_client()
    assert not done.wait(SETTLE_S / 2)
    assert done.wait(CAP_S / 2)


def watch_a_silent_one(channel: Channel, count: int = 1) -> threading.Event:
    channel.take_image()
    channel.add_client(_SILENT)
    await_connection(channel)
    done = channel.watch(count, cap_s=0.1)
    assert channel.late.wait(CAP_S / 2)
    assert not done.wait(1.0)
    return done


def test_outputs_wait_for_one_that_does_not_look_until_it_does(channel: Channel) -> None:
    done = watch_a_silent_one(channel)
    channel.add_client()
    assert done.wait(CAP_S / 2)


def test_outputs_do_not_wait_for_a_connection_that_the_restart_has_kept(channel: Channel) -> None:
    """Its subscription was kept, too, and will not come again."""
    channel.add_client(_SILENT)
    await_connection(channel)
    channel.before = links.listeners(channel.app)
    channel.take_image()
    assert channel.watch(1, cap_s=0.1).wait(CAP_S / 2)
    assert not channel.late.is_set()


def test_outputs_wait_no_longer_for_one_that_goes(channel: Channel) -> None:
    done = watch_a_silent_one(channel)
    channel.clients[0].kill()
    assert done.wait(CAP_S / 2)


def test_outputs_wait_until_they_are_too_many(channel: Channel) -> None:
    done = watch_a_silent_one(channel)
    channel.is_enough = True
    assert done.wait(CAP_S / 2)


def test_who_subscribes_during_a_checkpoint_is_served_after_it(channel: Channel) -> None:
    done = watch_a_silent_one(channel)
    assert on_the_thread(channel, channel.waits.pause)
    channel.add_client()
    assert not done.wait(1.0)
    on_the_thread(channel, channel.waits.resume)
    assert done.wait(CAP_S / 2)
    assert not on_the_thread(channel, channel.waits.pause), "there is nothing to wait for any more"


def test_a_checkpoint_while_the_others_are_given_time_does_not_end_the_waiting(channel: Channel) -> None:
    done = watch_a_silent_one(channel, count=9)
    channel.add_client()
    deadline = time.monotonic() + CAP_S / 2
    while not channel.subscriptions.since(channel.image_ends) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert on_the_thread(channel, channel.waits.pause)
    assert not done.wait(SETTLE_S + 0.5)
    on_the_thread(channel, channel.waits.resume)
    assert done.wait(CAP_S / 2)


def on_the_thread(channel: Channel, call: Callable[[], Any]) -> Any:
    return run_on(channel.thread.io_loop, channel.thread.thread, call)
