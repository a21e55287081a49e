"""One TCP connection taken out of the OS kernel and put into it again, without a packet (tcp(7), TCP_REPAIR).

A socket in repair mode shows its sequence numbers and both queues, ends without telling the other end, and is connected
without asking it. What has to be as it was is in `image.descriptions.TcpRepair`; what the OS kernel finds out again by
itself (round-trip times, the congestion window, segments that came out of order) is not.

A FIN of ours is no matter of repair: it is simply sent again, with its old sequence number, and the other end says
again that it has it. One of the other end's cannot be asked for, so a packet like it is sent to ourselves (`_finish`).

Packets that arrive while only half of a connection is read, or stands, would be answered, and what they bring would be
lost. So each socket has a packet filter meanwhile that drops them, and the other end sends them again.
"""

from __future__ import annotations

import errno
import fcntl
import random
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from kernel_backend.abi import linux
from kernel_backend.host import fds
from kernel_backend.image.descriptions import TcpRepair, TcpSocket
from kernel_backend.resources import inet, socket_options
from kernel_backend.resources.tcp_states import (
    CLOSE_WAIT,
    CLOSING,
    ESTABLISHED,
    FIN_RECEIVED,
    FIN_SENT,
    FIN_WAIT1,
    FIN_WAIT2,
    LAST_ACK,
    Agreed,
    Info,
)

STATES = {ESTABLISHED, FIN_WAIT1, FIN_WAIT2, CLOSE_WAIT, LAST_ACK, CLOSING}

# linux/tcp.h
_REPAIR_QUEUE, _QUEUE_SEQ, _REPAIR_OPTIONS, _TIMESTAMP, _REPAIR_WINDOW = 20, 21, 22, 24, 29
_ON, _OFF, _OFF_SILENTLY = 1, 0, -1  # the last but one asks the other end for a sign of life
_RECEIVE_QUEUE, _SEND_QUEUE = 1, 2
_MSS, _SCALES, _SACK, _TIMES = 2, 3, 4, 8  # numbers of TCP's own options
_WINDOW = struct.Struct("<5I")
_U32 = 0xFFFFFFFF
_MICROSECONDS = 1  # lowest bit of TCP_TIMESTAMP: its unit, else milliseconds

# struct sock_filter; of a TCP socket's filter the packet begins with the TCP header
_INSTRUCTION = struct.Struct("<HBBI")
_LOAD_WORD, _LOAD_BYTE, _IF_EQUAL, _IF_SET, _RETURN = 0x20, 0x30, 0x15, 0x45, 0x06
_AT_SEQUENCE, _AT_FLAGS, _FIN, _ACK = 4, 13, 0x01, 0x10
DROP_ALL = _INSTRUCTION.pack(_RETURN, 0, 0, 0)

_MOST_BYTES = 64 << 20  # that an image holds of a queue
_SLACK_BYTES = 1 << 18  # bytes of a segment that were acknowledged in part stand before the queue
_PIECE_BYTES = 1 << 16
_WIDE = 1 << 15
_HEARD_WITHIN_S = 0.2


def is_repaired(s: socket.socket) -> bool:
    """Whether it is in repair mode."""
    return bool(s.getsockopt(socket.IPPROTO_TCP, linux.TCP_REPAIR))


def begin(s: socket.socket) -> None:
    """Into repair mode; SO_REUSEADDR is no more what it was."""
    s.setsockopt(socket.IPPROTO_TCP, linux.TCP_REPAIR, _ON)


def end(s: socket.socket, reuse: int) -> None:
    """Out of it, without a packet, and with the option that this would cost."""
    s.setsockopt(socket.IPPROTO_TCP, linux.TCP_REPAIR, _OFF_SILENTLY)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, reuse)


@contextmanager
def repaired(s: socket.socket) -> Iterator[None]:
    """In repair mode for a moment."""
    reuse = s.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR)
    begin(s)
    try:
        yield
    finally:
        end(s, reuse)


# --- reading ----------------------------------------------------------------------------------------------------------


def read(s: socket.socket, entry: TcpSocket) -> TcpRepair:
    """All that `entry` (state and receive queue of this moment) does not say. The program stands still."""
    agreed = Agreed.of(s)
    fin_sent, fin_received = entry.state in FIN_SENT, entry.state in FIN_RECEIVED
    with repaired(s):
        waiting, written = send_queue(s), _sequence(s, _SEND_QUEUE)
        unsent = _count(s, linux.SIOCOUTQNSD)
        received = _sequence(s, _RECEIVE_QUEUE)
        if fin_sent and entry.state != FIN_WAIT2 and unsent:
            unsent -= 1
        return TcpRepair(
            sent=(written - fin_sent - len(waiting)) & _U32,
            received=(received - fin_received - len(entry.queue)) & _U32,
            waiting=waiting,
            unsent=min(unsent, len(waiting)),
            mss=s.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG),
            send_scale=agreed.send_scale,
            receive_scale=agreed.receive_scale,
            sack=agreed.sack,
            timestamps=agreed.timestamps,
            clock=s.getsockopt(socket.IPPROTO_TCP, _TIMESTAMP) & _U32,
            taken_ns=time.time_ns(),
            window=list(_WINDOW.unpack(s.getsockopt(socket.IPPROTO_TCP, _REPAIR_WINDOW, _WINDOW.size))),
        )


