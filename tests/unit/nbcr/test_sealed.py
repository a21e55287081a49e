"""Channels between hosts: who does not know the secret is turned away, and nothing on the way can be changed."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from nbcr import sealed
from nbcr.channel import Channel, ChannelClosed, encode
from nbcr.launcher.doors import Doors

SECRET = b"s" * 32


@pytest.fixture
def doors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Doors]:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    found = Doors("job", is_spread=True)
    assert found.network is not None
    found.network = replace(found.network, addresses=(("127.0.0.1", port(found)),))
    yield found
    found.close()


def port(doors: Doors) -> int:
    assert doors.network is not None
    return doors.network.addresses[0][1]


def called(doors: Doors, network: sealed.Network) -> tuple[sealed.SealedChannel | None, Channel | None]:
    """What the caller and the launcher have of a call."""
    got: list[sealed.SealedChannel] = []

    def call() -> None:
        try:
            got.append(network.call())
        except OSError:
            pass

    calling = threading.Thread(target=call)
    calling.start()
    answered = doors.accept(10)
    calling.join()
    return (got[0] if got else None), answered


def test_who_knows_the_secret_is_let_in(doors: Doors) -> None:
    assert doors.network is not None
    caller, launcher = called(doors, sealed.Network.of(doors.environ()[sealed.VARIABLE]))
    assert caller is not None
    assert launcher is not None
    with caller, launcher:
        for number in range(3):
            caller.send({"number": number})
            launcher.send({"answer": number})
            assert launcher.receive(5) == {"number": number}
            assert caller.receive(5) == {"answer": number}


def test_who_does_not_is_turned_away(doors: Doors) -> None:
    assert doors.network is not None
    assert called(doors, replace(doors.network, secret="00" * 32)) == (None, None)


def test_a_stranger_who_says_nothing_or_something_else_is_turned_away(doors: Doors) -> None:
    assert doors.network is not None
    for words in (b"", b"GET / HTTP/1.1\r\n\r\n" * 10):
        with socket.create_connection(("127.0.0.1", port(doors))) as stranger:
            stranger.sendall(words)
            stranger.shutdown(socket.SHUT_WR)
            assert doors.accept(10) is None


def test_an_address_where_something_else_listens_is_passed_over(doors: Doors) -> None:
    assert doors.network is not None
    with socket.create_server(("127.0.0.1", 0)) as other:
        other.listen(5)

        def turn_away() -> None:
            other.accept()[0].close()

        turning = threading.Thread(target=turn_away)
        turning.start()
        both = (("127.0.0.1", other.getsockname()[1]), *doors.network.addresses)
        caller, launcher = called(doors, replace(doors.network, addresses=both))
        turning.join()
    assert caller is not None
    assert launcher is not None
    caller.close()
    launcher.close()


def pair() -> tuple[sealed.SealedChannel, socket.socket]:
    """The launcher's side of a connection, and the caller's raw socket."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        theirs = socket.create_connection(listener.getsockname())
        ours, _ = listener.accept()
    return sealed.SealedChannel(ours, SECRET, "launcher"), theirs


def message(number: int, key: bytes = SECRET) -> bytes:
    """A caller's, as it goes over the wire: the format is fixed here."""
    import hmac

    data = encode({"op": "hello"})
    return data[:4] + hmac.digest(key, f"caller {number} ".encode() + data[4:], "sha256") + data[4:]


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param(message(1), id="another number"),
        pytest.param(message(0, b"x" * 32), id="another key"),
        pytest.param(message(0)[:-3] + b'b"}', id="another body"),
        pytest.param(message(0).replace(b"hello", b"HELLO"), id="a changed body"),
    ],
)
def test_what_was_changed_on_the_way_ends_the_connection(wrong: bytes) -> None:
    launcher, raw = pair()
    with launcher, raw:
        raw.sendall(wrong)
        with pytest.raises(ChannelClosed, match="not of the job"):
            launcher.receive(5)
        assert launcher.fileno() == -1


def test_what_is_sent_twice_is_not_taken_twice() -> None:
    launcher, raw = pair()
    with launcher, raw:
        raw.sendall(message(0) * 2)
        assert launcher.receive(5) == {"op": "hello"}
        with pytest.raises(ChannelClosed):
            launcher.receive(5)


def test_a_restored_rank_hears_plainly_and_goes_on_sealed() -> None:
    """At its descriptor is a Unix socket now; with the first message comes the connection to go on with."""
    launcher, raw = pair()
    caller = sealed.SealedChannel(raw, b"of another life", "caller")
    ours, theirs = Channel.pair()
    line, mine = pair()
    with launcher, caller, ours, line:
        os.dup2(theirs.fileno(), caller.fileno())
        theirs.close()
        ours.send({"op": "RESTART"})
        assert caller.receive(5) == {"op": "RESTART"}
        caller.become(mine.detach(), SECRET)
        caller.send({"op": "member"})
        assert line.receive(5) == {"op": "member"}
        line.send({"op": "HOLD"})
        assert caller.receive(5) == {"op": "HOLD"}


def test_without_a_network_a_rank_connects_to_the_unix_socket(doors: Doors) -> None:
    for network in ("", doors.environ()[sealed.VARIABLE]):  # it is on the launcher's host
        with sealed.connect(doors.path, network) as rank:
            assert rank.key is None
            rank.send({"op": "hello"})
            launcher = doors.accept(5)
            assert launcher is not None
            with launcher:
                assert launcher.receive(5) == {"op": "hello"}
