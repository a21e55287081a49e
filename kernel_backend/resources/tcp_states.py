"""What the OS kernel tells of a TCP connection (tcp(7), TCP_INFO; linux/tcp.h)."""

from __future__ import annotations

import socket
import struct
from typing import NamedTuple

from kernel_backend.image.descriptions import OTHER_CLOSED, OTHER_OUTSIDE, TcpSocket
from kernel_backend.resources import inet, live_sockets

# include/net/tcp_states.h
ESTABLISHED, SYN_SENT, SYN_RECV, FIN_WAIT1, FIN_WAIT2, TIME_WAIT = 1, 2, 3, 4, 5, 6
CLOSE, CLOSE_WAIT, LAST_ACK, LISTEN, CLOSING = 7, 8, 9, 10, 11

FIN_SENT = {FIN_WAIT1, FIN_WAIT2, TIME_WAIT, LAST_ACK, CLOSING}
FIN_RECEIVED = {CLOSE_WAIT, LAST_ACK, CLOSING, TIME_WAIT}
OPEN = {ESTABLISHED, FIN_WAIT1, FIN_WAIT2}  # the other end has not said that it sends no more

_INFO_BYTES = 256
_TIMESTAMPS, _SACK, _SCALED = 1, 2, 4  # tcpi_options


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
        raw = s.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO_BYTES).ljust(_INFO_BYTES, b"\0")
        sent, again = struct.unpack_from("<2Q", raw, 200)
        (waits, backlog), round_trip_us = struct.unpack_from("<2I", raw, 24), struct.unpack_from("<I", raw, 68)[0]
        return cls(raw[0], waits, backlog, struct.unpack_from("<Q", raw, 128)[0], sent - again, round_trip_us)


class Agreed(NamedTuple):
    """What both ends of a connection agreed on when it began."""

    send_scale: int  # -1: windows are not scaled
    receive_scale: int
    sack: bool
    timestamps: bool

    @classmethod
    def of(cls, s: socket.socket) -> Agreed:
        raw = s.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO_BYTES)
        options, scales = raw[5], raw[6]
        send, receive = (scales & 15, scales >> 4) if options & _SCALED else (-1, -1)
        return cls(send, receive, bool(options & _SACK), bool(options & _TIMESTAMPS))


def note(s: socket.socket, who: str, entry: TcpSocket) -> None:
    """How far a connection is, and what waits to be read; where its other end is has to be found yet."""
    info = Info.of(s)
    entry.state, entry.queue, entry.urgent = info.state, b"", -1
    if info.state == LISTEN:
        entry.backlog = info.backlog
    elif info.state == CLOSE:
        failed = inet.has_failed(s)
        entry.other = OTHER_OUTSIDE if info.received or info.sent or failed else OTHER_CLOSED
        entry.finished = info.received > 0 and not failed
        entry.refused = failed and not (info.received or info.sent or info.round_trip_us)
        if entry.finished:
            entry.queue, entry.urgent, entry.urgent_read = inet.peek_stream(s, who)
        elif failed:
            entry.queue = inet.peek_before_error(s)
    else:
        entry.queue, entry.urgent, entry.urgent_read = inet.peek_stream(s, who)
        entry.other = OTHER_OUTSIDE
        entry.deaf = info.state in OPEN and live_sockets.has_ended(s)
        entry.segment = s.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG)