def owes_nothing(s: socket.socket) -> bool:
    """Whether all that has arrived was acknowledged."""
    with repaired(s):
        last = _WINDOW.unpack(s.getsockopt(socket.IPPROTO_TCP, _REPAIR_WINDOW, _WINDOW.size))[4]
        return bool(last == _sequence(s, _RECEIVE_QUEUE))


def send_queue(s: socket.socket) -> bytes:
    """What waits to be sent or acknowledged, of a socket in repair mode; a FIN is not counted."""
    s.setsockopt(socket.IPPROTO_TCP, _REPAIR_QUEUE, _SEND_QUEUE)
    most = _count(s, linux.SIOCOUTQ)
    data = s.recv(most + _SLACK_BYTES, socket.MSG_PEEK | socket.MSG_DONTWAIT) if most else b""
    fin = Info.of(s).state in FIN_SENT - {FIN_WAIT2}
    length = most - fin
    if length > _MOST_BYTES:
        raise OSError(errno.EFBIG, f"{length} bytes wait to be sent in it")
    if length > len(data):
        raise OSError(errno.EIO, f"{length} bytes wait to be sent, but {len(data)} can be read")
    return data[len(data) - length :] if length > 0 else b""


def _sequence(s: socket.socket, queue: int) -> int:
    """The number of what comes behind the queue."""
    s.setsockopt(socket.IPPROTO_TCP, _REPAIR_QUEUE, queue)
    return s.getsockopt(socket.IPPROTO_TCP, _QUEUE_SEQ) & _U32


def _count(s: socket.socket, what: int) -> int:
    return int(struct.unpack("<i", fcntl.ioctl(s.fileno(), what, bytes(4)))[0])


# --- making -----------------------------------------------------------------------------------------------------------


def rebuild(entry: TcpSocket, repair: TcpRepair) -> int:
    """The connection as it was, but still in repair mode and deaf: if it ends like that, nobody hears of it.

    Raises OSError where its addresses cannot be had, or we may not.
    """
    if inet.is_wide(entry):
        with suppress(OSError):
            return _rebuild(entry, repair, wide=True)
    return _rebuild(entry, repair, wide=False)


