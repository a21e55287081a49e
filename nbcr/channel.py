"""Messages between a process, its helper and the command line: JSON over one Unix stream socket.

Each message is a 4-byte big-endian length and that many bytes of UTF-8 JSON (one object). Bytes and
datetimes, which JSON lacks and Jupyter messages have, travel as ``{"$bytes": base64}`` and ``{"$datetime":
iso}``.

A receive without a timeout matters here: a process is captured while it blocks in `receive`. A deadline
would be a point on the clock of the life that took the image, long past in the restored one.
"""

from __future__ import annotations

import base64
import datetime
import json
import os
import select
import socket
import struct
import time
from collections.abc import Mapping
from typing import Any

MAX_MESSAGE_BYTES = 256 * 1024 * 1024
_HEADER = struct.Struct(">I")


class ChannelClosed(ConnectionError):
    """The other side closed the channel, or died."""


def _encode_extra(value: object) -> object:
    if isinstance(value, (bytes, bytearray, memoryview)):
        return {"$bytes": base64.b64encode(bytes(value)).decode("ascii")}
    if isinstance(value, datetime.datetime):
        return {"$datetime": value.isoformat()}
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    raise TypeError(f"a {type(value).__name__} cannot travel over the channel")


def _decode_extra(value: dict[str, Any]) -> Any:
    if len(value) == 1:
        if "$bytes" in value:
            return base64.b64decode(value["$bytes"])
        if "$datetime" in value:
            return datetime.datetime.fromisoformat(value["$datetime"])
    return value


def encode(message: Mapping[str, Any]) -> bytes:
    """One message as it goes over the wire, header included."""
    body = json.dumps(message, default=_encode_extra, separators=(",", ":")).encode("utf-8")
    if len(body) > MAX_MESSAGE_BYTES:
        raise ValueError(f"message of {len(body)} bytes is over the bound of {MAX_MESSAGE_BYTES}")
    return _HEADER.pack(len(body)) + body


def decode(body: bytes) -> dict[str, Any]:
    """A message's body as a dictionary; raises ValueError for anything else."""
    message = json.loads(body.decode("utf-8"), object_hook=_decode_extra)
    if not isinstance(message, dict):
        raise ValueError("a channel message must be a JSON object")
    return message


class Channel:
    """One end of a conversation. Not safe for two senders or two receivers at once."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        sock.settimeout(None)

    @classmethod
    def pair(cls) -> tuple[Channel, socket.socket]:
        """A channel, and the raw socket for the other side (inherited, or put into a restored process)."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        return cls(ours), theirs

    def fileno(self) -> int:
        """Descriptor number, -1 once closed."""
        return self.sock.fileno()

    def send(self, message: Mapping[str, Any]) -> None:
        """Send one message; raises ChannelClosed when nobody is there any more."""
        try:
            self.sock.sendall(encode(message))
        except (BrokenPipeError, ConnectionResetError) as error:
            raise ChannelClosed("the other side of the channel is gone") from error

    def readable(self, timeout_s: float | None = 0.0) -> bool:
        """Whether a message, or the channel's end, is there within `timeout_s` seconds (None: for ever)."""
        poller = select.poll()
        poller.register(self.sock, select.POLLIN)
        return bool(poller.poll(None if timeout_s is None else max(0.0, timeout_s) * 1000))

    @property
    def has_ended(self) -> bool:
        """Whether the other side has closed it, or it has broken, and nothing is left to be read."""
        if self.fileno() < 0:
            return True
        try:
            return self.readable() and not self.sock.recv(1, socket.MSG_PEEK)
        except OSError:
            return True

    def receive(self, timeout_s: float | None = None) -> dict[str, Any]:
        """Next message. Raises ChannelClosed, or TimeoutError after `timeout_s` seconds (None: never)."""
        if timeout_s is None:
            (length,) = _HEADER.unpack(self._exactly(_HEADER.size, None))
            return decode(self._body(length, None))
        deadline = time.monotonic() + timeout_s
        (length,) = _HEADER.unpack(self._exactly(_HEADER.size, deadline))
        return decode(self._body(length, deadline))

    def _body(self, length: int, deadline: float | None) -> bytes:
        if length > MAX_MESSAGE_BYTES:
            raise ValueError(f"message of {length} bytes announced, the bound is {MAX_MESSAGE_BYTES}")
        return self._exactly(length, deadline)

    def _exactly(self, count: int, deadline: float | None) -> bytes:
        data = bytearray()
        while len(data) < count:
            if deadline is not None and not self.readable(deadline - time.monotonic()):
                raise TimeoutError("no answer on the channel in time")
            try:
                piece = self.sock.recv(min(count - len(data), 1 << 20))
            except ConnectionResetError:
                piece = b""
            if not piece:
                raise ChannelClosed("the other side closed the channel")
            data += piece
        return bytes(data)

    def close(self) -> None:
        """Close our end; harmless when repeated."""
        self.sock.close()

    def __enter__(self) -> Channel:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
