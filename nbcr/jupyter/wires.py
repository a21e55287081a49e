"""Just enough of Jupyter's messaging protocol to ask a Jupyter kernel something from outside.

jupyter_client's own clients cost 150 ms to import and threads to run; a question on the control channel
needs neither. Messages are the protocol's: identities, delimiter, HMAC, then header, parent, metadata and
content as JSON.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import time
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from types import TracebackType
from typing import Any

import zmq

from nbcr.jupyter.rekey import Connection

DELIMITER = b"<IDS|MSG>"
PROTOCOL = "5.4"


class Asker:
    """One client of a Jupyter kernel, with a socket for each channel that it uses."""

    def __init__(self, connection: Connection, context: zmq.Context[Any] | None = None) -> None:
        self.connection = connection
        self._context = context or zmq.Context()
        self._owns_context = context is None
        self._sockets: dict[str, zmq.Socket[Any]] = {}
        self._session = uuid.uuid4().hex

    def __enter__(self) -> Asker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Hang up on every channel."""
        for socket in self._sockets.values():
            socket.close(linger=0)
        self._sockets.clear()
        if self._owns_context:
            self._context.term()

    def socket(self, channel: str) -> zmq.Socket[Any]:
        """The DEALER connected to `channel`."""
        if channel not in self._sockets:
            socket = self._context.socket(zmq.DEALER)
            socket.linger = 0
            socket.identity = self._session.encode()
            if self.connection.curve_publickey is not None:
                public, secret = zmq.curve_keypair()
                socket.curve_serverkey = self.connection.curve_publickey.encode()
                socket.curve_publickey, socket.curve_secretkey = public, secret
            socket.connect(self.connection.address(channel))
            self._sockets[channel] = socket
        return self._sockets[channel]

    def send(self, channel: str, kind: str, content: Mapping[str, Any], header: Mapping[str, Any] | None = None) -> str:
        """Send a request; returns its message id."""
        message_id = uuid.uuid4().hex
        full = {
            "msg_id": message_id,
            "session": self._session,
            "username": "nbcr",
            "date": datetime.now(UTC).isoformat(),
            "msg_type": kind,
            "version": PROTOCOL,
            **(header or {}),
        }
        parts = [json.dumps(part).encode() for part in (full, {}, {}, content)]
        self.socket(channel).send_multipart([DELIMITER, self._sign(parts), *parts])
        return message_id

    def receive(self, channel: str, message_id: str, timeout_s: float) -> dict[str, Any] | None:
        """The content of the reply to `message_id`; None when it does not come in time."""
        socket = self.socket(channel)
        deadline = time.monotonic() + timeout_s
        while True:
            left_ms = max(0, int((deadline - time.monotonic()) * 1000))
            if not socket.poll(left_ms):
                return None
            reply = self.read(channel, message_id)
            if reply is not None:
                return reply

    def read(self, channel: str, message_id: str) -> dict[str, Any] | None:
        """The message that waits on `channel`, when it is the reply to `message_id`."""
        frames = self.socket(channel).recv_multipart()
        try:
            at = frames.index(DELIMITER)
            signature, header, parent, metadata, content = frames[at + 1 : at + 6]
            if not hmac.compare_digest(signature, self._sign([header, parent, metadata, content])):
                return None
            if json.loads(parent).get("msg_id") != message_id:
                return None
            reply = json.loads(content)
        except ValueError:
            return None
        return reply if isinstance(reply, dict) else None

    def ask(
        self,
        channel: str,
        kind: str,
        content: Mapping[str, Any],
        *,
        timeout_s: float,
        header: Mapping[str, Any] | None = None,
    ) -> dict[str, Any] | None:
        """Send a request and wait for the content of its reply; None when it does not come in time."""
        return self.receive(channel, self.send(channel, kind, content, header), timeout_s)

    def _sign(self, parts: list[bytes]) -> bytes:
        if not self.connection.key:
            return b""
        digest = getattr(hashlib, self.connection.signature_scheme.partition("-")[2])
        signature = hmac.new(self.connection.key.encode(), digestmod=digest)
        for part in parts:
            signature.update(part)
        return signature.hexdigest().encode()
