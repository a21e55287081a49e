"""The other end of connections to outside: subjects/c/sockets/tcp_kept.c says what it does."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

CONNECTIONS, FIRST, ALL = 6, 30_000, 300_000
ENDS = {2, 4}  # connections that the peer has ended when the subject is ready
LIMIT_S = 20.0
_SMALL = 8192  # so that part of what is sent to us cannot be sent yet


class Peer:
    """Serves one subject, in threads of its own."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._listener = self._stack.enter_context(socket.socket(socket.AF_INET6, socket.SOCK_STREAM))
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SMALL)
        self._listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        self._listener.bind(("::", 0))
        self._listener.listen()
        self.port: int = self._listener.getsockname()[1]
        self.connections: list[socket.socket] = []
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        """End everything."""
        self._stack.close()

    def _serve(self) -> None:
        try:
            self._begin()
            with self._accept() as verdict:
                verdict.sendall(self._finish().encode())
        except OSError:
            return  # the test is over

    def _accept(self) -> socket.socket:
        s, _ = self._listener.accept()
        s.settimeout(LIMIT_S)
        return self._stack.enter_context(s)

    def _begin(self) -> None:
        first = self._accept()
        (port,) = struct.unpack(">H", first.recv(2, socket.MSG_WAITALL))
        host = first.getpeername()[0].removeprefix("::ffff:")
        self.connections.append(first)
        for _ in range(1, CONNECTIONS):
            s = self._stack.enter_context(socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET))
            s.settimeout(LIMIT_S)
            s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SMALL)
            s.connect((host, port))
            self.connections.append(s)
        for number, s in enumerate(self.connections):
            s.sendall(pattern(number + 100)[:FIRST])
            if number in ENDS:
                s.shutdown(socket.SHUT_WR)

    def _finish(self) -> str:
        found = [""] * CONNECTIONS
        workers = [threading.Thread(target=self._exchange, args=(*one, found)) for one in enumerate(self.connections)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        return "; ".join(filter(None, found)) or "good"

    @staticmethod
    def _exchange(number: int, s: socket.socket, found: list[str]) -> None:
        def send() -> None:
            s.sendall(pattern(number + 100)[FIRST:])
            s.shutdown(socket.SHUT_WR)

        sender = threading.Thread(target=send) if number not in ENDS else None
        try:
            if sender:
                sender.start()
            data = b"".join(iter(lambda: s.recv(1 << 16), b""))
            if not data or data != pattern(number)[: len(data)]:
                found[number] = f"connection {number}: {len(data)} bytes that are not what was sent"
        except OSError as error:
            found[number] = f"connection {number}: {error}"
        if sender:
            sender.join()


def pattern(seed: int) -> bytes:
    """What one end sends on one connection."""
    return _BASE.translate(bytes((byte + seed) & 0xFF for byte in range(256)))


_BASE = bytes((at * 7 + at // 251) & 0xFF for at in range(ALL))


@contextmanager
def peer() -> Iterator[Peer]:
    """A peer, as long as it is needed."""
    made = Peer()
    try:
        yield made
    finally:
        made.close()
