"""The socket for requests from outside, and the threads that serve them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent

import pytest

from nbcr import runtime
from nbcr.channel import Channel, ChannelClosed
from nbcr.handlers import Request, RestartEvent
from nbcr.handlers.listening import Listener
from nbcr.handlers.thread import CheckpointThread

WAIT_S = 20.0


class Echo:
    """Serves by saying again what it hears; `begun` is set when somebody is being served."""

    def __init__(self) -> None:
        self.begun = threading.Event()

    def __call__(self, connection: socket.socket) -> None:
        self.begun.set()
        channel = Channel(connection)
        channel.send({"echo": channel.receive(WAIT_S)})


@pytest.fixture
def echo() -> Echo:
    return Echo()


@pytest.fixture
def listener(runtime_dir: Path, echo: Echo) -> Iterator[Listener]:
    thread = CheckpointThread()
    thread.start()
    listener = Listener(thread, echo)
    listener.open()
    yield listener
    listener.remove()
    thread.stop()
    assert list(runtime_dir.glob("*.sock")) == []
    assert runtime.connect_to_thread(os.getpid()) is None


def connect() -> socket.socket:
    sock = runtime.connect_to_thread(os.getpid())
    assert sock is not None
    return sock


def ask(message: dict[str, object]) -> dict[str, object]:
    with Channel(connect()) as channel:
        channel.send(message)
        return channel.receive(WAIT_S)


def test_it_serves_one_request_after_another(listener: Listener) -> None:
    for n in range(3):
        assert ask({"n": n}) == {"echo": {"n": n}}


def test_its_socket_is_the_users_alone(listener: Listener) -> None:
    assert listener.path is not None
    assert listener.path.stat().st_mode & 0o777 == 0o600
    assert listener.path.parent.stat().st_mode & 0o777 == 0o700


def test_no_socket_is_open_while_an_image_is_taken(listener: Listener) -> None:
    for end in (listener.continue_, listener.aborted, lambda: listener.restart(RestartEvent(1, {}, 0))):
        listener.checkpoint(Request())
        with pytest.raises(runtime.ThreadAway):
            runtime.connect_to_thread(os.getpid())
        end()
        assert ask({"again": 1}) == {"echo": {"again": 1}}


def test_a_connection_being_served_is_waited_for(listener: Listener, echo: Echo) -> None:
    sock = connect()
    assert echo.begun.wait(WAIT_S)
    quiet = threading.Event()
    waiter = threading.Thread(target=lambda: [listener.checkpoint(Request()), quiet.set()])
    waiter.start()
    assert not quiet.wait(0.1)
    with Channel(sock) as channel:
        channel.send({"now": 1})
        channel.receive(WAIT_S)
    assert quiet.wait(WAIT_S)
    waiter.join()
    listener.continue_()


def test_the_requesters_own_connection_is_not_waited_for(listener: Listener, echo: Echo) -> None:
    sock = connect()
    assert echo.begun.wait(WAIT_S)
    (requester,) = (t.ident for t in threading.enumerate() if t.name == "nbcr-request")
    listener.checkpoint(Request(requester=requester or 0))
    listener.continue_()
    sock.close()


def test_nonsense_and_hanging_up_harm_nobody(listener: Listener) -> None:
    for raw in (b"", b"\x00\x00\x00\x02[]", b"\xff\xff\xff\xff"):
        sock = connect()
        sock.sendall(raw)
        sock.shutdown(socket.SHUT_WR)
        with pytest.raises(ChannelClosed):
            Channel(sock).receive(WAIT_S)
        sock.close()
    assert ask({"fine": 1}) == {"echo": {"fine": 1}}


def test_a_program_that_ends_leaves_no_socket() -> None:
    code = dedent("""
        from nbcr import runtime
        from nbcr.session import service
        service.start(standby=False)
        print(runtime.socket_path(runtime.own_pid()), runtime.socket_path(runtime.own_pid()).exists())
    """)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    path, was_there = done.stdout.split()
    assert was_there == "True"
    assert not Path(path).exists()


def test_another_signal_may_be_chosen_later_and_the_same_one_twice() -> None:
    code = dedent("""
        import nbcr, signal
        nbcr.request_on_signal(signal.SIGUSR2)
        nbcr.request_on_signal(signal.SIGUSR2)
        nbcr.request_on_signal(signal.SIGUSR1)
        signal.signal(signal.SIGWINCH, print)
        try:
            nbcr.request_on_signal(signal.SIGWINCH)
        except nbcr.NbcrError as error:
            print(error)
        names = [s.name for s in (signal.SIGUSR1, signal.SIGUSR2) if signal.getsignal(s) is not signal.SIG_DFL]
        print(names)
    """)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-2:] == [
        "SIGWINCH is in use by the program and cannot ask for checkpoints",
        "['SIGUSR1']",
    ]
