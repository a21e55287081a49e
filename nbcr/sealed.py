"""Channels between hosts: TCP, where both sides prove that they know the job's secret and every message is sealed.

    caller                       launcher
    nonce                   →
                            ←    nonce, HMAC(secret, "launcher", both nonces)
    HMAC(secret, "caller", both nonces)  →

The key of a connection is HMAC(secret, "key", both nonces). A message is that of `nbcr.channel` with an HMAC of its
direction, number and body between length and body: nobody on the way can forge, change, repeat or reorder one. They are
not secret. Standard library only: this is loaded into ranks.
"""

from __future__ import annotations

import contextlib
import hmac
import json
import os
import secrets
import socket
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from nbcr import runtime
from nbcr.channel import Channel, ChannelClosed, encode

VARIABLE = "NBCR_JOB_NETWORK"
_NONCE_BYTES, _PROOF_BYTES, _HEADER_BYTES = 32, 32, 4
_CONNECT_TIMEOUT_S = 5.0
# A host that vanishes is noticed after about half a minute; a link that is down for less is waited for.
_IDLE_S, _INTERVAL_S, _PROBES, _UNANSWERED_MS = 10, 5, 4, 30_000


class NotProved(ConnectionError):
    """The other side does not know the job's secret."""


@dataclass(frozen=True)
class Network:
    """What processes on other hosts need to reach the launcher; it travels in their environment."""

    host: str  # the launcher's
    addresses: tuple[tuple[str, int], ...]
    secret: str
    python: str  # the launcher's, which has nbcr and is the same on all hosts

    def to_text(self) -> str:
        """For an environment."""
        return json.dumps(asdict(self))

    @classmethod
    def of(cls, text: str) -> Network:
        """What `to_text` made."""
        given = json.loads(text)
        addresses = tuple((str(name), int(port)) for name, port in given.pop("addresses"))
        return cls(**given, addresses=addresses)

    def call(self) -> SealedChannel:
        """A proved connection to the launcher. Raises OSError when it answers at none of its addresses."""
        why: OSError = ConnectionError("it has no address")
        for address in self.addresses:
            sock = None
            try:
                sock = socket.create_connection(address, _CONNECT_TIMEOUT_S)
                return SealedChannel(sock, _prove_as_caller(sock, bytes.fromhex(self.secret)), "caller")
            except OSError as error:
                why = error
                if sock is not None:
                    sock.close()
        raise why


def this_host() -> str:
    """Whose processes we see: the running OS kernel, and its pid namespace that we are in."""
    return f"{runtime.boot_id() or socket.gethostname()}:{runtime.pid_namespace()}"


def connect(path: str, network: str) -> SealedChannel:
    """A rank's channel to its launcher: at its Unix socket on its own host, by TCP elsewhere. Raises OSError."""
    if network and (there := Network.of(network)).host != this_host():
        return there.call()
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.connect(path)
    except OSError:
        sock.close()
        raise
    return SealedChannel(sock)


