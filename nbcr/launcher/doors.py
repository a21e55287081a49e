"""Where a launcher is reached: at its Unix socket, and by TCP where ranks may be on other hosts (nbcr.sealed)."""

from __future__ import annotations

import contextlib
import secrets
import select
import socket
import sys
import time

from nbcr import sealed
from nbcr.channel import Channel, ChannelClosed
from nbcr.launcher import jobs

_PROOF_TIMEOUT_S = 5.0


class Doors:
    """Both of them. What comes by TCP has proved that it is of this job."""

    def __init__(self, name: str, *, is_spread: bool) -> None:
        self._unix = jobs.listen(name)
        self.network: sealed.Network | None = None
        self._tcp: socket.socket | None = None
        if is_spread:
            self._tcp = _listener()
            secret = secrets.token_hex(32)
            found = tuple(addresses(self._tcp.getsockname()[1]))
            self.network = sealed.Network(sealed.this_host(), found, secret, sys.executable)

    @property
    def path(self) -> str:
        """Of the Unix socket."""
        return str(self._unix.getsockname())

    @property
    def filenos(self) -> list[int]:
        """What becomes readable when somebody comes."""
        return [each.fileno() for each in (self._unix, self._tcp) if each is not None]

    def environ(self) -> dict[str, str]:
        """What processes on other hosts need."""
        return {} if self.network is None else {sealed.VARIABLE: self.network.to_text()}

    def accept(self, timeout_s: float | None) -> Channel | None:
        """Who has come; None when nobody has in time (None: for ever), or it was a stranger."""
        poller = select.poll()
        for number in self.filenos:
            poller.register(number, select.POLLIN)
        ready = [number for number, _ in poller.poll(None if timeout_s is None else max(0.0, timeout_s) * 1000)]
        if self._unix.fileno() in ready:
            return Channel(self._unix.accept()[0])
        if ready and self._tcp is not None and self.network is not None:
            sock, _ = self._tcp.accept()
            try:
                return sealed.answer(sock, bytes.fromhex(self.network.secret), _PROOF_TIMEOUT_S)
            except (OSError, ChannelClosed):
                sock.close()
        return None

    def close(self) -> None:
        """Take the name away."""
        jobs.forget(self._unix)
        if self._tcp is not None:
            self._tcp.close()


def wait_for(doors: Doors, end: float) -> Channel | None:
    """Somebody who comes before the moment `end` of the monotonic clock."""
    while (left := end - time.monotonic()) > 0:
        channel = doors.accept(left)
        if channel is not None:
            return channel
    return None


def _listener() -> socket.socket:
    with contextlib.suppress(OSError):
        if socket.has_dualstack_ipv6():
            return socket.create_server(("", 0), family=socket.AF_INET6, dualstack_ipv6=True, backlog=1024)
    return socket.create_server(("", 0), backlog=1024)


def addresses(port: int) -> list[tuple[str, int]]:
    """Where a listener at all addresses of this host is reached from others."""
    import psutil

    found = [
        each.address
        for name, of in sorted(psutil.net_if_addrs().items())
        if name != "lo"
        for each in of
        if each.family in (socket.AF_INET, socket.AF_INET6) and not each.address.startswith(("fe80:", "127."))
    ]
    return [(address, port) for address in sorted(found, key=lambda each: ":" in each) or ["127.0.0.1"]]
