"""Gates hold, release in order, and retry what has no addressee yet."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest
import zmq

from nbcr.jupyter import gates
from nbcr.jupyter.gates import Gate, RouterGate


class Speaker:
    def __init__(self) -> None:
        self.said: list[Any] = []

    def say(self, word: Any) -> None:
        self.said.append(word)


def test_what_is_said_while_closed_is_heard_in_order_after_opening() -> None:
    speaker = Speaker()
    gate = Gate(speaker, "say")
    speaker.say(1)
    gate.close()
    gate.close()
    speaker.say(2)
    speaker.say(3)
    assert speaker.said == [1]
    gate.open()
    gate.open()
    speaker.say(4)
    assert speaker.said == [1, 2, 3, 4]
    assert "say" not in vars(speaker), "an open gate leaves no trace"


def test_messages_held_over_a_change_of_key_are_signed_anew() -> None:
    from jupyter_client.session import Session

    old, new = Session(key=b"old"), Session(key=b"new")
    speaker = Speaker()
    gate = Gate(speaker, "say")
    gate.close()
    speaker.say(old.serialize(old.msg("status", {"execution_state": "idle"}), ident=b"topic"))
    gate.resign(new)
    gate.open()
    _, frames = new.feed_identities(speaker.said[0])
    assert new.deserialize(frames)["content"] == {"execution_state": "idle"}


def test_dropped_is_what_was_built_before_however_late_it_came_to_the_gate() -> None:
    from jupyter_client.session import Session

    session, speaker = Session(key=b"key"), Speaker()
    gate = Gate(speaker, "say")
    gate.close()
    before, after = (session.serialize(session.msg("status", {"life": life})) for life in (1, 2))
    between = datetime.fromisoformat(session.unpack(before[2])["date"]).timestamp()
    speaker.say(before)
    speaker.say([b"not of Jupyter's"])
    speaker.say(after)
    gate.drop(session, between)
    gate.open()
    assert speaker.said == [[b"not of Jupyter's"], after]


class Loop:
    """Runs what is to come later when told to."""

    def __init__(self) -> None:
        self.later: list[Any] = []

    def call_later(self, delay_s: float, call: Any) -> None:
        self.later.append(call)

    def step(self) -> None:
        calls, self.later = self.later, []
        for call in calls:
            call()


class Stream:
    """As much of a ZMQStream as a gate sees."""

    def __init__(self, socket: Any) -> None:
        self.socket, self.io_loop = socket, Loop()
        self._recv_callback, self._recv_copy = None, True

    def send_multipart(self, message: list[bytes]) -> None:
        self.socket.send_multipart(message)


def test_a_reply_waits_for_its_addressee_and_only_so_long(monkeypatch: pytest.MonkeyPatch) -> None:
    context: zmq.Context[Any] = zmq.Context()
    router, client = context.socket(zmq.ROUTER), context.socket(zmq.DEALER)
    client.identity = b"client"
    try:
        stream = Stream(router)
        gate = RouterGate(stream)
        gate.close()
        stream.send_multipart([b"client", b"one"])
        stream.send_multipart([b"client", b"two"])
        gate.open_when_routable()
        stream.io_loop.step()
        assert gate.closed
        port = router.bind_to_random_port("tcp://127.0.0.1")
        client.connect(f"tcp://127.0.0.1:{port}")
        client.send(b"here I am")
        assert router.poll(5000)
        stream.io_loop.step()
        assert not gate.closed
        stream.send_multipart([b"client", b"three"])
        assert [client.recv() for _ in range(3)] == [b"one", b"two", b"three"]
        gate.close()
        stream.send_multipart([b"nobody", b"lost"])
        stream.send_multipart([b"client", b"four"])
        monkeypatch.setattr(gates, "UNROUTABLE_S", 0.0)
        gate.open_when_routable()
        assert not gate.closed
        assert client.recv() == b"four"
    finally:
        for socket in (router, client):
            socket.close(linger=0)
        context.term()


def test_a_gate_may_be_patient_with_what_is_yet_to_be_said() -> None:
    context: zmq.Context[Any] = zmq.Context()
    router, client = context.socket(zmq.ROUTER), context.socket(zmq.DEALER)
    client.identity = b"client"
    try:
        stream = Stream(router)
        gate = RouterGate(stream)
        gate.close()
        gate.open_when_routable(patient_s=60)
        stream.send_multipart([b"client", b"one"])
        stream.io_loop.step()
        port = router.bind_to_random_port("tcp://127.0.0.1")
        client.connect(f"tcp://127.0.0.1:{port}")
        client.send(b"here I am")
        assert router.poll(5000)
        stream.io_loop.step()
        assert client.recv() == b"one"
        gate.open()
        stream.send_multipart([b"client", b"two"])
        assert client.recv() == b"two"
    finally:
        for socket in (router, client):
            socket.close(linger=0)
        context.term()


def test_a_gate_closed_again_while_it_retries_stops_retrying() -> None:
    context: zmq.Context[Any] = zmq.Context()
    router = context.socket(zmq.ROUTER)
    try:
        stream = Stream(router)
        gate = RouterGate(stream)
        gate.close()
        stream.send_multipart([b"client", b"one"])
        gate.open_when_routable()
        gate.close()
        stream.io_loop.step()
        assert gate.closed
        assert not stream.io_loop.later
    finally:
        router.close(linger=0)
        context.term()