def _rebuild(entry: TcpSocket, repair: TcpRepair, *, wide: bool) -> int:
    with socket.socket(entry.family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as s:
        begin(s)
        socket_options.set_before_binding(s, entry.options)
        begin(s)  # whatever they said of SO_REUSEADDR: listeners have the port, too
        _hear_only_its_end(s, repair, entry)
        if wide:
            inet.bind_wide(s, inet.sockaddr(entry))
        else:
            inet.bind(s, entry)
        _set_sequence(s, _SEND_QUEUE, repair.sent)
        _set_sequence(s, _RECEIVE_QUEUE, repair.received)
        s.connect(inet.flowing(s, inet.peer_sockaddr(entry), entry.peer_flow))
        if wide and not inet.is_at(s, entry.host):
            raise OSError(errno.EADDRNOTAVAIL, "the OS kernel connects from another address")
        _agree(s, repair)
        _fill(s, _SEND_QUEUE, repair.waiting[: len(repair.waiting) - repair.unsent])
        _fill(s, _RECEIVE_QUEUE, entry.queue)
        _set_window(s, repair, entry)
        if entry.state in FIN_RECEIVED:
            _finish(s, entry, repair)
        return s.detach()


def resume(s: socket.socket, entry: TcpSocket, repair: TcpRepair) -> None:
    """From here on it hears packets and sends them: what had not been sent, our own FIN, and a question whether the
    other end is there still, which resets the connection where it is not."""
    s.setsockopt(socket.SOL_SOCKET, socket_options.SO_DETACH_FILTER, 0)
    s.setsockopt(socket.IPPROTO_TCP, linux.TCP_REPAIR, _OFF)
    with suppress(BrokenPipeError, ConnectionError):  # the answer may be here already
        inet.send_all(s, repair.waiting[len(repair.waiting) - repair.unsent :])
        if entry.state in FIN_SENT:
            s.shutdown(socket.SHUT_WR)
        if entry.deaf:
            s.shutdown(socket.SHUT_RD)


def _hear_only_its_end(s: socket.socket, repair: TcpRepair, entry: TcpSocket) -> None:
    """Drop whatever comes but a FIN with the number that the other end's has."""
    last = (repair.received + len(entry.queue)) & _U32
    fds.attach_socket_filter(
        s.fileno(),
        b"".join(
            _INSTRUCTION.pack(*one)
            for one in (
                (_LOAD_WORD, 0, 0, _AT_SEQUENCE),
                (_IF_EQUAL, 0, 3, last),
                (_LOAD_BYTE, 0, 0, _AT_FLAGS),
                (_IF_SET, 0, 1, _FIN),
                (_RETURN, 0, 0, _U32 if entry.state in FIN_RECEIVED else 0),
                (_RETURN, 0, 0, 0),
            )
        ),
    )


def _set_sequence(s: socket.socket, queue: int, number: int) -> None:
    s.setsockopt(socket.IPPROTO_TCP, _REPAIR_QUEUE, queue)
    s.setsockopt(socket.IPPROTO_TCP, _QUEUE_SEQ, struct.pack("<I", number))


def _agree(s: socket.socket, repair: TcpRepair) -> None:
    """What both ends agreed on when the connection began."""
    scaled = min(repair.send_scale, repair.receive_scale) >= 0
    scales = repair.send_scale | repair.receive_scale << 16 if scaled else 0  # none is not the same as our usual one
    options = [(_MSS, repair.mss), (_SCALES, scales)]
    options += [(_SACK, 0)] if repair.sack else []
    options += [(_TIMES, 0)] if repair.timestamps else []
    s.setsockopt(socket.IPPROTO_TCP, _REPAIR_OPTIONS, b"".join(struct.pack("<II", *option) for option in options))
    if repair.timestamps:  # the other end takes no older ones: the clock has gone on since, as it would have
        unit_ns = 1000 if repair.clock & _MICROSECONDS else 10**6
        ticks = max(0, time.time_ns() - repair.taken_ns) // unit_ns
        unit_bit = repair.clock & _MICROSECONDS
        clock = ((repair.clock + ticks) & _U32 & ~_MICROSECONDS) | unit_bit
        s.setsockopt(socket.IPPROTO_TCP, _TIMESTAMP, struct.pack("<I", clock))


def _fill(s: socket.socket, queue: int, data: bytes) -> None:
    """Put data into a queue; that of the send queue counts as sent."""
    if not data:
        return
    name = socket_options.SO_RCVBUF if queue == _RECEIVE_QUEUE else socket_options.SO_SNDBUF
    before = s.getsockopt(socket.SOL_SOCKET, name)
    if before < 4 * len(data) + _PIECE_BYTES:
        socket_options.set_buffer(s, name, min(4 * len(data) + 4 * _PIECE_BYTES, 0x7FFFFFFF // 2))
    s.setsockopt(socket.IPPROTO_TCP, _REPAIR_QUEUE, queue)
    view = memoryview(data)
    while view:
        view = view[s.send(view[:_PIECE_BYTES], socket.MSG_DONTWAIT) :]


def _set_window(s: socket.socket, repair: TcpRepair, entry: TcpSocket) -> None:
    window = list(repair.window)
    if entry.state in FIN_RECEIVED:  # its FIN comes yet, and would not fit into one that is closed
        window[3] = max(window[3], _WIDE)
        window[4] = (repair.received + len(entry.queue)) & _U32
        window[0] = (window[4] - 1) & _U32
    s.setsockopt(socket.IPPROTO_TCP, _REPAIR_WINDOW, _WINDOW.pack(*window))


# --- the other end's FIN ----------------------------------------------------------------------------------------------


def _finish(s: socket.socket, entry: TcpSocket, repair: TcpRepair) -> None:
    """Let the socket hear that the other end sends no more, by a packet that is like the one which once said so.

    It acknowledges no more than had been, and repeats the window.
    """
    family = socket.AF_INET if ":" not in inet.plain(entry.host) else socket.AF_INET6
    source, target = (socket.inet_pton(family, inet.plain(host)) for host in (entry.peer_host, entry.host))
    window = min(0xFFFF, repair.window[1] >> max(0, repair.send_scale))
    sequence = (repair.received + len(entry.queue)) & _U32
    tcp = socket.IPPROTO_TCP
    header = struct.pack(
        ">HHIIBBHHH", entry.peer_port, entry.port, sequence, repair.sent, 5 << 4, _FIN | _ACK, window, 0, 0
    )
    pseudo = source + target + struct.pack(">II", len(header), tcp)
    header = header[:16] + struct.pack(">H", _checksum(pseudo + header)) + header[18:]
    if family == socket.AF_INET:
        packet = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(header), random.getrandbits(16), 0, 64, tcp, 0)
        packet += source + target + header
    else:
        packet = struct.pack(">IHBB", 6 << 28, len(header), tcp, 64) + source + target + header
    with _raw(family) as raw:
        where = (inet.plain(entry.host), 0) if family == socket.AF_INET else (inet.plain(entry.host), 0, 0, entry.scope)
        raw.sendto(packet, where)
    deadline = time.monotonic() + _HEARD_WITHIN_S
    while Info.of(s).state != CLOSE_WAIT:
        if time.monotonic() > deadline:
            raise OSError(errno.EIO, "the end of what the other end sends could not be told to it again")
        time.sleep(0.001)  # a packet to ourselves; nothing announces it in repair mode


def _raw(family: int) -> socket.socket:
    try:
        return socket.socket(family, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.IPPROTO_RAW)
    except PermissionError as error:
        why = "telling it that the other end has sent all takes CAP_NET_RAW"
        raise OSError(errno.EIO, why) from error


def _checksum(data: bytes) -> int:
    total = int(sum(struct.unpack(f">{len(data) // 2}H", data)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