class SealedChannel(Channel):
    """A channel that seals what goes over TCP. Without a key, and over a Unix socket, it is a plain one.

    A restored rank's first message comes over a Unix socket that the restore has put at its descriptor, whatever was
    there before; with it may come what to go on with (`become`).
    """

    def __init__(self, sock: socket.socket, key: bytes | None = None, side: str = "caller") -> None:
        super().__init__(sock)
        self._start(key, side)

    def _start(self, key: bytes | None, side: str) -> None:
        self.key, self._side = key, side
        self._sent = self._received = 0
        if key is not None:
            _watch(self.sock)

    def become(self, descriptor: int, key: bytes) -> None:
        """Go on over another connection, as its caller, at the same number. `descriptor` is closed."""
        os.dup2(descriptor, self.fileno(), inheritable=False)
        os.close(descriptor)
        self._start(key, "caller")

    @property
    def is_far(self) -> bool:
        """Whether it leads to another host, by what may break while both ends live."""
        return self.key is not None and (self.fileno() < 0 or self._is_sealed)

    @property
    def _is_sealed(self) -> bool:
        return self.key is not None and self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_DOMAIN) != socket.AF_UNIX

    def send(self, message: Mapping[str, Any]) -> None:
        """Send one message; raises ChannelClosed when nobody is there any more."""
        if not self._is_sealed:
            super().send(message)
            return
        data = encode(message)
        header, body = data[:_HEADER_BYTES], data[_HEADER_BYTES:]
        seal = self._seal(self._side, self._sent, body)
        self._sent += 1
        try:
            self.sock.sendall(header + seal + body)
        except OSError as error:
            raise ChannelClosed(f"the other side of the channel is gone ({error.strerror})") from error

    def _body(self, length: int, deadline: float | None) -> bytes:
        if not self._is_sealed:
            return super()._body(length, deadline)
        seal = self._exactly(_PROOF_BYTES, deadline)
        body = super()._body(length, deadline)
        other = "launcher" if self._side == "caller" else "caller"
        if not hmac.compare_digest(seal, self._seal(other, self._received, body)):
            self.close()
            raise ChannelClosed("a message on the channel was not of the job")
        self._received += 1
        return body

    def _exactly(self, count: int, deadline: float | None) -> bytes:
        try:
            return super()._exactly(count, deadline)
        except OSError as error:
            if error.errno is None:  # of ours: closed, or late
                raise
            raise ChannelClosed(f"the other side of the channel is gone ({error.strerror})") from error

    def _seal(self, side: str, number: int, body: bytes) -> bytes:
        assert self.key is not None
        return hmac.digest(self.key, f"{side} {number} ".encode() + body, "sha256")


def answer(sock: socket.socket, secret: bytes, timeout_s: float) -> SealedChannel:
    """The launcher's side of a connection. Raises NotProved, ChannelClosed, TimeoutError."""
    sock.settimeout(timeout_s)
    deadline = time.monotonic() + timeout_s
    theirs = _exactly(sock, _NONCE_BYTES, deadline)
    both = theirs + secrets.token_bytes(_NONCE_BYTES)
    sock.sendall(both[_NONCE_BYTES:] + _mac(secret, "launcher", both))
    if not hmac.compare_digest(_exactly(sock, _PROOF_BYTES, deadline), _mac(secret, "caller", both)):
        raise NotProved("who called does not know the job's secret")
    return SealedChannel(sock, _mac(secret, "key", both), "launcher")


def _prove_as_caller(sock: socket.socket, secret: bytes) -> bytes:
    deadline = time.monotonic() + _CONNECT_TIMEOUT_S
    ours = secrets.token_bytes(_NONCE_BYTES)
    sock.sendall(ours)
    both = ours + _exactly(sock, _NONCE_BYTES, deadline)
    if not hmac.compare_digest(_exactly(sock, _PROOF_BYTES, deadline), _mac(secret, "launcher", both)):
        raise NotProved("what answers there is not the launcher of this job")
    sock.sendall(_mac(secret, "caller", both))
    return _mac(secret, "key", both)


def _mac(secret: bytes, what: str, nonces: bytes) -> bytes:
    return hmac.digest(secret, what.encode() + b" " + nonces, "sha256")


def _exactly(sock: socket.socket, count: int, deadline: float) -> bytes:
    data = bytearray()
    while len(data) < count:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("no proof in time")
        sock.settimeout(left)
        piece = sock.recv(count - len(data))
        if not piece:
            raise ChannelClosed("the other side closed the channel")
        data += piece
    return bytes(data)


def _watch(sock: socket.socket) -> None:
    """Notice a host that vanishes, and do not wait for more to send."""
    options = {
        socket.TCP_NODELAY: 1,
        socket.TCP_KEEPIDLE: _IDLE_S,
        socket.TCP_KEEPINTVL: _INTERVAL_S,
        socket.TCP_KEEPCNT: _PROBES,
        socket.TCP_USER_TIMEOUT: _UNANSWERED_MS,
    }
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in options.items():
            sock.setsockopt(socket.IPPROTO_TCP, option, value)
