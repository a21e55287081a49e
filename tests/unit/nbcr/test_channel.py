"""Messages: whole, in order, with bytes and datetimes; ends and deadlines are told apart."""

from __future__ import annotations

import datetime
import socket
import struct
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbcr.channel import Channel, ChannelClosed, decode, encode

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.binary() | st.floats(allow_nan=False),
    lambda inner: st.lists(inner) | st.dictionaries(st.text().filter(lambda t: not t.startswith("$")), inner),
    max_leaves=20,
)


@given(st.dictionaries(st.text().filter(lambda t: not t.startswith("$")), values))
def test_what_is_encoded_is_decoded(message: dict[str, object]) -> None:
    assert decode(encode(message)[4:]) == message


def test_datetimes_survive() -> None:
    now = datetime.datetime.now(datetime.UTC)
    assert decode(encode({"date": now})[4:]) == {"date": now}


def test_messages_arrive_in_order_and_whole() -> None:
    ours, theirs = Channel.pair()
    other = Channel(theirs)
    big = {"data": b"x" * 3_000_000}
    sender = threading.Thread(target=lambda: [ours.send({"n": 1}), ours.send(big), ours.send({"n": 2})])
    sender.start()
    with ours, other:
        assert other.receive(5) == {"n": 1}
        assert other.receive() == big
        assert other.receive(5) == {"n": 2}
        sender.join()
        assert not other.readable()


def test_the_end_and_a_deadline_are_told_apart() -> None:
    ours, theirs = Channel.pair()
    with ours:
        with pytest.raises(TimeoutError):
            ours.receive(0.01)
        theirs.close()
        assert ours.readable()
        with pytest.raises(ChannelClosed):
            ours.receive()
        with pytest.raises(ChannelClosed):
            ours.send({"too": "late"})


def test_a_message_cut_short_is_an_end() -> None:
    ours, theirs = Channel.pair()
    with ours:
        theirs.sendall(struct.pack(">I", 100) + b'{"half')
        theirs.close()
        with pytest.raises(ChannelClosed):
            ours.receive(1)


@pytest.mark.parametrize("body", [b"[1]", b"nonsense", b"\xff\xfe", b'"text"'])
def test_anything_but_an_object_is_refused(body: bytes) -> None:
    ours, theirs = Channel.pair()
    with ours, theirs:
        theirs.sendall(struct.pack(">I", len(body)) + body)
        with pytest.raises(ValueError):
            ours.receive(1)


def test_an_absurd_length_is_refused_before_memory_is_taken() -> None:
    ours, theirs = Channel.pair()
    with ours, theirs:
        theirs.sendall(struct.pack(">I", 0xFFFFFFFF))
        with pytest.raises(ValueError, match="bound"):
            ours.receive(1)


def test_what_cannot_travel_is_named() -> None:
    with pytest.raises(TypeError, match="a socket cannot travel"), socket.socket() as sock:
        encode({"socket": sock})
