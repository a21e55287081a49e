"""What the OS kernel tells of a TCP connection (tcp(7), TCP_INFO; linux/tcp.h)."""

from __future__ import annotations

import socket
import struct
from typing import NamedTuple

# include/net/tcp_states.h
ESTABLISHED, SYN_SENT, SYN_RECV, FIN_WAIT1, FIN_WAIT2, TIME_WAIT = 1, 2, 3, 4, 5, 6
CLOSE, CLOSE_WAIT, LAST_ACK, LISTEN, CLOSING = 7, 8, 9, 10, 11


class Info(NamedTuple):
    """What we use of struct tcp_info."""

    state: int
    waits: int  # of a listener: connections that were not accepted yet
    backlog: int  # of a listener
    received: int  # bytes, with a FIN
    sent: int  # bytes of data
    round_trip_us: int  # 0: nothing was ever acknowledged

    @classmethod
    def of(cls, s: socket.socket) -> Info:
        raw = s.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256).ljust(256, b"\0")
        sent, again = struct.unpack_from("<2Q", raw, 200)
        (waits, backlog), round_trip_us = struct.unpack_from("<2I", raw, 24), struct.unpack_from("<I", raw, 68)[0]
        return cls(raw[0], waits, backlog, struct.unpack_from("<Q", raw, 128)[0], sent - again, round_trip_us)
